"""The examples in docstrings give what they say, and the Python code of README files and of the book runs."""

import ast
import doctest
import importlib
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PROJECT = Path(__file__).parent.parent
FILES = [*PROJECT.glob("README.md"), *PROJECT.glob("[bd]*/*.md"), PROJECT / "results" / "README.md"]
EXAMPLES = [path for path in sorted((PROJECT / "hhlib").rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]
#: code that needs what is not at hand: a word of it, and what that is
EXCUSED = {'"coco"': "20 GB", '"cifar10"': "170 MB", "mlcroissant": "a split of it", "ROCrate": "a run of it"}
#: what takes long as it stands, and what is run in its place
SHORT = {'hh.open(dataset="digits"': 'hh.open("epochs=1 image_size=16", dataset="digits"'}
SHORT |= {'hh.open("image_size=64"': 'hh.open("epochs=1 image_size=64"'}
PYTHON = re.compile(r"```python\n(.*?)```|((?:^ {4}[^\n]*\n|^\n(?= {4}))+)", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_examples_of_docstrings_give_what_they_say(path):
    module = importlib.import_module(
        ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")
    )
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def code_of(path: Path) -> list[str]:
    """The Python code that a text shows: blocks of whole statements, with a call in them."""
    blocks = (textwrap.dedent(fenced or indented) for fenced, indented in PYTHON.findall(path.read_text("utf-8")))
    return [block for block in blocks if is_python(block)]


def is_python(block: str) -> bool:
    try:
        return any(isinstance(node, ast.Call) for node in ast.walk(ast.parse(block)))
    except SyntaxError:
        return False


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The folders and pictures that the texts speak of, in the folder where the code runs."""
    rng = np.random.default_rng(0)
    files = [f"animals/{name}/{i}.jpg" for name in ("cat", "cow", "dog") for i in range(12)]
    files += [f"holidays/{i}.jpg" for i in range(12)]
    for name in (*files, "holidays/blurred.jpg", "more/1.jpg", "a.jpg", "b.jpg", "new.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("path", [path for path in FILES if code_of(path)], ids=lambda p: str(p.relative_to(PROJECT)))
def test_the_code_of_a_text_runs(path, folders):
    """In its order, as a reader would type it, but for `SHORT`."""
    names = {"__name__": "__main__"}
    exec("import hhlib as hh", names)
    for block in code_of(path):
        if not any(word in block for word in EXCUSED):
            for long, short in SHORT.items():
                block = block.replace(long, short)
            exec(compile(block, str(path), "exec"), names)


def test_all_that_is_excused_or_made_short_is_there():
    blocks = "\n".join(block for path in FILES for block in code_of(path))
    assert [word for word in (*EXCUSED, *SHORT) if word not in blocks] == []
