"""Text for calibration, recovery and evaluation."""

from lightning_prune.data.text_data import TextData

__all__ = ["TextData"]
