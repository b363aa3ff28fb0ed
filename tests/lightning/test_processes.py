"""The same run in one process, in two with DDP, and in two with FSDP2."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.tensor import DTensor

import lightning_prune
from lightning_prune import CausalLM, GQATaylor, Plan, SavePretrained, Wanda, WriteReport
from lightning_prune.cli import main
from tests.fresh import Fresh
from tests.lightning.runs import Losses, make_data, make_trainer
from tests.processes import Pair

# --- the command line ---


def arguments_of_fit(root: Path, *own: str) -> list[str]:
    """The quickstart's `fit` for two steps, masked too."""
    short = ["--trainer.max_steps=2", "--trainer.accelerator=cpu", "--data.nsamples=16"]
    short += ["--data.batch_size=4", "--data.length=64"]
    short += ["--trainer.enable_progress_bar=false"]
    masks = ["--trainer.callbacks+=Wanda", "--trainer.callbacks.sparsity=0.5"]
    short += ["--trainer.limit_val_batches=1"]
    report = ["--trainer.callbacks+=WriteReport", "--trainer.callbacks.speed=false"]
    report += ["--trainer.callbacks.windows=4"]
    where = ["--config=quickstart.yaml", f"--trainer.default_root_dir={root}"]
    return ["fit", *where, *short, *masks, *report, "--trainer.callbacks.prompt=0", *own]


def fit_by_command(root: Path, *own: str) -> None:
    main(arguments_of_fit(root, *own))


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that one process made."""
    root = tmp_path_factory.mktemp("one process")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lightning-prune"])
        patch.delenv("PL_GLOBAL_SEED", raising=False)
        fit_by_command(root)
        return root


def decisions(root: Path) -> dict[str, torch.Tensor]:
    """Everything that a run's plans decided, as its last model says."""
    plan = Plan.load(root / "recovered")
    kept = {f"{k} {i}": u.index_U for k in plan.kinds for i, u in plan.blocks(k).items()}
    return kept | {name: plan.mask(name) for name in plan.mask_names}


def stages(root: Path) -> dict[str, Any]:
    return json.loads((root / "report.json").read_text())["stages"]


def assert_same_run(root: Path, alone: Path) -> None:
    """Units cut and weights masked alike, bit for bit, equal perplexity, and whole folders."""
    torch.testing.assert_close(decisions(root), decisions(alone), rtol=0, atol=0)
    assert {tensor.dtype for tensor in decisions(root).values()} == {torch.int64, torch.bool}
    measured = stages(root)
    assert measured["pruned"]["perplexity"] == stages(alone)["pruned"]["perplexity"]
    # Two processes take twice the batch a step, so they recover a little more.
    assert measured["recovered"]["perplexity"] < measured["pruned"]["perplexity"]
    recovered = lightning_prune.load(root / "recovered")
    assert sum(p.numel() for p in recovered.parameters()) == measured["recovered"]["parameters"]


@pytest.mark.slow
def test_two_processes_decide_train_and_save_as_one(one_process: Path, tmp_path: Path) -> None:
    """As a user starts them: Lightning makes the second process."""
    command = [sys.executable, "-m", "lightning_prune.cli"]
    done = subprocess.run(
        [*command, *arguments_of_fit(tmp_path, "--trainer.strategy=ddp", "--trainer.devices=2")],
        env=os.environ | {"PYTHONWARNINGS": "default"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_run(tmp_path, one_process)


@pytest.mark.slow
def test_two_processes_that_share_the_weights_decide_train_and_save_as_one(
    one_process: Path, tmp_path: Path, pair: Pair
) -> None:
    """With FSDP2."""
    pair.run(fit_by_command, tmp_path, "--trainer.strategy=fsdp2", "--trainer.devices=2")
    assert_same_run(tmp_path, one_process)


# --- two nodes ---

NODES = """
import os, sys
from lightning.pytorch.utilities import rank_zero_only
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from lightning_prune.cli import main

port, root, *arguments = sys.argv[1:]
node = 0 if os.fork() else 1
settings = LaunchConfig(
    2, 2, 1, run_id="1", rdzv_backend="static", rdzv_endpoint=f"127.0.0.1:{port}",
    rdzv_configs={"rank": node}, start_method="fork", local_addr="127.0.0.1", max_restarts=0,
)
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink")

def work():
    written = []

    def watch(event, arguments):
        writes = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in CHANGES) and str(arguments[0]).startswith(root):
            written.append(str(arguments[0]))

    rank_zero_only.rank = int(os.environ["RANK"])  # found out when it was imported
    sys.addaudithook(watch)
    main(arguments)
    with open(f"written-{node}", "w") as file:
        file.write("\\n".join(written))

elastic_launch(settings, work)()
"""
"""An agent of torchrun on each of two nodes, which meet on this machine, and the process of each.

Processes are forked, so that none has to import everything; they note what they write.
"""


@pytest.mark.slow
def test_two_nodes_decide_train_and_save_as_one_process(
    one_process: Path, tmp_path: Path, fresh: Fresh
) -> None:
    """As torchrun starts them; they share the run's folder, and the first one alone writes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = tmp_path / "run"
    nodes = ["--trainer.strategy=ddp", "--trainer.num_nodes=2", "--trainer.devices=1"]
    arguments = arguments_of_fit(root, *nodes, "--trainer.val_check_interval=1")
    stage = "lightning_prune.callbacks"
    done = fresh.run(NODES, str(port), str(root), *arguments, after=stage, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same_run(root, one_process)
    assert "val_loss" in next(root.rglob("metrics.csv")).read_text()
    assert (tmp_path / "written-1").read_text() == ""
    assert str(root / "plan") in (tmp_path / "written-0").read_text()


# --- a break ---

SETUPS: dict[str, tuple[str, str | None, Any]] = {
    # shapes that a checkpoint has to fit
    "ddp lora": ("ddp", "lora", lambda: GQATaylor(ratio=0.25)),
    # zeros in quantised weights, in updates of sharded weights, in sharded weights
    "ddp qlora": ("ddp", "qlora", lambda: Wanda(sparsity=0.5)),
    "fsdp2 lora": ("fsdp2", "lora", lambda: Wanda(sparsity=0.5)),
    "fsdp2 dense": ("fsdp2", None, lambda: Wanda(sparsity=0.5)),
}


PRECISIONS = {"fsdp2 lora": "bf16-true"}


def fit(
    folder: Path, model: Path, text: Path, setup: str, steps: int, **settings: Any
) -> tuple[CausalLM, Losses]:
    """Train for some steps; the worst weights are kept, so that the last are not merged."""
    strategy, adapter, method = SETUPS[setup]
    torch.manual_seed(0)
    module, losses = CausalLM(str(model), adapter=adapter, learning_rate=1e-2), Losses()
    keep = ModelCheckpoint(folder, "half", every_n_train_steps=2, save_on_train_epoch_end=False)
    worst = ModelCheckpoint(
        folder / "worst", monitor="val_loss", mode="max", save_on_train_epoch_end=False
    )
    report = WriteReport(speed=False, prompt=0)
    callbacks = [method(), losses, keep, worst, report, SavePretrained()]
    processes = {"strategy": strategy, "devices": 2, "precision": PRECISIONS.get(setup, "32-true")}
    validated = {"limit_val_batches": 1, "val_check_interval": 1}
    trainer = make_trainer(folder, *callbacks, steps=steps, **processes, **validated)
    trainer.fit(module, make_data(text), **settings)
    return module, losses


def zeros_hold(module: CausalLM) -> bool:
    """Whether the plan's zeros are the only ones in the weights, as they are trained."""
    if module.adapter is not None:  # the weights are frozen; merging counts the zeros
        return True
    weights, plan = dict(module.base.named_parameters()), module.plans[0]
    whole = {n: w.full_tensor() if isinstance(w, DTensor) else w for n, w in weights.items()}
    return all(torch.equal(whole[name] != 0, plan.mask(name)) for name in plan.mask_names)


def weights_in(checkpoint: str) -> list[str]:
    """Names of the weights in a checkpoint of shards."""
    names = FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    return [name for name in names if name.startswith("state_dict.")]


def refused(trainer: Trainer, module: CausalLM, text: Path, checkpoint: str) -> str:
    try:
        trainer.fit(module, make_data(text), ckpt_path=checkpoint)
    except ValueError as error:
        return str(error)
    return ""


def train_with_and_without_a_break(
    root: Path, model: Path, text: Path, setup: str
) -> tuple[dict[int, float], dict[int, float], bool, str]:
    """Losses without a break, and after one; whether zeros hold; why another plan is refused."""
    _, losses = fit(root / "full", model, text, setup, 3)
    fit(root / "cut", model, text, setup, 2)
    checkpoint = str(root / "cut" / "half.ckpt")
    module, rest = fit(root / "cut", model, text, setup, 3, ckpt_path=checkpoint)
    held = zeros_hold(module)  # gathers: in every process
    trained = {p.dtype for p in module.base.parameters() if p.requires_grad}
    assert trained == {torch.float32}
    assert setup != "fsdp2 lora" or all("lora_" in name for name in weights_in(checkpoint))
    strategy, adapter, _ = SETUPS[setup]
    again = Wanda(sparsity=0.25)
    other = make_trainer(root / "cut", again, steps=3, strategy=strategy, devices=2)
    reason = refused(other, CausalLM(str(model), adapter=adapter), text, checkpoint)
    return losses.values, rest.values, held, reason


@pytest.mark.slow
@pytest.mark.parametrize("setup", SETUPS)
def test_two_processes_go_on_as_if_nothing_had_happened(
    tmp_path: Path, model_folder: Path, text_file: Path, pair: Pair, setup: str
) -> None:
    """Same plan, same losses, same weights; zeros stay, and another plan is refused in both.

    What is merged are the weights that a checkpoint was asked to keep, which are not the last.
    """
    case = train_with_and_without_a_break
    outcome = pair.run(case, tmp_path, model_folder, text_file, setup)
    for losses, rest, held, reason in outcome.results:
        assert list(rest) == [3]
        assert rest[3] == losses[3]
        assert held
        assert "the checkpoint was made with the pruning plan" in reason
    full, cut = (lightning_prune.load(tmp_path / name / "recovered") for name in ("full", "cut"))
    torch.testing.assert_close(cut.state_dict(), full.state_dict(), rtol=0, atol=0)
    plan = Plan.load(tmp_path / "full" / "recovered")
    assert all((full.get_parameter(n)[~plan.mask(n)] == 0).all() for n in plan.mask_names)
    assert list(stages(tmp_path / "cut")) == ["dense", "pruned", "recovered"]
    assert "those of step 1, of 3 in all" in outcome.printed[0]
