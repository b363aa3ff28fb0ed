"""The tables of the store and their views, version by version.

A version is a step that brings the tables of the one before it up to date; a new file takes all of
them. Views hold no data, so they are made anew with every step.
"""

from __future__ import annotations

import re

__all__ = ["STEPS", "VERSION", "VIEWS", "method_view"]

STEPS = (
    # 1: what runs and commands measure
    """
    CREATE TABLE runs (
        run INTEGER PRIMARY KEY, created TIMESTAMP NOT NULL, command VARCHAR NOT NULL,
        model VARCHAR, method VARCHAR, call VARCHAR, sparsity DOUBLE, pattern VARCHAR,
        ratio DOUBLE, target VARCHAR, folder VARCHAR, device VARCHAR, dtype VARCHAR,
        seconds DOUBLE, error VARCHAR, settings VARCHAR, version VARCHAR);
    CREATE TABLE plans (
        run INTEGER NOT NULL, step INTEGER NOT NULL, method VARCHAR, call VARCHAR, model VARCHAR,
        calibration VARCHAR, fingerprint VARCHAR, masked BIGINT, zeros BIGINT, groups BIGINT,
        groups_gone BIGINT, neurons BIGINT, neurons_gone BIGINT, blocks BIGINT, blocks_gone BIGINT);
    CREATE TABLE matrices (
        run INTEGER NOT NULL, stage VARCHAR NOT NULL, name VARCHAR NOT NULL, block INTEGER NOT NULL,
        kind VARCHAR NOT NULL, rows BIGINT, inputs BIGINT, zeros BIGINT, row_min DOUBLE,
        row_max DOUBLE, norm DOUBLE);
    CREATE TABLE patterns (
        run INTEGER NOT NULL, stage VARCHAR NOT NULL, name VARCHAR NOT NULL,
        pattern VARCHAR NOT NULL, held DOUBLE);
    CREATE TABLE scores (
        run INTEGER NOT NULL, kind VARCHAR NOT NULL, name VARCHAR NOT NULL, count BIGINT,
        mean DOUBLE, std DOUBLE, min DOUBLE, q01 DOUBLE, q05 DOUBLE, q25 DOUBLE, q50 DOUBLE,
        q75 DOUBLE, q95 DOUBLE, q99 DOUBLE, max DOUBLE);
    CREATE TABLE evaluations (
        run INTEGER NOT NULL, stage VARCHAR NOT NULL, metric VARCHAR NOT NULL, value DOUBLE,
        stderr DOUBLE, task VARCHAR, split VARCHAR, length INTEGER, samples INTEGER,
        few_shot INTEGER, batch_size INTEGER, block INTEGER);
    CREATE TABLE recoveries (
        run INTEGER NOT NULL, adapter VARCHAR, steps INTEGER, dense DOUBLE, pruned DOUBLE,
        recovered DOUBLE, train_loss DOUBLE, seconds DOUBLE, revived BIGINT);
    CREATE TABLE curves (run INTEGER NOT NULL, name VARCHAR NOT NULL, step INTEGER, value DOUBLE);
    """,
    # 2: what is compared, and circuits
    """
    CREATE TABLE similarities (
        run INTEGER NOT NULL, a VARCHAR NOT NULL, b VARCHAR NOT NULL, what VARCHAR NOT NULL,
        measure VARCHAR NOT NULL, value DOUBLE, std DOUBLE, by_chance DOUBLE, name VARCHAR,
        block INTEGER, kind VARCHAR, count BIGINT);
    CREATE TABLE circuits (
        run INTEGER NOT NULL, name VARCHAR NOT NULL, kind VARCHAR, count BIGINT, perplexity DOUBLE,
        rate DOUBLE, rate_low DOUBLE, rate_high DOUBLE, score DOUBLE, unique_tokens DOUBLE);
    CREATE TABLE members (
        run INTEGER NOT NULL, rank BIGINT NOT NULL, kind VARCHAR, name VARCHAR NOT NULL,
        place BIGINT, input BIGINT, score DOUBLE);
    """,
    # 3: parts that are drawn several times; what matrices were before, in views
    "ALTER TABLE circuits ADD COLUMN draw INTEGER DEFAULT 1",
)

VERSION = len(STEPS)

VIEWS = {
    "overview": """
        WITH first AS (
            SELECT run, stage, min_by(value, rowid) AS value
            FROM evaluations WHERE metric = 'perplexity' GROUP BY run, stage),
        perplexity AS (
            SELECT run, max(value) FILTER (stage = 'dense') AS dense,
                   max(value) FILTER (stage IN ('pruned', 'model')) AS perplexity,
                   max(value) FILTER (stage = 'recovered') AS recovered
            FROM first GROUP BY run),
        zeros AS (
            SELECT run, sum(zeros) / nullif(sum(rows * inputs), 0) AS sparsity
            FROM matrices WHERE stage IN ('pruned', 'model') GROUP BY run
            UNION ALL
            SELECT run, value FROM evaluations WHERE metric = 'sparsity')
        SELECT r.run, r.created, r.command, r.model, r.method, r.target, p.dense, p.perplexity,
               p.recovered, z.sparsity, r.seconds, r.error
        FROM runs r LEFT JOIN perplexity p USING (run) LEFT JOIN zeros z USING (run)""",
    "pruned_matrices": """
        SELECT m.run, r.model, r.method, r.target, m.stage, m.block,
               split_part(m.kind, '.', -1) AS component, m.kind, m.name, m.rows, m.inputs,
               m.zeros, m.zeros / nullif(m.rows * m.inputs, 0) AS sparsity, m.row_min, m.row_max,
               m.norm, m.norm / nullif(d.norm, 0) AS norm_kept,
               1 - m.rows * m.inputs / nullif(d.rows * d.inputs, 0) AS cut,
               coalesce(d.rows * d.inputs, m.rows * m.inputs) AS weights_before,
               d.norm AS norm_before
        FROM matrices m JOIN runs r USING (run)
        LEFT JOIN matrices d ON d.run = m.run AND d.name = m.name AND d.stage = 'dense'
        WHERE m.stage <> 'dense'""",
    "perplexities": """
        SELECT e.run, r.command, r.model, r.method, r.target, e.stage, e.task AS text, e.split,
               e.length, e.samples AS windows, e.value AS perplexity,
               e.value / nullif(d.value, 0) AS times_dense
        FROM evaluations e JOIN runs r USING (run)
        LEFT JOIN evaluations d ON d.run = e.run AND d.stage = 'dense' AND d.metric = 'perplexity'
            AND d.task IS NOT DISTINCT FROM e.task AND d.split IS NOT DISTINCT FROM e.split
            AND d.length IS NOT DISTINCT FROM e.length
        WHERE e.metric = 'perplexity'""",
    "sparsities": """
        SELECT run, stage, sum(zeros) AS zeros, sum(rows * inputs) AS weights,
               sum(zeros) / nullif(sum(rows * inputs), 0) AS sparsity
        FROM matrices GROUP BY ALL""",
}
"""Views over all runs, by name."""


def method_view(method: str, target: str, component: str) -> tuple[str, str]:
    """The view of one kind of matrix under one method and target, as `wanda_0_5_down_proj`.

    Returns:
        Its name, and what it selects: a row for each matrix of every run, by layer.
    """
    name = re.sub(r"[^a-z0-9]+", "_", f"{method}_{target}_{component}".lower())
    words = {"lower(method)": method.lower(), "target": target, "component": component}
    where = " AND ".join(f"{column} = {_quoted(word)}" for column, word in words.items())
    return name, (
        "SELECT run, model, stage, block AS layer, name, rows, inputs, zeros, sparsity, row_min, "
        f"row_max, norm, norm_kept FROM pruned_matrices WHERE {where} ORDER BY run, stage, layer"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
