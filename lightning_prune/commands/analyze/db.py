"""`lightning-prune analyze db FILE "SELECT …"`: what the store says, as a table or as CSV."""

from __future__ import annotations

import csv
import sys
from typing import Literal

from lightning_prune.analysis.store.results import Results
from lightning_prune.report.answer import answer_table
from lightning_prune.report.files import Document, print_document

__all__ = ["db"]

OVERVIEW = (
    "SELECT run, command, model, method, target, dense, perplexity, recovered, sparsity "
    "FROM overview ORDER BY run"
)
MOST_ROWS = 500
"""Above this many, a table on the terminal ends, and says so."""


def db(
    file: str, sql: str = OVERVIEW, *, format: Literal["table", "csv"] = "table", wait: float = 60
) -> None:
    """Ask a store of results by SQL, which can only read it.

    A query can neither change the store nor read or write any other file.

    Args:
        file: a store, which --db of the commands that measure, or the callback Store, has made.
        sql: a query of DuckDB's SQL; `SHOW TABLES` and `DESCRIBE runs` say what there is; without
            one, a line for each run.
        format: a table for the eye, of 500 rows at most, or all rows as CSV.
        wait: seconds to wait for a process that writes the store.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no store, or the query cannot be answered.
    """
    results = Results(file, wait)
    if format == "table":
        answer = results.query(sql, MOST_ROWS)
        print_document(Document("answer", None, printed=[answer_table(answer)]))
        return
    with results.reading(sql) as (columns, found):
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        while rows := found.fetchmany(1000):
            writer.writerows(rows)
