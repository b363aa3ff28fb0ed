"""What plans, checkpoints and results say, without running a model."""
