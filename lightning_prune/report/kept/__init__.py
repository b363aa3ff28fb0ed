"""What the store of results keeps of each kind of result."""
