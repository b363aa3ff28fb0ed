"""`lightning-prune sparsity PATH`: the zeros of a saved model, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_prune.analysis.zeros import PATTERNS, sparsity
from lightning_prune.cli.arguments import Parser
from lightning_prune.files import write_json
from lightning_prune.report.files import print_document, print_files
from lightning_prune.report.zeros import zeros_document

__all__ = ["NAME", "run"]

NAME = "sparsity"


def run(arguments: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser(
        prog=f"lightning-prune {NAME}",
        description="Count the zeros of a saved model, without loading it: per block, per kind of "
        "matrix, per row, and by N:M pattern (N kept of M consecutive inputs).",
    )
    parser.add_argument("path", help="a Hugging Face folder with safetensors, or one such file")
    parser.add_argument("--json", metavar="FILE", help="also write everything to this file")
    parser.add_argument(
        "--pattern",
        metavar="N:M",
        action="append",
        help=f"a pattern to look for, repeatable; default: {', '.join(PATTERNS)}",
    )
    given = parser.parse_args(arguments)
    report = sparsity(given.path, given.pattern or PATTERNS)
    document = zeros_document(report)
    print_document(document)
    if given.json:
        write_json(given.json, document.value)
        print_files({"json": given.json})
