"""Pruning methods as Lightning callbacks, one file each, and the callbacks that watch them."""
