"""The one conductor: sweep → score → allocation → selection → plan → repair → surgery.

Called by the callbacks inside a Trainer, and by `prune` without one. It knows no method by name.
"""

from lightning_prune.pipeline.recovery import Recovery
from lightning_prune.pipeline.rounds import Gate, prune_in_rounds
from lightning_prune.pipeline.run import prune

__all__ = ["Gate", "Recovery", "prune", "prune_in_rounds"]
