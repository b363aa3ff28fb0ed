"""Lightning's averages of weights (EMA, SWA) beside pruning and adapters."""

from __future__ import annotations

from collections.abc import Iterator

from lightning.pytorch import Callback, LightningModule, callbacks

__all__ = ["copy_again", "refuse_averages"]

_SWA = callbacks.StochasticWeightAveraging
_AVERAGES = (_SWA, getattr(callbacks, "WeightAveraging", _SWA))  # the second since lightning 2.6


def copy_again(module: LightningModule) -> None:
    """Let the callbacks that average weights start from the module as it will be trained.

    They copy it in their own setup, when it is not loaded, not pruned or without its adapter.
    """
    for callback in _averages(module):
        callback.setup(module.trainer, module, "fit")


def refuse_averages(module: LightningModule) -> None:
    """Refuse averages of a model that is spread over processes.

    Raises:
        ValueError: a callback averages weights.
    """
    for callback in _averages(module):
        raise ValueError(
            f"{type(callback).__name__} cannot average a model that is spread over processes "
            "(fsdp2). Use strategy: ddp, or leave the callback out."
        )


def _averages(module: LightningModule) -> Iterator[Callback]:
    trainer = module._trainer
    if trainer is not None:
        yield from (c for c in trainer.callbacks if isinstance(c, _AVERAGES))  # type: ignore[attr-defined]
