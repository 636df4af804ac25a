"""Figures from plain arrays. A function takes an Axes or returns a Figure, and never calls show."""

import matplotlib.pyplot as plt
import numpy as np
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
        picture(ax, image, f"{distance} bits\n{wrap(title)}", frame=RIGHT if good else WRONG)
        ax.set_xlabel("right" if good else "wrong", fontsize=8, color=RIGHT if good else WRONG)
    return figure


def lines(ax: Axes, x, y, *, label: str | None = None, **style) -> None:
    """A curve, points left out where y is not a number."""
    x, y = np.asarray(x), np.asarray(y, dtype=float)
    ax.plot(x[~np.isnan(y)], y[~np.isnan(y)], label=label, **style)


def attention_over(ax: Axes, image, weights, *, blocks: int, title: str = "", vmax: float | None = None) -> AxesImage:
    """Attention laid over the image, patches left visible, block borders drawn.

    Args:
        image: (3, S, S) uint8.
        weights: (g, g), shown from 0 (dark blue) to `vmax` (yellow).
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
