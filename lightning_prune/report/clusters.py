"""Structure in masks: tables and pages to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_prune.analysis.clusters import MatrixClusters, Spread
from lightning_prune.analysis.coherence import Coherence
from lightning_prune.analysis.density import density
from lightning_prune.analysis.embedding import neighbour_map, principal_components
from lightning_prune.analysis.keys import place_of
from lightning_prune.analysis.orders import hamming_distances
from lightning_prune.report.drawing import COLOURS, colour_bar, figure, save, spy
from lightning_prune.report.files import Document, write
from lightning_prune.report.numbers import share_text
from lightning_prune.report.tables import Cell, Figure, Row, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Page

__all__ = ["clusters_document", "write_clusters"]

MARKERS = ("o", "s", "^", "D", "v")
"""Of clusters, for those who see no colours."""


def clusters_document(path: str, found: Sequence[MatrixClusters], seeds: Sequence[int]) -> Document:
    """What was found as it is printed and written."""
    tables = [_neighbours(found), _orders(found), _clusterings(found), _blocks(found), _near(found)]
    facts = [
        f"{path}: distances of features by Hamming (fraction of places where one of two is zero); "
        f"± is the deviation over {len(seeds)} seeds",
        "shuffled: the same mask with its zeros in other places, as many in each row and column; "
        "what is not better than that is no structure",
    ]
    value = {"path": path, "seeds": list(seeds), "matrices": [m.to_dict() for m in found]}
    return Document(
        "clusters",
        value,
        printed=[*tables, *facts],
        written=[f"# Structure in the masks of {path}", *facts, *tables],
        rows=_rows(found),
    )


def write_clusters(
    path: str, found: Sequence[MatrixClusters], seeds: Sequence[int], folder: str | Path
) -> dict[str, str]:
    """Write tables and a page for each matrix; returns paths by name.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        OSError: the folder cannot be written.
    """
    files = write(clusters_document(path, found, seeds), folder)
    pages = {f"clusters_{m.name.removesuffix('.weight')}": _page(m, seeds[0]) for m in found}
    return files | save(pages, folder)


# --- tables ---


def _names(found: Sequence[MatrixClusters]) -> dict[str, str]:
    """Matrices by block and projection, as in "15.mlp.up_proj"."""
    places = {m.name: place_of(m.name) for m in found}
    return {name: ".".join(map(str, place or (name,))) for name, place in places.items()}


def _neighbours(found: Sequence[MatrixClusters]) -> Table:
    rows: list[Row] = []
    for m in found:
        size = f"{m.taken} of {m.features} {'rows' if m.by_rows else 'columns'}"
        shares = (m.distance, m.nearest_distance, m.nearest_shuffled)
        rows.append((_names(found)[m.name], size, *map(_spread, shares)))
    header = ("matrix", "features", "distance of two", "of the nearest", "shuffled")
    return Table("how far features are apart", header, rows, words=2)


def _orders(found: Sequence[MatrixClusters]) -> Table:
    rows: list[Row] = []
    for m in found:
        reference = next(o.distance.mean for o in m.orders if o.name == "gradient")
        for order in m.orders:
            gain = 1 - order.distance.mean / reference if reference else 0.0
            relation = "-" if order.name == "gradient" else f"{-gain:+.1%}"
            rows.append(
                (
                    _names(found)[m.name],
                    order.name,
                    _spread(order.distance),
                    _spread(order.shuffled),
                    relation,
                )
            )
    header = ("matrix", "order", "neighbours' distance", "shuffled", "to the gradient's")
    note = "gradient: by the distance to one feature; seriation: a tree with its leaves ordered"
    return Table("orders in which neighbours are near", header, rows, note, words=2)


def _clusterings(found: Sequence[MatrixClusters]) -> Table:
    rows: list[Row] = []
    for m in found:
        for c in m.clusterings:
            agreement = "-" if c.agreement is None else f"{c.agreement.mean:.2f}"
            silhouettes = (f"{s.mean:.3f} ± {s.deviation:.3f}" for s in (c.silhouette, c.shuffled))
            cells: list[Cell] = [_spread(c.within), _spread(c.between), *silhouettes, agreement]
            rows.append((_names(found)[m.name], str(c.count), *cells))
    header = ("matrix", "clusters", "within", "between", "silhouette", "shuffled", "agreement")
    note = "agreement: adjusted Rand index of two seeds on the same features; 1: the same clusters"
    return Table("k-means", header, rows, note)


def _blocks(found: Sequence[MatrixClusters]) -> Table:
    rows: list[Row] = []
    for m in found:
        for block in m.blocks:
            ordered = "-" if block.ordered is None else share_text(block.ordered)
            shape, share = "x".join(map(str, block.shape)), share_text(block.share)
            shuffled = [_spread(spread) for spread in _null(block)]
            rows.append((_names(found)[m.name], shape, share, *shuffled, ordered))
    header = ("matrix", "block", "all zero", "shuffled in rows", "and columns", "in seriation")
    note = (
        "rows x columns of a block; all zero: what a kernel that skips such blocks saves of the "
        "multiplications; in seriation: with rows and columns in that order"
    )
    return Table("blocks of zeros", header, rows, note)


def _near(found: Sequence[MatrixClusters]) -> Table:
    rows: list[Row] = [
        (_names(found)[m.name], str(n.feature), str(n.nearest), share_text(n.distance))
        for m in found
        for n in m.nearest[: 10 if len(found) == 1 else 3]
    ]
    return Table("nearest features", ("matrix", "feature", "and", "distance"), rows)


def _null(block: Coherence) -> tuple[Spread, Spread]:
    return Spread.of(block.rows), Spread.of(block.both)


def _spread(spread: Spread) -> Figure:
    return Figure(spread.mean, f"{share_text(spread.mean)} ± {share_text(spread.deviation)}")


def _rows(found: Sequence[MatrixClusters]) -> Table:
    """Every mean and deviation, for CSV."""
    rows: list[Row] = []

    def add(name: str, what: str, of: object, spread: Spread) -> None:
        values = (Figure(v, str(v)) for v in spread)
        rows.append((name, what, str(of), *values))

    for m in found:
        add(m.name, "distance", "", m.distance)
        add(m.name, "nearest_distance", "", m.nearest_distance)
        add(m.name, "nearest_distance_shuffled", "", m.nearest_shuffled)
        for order in m.orders:
            add(m.name, "neighbours", order.name, order.distance)
            add(m.name, "neighbours_shuffled", order.name, order.shuffled)
        for c in m.clusterings:
            for what in ("within", "between", "silhouette", "shuffled"):
                add(m.name, f"k_means_{what}", c.count, getattr(c, what))
        for block in m.blocks:
            shape = "x".join(map(str, block.shape))
            add(m.name, "zero_blocks", shape, Spread(block.share, 0.0))
            for what, spread in zip(("rows", "both"), _null(block), strict=True):
                add(m.name, f"zero_blocks_shuffled_{what}", shape, spread)
    return Table("", ("matrix", "what", "of", "mean", "deviation"), rows)


# --- pictures ---


def _page(m: MatrixClusters, seed: int) -> Page:
    """Features as points, by their cluster, and the mask in three orders."""
    keep_FD, label_F = m.sample["keep"], m.sample["cluster"]
    kind = "rows" if m.by_rows else "columns"
    page = figure(f"{m.name}\n{len(keep_FD)} of {m.features} {kind}", 7.4)
    layout: list[Any] = [["pca"] * 3 + ["tsne"] * 3, ["a", "a", "b", "b", "c", "c"]]
    axes = page.subplot_mosaic(layout)
    points, shares = principal_components(keep_FD)
    drawn = {"pca": points, "tsne": neighbour_map(hamming_distances(keep_FD), seed)}
    for name, points_F2 in drawn.items():
        for cluster in range(label_F.max() + 1):
            across, down = points_F2[label_F == cluster].T
            colour, marker = COLOURS[cluster % len(COLOURS)], MARKERS[cluster % len(MARKERS)]
            label = f"cluster {cluster + 1}: {len(across)}"
            axes[name].scatter(across, down, s=9, c=colour, marker=marker, label=label, alpha=0.7)
    axes["pca"].set_title("principal components of the mask", fontsize=9)
    axes["pca"].set_xlabel(f"first ({shares[0]:.1%} of the variance)", fontsize=8)
    axes["pca"].set_ylabel(f"second ({shares[1]:.1%})", fontsize=8)
    axes["tsne"].set_title("t-SNE of Hamming's distances (axes have no unit)", fontsize=9)
    handles = axes["tsne"].get_legend_handles_labels()
    page.legend(*handles, loc="outside lower center", fontsize=7, frameon=False, ncols=8)
    for name in ("pca", "tsne"):
        axes[name].tick_params(labelsize=7)
    for name, order in zip("abc", ("as stored", "gradient", "seriation"), strict=True):
        ordered_FD = keep_FD[m.sample[order]]
        distance = next(o.distance.mean for o in m.orders if o.name == order)
        title = f"{order}: {distance:.1%} apart"
        image = spy(axes[name], density(ordered_FD), ordered_FD.shape, title)
        axes[name].set_xlabel("places of a feature", fontsize=8)
    axes["a"].set_ylabel(f"{kind}, in order", fontsize=8)
    colour_bar(page, image, axes["c"], "fraction of weights that stay")
    return page
