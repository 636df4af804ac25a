"""The page of kept codes: what it holds, and that its JavaScript scores as hhlib does."""

import base64
import json
import re
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hhlib as hh

PROJECT = Path(__file__).parent.parent
PAGE = PROJECT / "book" / "explorer" / "index.html"
TEXT = PAGE.read_text(encoding="utf-8")
SETS = json.loads(re.search(r'<script type="application/json" id="held">(.+?)</script>', TEXT)[1])


def codes_of(held, part):
    """Codes (n, K) of -1 and +1 and classes (n,) that the page holds."""
    packed = np.frombuffer(base64.b64decode(held[part]["codes"]), np.uint8).reshape(-1, -(-held["bits"] // 8))
    return hh.retrieval.unpack(packed, held["bits"]), np.array(held[part]["classes"])


def test_the_page_is_one_small_file_that_asks_for_nothing_and_has_the_present_script():
    assert len(TEXT) < 1_000_000
    assert not re.findall(r"https?://|<link|<img|src=|@import|fetch\(", TEXT)
    assert (PROJECT / "tools" / "explorer.js").read_text(encoding="utf-8") in TEXT
    style = re.search(r"<style>.+?</style>", (PROJECT / "tools" / "explorer.html.j2").read_text(), re.DOTALL)[0]
    assert style in TEXT


@pytest.mark.parametrize("number", range(len(SETS)))
def test_the_page_holds_the_kept_codes(number, from_tools):
    name, wanted = list(from_tools("explorer").SHOWN.items())[number]
    kept = hh.runs.kept(name).codes()
    for part, most in zip(("query", "database"), wanted, strict=True):
        signs, classes = codes_of(SETS[number], part)
        rows = np.linspace(0, len(kept[f"{part}_codes"]) - 1, len(signs)).astype(int)
        assert len(rows) == (most or len(kept[f"{part}_codes"]))
        assert (hh.retrieval.pack(signs) == kept[f"{part}_codes"][rows]).all()
        assert (np.eye(10)[classes] == kept[f"{part}_labels"][rows]).all()


def test_a_sheet_holds_the_pictures_row_by_row(from_tools):
    tool = from_tools("explorer")
    images = np.zeros((tool.COLUMNS + 2, 3, 16, 16), np.uint8)
    images[1, 0], images[tool.COLUMNS, 2] = 255, 255  # the second is red, the first of the second row blue
    sheet = np.asarray(Image.open(BytesIO(tool.sheet_of(images))).convert("RGB")).astype(int)
    assert sheet.shape == (32, 16 * tool.COLUMNS, 3)
    assert [sheet[8, 24].argmax(), sheet[24, 8].argmax()] == [0, 2]
    assert sheet[8, 8].max() < 60


@pytest.fixture(scope="module")
def browser():
    """Chromium, if there is one that playwright can drive."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        try:
            how = dict(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
            opened = driver.chromium.launch(**how)
        except playwright.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


SCORE = """([number, bits]) => {
  const held = JSON.parse(document.getElementById("held").textContent)[number], e = explorer;
  const asked = e.unpack(held.query.codes, held.bits), stored = e.unpack(held.database.codes, held.bits);
  return held.query.classes.map((wanted, row) => {
    const found = e.distances(e.bitsOf(asked, row, held.bits).slice(0, bits), stored);
    const ap = e.averagePrecision(e.histograms(found, held.database.classes.map((c) => c === wanted), bits));
    return [ap.expected, ap.worst, ap.best];
  });
}"""


def test_the_script_scores_as_the_library_does(browser):
    page = browser.new_page()
    page.goto(PAGE.as_uri())
    for number, held in enumerate(SETS):
        (q, q_classes), (d, d_classes) = (codes_of(held, part) for part in ("query", "database"))
        for bits in (3, held["bits"]):
            ap = hh.metrics.evaluate(q[:, :bits], q_classes, d[:, :bits], d_classes)["ap"]
            expected = np.stack([ap[name] for name in ("expected", "worst", "best")], axis=1)
            np.testing.assert_allclose(page.evaluate(SCORE, [number, bits]), expected, atol=1e-9, rtol=0)
    page.close()


def test_bits_are_flipped_by_mouse_and_keyboard_and_the_neighbours_follow(browser):
    page, wrong = browser.new_page(viewport={"width": 390, "height": 800}), []
    page.on("pageerror", lambda error: wrong.append(error))
    page.on("request", lambda request: wrong.append(request.url) if request.url[:4] not in ("file", "data") else None)
    page.goto(PAGE.as_uri())
    before, bits = page.inner_text("#said"), page.locator(".bit")
    assert bits.count() == SETS[0]["bits"]
    bits.nth(2).click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    assert page.inner_text("#flips") == "2 flipped"
    assert bits.nth(3).get_attribute("aria-label").endswith("flipped")
    assert page.inner_text("#said") != before
    page.click("#reset")
    assert page.inner_text("#said") == before
    page.focus("#used")
    page.keyboard.press("Home")  # only the first bit is used: two distances
    assert page.locator("#found section").count() <= 2
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert wrong == []
    page.close()
