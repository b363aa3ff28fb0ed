"""`lightning-prune analyze scores PLAN_A [PLAN_B]`: how alike scores are, as a table and files."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_prune.analysis.scores import compare_scores
from lightning_prune.cli.arguments import Parser, folder
from lightning_prune.report.files import print_document, print_files
from lightning_prune.report.scores import scores_document, write_scores

__all__ = ["NAME", "run"]

NAME = "analyze"


def run(arguments: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser(prog=f"lightning-prune {NAME}", description="Analyse what runs leave behind.")
    scores = parser.add_subparsers(dest="what", metavar="scores", required=True).add_parser(
        "scores",
        help="how alike the scores of two plans are, or those that one plan's were made from",
        description="Compare the scores of two plans, or those that the scores of one plan were "
        "put together from: Pearson, Spearman, cosine, what each would keep, distributions. "
        "Methods leave scores in their plan if made with keep_scores=True.",
    )
    scores.add_argument("a", metavar="PLAN_A", help="a plan's folder, or its plan.json")
    scores.add_argument("b", metavar="PLAN_B", nargs="?", help="another one's")
    scores.add_argument(
        "--out", type=folder, metavar="FOLDER", help="write scores.json and scores.pdf there"
    )
    given = parser.parse_args(arguments)
    report = compare_scores(given.a, given.b)
    print_document(scores_document(report))
    print_files(write_scores(report, given.out) if given.out else {})
