import io
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib import font_manager
from matplotlib.text import Text

from hhlib import plots


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    yield
    plt.close("all")


def test_curves_show_every_point_and_room_for_the_epochs_to_come():
    history = pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "loss": [1.3, 1.2, 0.9],
            "validation_map": [math.nan, 0.4, 0.7],
            "query_map": [math.nan, 0.5, 0.8],
            "quantisation_gap": [0.8, 0.5, 0.2],
            "bit_balance": [0.1, 0.1, 0.4],
        }
    )
    axes = plots.training_curves(history, epochs=10, nothing=2 * math.log(2)).axes
    assert [len(ax.lines) for ax in axes] == [2, 2, 1, 1]
    for ax in axes:
        assert ax.get_xlim()[0] == 0
        assert ax.get_xlim()[1] > 10
        for line in ax.lines:
            assert max(line.get_ydata()) < ax.get_ylim()[1]
    assert list(axes[1].lines[0].get_xdata()) == [2, 3]  # where there is a score


def test_curves_before_the_first_score():
    columns = ["epoch", "loss", "validation_map", "quantisation_gap", "bit_balance"]
    history = pd.DataFrame([[1, 1.3, math.nan, 0.8, 0.1]], columns=columns)
    assert plots.training_curves(history, epochs=3).axes[1].get_ylim()[1] > 0


def test_a_signed_map_is_centred_on_zero_and_a_map_of_nearly_nothing_stays_pale():
    _, ax = plt.subplots()
    assert plots.signed_map(ax, np.linspace(-2, 3, 64).reshape(8, 8)).get_clim() == (-3, 3)
    assert plots.signed_map(ax, np.full((8, 8), 1e-4), least=0.01).get_clim() == (-0.01, 0.01)
    assert plots.signed_map(ax, np.eye(8), limit=5).get_clim() == (-5, 5)


def test_block_borders_of_an_attention_map_lie_between_tokens():
    _, ax = plt.subplots()
    shown = plots.attention_map(ax, np.full((8, 8), 0.1), blocks=4, vmax=0.5)
    assert shown.get_clim() == (0, 0.5)
    assert sorted({line.get_ydata()[0] for line in ax.lines if line.get_xdata() == [0, 1]}) == [1.5, 3.5, 5.5]


def pictures(n):
    return np.zeros((n, 3, 8, 8), dtype=np.uint8)


def everything_drawn():
    """One figure of each kind, in the theme of the pages, as large as they get there."""
    plots.theme()
    history = {name: [0.4, 0.7] for name in ("loss", "validation_map", "query_map", "quantisation_gap", "bit_balance")}
    yield plots.training_curves(pd.DataFrame(history | {"epoch": [1, 2]}), nothing=1.39)
    yield plots.contact_sheet(pictures(20), ["a class"] * 20, size=0.9)
    yield plots.sheets({"query": (pictures(12), ["a class"] * 12, [True] * 12), "train": (pictures(0), [], [])})
    yield plots.similar_images(pictures(1)[0], pictures(8), [0, 1, 2, 0, 1, 2, 0, 1], ["a class"] * 8)
    yield plots.results(
        pictures(1)[0], pictures(15), np.arange(15), [True, False, True] * 5, "a class", ["a class"] * 15
    )
    for draw in (
        lambda ax: plots.grouped_counts(ax, {"query": np.ones(10)}, [f"class {c}" for c in range(10)]),
        lambda ax: plots.distances(ax, np.array([1, 2, 4]), np.array([True, True, False]), 8),
        lambda ax: plots.attention_map(ax, np.eye(8), blocks=2, title="map"),
        lambda ax: plots.signed_map(ax, np.eye(8), title="map"),
    ):
        figure, ax = plt.subplots()
        draw(ax)
        yield figure


def test_figures_fit_the_page_and_their_text_can_be_read():
    for figure in everything_drawn():
        figure.canvas.draw()
        assert figure.get_size_inches()[0] <= 8.4
        sizes = {text.get_text(): text.get_fontsize() for text in figure.findobj(Text) if text.get_text()}
        assert sizes
        assert min(sizes.values()) >= 8, sizes


def test_every_result_is_shown_also_in_a_second_row():
    figure = plots.results(
        pictures(1)[0], pictures(15), range(15), [True] * 14 + [False], "cat", list("abcdefghijklmno")
    )
    shown = [ax for ax in figure.axes if ax.axison]
    assert [ax.get_title() for ax in shown] == ["query\ncat"] + [
        f"{d} bit{'' if d == 1 else 's'}\n{title}" for d, title in enumerate("abcdefghijklmno")
    ]
    assert [ax.get_xlabel() for ax in shown] == [""] + ["right"] * 14 + ["wrong"]


def test_distances_are_two_piles_of_shares():
    _, ax = plt.subplots()
    plots.distances(ax, np.array([0, 1, 1, 3, 4]), np.array([True, True, True, False, False]), 4, title="mine")
    similar, dissimilar = ([bar.get_height() for bar in pile] for pile in ax.containers)
    assert similar == pytest.approx([1 / 3, 2 / 3, 0, 0, 0])
    assert dissimilar == pytest.approx([0, 0, 0, 1 / 2, 1 / 2])
    assert [bar.get_x() + bar.get_width() / 2 for bar in ax.containers[0]] == pytest.approx(range(5))
    assert list(ax.lines[0].get_xdata()) == [2, 2]  # half of the bits
    assert ax.get_title() == "mine"


def test_names_of_classes_are_set_as_they_are_written():
    """Two dollar signs would be a formula, or an error that stops the page."""
    names = ["Ba$$in", "$\\frac$", "a$b$c", "x_{y"]
    sheet = plots.contact_sheet(np.zeros((4, 3, 8, 8), np.uint8), names)
    figure, ax = plt.subplots()
    plots.grouped_counts(ax, {"query": np.arange(4)}, names)
    for drawn in (sheet, figure):
        drawn.savefig(io.BytesIO())
        plt.close(drawn)
    drawn = [text for text in [ax.title for ax in sheet.axes] + ax.get_xticklabels() if text.get_text()]
    assert [text.get_text() for text in drawn] == 2 * names
    assert not any(text.get_parse_math() for text in drawn)


def test_only_fonts_that_are_installed_are_offered():
    plots.theme()
    first, *more = plt.rcParams["font.family"]
    assert first == "sans-serif"
    assert set(more) == set(plots.MORE_LETTERS) & {font.name for font in font_manager.fontManager.ttflist}
