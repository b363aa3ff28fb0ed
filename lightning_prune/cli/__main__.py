"""`python -m lightning_prune.cli` is `lightning-prune`."""

from lightning_prune.cli import main

if __name__ == "__main__":
    main()
