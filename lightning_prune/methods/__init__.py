"""Families of pruning methods: what the pipeline asks of one. Torch only, no Lightning."""
