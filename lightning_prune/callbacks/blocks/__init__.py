"""Methods that take blocks out, one file each."""
