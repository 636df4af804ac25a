"""Write a page on which kept codes can be explored in any browser, without an installation.

    python tools/explorer.py [--data-dir data] [--to book/explorer/index.html]

The page is one file and asks the network for nothing. It holds codes, classes and small pictures of kept runs; those of
CIFAR-10 only if it is in the data folder. Its JavaScript, `explorer.js`, computes distances and average precision.
"""

import argparse
import base64
import io
import json
import sys
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

import hhlib as hh
from hhlib.common import atomic, command, resolve

HERE = Path(__file__).parent
PAGE = HERE.parent / "book" / "explorer" / "index.html"
COLUMNS = 40  #: pictures per row of a sheet
#: Kept runs, with how many queries and database images of each are shown, evenly spaced; None: all.
SHOWN = {"digits-32bits": (None, None), "cifar10-64bits": (60, 1000)}


@command
def main() -> int:
    """Write the page; 2 if not even the first run can be shown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data", help="folder with downloaded data sets (default: data)")
    parser.add_argument("--to", type=Path, default=PAGE, help="the file to write")
    given = parser.parse_args()
    sets = []
    for name, numbers in SHOWN.items():
        try:
            sets.append(content(hh.kept(name, data_dir=given.data_dir, live=False), *numbers))
        except FileNotFoundError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    if not sets:
        return 2
    with atomic(resolve(given.to)) as draft:
        draft.write_text(page(sets), encoding="utf-8")
    print(f"{given.to}: {', '.join(each['name'] for each in sets)}, {resolve(given.to).stat().st_size / 1e6:.2f} MB")
    return 0


def page(sets: list[dict]) -> str:
    """The page, with everything in it."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True)
    script = (HERE / "explorer.js").read_text(encoding="utf-8")
    held = json.dumps(sets, separators=(",", ":")).replace("<", "\\u003c")  # no tag inside a script
    return environment.get_template("explorer.html.j2").render(script=script, held=held)


def content(ex: hh.Experiment, queries: int | None, database: int | None) -> dict:
    """What the page holds of a run: codes, classes, and one sheet with the pictures, queries first.

    Raises:
        FileNotFoundError: if the pictures are not there.
        ValueError: if they are not those of the run, or have several labels.
    """
    if ex.split.fingerprint() != ex.run.record["data"]["fingerprint"]:
        raise ValueError(f"{ex.run.path} was trained on another split of {ex.split.name}.")
    codes, found, pictures, told = ex.run.codes(), {}, [], []
    for part, wanted in (("query", queries), ("database", database)):
        packed, labels = codes[f"{part}_codes"], codes[f"{part}_labels"]
        if (labels.sum(axis=1) != 1).any():
            raise ValueError(f"{ex.run.path} has images with several labels, but the page knows one class per image.")
        rows = np.linspace(0, len(packed) - 1, wanted or len(packed)).astype(int)
        found[part] = {"codes": encoded(packed[rows].tobytes()), "classes": labels[rows].argmax(axis=1).tolist()}
        pictures.append(ex.split.parts()[part].batch(rows)[0].numpy())
        told.append(f"{len(rows):,}" + (f" of {len(packed):,}" if len(rows) < len(packed) else ""))
    s, sheet = ex.settings, sheet_of(np.concatenate(pictures))
    about = f"{s.dataset}: {s.method}, {s.network} network, {s.bits} bits, seed {s.seed}"
    about += f"; {told[0]} queries and {told[1]} database images."
    look = {"sheet": f"data:image/webp;base64,{encoded(sheet)}", "columns": COLUMNS, "names": ex.split.classes}
    return {"name": f"{s.dataset}, {s.bits} bits", "about": about, "bits": s.bits} | found | look


def sheet_of(images: np.ndarray) -> bytes:
    """Pictures (n, 3, S, S) uint8 -> one WebP picture with `COLUMNS` of them per row."""
    n, _, side, _ = images.shape
    rows = -(-n // COLUMNS)
    cells = np.zeros((rows * COLUMNS, side, side, 3), np.uint8)
    cells[:n] = images.transpose(0, 2, 3, 1)
    sheet = cells.reshape(rows, COLUMNS, side, side, 3).swapaxes(1, 2).reshape(rows * side, COLUMNS * side, 3)
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "WEBP", quality=65, method=6)
    return file.getvalue()


def encoded(raw: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(raw).decode()


if __name__ == "__main__":
    sys.exit(main())
