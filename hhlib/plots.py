"""Figures from plain arrays. A function takes an Axes or returns a Figure, and never calls show."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

RIGHT, WRONG, QUERY = "#0a9e73", "#d55e00", "#404040"  # from a colour-blind-safe palette
SETS = {"query": "#0173b2", "train": "#de8f05", "database": "#029e73"}


def theme() -> None:
    """The look of every figure; called once a notebook."""
    sns.set_theme(style="whitegrid", context="notebook", palette="colorblind", font_scale=0.9)
    plt.rcParams.update({"figure.dpi": 100, "figure.figsize": (7, 3.6), "figure.constrained_layout.use": True})
    plt.rcParams.update({"axes.titlesize": "medium", "axes.titleweight": "bold", "axes.grid": True})


def picture(ax: Axes, image, title: str = "", frame: str | None = None) -> None:
    """One image without axes: (3, S, S) uint8; `title` above it, a coloured `frame` around it."""
    ax.imshow(np.asarray(image).transpose(1, 2, 0), interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.set_title(title, fontsize=8, fontweight="normal", pad=3, color=frame or "black")
    for spine in ax.spines.values():
        spine.set(visible=frame is not None, color=frame, linewidth=3)


def contact_sheet(images, titles: list[str], *, columns: int = 10, size: float = 0.75) -> Figure:
    """Many small images: (n, 3, S, S) uint8 with a title each."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * size, rows * (size + 0.28)), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        ax.axis("on")
        picture(ax, image, wrap(title))
    return figure


def sheets(rows: dict[str, tuple], *, size: float = 0.8) -> Figure:
    """One row of small images for each set: name -> (images (n, 3, S, S) uint8, titles (n), marked (n) bool).

    The titles of marked images are in the training set's colour.
    """
    columns = max(len(images) for images, _, _ in rows.values())
    figure, axes = plt.subplots(len(rows), columns, figsize=(columns * size, len(rows) * (size + 0.3)), squeeze=False)
    for line, (name, (images, titles, marked)) in zip(axes, rows.items(), strict=True):
        for ax in line:
            ax.axis("off")
        for ax, image, title, mark in zip(line, images, titles, marked, strict=False):
            ax.axis("on")
            picture(ax, image, wrap(title))
            ax.title.set(color=SETS["train"] if mark else "black", fontweight="bold" if mark else "normal")
        line[0].axis("on")
        line[0].set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=9)
        if not len(images):
            line[0].text(0.5, 0.5, "empty", ha="center", va="center", fontsize=9)
    return figure


def similar_images(query, images, shared, titles: list[str]) -> Figure:
    """A query beside others, framed by whether they share a label with it.

    Args:
        query: (3, S, S) uint8.
        images: (n, 3, S, S) uint8.
        shared: (n,) labels in common.
        titles: what each of the others shows; lines may be broken.
    """
    figure, axes = plt.subplots(1, len(images) + 1, figsize=(1.05 * (len(images) + 1), 1.7))
    picture(axes[0], query, "query", frame=QUERY)
    for ax, image, count, title in zip(axes[1:], images, shared, titles, strict=True):
        colour = RIGHT if count else WRONG
        picture(ax, image, title, frame=colour)
        ax.set_xlabel(f"{int(count)} shared", fontsize=8, color=colour)
    return figure


def grouped_counts(ax: Axes, counts: dict[str, np.ndarray], classes: list[str]) -> None:
    """Images of each class in each set, side by side, for sets may overlap: set -> (C,). Many classes stay unnamed."""
    width = 0.8 / len(counts)
    for number, (part, count) in enumerate(counts.items()):
        place = np.arange(len(classes)) + (number - (len(counts) - 1) / 2) * width
        ax.bar(place, count, width, label=part, color=SETS[part], linewidth=0)
    _name_classes(ax, "x", classes)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))


def heat(ax: Axes, matrix: np.ndarray, classes: list[str], *, label: str) -> None:
    """A (C, C) matrix of numbers from 0 to 1, with the numbers written in where there is room."""
    few = len(classes) <= 12
    sns.heatmap(
        matrix, ax=ax, vmin=0, vmax=1, cmap="viridis", annot=few, fmt=".2f", annot_kws={"size": 7}, square=True,
        cbar_kws={"label": label}, xticklabels=False, yticklabels=False,
    )  # fmt: skip
    for side in "xy":
        _name_classes(ax, side, classes, offset=0.5)


def _name_classes(ax: Axes, side: str, classes: list[str], offset: float = 0.0) -> None:
    """Names along an axis, slanted if they are long, or only how many there are if they would not fit."""
    axis = ax.xaxis if side == "x" else ax.yaxis
    if len(classes) > 25:
        axis.set_ticks([])
        axis.set_label_text(f"{len(classes)} classes")
        return
    slanted = side == "x" and max(map(len, classes)) > 2
    axis.set_ticks(np.arange(len(classes)) + offset, classes, rotation=45 if slanted else 0, ha="right")
    axis.set_tick_params(labelsize=8)
    if side == "x" and not slanted:
        for name in ax.get_xticklabels():
            name.set_ha("center")


def spans(ax: Axes, sets: dict[str, tuple[int, int]]) -> None:
    """Which stretch of one line of images each set takes: set -> (first, one after the last)."""
    for place, (part, (start, end)) in enumerate(sets.items()):
        ax.barh(-place, end - start, left=start, color=SETS[part], height=0.75)
    ax.set_yticks(-np.arange(len(sets)), list(sets))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.grid(axis="y", visible=False)


def wrap(title: str) -> str:
    """A long title on two lines, broken at its last blank."""
    return "\n".join(title.rsplit(" ", 1)) if len(title) > 9 else title


def results(query, hits, distances, right, query_title: str, titles: list[str]) -> Figure:
    """A query and its nearest images in one row.

    Args:
        query: (3, S, S) uint8.
        hits: (k, 3, S, S) uint8, nearest first.
        distances: (k,) bits.
        right: (k,) bool, whether the image shares a label with the query.
        query_title, titles: what the query and each hit show.
    """
    k = len(hits)
    figure, axes = plt.subplots(1, k + 1, figsize=(0.85 * (k + 1), 1.5), width_ratios=[1.25] + [1] * k)
    picture(axes[0], query, f"query\n{wrap(query_title)}", frame=QUERY)
    for ax, image, distance, good, title in zip(axes[1:], hits, distances, right, titles, strict=True):
        near = "1 bit" if distance == 1 else f"{distance} bits"
        picture(ax, image, f"{near}\n{wrap(title)}", frame=RIGHT if good else WRONG)
        ax.set_xlabel("right" if good else "wrong", fontsize=8, color=RIGHT if good else WRONG)
    return figure


def distances(ax: Axes, distance, similar, bits: int, *, title: str = "") -> None:
    """Two piles of Hamming distances: of similar and of dissimilar pairs.

    Args:
        distance: (pairs,) in bits.
        similar: (pairs,) bool.
        bits: code length K; a line marks K/2, where unrelated codes are.
    """
    bars = dict(bins=np.arange(bits + 2) - 0.5, density=True, alpha=0.6)
    ax.hist(distance[similar], color=RIGHT, label="similar", **bars)
    ax.hist(distance[~similar], color=WRONG, label="dissimilar", **bars)
    ax.axvline(bits / 2, color="#949494", linestyle=":", label="unrelated codes")
    ax.set(xlabel="Hamming distance (bits)", ylabel="share of pairs", title=title)
    ax.legend(title="pairs", fontsize=8)


def ties(ax: Axes, everything, relevant) -> None:
    """How many database images a query has at each distance, right and wrong ones, on a logarithmic scale: (K + 1,)."""
    t = np.arange(len(everything))
    ax.bar(t - 0.2, relevant, width=0.4, linewidth=0, color=RIGHT, label="right")
    ax.bar(t + 0.2, everything - relevant, width=0.4, linewidth=0, color=WRONG, label="wrong")
    ax.set(xlabel="Hamming distance (bits)", ylabel="database images", yscale="log", ylim=(0.7, None))
    ax.legend()


def lines(ax: Axes, x, y, *, label: str | None = None, **style) -> None:
    """A curve, points left out where y is not a number."""
    x, y = np.asarray(x), np.asarray(y, dtype=float)
    ax.plot(x[~np.isnan(y)], y[~np.isnan(y)], label=label, **style)


def training_curves(history: pd.DataFrame, *, epochs: int | None = None, nothing: float | None = None) -> Figure:
    """How a training went, or is going: loss, validation mAP, quantisation gap, bit balance.

    Args:
        history: of `Run.history`, or the rows so far.
        epochs: where the horizontal axis ends; None takes the last epoch there is.
        nothing: the loss of codes that know nothing, drawn as a line.
    """
    figure, axes = plt.subplots(1, 4, figsize=(10, 2.5), layout="constrained")
    titles = {
        "loss": "training loss",
        "validation_map": "validation mAP",
        "quantisation_gap": "quantisation gap 1 - |u|",
        "bit_balance": "bit balance |ones - 1/2|",
    }
    if nothing is not None:
        axes[0].axhline(nothing, color="#949494", linestyle=":", label="codes that know nothing")
    for ax, (column, title) in zip(axes, titles.items(), strict=True):
        lines(ax, history["epoch"], history[column], marker="o", markersize=3)
        ax.set_title(title, fontsize=10)
        ax.set(xlabel="epoch", xlim=(0, 1.04 * (epochs or history["epoch"].max())))
    if "query_map" in history:
        axes[1].lines[0].set_label("validation")
        lines(axes[1], history["epoch"], history["query_map"], marker="o", markersize=3, label="queries")
    for ax in axes[:3]:
        tops = [np.max(line.get_ydata()) for line in ax.lines if len(line.get_ydata())]
        ax.set_ylim(0, 1.1 * max(tops, default=1))
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=8, loc="lower left")
    axes[3].set_ylim(0, 0.5)
    return figure


def against_bits(ax: Axes, scores: list[tuple[int, dict]]) -> None:
    """mAP of several runs over their code length, with the range that tie orders could give: (bits, map) each."""
    bits, maps = zip(*sorted(scores, key=lambda pair: pair[0]), strict=True)
    ax.plot(bits, [m["expected"] for m in maps], marker="o", label="expected")
    ax.fill_between(bits, [m["worst"] for m in maps], [m["best"] for m in maps], alpha=0.25, label="worst to best")
    ax.set(xlabel="bits", ylabel="mAP", ylim=(0, 1.02))
    ax.legend(loc="lower right", fontsize=8)


def attention_over(ax: Axes, image, weights, *, blocks: int, title: str = "", vmax: float | None = None) -> AxesImage:
    """Attention laid over the image, patches left visible, block borders drawn.

    Args:
        image: (3, S, S) uint8.
        weights: (g, g), shown from 0 (dark) to `vmax` (yellow).
        blocks: blocks along an edge of the image: 4, 2 or 1.
        vmax: the top of the scale; None takes the largest weight. Give it where pictures are compared.

    Returns:
        What `Figure.colorbar` needs.
    """
    side = np.asarray(image).shape[-1]
    grey = np.asarray(image).mean(axis=0)
    ax.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=(0, side, side, 0))
    heat = dict(cmap="viridis", alpha=0.6, vmin=0, vmax=vmax or None, interpolation="nearest")
    shown = ax.imshow(weights, extent=(0, side, side, 0), **heat)
    for border in np.linspace(0, side, blocks + 1)[1:-1]:
        ax.axhline(border, color="white", linewidth=1)
        ax.axvline(border, color="white", linewidth=1)
    ax.set(xticks=[], yticks=[], xlim=(0, side), ylim=(side, 0))
    ax.grid(False)
    ax.set_title(title, fontsize=9)
    return shown


def importance(ax: Axes, image, grid, *, title: str = "") -> AxesImage:
    """A map of importance over the image, on the map's own scale: dark the least, yellow the most.

    Args:
        image: (3, S, S) uint8.
        grid: (S, S), of any sign.
    """
    grid = np.asarray(grid)
    shown = attention_over(ax, image, grid, blocks=1, title=title)
    shown.set_clim(grid.min(), grid.max() if grid.max() > grid.min() else grid.min() + 1)
    return shown


def importance_bar(figure: Figure, shown: AxesImage, axes) -> None:
    """The colour bar of pictures that each have their own scale: its ends have names, not numbers."""
    bar = figure.colorbar(shown, ax=axes, shrink=0.6, ticks=shown.get_clim(), aspect=30)
    bar.ax.set_yticklabels(["least", "most"], fontsize=8)
    bar.ax.set_ylabel("importance", fontsize=8)
