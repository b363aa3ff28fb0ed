"""What the constructors of public classes say of arguments that are none."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_prune import (
    CFSP,
    FLAP,
    OWL,
    Bias,
    CausalLM,
    Distillation,
    Evaluate,
    Inverse,
    LoRA,
    Magnitude,
    QLoRA,
    SavePretrained,
    TextData,
    Wanda,
    WriteReport,
    load,
    measure_importance,
)
from lightning_prune.evidence import Logit
from lightning_prune.pipeline.rounds import Gate


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


@pytest.mark.parametrize(
    ("make", "name", "meant"),
    [
        (lambda: Wanda(sparsity=0.5, scope="rwo"), "Wanda: scope='rwo'", "row"),
        (lambda: Wanda(sparsity=0.5, scope="block"), "Wanda: scope='block'", "columns"),
        (lambda: Wanda(sparsity=0.5, scope="layer"), "Wanda: scope='layer'", "matrix"),
        (lambda: Wanda(sparsity=0.5, propagate="blok"), "Wanda: propagate='blok'", "block"),
        (lambda: Magnitude(sparsity=0.5, offload="dsik"), "Magnitude: offload='dsik'", "disk"),
        (lambda: CFSP(ratio=0.3, formula="papr"), "CFSP: formula='papr'", "paper"),
        (lambda: Logit(places="lsat"), "Logit: places='lsat'", "last"),
        (lambda: Inverse(importance="angulr"), "Inverse: importance='angulr'", "angular"),
        (lambda: Gate(on_gate="rolback"), "on_gate='rolback'", "rollback"),
        (lambda: CausalLM("x", dtype="flaot32"), "CausalLM: dtype='flaot32'", "float32"),
        (lambda: CausalLM("x", None, "lroa"), "CausalLM: adapter='lroa'", "lora"),
        (lambda: CausalLM("x", placement="disc"), "CausalLM: placement='disc'", None),
        (lambda: CausalLM("x", schedule="cosin"), "CausalLM: schedule='cosin'", "cosine"),
        (lambda: TextData(bad_rows="leave-out"), "TextData: bad_rows='leave-out'", "leave_out"),
        (lambda: Evaluate(["x"], split="tset"), "Evaluate: split='tset'", "test"),
        (lambda: load("quickstart", "float23"), "dtype='float23'", "float32"),
        (lambda: load("quickstart", placement="memry"), "placement='memry'", "memory"),
        (
            lambda: measure_importance(CausalLM("quickstart"), TextData(), "mze"),
            "me.*='mze'",
            "mse",
        ),
    ],
)
def test_a_value_of_a_few_names_the_nearest(make: Any, name: str, meant: str | None) -> None:
    """Beside the argument, what was given and what is allowed, in one line."""
    guess = rf"\. Did you mean '{meant}'\?" if meant else ""
    with pytest.raises(
        ValueError, match=rf"^{name} is not allowed; it is one of .*{guess}$"
    ) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CausalLM("x", warmup_steps=2.5), "CausalLM: warmup_steps=2.5 .* a whole number$"),
        (lambda: CausalLM("x", learning_rate="1e-3"), "learning_rate='1e-3' .* it is a number$"),
        (lambda: TextData(nsamples=True), "TextData: nsamples=True .* it is a whole number$"),
        (lambda: TextData(begin_token="yes"), "begin_token='yes' .* True or False or None$"),
        (lambda: LoRA(r="8"), "LoRA: r='8' is not allowed; it is a whole number$"),
        (
            lambda: Evaluate("wikitext2"),
            r"Evaluate: texts='wikitext2' .* texts: write \['wikitext2'\]$",
        ),
        (lambda: WriteReport(speed=1), "WriteReport: speed=1 is not .* it is True or False$"),
    ],
)
def test_a_value_of_another_type_is_refused(make: Any, message: str) -> None:
    """Before it is used, by class and argument, in one line."""
    with pytest.raises(ValueError, match=message):
        make()


def test_an_adapter_is_a_name_or_an_object() -> None:
    """Of a class that takes its place, nothing is said but what is meant."""
    assert isinstance(CausalLM("x", adapter="lora").adapter, LoRA)
    assert isinstance(CausalLM("x", adapter=QLoRA()).adapter, QLoRA)
    with pytest.raises(ValueError, match=r"or an object of the class Adapter: write LoRA\(\)$"):
        CausalLM("x", adapter=LoRA)  # type: ignore[arg-type]
