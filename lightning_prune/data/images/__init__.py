"""Images with their classes: where they come from, and what a model is given of them."""
