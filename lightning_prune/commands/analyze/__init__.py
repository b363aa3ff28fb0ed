"""`lightning-prune analyze …`: a group of commands over what runs leave behind; one file each."""

COMMANDS = {
    "scores": "Compare scores of two plans, or the components of one plan's.",
    "circuits": "Compare circuits, or attributions, by what they share.",
    "similarity": "Compare which weights stay in saved models or plans.",
    "clusters": "Look for structure in masks: clusters, orders, zero blocks.",
    "pictures": "Draw masks: density, sparsity, histograms, scores, overlap.",
    "activations": "Find below which magnitude activations can be left out.",
}
"""What there is: by name, its line of help. Each is the function of its name in its own file."""
