"""Every page in JupyterLab: it runs, what it shows fits and has a text, and its controls move its figures."""

from io import BytesIO

import numpy as np
import pytest
from conftest import NOTEBOOKS
from lab import BROKEN, FAINT, FAST, WIDE, move
from PIL import Image, ImageOps
from playwright.sync_api import expect
from sklearn.datasets import load_digits

LINE = 24  #: pixels; a caption may need a line more
GROWING = {"13_reproduction"}  #: pages with a figure that has a line for each of very many, or few, methods
PAGES = [pytest.param(path.name, id=path.stem) for path in NOTEBOOKS]


@pytest.fixture(scope="module", params=PAGES)
def lab(request, opened):
    """A page whose cells have all run."""
    with opened(request.param) as page:
        page.run()
        yield page


def test_it_runs_and_every_figure_has_a_text(lab):
    lab.screenshot("light")
    assert lab.trouble() == []
    texts = lab.figures().evaluate_all("figures => figures.map(figure => figure.alt)")
    assert len(texts) >= 3
    assert all(texts)


def test_no_word_is_broken_and_nothing_scrolls_sideways(lab):
    broken, wide = lab.tab.evaluate(BROKEN), lab.tab.evaluate(WIDE)
    assert not broken + wide, broken + wide
    lab.resize(1280 * 2 // 3)  # what is left of it at 150 %
    lab.screenshot("enlarged")
    wide = lab.tab.evaluate(WIDE)
    lab.resize(1280)
    assert not wide, wide


def test_on_a_phone_no_figure_is_wider_than_the_window(lab):
    lab.resize(390)
    lab.screenshot("phone")
    widths = lab.figures().evaluate_all("figures => figures.map(figure => figure.getBoundingClientRect().right)")
    lab.resize(1280)
    assert max(widths) <= 390


def test_in_the_dark_theme_all_words_can_be_read(lab):
    lab.theme("JupyterLab Dark")
    lab.screenshot("dark")
    faint = lab.tab.evaluate(FAINT)
    lab.theme("JupyterLab Light")
    assert not faint, faint


def by_mouse(control):
    """A click opens a menu, whose next entry is taken; the upper arrow of a number field adds one."""
    if control.evaluate("control => control.tagName") == "SELECT":
        control.click()
        choose(control, "ArrowDown")
    else:
        control.hover()
        box = control.bounding_box()
        control.click(position={"x": box["width"] - 10, "y": box["height"] / 4})


def by_keyboard(control):
    """Back to where it was. Space opens a menu; JupyterLab keeps the arrow keys to itself while it is closed."""
    if control.evaluate("control => control.tagName") == "SELECT":
        control.press("Space")
        choose(control, "ArrowUp")
    else:
        control.press("ArrowDown")


def choose(control, key):
    """Move by one in a menu that is open, and take what is there."""
    control.page.keyboard.press(key)
    control.page.keyboard.press("Enter")


def test_every_control_has_a_name_and_moves_its_figure_which_keeps_its_height(lab):
    controls = lab.controls()
    assert controls
    for number, control in enumerate(controls):
        name = control.aria_snapshot().splitlines()[0]
        assert '"' in name, f"control {number} has no name: {name}"
        for how in (by_mouse, by_keyboard):
            first, *between, last = move(lab, control, how)
            lab.screenshot(f"{number}-{how.__name__}", lab.cell_of(control))
            change = f"{name}, {how.__name__}: {first} {between} {last}"
            assert min(between, default=last) >= min(first, last) - LINE, f"the page collapses: {change}"
            assert abs(last - first) <= LINE or lab.name in GROWING, f"the page jumps: {change}"
    assert lab.trouble() == []


@pytest.mark.parametrize("lab", PAGES[:1], indirect=True)
def test_the_menu_of_the_bar_says_how_to_open_another_run(lab):
    menu = lab.bar().locator("select")
    assert '"' in menu.aria_snapshot().splitlines()[0]
    by_mouse(menu)
    expect(lab.bar()).to_contain_text("bits: int = 8", timeout=FAST)
    lab.screenshot("bar", lab.bar())


def digit(side=64):
    """A white digit on black, like the pages' own."""
    image = load_digits().images[3] / 16 * 255  # (8, 8)
    return Image.fromarray(image.astype(np.uint8)).resize((side, side))


def file(name, picture):
    """A picture as the file chooser wants it."""
    content = BytesIO()
    picture.save(content, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": content.getvalue()}


def photograph():
    """A picture of 12 MB: noise cannot be packed."""
    noise = np.random.default_rng(0).integers(256, size=(2000, 2000, 3), dtype=np.uint8)
    return file("large.png", Image.fromarray(noise))


UPLOADS = {
    "small": (file("small.png", digit()), "Your picture, what its code"),
    "negative": (file("negative.png", ImageOps.invert(digit())), "try the negative"),
    "no picture": ({"name": "notes.png", "mimeType": "image/png", "buffer": b"words"}, "notes.png is no JPEG"),
    "large": (photograph(), "Your picture, what its code"),
}


@pytest.mark.parametrize("lab", [page for page in PAGES if "07" in page.id], indirect=True)
@pytest.mark.parametrize("name", UPLOADS)
def test_an_own_picture_is_shown_or_refused_in_a_sentence(lab, name):
    what, answer = UPLOADS[name]
    button = lab.tab.locator("button.widget-upload")
    with lab.tab.expect_file_chooser() as chooser:
        button.click()
    chooser.value.set_files(what)
    expect(lab.cell_of(button)).to_contain_text(answer, timeout=FAST)
    lab.wait_until_idle()
    lab.screenshot(f"upload-{name}", lab.cell_of(button))
    assert lab.trouble() == []
