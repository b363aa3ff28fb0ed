"""A store of results in the browser: runs side by side, their matrices, and any query.

lightning-prune analyze notebook FILE
marimo edit explore.py -- --db FILE
"""

import marimo

__generated_with = "0.17.0"
app = marimo.App(width="medium", app_title="Pruning runs")


@app.cell
def _():
    import html

    import marimo as mo

    from lightning_prune.analysis.store.compared import stored_runs
    from lightning_prune.analysis.store.results import Results
    from lightning_prune.report.page_style import STYLE
    from lightning_prune.report.plots import figures
    from lightning_prune.report.stored_plots import block_plots, perplexity_plots

    return Results, STYLE, block_plots, figures, html, mo, perplexity_plots, stored_runs


@app.cell
def _(mo):
    given = mo.cli_args().get("db")
    db = mo.ui.text(value=str(given or "results.duckdb"), label="store", full_width=True)
    mo.vstack([mo.md("# Pruning runs"), db])
    return (db,)


@app.cell
def _(Results, db, html, mo):
    results = Results(db.value, wait=10)
    try:
        overview = results.query(
            "SELECT * REPLACE (strftime(created, '%Y-%m-%d %H:%M') AS created) "
            "FROM overview ORDER BY run"
        ).records()
    except (OSError, ValueError, ImportError) as error:
        overview = []
        mo.stop(True, mo.callout(mo.Html(html.escape(str(error))), kind="danger"))
    return overview, results


@app.cell
def _(mo, overview):
    mo.stop(not overview, mo.callout(mo.md("The store has no runs yet."), kind="warn"))
    table = mo.ui.table(
        overview, selection="multi", initial_selection=list(range(min(len(overview), 8)))
    )
    mo.vstack([mo.md("Select the runs that are to be compared."), table])
    return (table,)


@app.cell
def _(mo, results, stored_runs, table):
    mo.stop(not table.value, mo.md("No run is selected."))
    runs = stored_runs(results, [line["run"] for line in table.value])
    return (runs,)


@app.cell
def _(STYLE, block_plots, figures, mo, perplexity_plots, runs):
    # The pictures of the report in a frame of their own, as their style is a page's.
    plots = [*perplexity_plots(runs), *block_plots(runs)]
    page = f"<style>{STYLE}</style><main>{figures(plots)}</main>"
    rows = (len(plots) + 1) // 2  # two stand side by side
    mo.iframe(page, height=f"{320 * rows}px") if plots else mo.md(
        "These runs have nothing to draw."
    )
    return


@app.cell
def _(mo, runs):
    kinds = sorted({m["kind"] for run in runs for m in run.matrices})
    mo.stop(not kinds, mo.md("These runs have kept no matrices."))
    kind = mo.ui.dropdown(kinds, value=kinds[0], label="matrix")
    mo.vstack([mo.md("## One kind of matrix, block by block"), kind])
    return (kind,)


@app.cell
def _(kind, mo, runs):
    shown = ("block", "rows", "inputs", "sparsity", "row_min", "row_max", "norm_kept", "cut")
    lines = [
        {"run": run.label, **{name: m[name] for name in shown}}
        for run in runs
        for m in run.matrices
        if m["kind"] == kind.value
    ]
    mo.ui.table(lines, selection=None)
    return


@app.cell
def _(mo):
    example = """SELECT method, target, component, avg(sparsity) AS sparsity, avg(norm_kept) AS norm
FROM pruned_matrices GROUP BY ALL ORDER BY ALL"""
    sql = mo.ui.code_editor(value=example, language="sql", min_height=80)
    mo.vstack([mo.md("## Any query\n\nIt can only read. `SHOW TABLES` says what there is."), sql])
    return (sql,)


@app.cell
def _(html, mo, results, sql):
    try:
        answer = results.query(sql.value, most=5000)
        answered = (
            mo.ui.table(answer.records(), selection=None) if answer.rows else mo.md("No rows.")
        )
    except ValueError as wrong:
        answered = mo.callout(mo.Html(html.escape(str(wrong))), kind="danger")
    answered
    return


if __name__ == "__main__":
    app.run()
