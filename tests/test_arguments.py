"""What the constructors of public classes say of arguments that are none."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_prune import (
    FLAP,
    OWL,
    Bias,
    CausalLM,
    Distillation,
    Evaluate,
    LoRA,
    QLoRA,
    SavePretrained,
    TextData,
    Wanda,
    WriteReport,
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LoRA(rnk=4), r"^LoRA has no argument 'rnk'\..* Allowed: r, alpha, dropout"),
        (lambda: QLoRA(dropot=0.1), r"^QLoRA has no argument 'dropot'. Did you mean dropout\?"),
        (lambda: TextData(sorce="x"), r"^TextData has no argument 'sorce'. Did you mean source\?"),
        (lambda: CausalLM(pth="x"), r"^CausalLM has no argument 'pth'. Did you mean path\?"),
        (lambda: Evaluate(lenghts=[3]), r"^Evaluate has no argument 'lenghts'. .* lengths\?"),
        (lambda: Distillation(wieght=1), r"^Distillation has no argument 'wieght'. .* weight\?"),
        (lambda: WriteReport(promt=1), r"^WriteReport has no argument 'promt'. .* prompt\?"),
        (lambda: SavePretrained(foldr=1), r"^SavePretrained has no argument 'foldr'. .* folder\?"),
        (lambda: Bias(x=1), r"^Bias has no argument 'x'. It takes none\.$"),
    ],
)
def test_every_public_class_names_a_misspelt_argument(make: Any, message: str) -> None:
    """Those that write their own constructor too; never a base class."""
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Wanda(allocation="OWLL"), r"class Allocation\. Did you mean OWL\?"),
        (lambda: FLAP(repair="Biass"), r"class Repair or None\. Did you mean Bias\?"),
        (lambda: Wanda(allocation=OWL), r"class Allocation: write OWL\(\)"),
    ],
)
def test_what_is_no_object_says_how_to_make_one(make: Any, message: str) -> None:
    """A text, or the class itself."""
    with pytest.raises(ValueError, match=message):
        make()
