"""Methods that set weights to zero, one file each."""
