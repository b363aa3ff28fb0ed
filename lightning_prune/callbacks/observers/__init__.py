"""Callbacks that look on: they measure, report and save what pruning and recovery make."""
