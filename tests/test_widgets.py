import re
from base64 import b64decode
from datetime import UTC, datetime
from io import BytesIO

import matplotlib.pyplot as plt
import pytest
from PIL import Image

from hhlib import widgets


def test_without_menus_the_view_is_called_plainly_for_the_first_choices():
    calls = []
    widgets.explore(lambda **values: calls.append(values), live=False, bits=[16, 32], dataset=["a", "b"])
    assert calls == [{"bits": 16, "dataset": "a"}]


def test_without_menus_an_error_in_the_view_is_an_error():
    def broken(bits):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        widgets.explore(broken, live=False, bits=[16])


def test_there_is_a_control_only_where_there_is_a_choice_and_it_has_a_name():
    controls = [widgets.control("first_bits", values) for values in (range(4), [16, 32], [16])]
    assert [type(control).__name__ for control in controls] == ["BoundedIntText", "Dropdown", "fixed"]
    assert [control.value for control in controls] == [0, 16, 16]
    assert {control.tooltip for control in controls[:2]} == {"choose first bits"}


def test_nothing_to_choose_is_an_error():
    with pytest.raises(ValueError, match="nothing to choose for dataset"):
        widgets.explore(print, live=True, bits=[1], dataset=[])


def test_a_figure_is_redrawn_in_its_place(monkeypatch):
    shown, updated = [], []

    class Place:
        @staticmethod
        def update(figure, raw):
            updated.append(figure)

    def display(figure, raw, display_id):
        shown.append(figure)
        return Place

    monkeypatch.setattr("IPython.display.display", display)
    show = widgets.redrawn(lambda title: plt.figure(title))
    before = plt.get_fignums()
    for title in ("first", "second", "third"):
        show(title)
    assert [len(shown), len(updated)] == [1, 2]
    assert plt.get_fignums() == before  # none stays open


def test_a_figure_is_shown_with_its_caption_as_its_text(monkeypatch):
    figure, ax = plt.subplots(figsize=(3, 2), dpi=100, layout="none")
    html = widgets.rendered(figure, 'Distances "d" < 4')["text/html"]
    caption = "Distances &quot;d&quot; &lt; 4"
    assert f'alt="{caption}"' in html
    assert f"<figcaption>{caption}</figcaption>" in html
    picture = Image.open(BytesIO(b64decode(re.search(r"base64,([^\"]+)", html)[1])))
    assert picture.width // 2 + 8 == int(re.search(r'width="(\d+)"', html)[1])  # twice as fine, and a margin
    assert not plt.fignum_exists(figure.number)


def test_an_uploaded_picture_reaches_the_view_and_any_other_file_is_refused(monkeypatch, capsys):
    shown, sizes = [], []
    monkeypatch.setattr("IPython.display.display", lambda *parts: shown.extend(parts))
    widgets.upload(lambda picture: sizes.append(picture.size), live=False)
    assert shown == []
    widgets.upload(lambda picture: sizes.append(picture.size), live=True)
    png = BytesIO()
    Image.new("RGB", (5, 3)).save(png, "PNG")
    facts = dict(name="own.png", type="image/png", size=len(png.getvalue()), last_modified=datetime.now(UTC))
    shown[0].value = (facts | {"content": memoryview(png.getvalue())},)
    assert sizes == [(5, 3)]
    for name, content, reason in [
        ("own.txt", b"not a picture", "no JPEG, PNG"),
        ("half.png", png.getvalue()[:45], "damaged or cut short"),
    ]:
        shown[0].value = (facts | {"name": name, "content": memoryview(content)},)
        assert f"{name} is {reason}" in capsys.readouterr().out
    assert sizes == [(5, 3)]
