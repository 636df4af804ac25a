"""Menus over a plain drawing function. The only file that imports ipywidgets."""

import itertools
from collections.abc import Callable, Iterable
from io import BytesIO

from IPython import display
from ipywidgets import Dropdown, FileUpload, Output, SelectionSlider, fixed, interact
from matplotlib import pyplot
from PIL import Image


def explore(view: Callable, *, live: bool, static: int = 1, **choices: Iterable) -> None:
    """Call ``view(**values)``: with menus if `live`, else plainly, so that the figure is ordinary output.

    A view is a function of plain values that draws from what is already computed, and returns nothing. `choices` are
    the values of each of its keyword arguments; see `control`. Headless runs use ``live=False``, which draws the first
    `static` combinations: an error or a figure inside a widget's callback would be lost there.
    """
    if empty := [name for name, values in choices.items() if len(values) == 0]:
        raise ValueError(f"there is nothing to choose for {', '.join(empty)}.")
    if not live:
        for values in itertools.islice(itertools.product(*choices.values()), static):
            view(**dict(zip(choices, values, strict=True)))
    else:
        interact(view, **{name: control(name, values) for name, values in choices.items()})


def control(name: str, values: Iterable):
    """The widget for one argument of a view: a slider for a range, else a menu; no control (`fixed`) for one value."""
    if len(values) == 1:
        return fixed(values[0])
    label, slider = name.replace("_", " "), isinstance(values, range)
    how = dict(description=label, tooltip=f"choose {label}", style={"description_width": "initial"})
    how |= {"continuous_update": False} if slider else {}
    return (SelectionSlider if slider else Dropdown)(options=list(values), value=values[0], **how)


def redrawn(draw: Callable) -> Callable:
    """A function that shows the figure ``draw(value)``, each time in place of the one before."""
    place = None

    def show(value) -> None:
        nonlocal place
        figure = draw(value)
        if place is None:
            place = display.display(figure, display_id=True)
        else:
            place.update(figure)
        pyplot.close(figure)

    return show


def upload(view: Callable, *, live: bool) -> None:
    """A button for the reader's own picture, which Pillow opens for ``view(picture)``; nothing if not live."""
    if not live:
        return
    button = FileUpload(accept="image/*", description="a picture", tooltip="choose a picture of your own")
    place = Output()

    def show(change) -> None:
        place.clear_output(wait=True)
        with place, Image.open(BytesIO(change["new"][0]["content"])) as picture:
            view(picture)

    button.observe(show, names="value")
    display.display(button, place)
