"""`lightning-prune analyze …`: a group of commands over what runs leave behind; one file each."""

COMMANDS = {
    "scores": "Compare scores of two plans, or the components of one plan's.",
    "circuits": "Compare circuits, or attributions, by what they share.",
}
"""What there is: by name, its line of help. Each is the function of its name in its own file."""
