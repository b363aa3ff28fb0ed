"""Studies of one model: many methods, one method's arguments, shares of blocks, their importance.

Plain functions of a module and a data module: they need neither a Trainer nor a command line, and
return what they have found.
"""

from lightning_prune.studies.grid import sweep_methods
from lightning_prune.studies.importance import measure_importance
from lightning_prune.studies.search import vary_arguments
from lightning_prune.studies.spread import BestShares, search_shares

__all__ = [
    "BestShares",
    "measure_importance",
    "search_shares",
    "sweep_methods",
    "vary_arguments",
]
