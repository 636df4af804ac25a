"""Menus over a plain drawing function. The only file that imports ipywidgets."""

from base64 import b64encode
from collections.abc import Callable, Sequence
from html import escape
from io import BytesIO

from IPython import display
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from ipywidgets import BoundedIntText, Dropdown, FileUpload, Output, fixed, interact
from matplotlib import pyplot
from PIL import Image

from hhlib.data.files import FORMATS, Unusable, read_picture

SHARP = 2  #: pixels of a picture per pixel of the page, for fine screens
MARGIN = 4  #: pixels of white around a figure, which is all that parts it from a dark page


def explore(view: Callable, *, live: bool, **choices: Sequence) -> None:
    """Call ``view(**values)``: with menus if `live`, else plainly, so that the figure is ordinary output.

    A view is a function of plain values that draws from what is already computed, and returns nothing. `choices` are
    the values of each of its keyword arguments; see `control`. Headless runs use ``live=False``, which draws the first
    of each: an error or a figure inside a widget's callback would be lost there.
    """
    if empty := [name for name, values in choices.items() if len(values) == 0]:
        raise ValueError(f"there is nothing to choose for {', '.join(empty)}.")
    if not live:
        view(**{name: values[0] for name, values in choices.items()})
    else:
        controls = {name: control(name, values) for name, values in choices.items()}
        interact(lambda **values: _at_once(view, values), **controls)


def _at_once(view: Callable, values: dict) -> None:
    """Call a view, and show its lines, tables and figures as one: a page jumps if they come one after the other."""
    with capture_output(stderr=False) as shown:
        view(**values)
    parts = [{"text/plain": shown.stdout}] if shown.stdout else []
    parts += [output.data for output in shown.outputs]
    html = [part.get("text/html") or f"<pre>{escape(part['text/plain'])}</pre>" for part in parts]
    display.display(display.HTML("".join(html)))


def control(name: str, values: Sequence):
    """The widget for one argument of a view: a menu, or a number field for a range of step 1; none for one value.

    Both have a name for a screen reader, which sliders do not have.
    """
    if len(values) == 1:
        return fixed(values[0])
    label = name.replace("_", " ")
    how = dict(description=label, tooltip=f"choose {label}", value=values[0])
    how |= dict(style={"description_width": "8em"}, layout={"width": "36em", "max_width": "98%"})
    if isinstance(values, range) and values.step == 1:
        return BoundedIntText(min=values[0], max=values[-1], **how)
    return Dropdown(options=list(values), **how)


def rendered(figure, caption: str = "") -> dict[str, str]:
    """A figure as what a page shows: a picture with its caption below, which is also its text for a screen reader."""
    picture = BytesIO()
    figure.savefig(picture, dpi=SHARP * figure.dpi, bbox_inches="tight", pad_inches=0)
    pyplot.close(figure)
    width, height = (side // SHARP + 2 * MARGIN for side in Image.open(picture).size)  # both: its place is kept free
    source = f"data:image/png;base64,{b64encode(picture.getvalue()).decode()}"
    style = f"box-sizing: border-box; max-width: 100%; height: auto; padding: {MARGIN}px; background: white"
    image = f'<img src="{source}" width="{width}" height="{height}" style="{style}" alt="{escape(caption)}">'
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    html = f'<figure style="margin: 0.5em 0 0">{image}{below}</figure>'
    return {"text/html": html, "text/plain": caption or "a figure"}


def show(figure, caption: str = "") -> None:
    """Show a figure: in a notebook with its caption, elsewhere in a window if there is one."""
    if InteractiveShell.initialized():
        display.display(rendered(figure, caption), raw=True)
    else:
        pyplot.show()


def redrawn(draw: Callable, caption: str = "") -> Callable:
    """A function that shows the figure ``draw(value)``, each time in place of the one before."""
    place = None

    def show(value) -> None:
        nonlocal place
        bundle = rendered(draw(value), caption)
        if place is None:
            place = display.display(bundle, raw=True, display_id=True)
        else:
            place.update(bundle, raw=True)

    return show


def upload(view: Callable, *, live: bool) -> None:
    """A button for the reader's own picture, which Pillow opens for ``view(picture)``; nothing if not live."""
    if not live:
        return
    button = FileUpload(accept="image/*", description="a picture", tooltip="choose a picture of your own")
    place = Output()
    place.append_stdout("Up to 10 MB, and up to 100 MB in a JupyterLab started by `make lab`.")

    def show(change) -> None:
        place.clear_output(wait=True)
        file = change["new"][0]
        with place:
            try:
                read_picture(BytesIO(file["content"]), 1)  # whatever is wrong with it shows here
            except Unusable as error:
                print(f"{file['name']} is {error}.")
                return
            with Image.open(BytesIO(file["content"]), formats=FORMATS) as picture:
                view(picture)

    button.observe(show, names="value")
    display.display(button, place)
