"""Figures of plain arrays, on a given Axes or as a new Figure, never shown. Images are (n, 3, S, S) uint8."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

RIGHT, WRONG, QUERY, GUIDE = "#0a9e73", "#d55e00", "#404040", "#949494"  # from a colour-blind-safe palette
SETS = {"query": "#0173b2", "train": "#de8f05", "database": "#029e73"}
#: Fonts that have Chinese, Japanese and Korean letters; those that are installed draw what the first font lacks.
MORE_LETTERS = ["Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei", "Microsoft YaHei"]
MORE_LETTERS += ["SimHei", "PingFang SC", "Hiragino Sans GB", "Yu Gothic", "Malgun Gothic", "Arial Unicode MS"]
WIDEST = 8.4  #: inches; wider figures are shrunk by the page, and their text with them


def theme() -> None:
    """The look of every figure; called once per notebook."""
    sns.set_theme(style="whitegrid", context="notebook", palette="colorblind", font_scale=0.9)
    plt.rcParams.update({"figure.dpi": 100, "figure.figsize": (7, 3.6), "figure.constrained_layout.use": True})
    installed = {font.name for font in font_manager.fontManager.ttflist}
    plt.rcParams["font.family"] = ["sans-serif", *(name for name in MORE_LETTERS if name in installed)]
    plt.rcParams.update({"axes.titlesize": "medium", "axes.titleweight": "bold", "axes.grid": True})


def picture(ax: Axes, image, title: str = "", frame: str | None = None) -> None:
    """One image (3, S, S) without axes; `title` above it, a coloured `frame` around it."""
    ax.set_axis_on()
    ax.imshow(np.asarray(image).transpose(1, 2, 0), interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=8, fontweight="normal", pad=3, color=frame or "black", parse_math=False)  # "Ba$$in"
    ax.spines[:].set(visible=frame is not None, color=frame, linewidth=3)


def wrap(title: str) -> str:
    """A long title on two lines, broken at its last space."""
    return "\n".join(title.rsplit(" ", 1)) if len(title) > 9 else title


def _empty_sheet(rows: int, columns: int, size: float, text: float) -> tuple[Figure, np.ndarray]:
    """Axes (rows, columns) for `picture`, invisible so far: `size` inches per image, and `text` inches above it."""
    size = min(size, WIDEST / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * size, rows * (size + text)), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    return figure, axes


def contact_sheet(images, titles: list[str], *, columns: int = 10, size: float = 0.75) -> Figure:
    """Many small images with a title each."""
    figure, axes = _empty_sheet(-(-len(images) // columns), columns, size, 0.28)
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        picture(ax, image, wrap(title))
    return figure


def sheets(rows: dict[str, tuple], *, size: float = 0.8) -> Figure:
    """One row of images per set: name -> (images, titles, which titles (n,) bool have the training set's colour)."""
    figure, axes = _empty_sheet(len(rows), max(1, *(len(images) for images, *_ in rows.values())), size, 0.3)
    for line, (name, (images, titles, marked)) in zip(axes, rows.items(), strict=True):
        for ax, image, title, mark in zip(line, images, titles, marked, strict=False):
            picture(ax, image, wrap(title))
            ax.title.set(color=SETS["train"] if mark else "black", fontweight="bold" if mark else "normal")
        line[0].set_axis_on()
        line[0].set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=9)
        if not len(images):
            line[0].text(0.5, 0.5, "empty", ha="center", va="center", fontsize=9)
    return figure


def similar_images(query, images, shared, titles: list[str]) -> Figure:
    """A query beside images, framed by whether they have labels in common; `shared` (n,) says how many."""
    return _beside("query", query, images, titles, shared, [f"{int(count)} shared" for count in shared], size=1.05)


def results(query, hits, distances, right, query_title: str, titles: list[str]) -> Figure:
    """A query and its `hits`, nearest first, ten per row: `distances` in bits, `right` if they share a label."""
    titles = [f"{d} bit{'' if d == 1 else 's'}\n{wrap(title)}" for d, title in zip(distances, titles, strict=True)]
    notes = ["right" if good else "wrong" for good in right]
    return _beside(f"query\n{wrap(query_title)}", query, hits, titles, right, notes, size=0.85)


def _beside(query_title: str, query, images, titles, right, notes, *, size: float, columns: int = 10) -> Figure:
    """A query on the left; beside it images in green or orange frames, with a title above and a note below."""
    columns = min(columns, len(images))
    figure, axes = _empty_sheet(-(-len(images) // columns), columns + 1, size, 0.65)
    picture(axes[0, 0], query, query_title, frame=QUERY)
    for ax, image, title, good, note in zip(axes[:, 1:].flat, images, titles, right, notes, strict=False):
        colour = RIGHT if good else WRONG
        picture(ax, image, title, frame=colour)
        ax.set_xlabel(note, fontsize=8, color=colour)
    return figure


def grouped_counts(ax: Axes, counts: dict[str, np.ndarray], classes: list[str]) -> None:
    """Images of each class in each set, side by side because sets may overlap: set -> (C,)."""
    width = 0.8 / len(counts)
    for number, (part, count) in enumerate(counts.items()):
        place = np.arange(len(classes)) + (number - (len(counts) - 1) / 2) * width
        ax.bar(place, count, width, label=part, color=SETS[part], linewidth=0)
    if len(classes) > 25:
        ax.set(xticks=[], xlabel=f"{len(classes)} classes")
    else:  # slanted if a name is long
        turn = dict(rotation=45, ha="right") if max(map(len, classes)) > 2 else {}
        ax.set_xticks(np.arange(len(classes)), classes, fontsize=8, parse_math=False, **turn)  # pyrefly: ignore[bad-argument-type]
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))


def lines(ax: Axes, x, y, *, label: str | None = None, **style) -> None:
    """A curve without the points where y is not a number."""
    x, y = np.asarray(x), np.asarray(y, dtype=float)
    ax.plot(x[~np.isnan(y)], y[~np.isnan(y)], label=label, **style)


def training_curves(history: pd.DataFrame, *, epochs: int | None = None, nothing: float | None = None) -> Figure:
    """How a training went, or is going: loss, validation mAP, quantisation gap, bit balance.

    `history` is from `Run.history`, or its first rows. The horizontal axis ends at `epochs`; None takes the last epoch
    there is. `nothing`, the loss of codes that know nothing, is drawn as a line.
    """
    figure, axes = plt.subplots(1, 4, figsize=(WIDEST, 2.3), layout="constrained")
    titles = {"loss": "training loss", "validation_map": "validation mAP"}
    titles |= {"quantisation_gap": "quantisation gap\n1 - |u|", "bit_balance": "bit balance\n|ones - 1/2|"}
    if nothing is not None:
        axes[0].axhline(nothing, color=GUIDE, linestyle=":", label="know nothing")
        axes[0].legend(fontsize=8)
    for ax, (column, title) in zip(axes, titles.items(), strict=True):
        lines(ax, history["epoch"], history[column], marker="o", markersize=3)
        ax.set_title(title, fontsize=9)
        ax.set(xlabel="epoch", xlim=(0, 1.04 * (epochs or history["epoch"].max())))
        ax.tick_params(labelsize=8)
    if "query_map" in history:
        axes[1].lines[0].set_label("validation")
        lines(axes[1], history["epoch"], history["query_map"], marker="o", markersize=3, label="queries")
        axes[1].legend(fontsize=8)
    for ax in axes[:3]:
        ax.set_ylim(0, 1.1 * max((y for line in ax.lines for y in line.get_ydata()), default=1))
    axes[3].set_ylim(0, 0.5)
    return figure


def distances(ax: Axes, distance: np.ndarray, similar: np.ndarray, bits: int, *, title: str = "") -> None:
    """Two piles of Hamming distances (pairs,), one of `similar` pairs (pairs,) bool, one of the others."""
    for which, colour, label in [(similar, RIGHT, "similar"), (~similar, WRONG, "dissimilar")]:
        ax.hist(distance[which], [d - 0.5 for d in range(bits + 2)], density=True, alpha=0.6, color=colour, label=label)
    ax.axvline(bits / 2, color=GUIDE, linestyle=":", label="unrelated codes")
    ax.set(xlabel="Hamming distance (bits)", ylabel="share of pairs", title=title)
    ax.legend(title="pairs", fontsize=8, title_fontsize=8)


def attention_map(ax: Axes, weights, *, blocks: int, title: str = "", vmax: float | None = None) -> AxesImage:
    """Attention (g, g) as a map of its own, for a place beside the picture, with block borders in white.

    From 0 (dark) to `vmax` (yellow; None takes the largest weight: not for comparisons). `blocks` is the number of
    blocks along an edge of the image: 4, 2 or 1. Returns what `Figure.colorbar` needs.
    """
    shown = ax.imshow(weights, cmap="viridis", vmin=0, vmax=vmax or None, interpolation="nearest")
    for border in np.linspace(0, len(weights), blocks + 1)[1:-1] - 0.5:
        ax.axhline(border, color="white", linewidth=1)
        ax.axvline(border, color="white", linewidth=1)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=9)
    return shown


def signed_map(ax: Axes, grid, *, limit: float | None = None, least: float = 0.01, title: str = "") -> AxesImage:
    """A map of any sign (n, n): red speaks for, blue against, white is 0; for a place beside the picture.

    Colours end at ±`limit`, or at the map's largest absolute value, but never below `least`: a map of nearly nothing
    is nearly white. Returns what `Figure.colorbar` needs.
    """
    grid = np.asarray(grid)
    end = max(least, np.abs(grid).max() if limit is None else limit)
    shown = ax.imshow(grid, cmap="RdBu_r", vmin=-end, vmax=end, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=9)
    return shown
