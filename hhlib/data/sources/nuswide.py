"""NUS-WIDE from its official label files and image list (Chua et al., CIVR 2009)."""

from pathlib import Path

import numpy as np

from hhlib.common import Missing
from hhlib.data.download import Archive
from hhlib.data.reading import brief, read_bytes, read_text
from hhlib.data.splits import Pool, listed_pool

FOLDER = "nus-wide"  #: label files, image list and the pictures in `Flickr/`
FOLDER_M = "nus-wide-m"  #: the pictures of NUS-WIDE-m, in `images/`
CONCEPTS = 81
_HOME = "https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide"
#: Labels and list; nobody publishes their checksums. The pictures are sent by the authors on request.
ARCHIVES = [Archive(f"{_HOME}/{name}.zip", size, [name]) for name, size in (("Groundtruth", 4), ("ImageList", 2))]


def nuswide(root: Path, size: int, *, concepts: int = CONCEPTS, small: bool = False) -> Pool:
    """The images with at least one of the most frequent `concepts`, counted over all 269,648 (21: 195,834 images).

    The concepts keep their alphabetical order. `root` holds `nus-wide` (and `nus-wide-m`); pictures are cut and scaled
    to `size` pixels. `small` takes NUS-WIDE-m, Flickr's small versions as Cao et al. (HashNet, ICCV 2017) collected
    them: their names hold a photo id, `227529_2414887877_8dfb4fd1c1_m.jpg`, by which they get their labels.
    Raises FileNotFoundError if a file or all pictures are missing, ValueError if a file is not what it should be.
    """
    paths = read_image_list(root / FOLDER)
    names, labels = read_concepts(root / FOLDER, len(paths))
    top = np.sort(np.argsort(-labels.sum(axis=0, dtype=np.int64), kind="stable")[:concepts])
    names, labels = [names[i] for i in top], labels[:, top]
    folder = root / (FOLDER_M if small else FOLDER)
    paths, labels = _small(folder, paths, labels) if small else ([f"Flickr/{path}" for path in paths], labels)
    return listed_pool(folder, paths, labels, names, size, f"the pictures of NUS-WIDE{'-m' * small}")


def read_image_list(folder: Path) -> list[str]:
    r"""The official order of the images: lines like ``actor\0001_2124494179.jpg`` -> "actor/0001_2124494179.jpg"."""
    file = _first(folder, ["ImageList/Imagelist.txt", "ImageList/ImageList.txt", "Imagelist.txt"], "image list")
    paths = [line.strip().replace("\\", "/") for line in read_text(file).splitlines()]
    odd = next((i for i, path in enumerate(paths) if not path or path.startswith("/") or ".." in path.split("/")), None)
    if odd is not None:
        raise ValueError(f"{file} line {odd + 1}: '{brief(paths[odd])}' is not a relative path of an image.")
    return paths


def read_concepts(folder: Path, images: int) -> tuple[list[str], np.ndarray]:
    """The 81 files `Labels_airport.txt`, a 0 or 1 per image and line -> names (81), labels (n, 81) uint8."""
    place = _first(folder, ["Groundtruth/AllLabels", "AllLabels"], "folder of concept files")
    files = sorted(place.glob("Labels_*.txt"))
    if len(files) != CONCEPTS:
        raise ValueError(f"{place} holds {len(files)} files Labels_<concept>.txt, but NUS-WIDE has {CONCEPTS}.")
    labels = np.empty((images, CONCEPTS), dtype=np.uint8)
    for column, file in enumerate(files):
        lines = read_bytes(file).split()
        if set(lines) - {b"0", b"1"}:
            odd = next(i for i, line in enumerate(lines) if line not in (b"0", b"1"))
            found = lines[odd][:20].decode(errors="replace")
            raise ValueError(f"{file} line {odd + 1}: {found!r}, but it must be 0 or 1.")
        if len(lines) != images:
            raise ValueError(f"{file} has {len(lines):,} lines, but the image list has {images:,}.")
        labels[:, column] = np.frombuffer(b"".join(lines), dtype=np.uint8) - ord("0")
    return [file.stem.removeprefix("Labels_") for file in files], labels


def _small(folder: Path, listed: list[str], labels: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The pictures of NUS-WIDE-m with the labels of all official images that have the same photo id."""
    by_id = {}
    for row, path in enumerate(listed):
        by_id.setdefault(_photo_id(path, -1), []).append(row)
    if not (pictures := sorted((folder / "images").glob("*.jpg"))):
        raise Missing(f"{folder / 'images'} holds no pictures of NUS-WIDE-m; data/README.md says where from.")
    for path in pictures:
        if _photo_id(path.name, 1) not in by_id:
            raise ValueError(f"{path}: its name should be <number>_<photo id>_<secret>_m.jpg with an id of the list.")
    found = np.stack([labels[by_id[_photo_id(path.name, 1)]].max(axis=0) for path in pictures])
    return [f"images/{path.name}" for path in pictures], found


def _photo_id(name: str, word: int) -> str:
    words = name.rsplit(".", 1)[0].split("_")
    return words[word] if len(words) > abs(word) else ""


def _first(folder: Path, choices: list[str], what: str) -> Path:
    found = [folder / choice for choice in choices if (folder / choice).exists()]
    if not found:
        command = "data.load('nuswide_21', download=True)"
        raise Missing(f"{folder / choices[0]} (NUS-WIDE's {what}) is missing; {command} fetches it.")
    return found[0]
