"""Methods that cut units off, one file each."""
