"""Menus over a plain drawing function. The only file that imports ipywidgets."""

import itertools
from collections.abc import Callable, Iterable


def explore(view: Callable, *, live: bool, static: int = 1, **choices: Iterable) -> None:
    """Call ``view(**values)``: with menus if `live`, else plainly, so that the figure is ordinary output.

    A view is a function of plain values that draws from what is already computed, and returns nothing. Headless runs
    use ``live=False``: an error or a figure inside a widget's callback would be lost there.

    Args:
        view: takes `choices` as keyword arguments.
        live: menus, or plain figures.
        static: how many combinations of choices are drawn if not live, in order.
        choices: the values of each argument. A range becomes a slider, anything else a menu, one value no control.
    """
    empty = [name for name, values in choices.items() if len(values) == 0]
    if empty:
        raise ValueError(f"there is nothing to choose for {', '.join(empty)}.")
    if not live:
        for values in itertools.islice(itertools.product(*choices.values()), static):
            view(**dict(zip(choices, values, strict=True)))
        return
    from ipywidgets import interact

    interact(view, **{name: control(name, values) for name, values in choices.items()})


def control(name: str, values: Iterable):
    """The widget for one argument of a view: a slider for a range, a menu, or ipywidgets' `fixed` value."""
    from ipywidgets import Dropdown, SelectionSlider, fixed

    if len(values) == 1:
        return fixed(values[0])
    label, slider = name.replace("_", " "), isinstance(values, range)
    how = dict(description=label, tooltip=f"choose {label}", style={"description_width": "initial"})
    how |= {"continuous_update": False} if slider else {}
    return (SelectionSlider if slider else Dropdown)(options=list(values), value=values[0], **how)


def redrawn(draw: Callable) -> Callable:
    """A function that shows the figure ``draw(value)``, each time in place of the one before."""
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
    """A button for the reader's own picture, which Pillow opens for ``view(picture)``; nothing if not live."""
    if not live:
        return
    from io import BytesIO

    from IPython.display import display
    from ipywidgets import FileUpload, Output
    from PIL import Image

    button = FileUpload(accept="image/*", description="a picture", tooltip="choose a picture of your own")
    place = Output()

    def show(change) -> None:
        place.clear_output(wait=True)
        with place, Image.open(BytesIO(change["new"][0]["content"])) as picture:
            view(picture)

    button.observe(show, names="value")
    display(button, place)
