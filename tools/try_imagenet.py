"""Try the ImageNet batch without ImageNet: on made pictures in the official layout, from a made file of weights.

    python tools/try_imagenet.py [--lists FOLDER]

It makes, in a temporary folder, `imagenet/train/<class>/*.JPEG` and `imagenet/val/<class>/*.JPEG` with small pictures
of all 100 classes, lists in the published format (or takes the published lists), and the file that timm would fetch
for NesT-B, with random numbers. Then it calls, as the owner of a GPU would: the dry run without the weights, which must
name them; the dry run with a picture missing, which must name it; the dry run; and the batch, at 64 pixels for one
epoch. What comes out says nothing about ImageNet: it shows that every step from the lists to the table works.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import timm
from PIL import Image
from run_notebooks import PROJECT
from safetensors.torch import save_file
from timm.models import get_pretrained_cfg

import hhlib as hh
from hhlib.common import command
from hhlib.data.lists import LIST_NAMES, write_list
from hhlib.data.sources.imagenet import SYNSETS

#: Pictures per class in the made lists; the training ones are in the database too, as in the published lists.
EACH = {"train": 2, "database": 5, "query": 1}
QUICK = ["-p", "image_size", "64", "-p", "epochs", "1"]


def listed(folder: Path) -> dict[str, list[tuple[str, int]]]:
    """Made lists in the published format -> path and class of each picture, by part."""
    parts = {}
    for part, count in EACH.items():
        name = "val_image/ILSVRC2012_val_{:08d}.JPEG" if part == "query" else "image/{}_{}.JPEG"
        each = [(synset, i) for synset in SYNSETS for i in range(count)]
        paths = [name.format(row + 1) if part == "query" else name.format(*one) for row, one in enumerate(each)]
        numbers = [SYNSETS.index(synset) for synset, _ in each]
        write_list(folder / LIST_NAMES[part], paths, np.eye(len(SYNSETS), dtype=np.uint8)[numbers])
        parts[part] = list(zip(paths, numbers, strict=True))
    return parts


def published(folder: Path) -> dict[str, list[tuple[str, int]]]:
    """The same, from published lists."""
    lists = {part: hh.data.read_list(file) for part, file in hh.data.find_lists(folder).items()}
    return {part: list(zip(x.paths, x.labels.argmax(axis=1).tolist(), strict=True)) for part, x in lists.items()}


def pictures(root: Path, parts: dict[str, list[tuple[str, int]]]) -> int:
    """Small pictures in the official layout, one file per class that all its names link to -> how many names."""
    rng, names = np.random.default_rng(0), set()
    for part in ("query", "database", "train"):
        names |= {("val" if part == "query" else "train", Path(path).name, c) for path, c in parts[part]}
    first = {}
    for kind, name, c in sorted(names):
        folder = root / "imagenet" / kind / SYNSETS[c]
        folder.mkdir(parents=True, exist_ok=True)
        if c not in first:
            first[c] = folder / name
            noise = rng.normal(0, 20, (48, 64, 3)) + rng.uniform(40, 200, 3)
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(first[c], "JPEG")
        else:
            os.link(first[c], folder / name)
    return len(names)


def weights(home: Path) -> Path:
    """A file of random numbers where timm looks for the weights of NesT-B that it has fetched -> the file."""
    folder = home / "hub" / f"models--{get_pretrained_cfg('nest_base_jx').hf_hub_id.replace('/', '--')}"
    file = folder / "snapshots" / ("0" * 40) / "model.safetensors"
    file.parent.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    save_file(timm.create_model("nest_base_jx").state_dict(), file)
    return file


def batch(folder: Path, lists: Path, *more: str) -> tuple[int, str]:
    """Call the batch -> its exit code and what it printed."""
    where = dict(data_dir=folder, lists=lists, runs_dir=folder / "runs")
    words = sum((["-p", name, str(value)] for name, value in where.items()), [])
    command = [sys.executable, "tools/batch.py", "batches/imagenet.yml", *words, *more]
    home = {"HF_HOME": str(folder / "huggingface"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=PROJECT, env=os.environ | home, capture_output=True, text=True)
    said = done.stdout if done.stdout.strip() else done.stderr  # Snakemake's own lines are left out
    return done.returncode, said.replace(str(folder), "FOLDER")


def check(what: str, good: bool, text: str) -> bool:
    """Print what was tried, what came out, and whether that is right."""
    print(f"\n== {what}: {'as it should be' if good else 'WRONG'}\n{text.strip()}", flush=True)
    return good


@command
def main() -> int:
    """Try it; 0 if every step did what it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lists", type=Path, help="folder with the published lists; the batch itself is then left out")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        lists = given.lists.resolve() if given.lists else folder / "lists"
        parts = published(lists) if given.lists else listed(lists)
        print(f"{pictures(folder, parts):,} pictures in the official layout")
        code, text = batch(folder, lists, "--dry-run")
        good = check("dry run without weights", code == 1 and "nest_base_jx" in text, text)
        weights(folder / "huggingface")
        path, number = parts["database"][-1]
        lost = folder / "imagenet" / "train" / SYNSETS[number] / Path(path).name
        lost.rename(folder / "lost.jpeg")
        code, text = batch(folder, lists, "--dry-run")
        good &= check("dry run with a picture missing", code == 1 and lost.name in text, text)
        (folder / "lost.jpeg").rename(lost)
        code, text = batch(folder, lists, "--dry-run")
        good &= check("dry run", code == 0 and "Ready" in text, text)
        if given.lists is None:
            good &= whole(folder, lists)
    return int(not good)


def whole(folder: Path, lists: Path) -> bool:
    """The batch from the lists to the table, and once more, when all is done."""
    code, text = batch(folder, lists, *QUICK)
    table = folder / "runs" / "imagenet" / "table.md"
    good = code == 0 and table.is_file()
    good = check("the batch, at 64 pixels for one epoch", good, table.read_text(encoding="utf-8") if good else text)
    code, text = batch(folder, lists, *QUICK, "--dry-run")
    return good & check("what is left to do", code == 0 and "8 are finished" in text, text)


if __name__ == "__main__":
    sys.exit(main())
