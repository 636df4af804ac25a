"""What a split is made of, and what overlaps: the numbers to look at before believing a score."""

import numpy as np
from torch import Tensor

from hhlib.data.files import digest
from hhlib.data.splits import Part, Split


def audit(split: Split, *, content: bool | None = None) -> dict:
    """The facts of a split, as a dict of plain numbers.

    Args:
        content: also compare what the images show: pixels in memory, bytes of files on disk. None does so in memory
            only, because on disk every file must be read.

    Returns:
        ``sizes``, ``classes`` (C), ``labels_per_image`` (mean over the database), ``without_label`` (images a part),
        ``similar_pairs`` (share of query-database pairs that share a label), ``fingerprint`` (SHA-256 of the lists),
        ``same_image`` and ``same_pixels``: overlap counts for query/train, query/database and train/database, by
        identity in the pool and by content (None if not looked at). Only a query that is *the same image* breaks the
        protocol; equal content under two identities is a duplicate inside the source itself.
    """
    parts = split.parts()
    content = isinstance(split.query.pool.images, Tensor) if content is None else content
    digests = {name: _digests(part) for name, part in parts.items()} if content else None
    pairs = [("query", "train"), ("query", "database"), ("train", "database")]
    return {
        "sizes": split.sizes,
        "classes": len(split.classes),
        "labels_per_image": float(split.database.labels.sum(dim=1).float().mean()),
        "without_label": {name: int((part.labels.sum(dim=1) == 0).sum()) for name, part in parts.items()},
        "similar_pairs": similar_share(split.query, split.database),
        "fingerprint": split.fingerprint(),
        "same_image": {f"{a}/{b}": len(np.intersect1d(parts[a].rows, parts[b].rows)) for a, b in pairs},
        "same_pixels": {f"{a}/{b}": len(digests[a] & digests[b]) for a, b in pairs} if content else None,
    }


def similar_share(query: Part, database: Part) -> float:
    """Share of all query-database pairs that share a label, 0 to 1."""
    theirs = database.labels.float().T  # (C, n)
    similar = sum(int((block.float() @ theirs > 0).sum()) for block in query.labels.split(32))
    return similar / (len(query) * len(database))


def _digests(part: Part) -> set[bytes]:
    """What each image shows, in 16 bytes."""
    images = part.pool.images
    if not isinstance(images, Tensor):
        return {images.digest(row) for row in part.rows.tolist()}
    return {digest(image.tobytes()) for image in images[part.rows].numpy()}
