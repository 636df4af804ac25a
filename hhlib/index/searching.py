"""The nearest rows of an index, exactly: by Hamming distance, and among equal distances by the vectors.

Letters in shapes: Q queries, n rows, k results, B bytes per code.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np

from hhlib.common import usable_cores
from hhlib.index.store import Segment
from hhlib.reading import Damaged

#: Of more rows at one distance than this, so many are compared by their vectors, drawn by the seeded order of the rows.
MOST_TIES = 1 << 15


def nearest(segments: Sequence[Segment], codes: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows of each query by Hamming distance, equal distances in the seeded order.

    codes: (Q, B) uint8, packed; k: from 1 to the number of rows. The rows' codes are used where they are, on disk or in
    memory, and are not copied. -> distances (Q, k) int32 in bits, rows (Q, k) int64, counted over all segments.
    """
    starts = np.cumsum([0, *map(len, segments)])
    codes = np.ascontiguousarray(codes)

    def one(segment: Segment) -> tuple[np.ndarray, np.ndarray]:
        # "mc" counts instead of sorting: ties come out in the order of the rows, which is that of their keys
        return faiss.knn_hamming(codes, segment.codes, min(k, len(segment)), variant="mc")

    with ThreadPoolExecutor(usable_cores() if len(codes) == 1 else 1) as pool:  # faiss shares out many queries itself
        found = [*pool.map(one, segments)]
    distances = np.concatenate([d for d, _ in found], axis=1)  # (Q, up to k per segment)
    rows = np.concatenate([r + start for (_, r), start in zip(found, starts, strict=False)], axis=1)
    keys = np.concatenate([s.keys[r] for s, (_, r) in zip(segments, found, strict=True)], axis=1)
    first = np.lexsort((keys, distances), axis=1)[:, :k]
    return np.take_along_axis(distances, first, axis=1), np.take_along_axis(rows, first, axis=1)


def with_ties(segments: Sequence[Segment], code: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows of one query and all rows that are as far as the k-th, at most `MOST_TIES` more.

    code: (1, B) uint8 -> distances (m,) and rows (m,), m >= k.
    """
    total, wanted = sum(map(len, segments)), k
    while True:
        wanted = min(total, max(4 * wanted, 256), k + MOST_TIES)
        distances, rows = (found[0] for found in nearest(segments, code, wanted))
        if distances[-1] > distances[k - 1] or wanted in (total, k + MOST_TIES):
            near = distances <= distances[k - 1]
            return distances[near], rows[near]


def similarities(segments: Sequence[Segment], vector: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Cosine of the angle between a vector (D,) and the vectors of some rows (m,): (m,) float32, -1 to 1."""
    starts, vector = np.cumsum([0, *map(len, segments)]), vector.astype(np.float32)
    found = np.empty((len(rows), len(vector)), dtype=np.float32)
    which = np.searchsorted(starts, rows, side="right") - 1
    for number in np.unique(which):
        here = which == number
        vectors = segments[number].vectors
        found[here] = vectors[rows[here] - starts[number]]
        if not np.isfinite(found[here]).all():
            name = getattr(vectors, "filename", "a part of the index")
            raise Damaged(f"{name} is damaged: not all of its numbers are finite; build the index again.")
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(vector)
    return (found @ vector / np.maximum(lengths, np.finfo(np.float32).tiny)).clip(-1, 1)
