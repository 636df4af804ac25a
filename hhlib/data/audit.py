"""What a split is made of, and what overlaps: the numbers to look at before believing a score."""

import hashlib

import numpy as np

from hhlib.data.splits import Part, Split


def audit(split: Split) -> dict:
    """The facts of a split, as a dict of plain numbers.

    Returns:
        ``sizes``, ``classes`` (C), ``labels_per_image`` (mean over the database), ``without_label`` (images a part),
        ``similar_pairs`` (share of query-database pairs that share a label), ``fingerprint`` (SHA-256 of the lists),
        ``same_image`` and ``same_pixels``: overlap counts for query/train, query/database and train/database, by
        identity in the pool and by pixel content. Only a query that is *the same image* breaks the protocol; equal
        pixels under two identities are duplicates inside the source itself.
    """
    parts = split.parts()
    content = {name: _digests(part) for name, part in parts.items()}
    pairs = [("query", "train"), ("query", "database"), ("train", "database")]
    return {
        "sizes": split.sizes,
        "classes": len(split.classes),
        "labels_per_image": float(split.database.labels.sum(dim=1).float().mean()),
        "without_label": {name: int((part.labels.sum(dim=1) == 0).sum()) for name, part in parts.items()},
        "similar_pairs": similar_share(split.query, split.database),
        "fingerprint": split.fingerprint(),
        "same_image": {f"{a}/{b}": len(np.intersect1d(parts[a].rows, parts[b].rows)) for a, b in pairs},
        "same_pixels": {f"{a}/{b}": len(content[a] & content[b]) for a, b in pairs},
    }


def similar_share(query: Part, database: Part) -> float:
    """Share of all query-database pairs that share a label, 0 to 1."""
    blocks = query.labels.float().split(256)
    similar = sum(int((block @ database.labels.float().T > 0).sum()) for block in blocks)
    return similar / (len(query) * len(database))


def _digests(part: Part) -> set[bytes]:
    images = part.pool.images[part.rows].numpy()
    return {hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images}
