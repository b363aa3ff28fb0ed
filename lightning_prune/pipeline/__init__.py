"""The one conductor: sweep → score → allocation → selection → plan → repair → surgery.

Called by the callbacks inside a Trainer, and by `prune` without one. It knows no method by name.
"""

from lightning_prune.pipeline.run import prune

__all__ = ["prune"]
