"""Methods that score by what an answer of the model is due to."""

from __future__ import annotations

from lightning_prune.anatomy import Anatomy
from lightning_prune.evidence import Logit, Places
from lightning_prune.methods.base import Method

__all__ = ["Explained"]


class Explained(Method):
    """Say which answer it is.

    Args:
        places: whose answer is explained, "last": that at the last token of each sequence; "all":
            those at all tokens, added up.
        token: whose logit is explained, by its number; None: the largest.
        against: less the logit of this one, by its number; None: of none.

    Raises:
        ValueError: an argument is unknown, or the model has no such token.
    """

    places: Places = "last"
    token: int | None = None
    against: int | None = None

    @property
    def answer(self) -> Logit:
        """The logit that is explained."""
        return Logit(places=self.places, token=self.token, against=self.against)

    def check(self, anatomy: Anatomy) -> None:
        """Refuse numbers of tokens that the head does not tell apart."""
        super().check(anatomy)
        classes = anatomy.head.sites[0].module.out_features
        for name in ("token", "against"):
            value = getattr(self, name)
            known = value is None or 0 <= value < classes
            self.require(name, known, f"it is a number from 0 to {classes - 1}, or None")
