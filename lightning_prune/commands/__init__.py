"""The commands, one a file: each is a function, and its parser comes from its signature."""
