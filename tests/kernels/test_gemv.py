"""The kernel: interpreted on the CPU, and compiled for GPUs that are not here."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from tests.boundaries.test_imports import PACKAGE
from tests.fresh import Fresh

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("triton") is None, reason="needs triton"),
]

ALONE = f"""
import json, os, sys, types, warnings

warnings.simplefilter("ignore")  # triton announces defaults of its next version
os.environ["TRITON_INTERPRET"] = sys.argv[1]
for name, path in (
    ("lightning_prune", {str(PACKAGE)!r}),
    ("lightning_prune.kernels", {str(PACKAGE / "kernels")!r}),
):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]

import torch
from lightning_prune.kernels import gemv
from lightning_prune.kernels.gemv import Launch, launches, sparse_gemv
from lightning_prune.kernels.layout import column_major
from lightning_prune.kernels.reference import reference_product

torch.manual_seed(0)
"""
"""Nothing but torch and triton: the package's own `__init__` takes long to import, and may import
triton before it is told to interpret."""

COMPARE = """
def error(rows, outputs, inputs, dtype, threshold, launch, biased=True):
    shapes = ((rows, inputs), (outputs, inputs), (outputs,))
    tensors = [torch.randn(shape) for shape in shapes]
    if dtype == torch.bfloat16:
        tensors = [tensor.round() for tensor in tensors]
    input_BI, weight_OI, bias_O = (tensor.to(dtype) for tensor in tensors)
    bias_O = bias_O if biased else None
    found = sparse_gemv(input_BI, column_major(weight_OI), threshold, bias_O, launch=launch)
    assert found.dtype == dtype and found.shape == (rows, outputs)
    expected = reference_product(input_BI, weight_OI, threshold, bias_O)
    return float((found.float() - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
"""


def run(fresh: Fresh, program: str, interpret: bool = True) -> dict[str, float]:
    done = fresh.run(ALONE + program, str(int(interpret)), after="torch")
    assert done.returncode == 0, done.stderr
    values: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return values


def test_the_interpreted_kernel_is_the_reference(fresh: Fresh) -> None:
    """Odd shapes and even ones, one to four rows, parts without inputs, every type, no input left.

    In bfloat16 with whole numbers, whose sums it holds exactly: the interpreter cuts off what it
    does not hold, where a GPU rounds.
    """
    program = """
small = Launch(32, 16, 2, 4)
shapes = [(1, 1, 1), (1, 64, 64), (2, 33, 17), (3, 70, 33), (4, 31, 100)]
cases = [(*shape, dtype, 0.6) for shape in shapes
         for dtype in (torch.float16, torch.bfloat16, torch.float32)]
cases += [(1, 20, 30, torch.float16, threshold) for threshold in (0.0, 100.0)]
print(json.dumps({str(case): error(*case, small, biased=case[1] % 2 > 0) for case in cases}))
"""
    errors = run(fresh, COMPARE + program)
    assert len(errors) == 17
    for case, error in errors.items():
        assert error <= (0 if "bfloat16" in case else 2e-3), case


def test_every_launch_gives_the_product(fresh: Fresh) -> None:
    """All that are tried, on a shape that none of them divides; and the one taken untried."""
    program = """
errors = {str(one): error(1, 130, 250, torch.float16, 0.6, one) for one in launches(250)}
errors["untried"] = error(1, 130, 250, torch.float16, 0.6, None)
print(json.dumps(errors))
"""
    errors = run(fresh, COMPARE + program)
    assert len(errors) > 6
    assert max(errors.values()) < 2e-3


def test_columns_that_no_row_needs_are_not_read(fresh: Fresh) -> None:
    """What stands there does not matter; what a row needs that is no number does."""
    program = """
launch = Launch(32, 16, 2, 4)
weight_OI = torch.ones(4, 5)
weight_OI[:, 1], weight_OI[:, 3] = float("nan"), float("inf")
input_BI = torch.tensor([[1.0, 0.1, 2.0, 0.2, 0.3], [3.0, 0.1, 0.4, -0.2, 0.5]])
found = sparse_gemv(input_BI, column_major(weight_OI), 0.45, launch=launch)
assert found.tolist() == [[3.0] * 4, [3.5] * 4], found
input_BI[1, 4] = float("nan")
found = sparse_gemv(input_BI, column_major(weight_OI), 0.45, launch=launch)
assert found[0].tolist() == [3.0] * 4 and found[1].isnan().all()
print("{}")
"""
    run(fresh, program)


def test_what_the_kernel_cannot_take_is_said(fresh: Fresh) -> None:
    """Before it is launched."""
    program = """
def said(*arguments, **more):
    try:
        sparse_gemv(*arguments, **more)
    except ValueError as error:
        return str(error)

weight = column_major(torch.ones(4, 6))
messages = [
    said(torch.ones(1, 5), weight, 0.1),
    said(torch.ones(5, 6), weight, 0.1),
    said(torch.ones(1, 6).half(), weight, 0.1),
    said(torch.ones(1, 6), torch.ones(4, 6), 0.1),
    said(torch.ones(1, 6), weight, 0.1, torch.ones(3)),
]
assert "the input is (rows, 6)" in messages[0]
assert "the kernel takes 1 to 4" in messages[1]
assert "both are of one of" in messages[2]
assert "give layout.column_major(weight)" in messages[3]
assert "a bias of (3,) for 4 outputs" in messages[4]
print("{}")
"""
    run(fresh, program)


def test_it_compiles_for_gpus(fresh: Fresh) -> None:
    """Of two generations, in every type, with weights read 16 bytes at a time; no GPU is needed.

    Weights of odd shapes as well: their columns are padded.
    """
    program = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

def loads(capability, kind, rows):
    kernel, constants = gemv._partial_kernel, {"ROWS": rows, "BLOCK_O": 256, "BLOCK_I": 16}
    names = kernel.arg_names
    pointers = {"input_ptr": kind, "weight_ptr": kind, "partial_ptr": "fp32"}
    signature = dict.fromkeys(names, "i32") | dict.fromkeys(constants, "constexpr")
    signature |= {name: "*" + of for name, of in pointers.items()} | {"threshold": "fp32"}
    values = {(names.index(name),): value for name, value in constants.items()}
    aligned = {(names.index(n),): [["tt.divisibility", 16]] for n in (*pointers, "column")}
    compiled = triton.compile(
        ASTSource(kernel, signature, values, aligned), target=GPUTarget("cuda", capability, 32)
    )
    lines = [line for line in compiled.asm["ptx"].splitlines() if "ld.global.L1::evict" in line]
    assert lines and all(".v4." in line for line in lines), lines
    return len(lines)

cases = [(80, "fp16", 1), (80, "bf16", 4), (90, "bf16", 1), (90, "fp16", 4), (90, "fp32", 2)]
print(json.dumps({str(case): loads(*case) for case in cases}))
"""
    assert min(run(fresh, program, interpret=False).values()) > 0
