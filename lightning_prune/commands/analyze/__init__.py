"""`lightning-prune analyze …`: a group of commands over what runs leave behind; one file each."""

COMMANDS = {
    "scores": "Compare scores of two plans, or the components of one plan's.",
    "circuits": "Compare circuits, or attributions, by what they share.",
    "similarity": "Compare which weights stay in saved models or plans.",
    "clusters": "Look for structure in masks: clusters, orders, zero blocks.",
    "pictures": "Draw masks: density, sparsity, histograms, scores, overlap.",
    "activations": "Find below which magnitude activations can be left out.",
    "db": "Ask a store of results by SQL, which can only read it.",
    "report": "Compare the runs of a store: a table and a page with pictures.",
    "notebook": "Look at a store in a notebook, in the browser.",
    "dumps": "Add old dumps of pruned matrices to a store of results.",
}
"""What there is: by name, its line of help. Each is the function of its name in its own file."""
