import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

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


def test_importance_spans_its_own_scale_even_if_nothing_is_important():
    image = np.zeros((3, 8, 8), dtype=np.uint8)
    _, ax = plt.subplots()
    assert plots.importance(ax, image, np.linspace(-2, 3, 64).reshape(8, 8)).get_clim() == (-2, 3)
    assert plots.importance(ax, image, np.zeros((8, 8))).get_clim() == (0, 1)
