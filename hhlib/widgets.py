"""Menus over a plain drawing function. The only file that imports ipywidgets."""

import itertools
from collections.abc import Callable, Iterable


def explore(view: Callable, *, live: bool, static: int = 1, **choices: Iterable) -> None:
    """Call ``view(**values)``: with menus when `live`, else plainly, so that the figure is ordinary output.

    A view is a function of plain values that draws from what is already computed, and returns nothing. Headless runs
    use ``live=False``: an error or a figure inside a widget's callback would be lost there.

    Args:
        view: keyword arguments as in `choices`.
        live: menus, or plain figures.
        static: how many combinations of choices are drawn when not live, in order.
        choices: the values of each argument. A range becomes a slider, anything else a menu; what leaves no choice
            gets no control.
    """
    empty = [name for name, values in choices.items() if len(values) == 0]
    if empty:
        raise ValueError(f"there is nothing to choose for {', '.join(empty)}.")
    if not live:
        for values in itertools.islice(itertools.product(*choices.values()), static):
            view(**dict(zip(choices, values, strict=True)))
        return
    from ipywidgets import interact

    interact(view, **{name: _control(name, values) for name, values in choices.items()})


def _control(name: str, values: Iterable):
    from ipywidgets import Dropdown, SelectionSlider, fixed

    if len(values) == 1:
        return fixed(values[0])
    kind = SelectionSlider if isinstance(values, range) else Dropdown
    label = name.replace("_", " ")
    arguments = {"continuous_update": False} if kind is SelectionSlider else {}
    return kind(
        options=list(values), value=values[0], description=label, style={"description_width": "initial"}, **arguments
    )


def redrawn(draw: Callable) -> Callable:
    """A function that shows the figure ``draw(value)``, each time in the place of the one before."""
    from IPython.display import display
    from matplotlib import pyplot

    place = None

    def show(value) -> None:
        nonlocal place
        figure = draw(value)
        if place is None:
            place = display(figure, display_id=True)
        else:
            place.update(figure)
        pyplot.close(figure)

    return show


def upload(view: Callable, *, live: bool) -> None:
    """A button for the reader's own picture, which ``view(picture)`` gets, opened by Pillow; nothing when not live."""
    if not live:
        return
    from io import BytesIO

    from IPython.display import display
    from ipywidgets import FileUpload, Output
    from PIL import Image

    button, place = FileUpload(accept="image/*", description="a picture"), Output()

    def show(change) -> None:
        place.clear_output(wait=True)
        with place, Image.open(BytesIO(change["new"][0]["content"])) as picture:
            view(picture)

    button.observe(show, names="value")
    display(button, place)
