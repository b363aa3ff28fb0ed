"""Attribution: what of a model an output is due to."""

from lightning_prune.attribution.attnlrp import attnlrp

__all__ = ["attnlrp"]
