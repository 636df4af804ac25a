"""The audit of a split: what it consists of and what overlaps, to look at before believing a score."""

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hhlib.common import check_choice
from hhlib.data.protocols import PROTOCOLS, deviations
from hhlib.data.splits import Part, Split

PAIRS = [("query", "train"), ("query", "database"), ("train", "database")]
NEAR = 0.98  #: similarity from which two images count as near-duplicates, see `near_duplicates`


def audit(split: Split, *, protocol: str | None = None, content: bool | None = None) -> dict:
    """The facts of a split, as a dict of plain numbers and sentences.

    Args:
        protocol: name of the protocol to compare with (ValueError if unknown); None is the split's own, if it has one.
        content: also compare what the images show. None does so for images in memory, up to 1 GB: on disk, every file
            must be read.

    Returns:
        - ``verdict``: one line. ``problems``: a sentence for each thing that is off; ``notes``: for each thing that
          its protocol allows, but that must be said beside a score.
        - ``sizes``, ``lists`` (SHA-256 of each part's list), ``fingerprint`` (SHA-256 of all three).
        - ``classes`` (C); per part ``images_per_class`` (least, median, most), ``labels_per_image`` (mean, most),
          ``without_label`` (images); ``similar_pairs``: share of query-database pairs that share a label.
        - per pair of parts, images of the first part: ``same_image``, that are in the second too; ``same_content``,
          that have a copy there under another name, with equal pixels or, on disk, equal bytes; ``near_duplicates``,
          that have one there. The last two are None if content is not compared, and near-duplicates are looked for
          among queries only. ``repeats``: copies under another name inside each part, likewise.
        - ``unanswered``: queries that have a label and no right answer in the database.

    Raises ValueError if nothing has a label.
    """
    split.need_labels()
    if protocol is not None:
        check_choice("protocol", protocol, PROTOCOLS)
    parts, images = split.parts(), split.query.pool.images
    content = isinstance(images, Tensor) and images.nbytes <= 1e9 if content is None else content
    right = right_answers(split.query, split.database)
    per_class = {name: part.labels.sum(dim=0) for name, part in parts.items()}  # (C,) images
    per_image = {name: part.labels.sum(dim=1) for name, part in parts.items()}  # (n,) labels
    facts: dict[str, Any] = {
        "sizes": split.sizes,
        "fingerprint": split.fingerprint(),
        "lists": {name: _list_digest(part) for name, part in parts.items()},
        "classes": len(split.classes),
        "images_per_class": {k: (int(n.min()), float(np.median(n)), int(n.max())) for k, n in per_class.items()},
        "labels_per_image": {k: (float(n.float().mean()), int(n.max())) for k, n in per_image.items()},
        "without_label": {k: int((n == 0).sum()) for k, n in per_image.items()},
        "similar_pairs": float(right.sum() / len(split.query) / len(split.database)),
        "unanswered": int((right[per_image["query"] > 0] == 0).sum()),
        "same_image": {f"{a}/{b}": len(np.intersect1d(parts[a].rows, parts[b].rows)) for a, b in PAIRS},
    }
    facts |= _content(parts) if content else dict.fromkeys(("same_content", "repeats", "near_duplicates"))
    protocol = protocol or (split.name if split.name in PROTOCOLS else None)
    facts["problems"] = ([] if protocol is None else deviations(split, PROTOCOLS[protocol])) + _problems(facts)
    facts["notes"] = _notes(facts, split)
    off = len(facts["problems"])
    state = f"{off} thing{'s' * (off != 1)} off" if off else "nothing off"
    against = f"against protocol {protocol}" if protocol else "no protocol to compare with"
    sizes = " / ".join(f"{size:,}" for size in split.sizes.values())
    facts["verdict"] = f"{split.name}: {sizes} (query / train / database), {against}: {state}."
    return facts


def similar_share(query: Part, database: Part) -> float:
    """Share of all query-database pairs that share a label, 0 to 1."""
    return float(right_answers(query, database).sum() / len(query) / len(database))


def right_answers(query: Part, database: Part) -> Tensor:
    """How many database images share a label with each query: (Q,) int64. ValueError if there are no labels."""
    if not query.labels.shape[1]:
        raise ValueError("these pictures have no labels, so none is a right answer.")
    theirs = database.labels.float().T  # (C, n)
    return torch.cat([(block.float() @ theirs > 0).sum(dim=1) for block in query.labels.split(32)])


def near_duplicates(query: Part, other: Part, *, threshold: float = NEAR) -> list[tuple[int, int, float]]:
    """Pairs of different images that show almost the same, the most similar first.

    Both images are shrunk to 8 x 8 pixels in colour; their similarity is the correlation of these 192 numbers, -1 to 1,
    for the image as it is or mirrored, whichever is higher. It finds crops by a pixel, other sizes and compressions,
    and sometimes two pictures of a plain object on a plain ground: look at them. The threshold was set by looking at
    CIFAR-10. Returns (index in query, index in other, similarity), for the nearest image of each query that has one.
    """
    small, there, pairs = _small(query), _comparable(_small(other)), []  # (Q, 3, 8, 8), (n, 192)
    here = _comparable(small), _comparable(small.flip(-1))
    for start in range(0, len(query), 500):
        block = torch.maximum(*(side[start : start + 500] @ there.T for side in here))  # (B, n)
        block[query.rows[start : start + 500, None] == other.rows[None, :]] = -1  # an image is no duplicate of itself
        best, column = block.max(dim=1)
        for row in torch.nonzero(best >= threshold).flatten().tolist():
            pairs.append((start + row, int(column[row]), float(best[row])))
    return sorted(pairs, key=lambda pair: -pair[2])


def _small(part: Part) -> Tensor:
    """A part's images, shrunk: (n, 3, 8, 8) float32."""
    blocks = part.rows.split(250)  # small, because a set on disk need not fit into memory
    return torch.cat([F.interpolate(part.pool.images[r].float(), size=(8, 8), mode="area") for r in blocks])


def _comparable(small: Tensor) -> Tensor:
    """(n, 3, 8, 8) -> (n, 192) of mean 0 and length 1 (length 0 for an image of one colour)."""
    flat = small.flatten(1)
    return F.normalize(flat - flat.mean(dim=1, keepdim=True))


def _content(parts: dict[str, Part]) -> dict:
    """The facts for which every image must be looked at; each is read once."""
    images = parts["query"].pool.images
    shown = {}  # row in the pool -> 16 bytes that are equal where the content is
    for row in torch.cat([part.rows for part in parts.values()]).unique().tolist():
        raw = images[row].numpy().tobytes() if isinstance(images, Tensor) else images.file(row).read_bytes()
        shown[row] = hashlib.blake2b(raw, digest_size=16).digest()
    near = {f"query/{b}": len(near_duplicates(parts["query"], parts[b])) for b in ("train", "database")}
    return {
        "same_content": {f"{a}/{b}": _copies(parts[a], parts[b], shown) for a, b in PAIRS},
        "repeats": {name: _copies(part, part, shown) for name, part in parts.items()},
        "near_duplicates": near | {"train/database": None},
    }


def _copies(part: Part, other: Part, shown: dict[int, bytes]) -> int:
    """How many images of a part have the content of another image of `other`; `shown` is the content by row."""
    there = set(other.rows.tolist())
    count = Counter(shown[row] for row in there)
    return sum(count[shown[row]] > (row in there) for row in part.rows.tolist())


def _problems(facts: dict) -> list[str]:
    """What no protocol allows."""
    found, queries = [], f"of {facts['sizes']['query']:,} queries"
    for other, why in [("train", "the network was told their labels"), ("database", "they will find themselves")]:
        pair = f"query/{other}"
        found.append((facts["same_image"][pair], f"{queries} are in the {other} set too: {why}"))
        copies = (facts["same_content"] or {}).get(pair)
        found.append((copies, f"queries have an exact copy under another name in the {other} set"))
    found.append((facts["unanswered"], f"{queries} have no right answer in the database and score 0"))
    for part, copies in (facts["repeats"] or {}).items():
        found.append((copies, f"{part} images have an exact copy under another name in the same set"))
    for part, why in [
        ("query", "nothing is right for them, and they score 0"),
        ("train", "all their pairs count as dissimilar"),
        ("database", "they are wrong for every query"),
    ]:
        found.append((facts["without_label"][part], f"of {facts['sizes'][part]:,} {part} images have no label: {why}"))
    return [f"{count:,} {what}" for count, what in found if count]


def _notes(facts: dict, split: Split) -> list[str]:
    """What protocols allow, and a reader of the score must know."""
    found = []
    if taught := facts["same_image"]["train/database"]:
        share = taught / facts["sizes"]["database"]
        found.append(f"{taught:,} training images are in the database ({share:.1%} of it): scores reward memory")
    shown, taught = (part.labels.sum(dim=0) > 0 for part in (split.query, split.train))
    for what, which in [
        ("queries show are never trained", shown & ~taught),
        ("training shows are never asked for", taught & ~shown),
    ]:
        if strange := which.nonzero().flatten().tolist():
            names = ", ".join(split.classes[c] for c in strange[:3]) + (", ..." if len(strange) > 3 else "")
            found.append(f"{len(strange)} classes that {what} ({names})")
    near = (facts["near_duplicates"] or {}).items()
    return found + [f"{n:,} queries have a near-duplicate in the {pair.split('/')[1]} set" for pair, n in near if n]


def _list_digest(part: Part) -> str:
    """SHA-256 over the part's paths and labels, in order."""
    return hashlib.sha256("\n".join(part.paths).encode() + part.labels.numpy().tobytes()).hexdigest()
