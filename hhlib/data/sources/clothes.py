"""3,781 photographs of clothes in 10 classes, CC0, from one commit of a public repository (Grigorev, 2020)."""

import gzip
import hashlib
from functools import cache
from pathlib import Path

import numpy as np

from hhlib.common import Missing
from hhlib.data.download import Archive
from hhlib.data.splits import Pool, listed_pool, one_hot

COMMIT = "11961516512414bf9f6c150a832cfd21b54a6b54"
REPOSITORY = "alexeygrigorev/clothing-dataset-small"
FOLDER = "clothes"
UNPACKED = f"{REPOSITORY.split('/')[1]}-{COMMIT}"  #: what the archive makes
PARTS = ("train", "validation", "test")  #: as published


@cache
def manifest() -> dict[str, str]:
    """Path of every picture -> the SHA-1 that git gives it, of "blob SIZE", a zero byte and the content."""
    lines = gzip.decompress(Path(__file__).with_name("clothes.txt.gz").read_bytes()).decode().splitlines()
    return {path: digest for digest, path in (line.split(" ", 1) for line in lines)}


def check(folder: Path) -> None:
    """Raise ValueError unless every picture of the manifest is below an unpacked archive, byte for byte."""
    for path, digest in manifest().items():
        file = folder / UNPACKED / path
        if not file.is_file():
            raise ValueError(f"{path} is missing")
        raw = file.read_bytes()
        if hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest() != digest:
            raise ValueError(f"{path} is not the picture of commit {COMMIT[:12]}")


ARCHIVE = Archive(
    f"https://github.com/{REPOSITORY}/archive/{COMMIT}.zip", 200, [f"{UNPACKED}/{part}" for part in PARTS], check=check
)


def clothes(root: Path, size: int, *, queries: str = "test") -> Pool:
    """The photographs: `queries`, "test" or "validation", is the part that asks.

    `root` holds `clothes/train`, `clothes/validation` and `clothes/test`, or the unpacked archive in `clothes`.
    Pictures are cut and scaled to `size` pixels. With queries="validation", the test part is not looked at.
    Raises FileNotFoundError if a part is missing.
    """
    folder = root / FOLDER
    folder = folder / UNPACKED if (folder / UNPACKED).is_dir() else folder
    wanted = PARTS if queries == "test" else PARTS[:2]
    if missing := [part for part in wanted if not (folder / part).is_dir()]:
        raise Missing(
            f"{folder} lacks {' and '.join(missing)}: load with download=True, or unpack {ARCHIVE.url} there."
        )
    paths = sorted(path for path in manifest() if path.split("/")[0] in wanted)
    classes = sorted({path.split("/")[1] for path in paths})
    labels = one_hot([classes.index(path.split("/")[1]) for path in paths], len(classes)).numpy()
    pool = listed_pool(folder, paths, labels, classes, size, "the photographs of clothes")
    part = np.array([path.split("/")[0] for path in pool.paths or ()])
    pool.published.update({"query": np.flatnonzero(part == queries), "train": np.flatnonzero(part == "train")})
    return pool
