"""Encode a set once, keep its codes packed, 8 bits per byte (54,000 images at 64 bits: 432 KB), and search them."""

import numpy as np
import torch
from torch import Tensor

from hhlib.common import check_choice, check_whole
from hhlib.data import Part, check_pictures, loader, normalise
from hhlib.metrics import pack_signs, unpack_signs
from hhlib.network import Network, evaluating

pack, unpack = pack_signs, unpack_signs  #: z (n, K) -> codes (n, ceil(K/8)) uint8, and back to (n, K) of -1 and +1


def outputs_of(net: Network, images: Tensor, mean: list[float], std: list[float], flip: bool) -> Tensor:
    """Pictures (B, 3, S, S) uint8, on the network's device -> z (B, K) float32; see `encode`."""
    x = normalise(images, mean, std, net.img_size).contiguous(memory_format=torch.channels_last)
    seen = (x, x.flip(3)) if flip else (x,)
    return torch.stack([net(x) for x in seen]).float().mean(dim=0)


@torch.inference_mode()
def encode(
    net: Network,
    images: Part | Tensor,
    *,
    mean: list[float],
    std: list[float],
    precision: str = "float32",
    batch_size: int = 500,
    flip: bool = False,
) -> Tensor:
    """The network's outputs for all images, in their order: z (n, K) float32, on the CPU; its mode is left as it was.

    `images` are a part of a split, or any pictures (n, 3, S, S) uint8; they are scaled to the network's input size,
    `batch_size` at a time: lower it if memory runs out. `mean` and `std` of the channels are as in training (`run.json`
    has them). `precision` is "float32", or "bf16" for automatic mixed precision. `flip` gives the mean of an image's
    outputs and of its mirror image's, for twice the work. FloatingPointError if an output is not a finite number.
    """
    check_choice("precision", precision, ("float32", "bf16"))
    if not len(images):
        raise ValueError("there are 0 images to encode, but there must be at least 1.")
    device, outputs = next(net.parameters()).device, []
    if isinstance(images, Part):
        batches = (batch for batch, _, _ in loader(images, batch_size=batch_size, device=device.type))
    else:
        if images.ndim != 2 or not images.is_floating_point():
            check_pictures(images)
        batches = images.split(check_whole("batch_size", batch_size, 1))
    with evaluating(net), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for batch in batches:  # (B, 3, S, S) uint8, or vectors (B, D)
            batch = batch.to(device, non_blocking=True)
            z = net(batch.float()).float() if batch.ndim == 2 else outputs_of(net, batch, mean, std, flip)
            outputs.append(z.cpu())
    z = torch.cat(outputs)
    if bad := int((~z.isfinite()).any(dim=1).sum()):
        raise FloatingPointError(f"the network's outputs for {bad} of {len(z)} images are not finite numbers.")
    return z


def search(query_codes: np.ndarray, database_codes, *, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest database images of each query, by Hamming distance; equal distances in database order.

    Queries are packed, (q, bytes) uint8; so is the database, (n, bytes) uint8, equally wide, which is searched exactly
    and not copied: it may be a memory map of a file larger than memory. Or it is an index from `build_index`, which may
    miss some. Returns (distances, rows): (q, k) int32 in bits, (q, k) int64. What an index did not find is row -1, at
    the end.

    >>> distances, rows = search(pack([[1, 1, -1, 1]]), pack([[-1, -1, -1, 1], [1, 1, 1, 1], [1, 1, 1, -1]]), k=2)
    >>> distances.tolist(), rows.tolist()  # the first and the last are equally far
    ([[1, 2]], [[1, 0]])
    """
    import faiss

    exact = isinstance(database_codes, np.ndarray)
    n, width = _check_codes(database_codes) if exact else (database_codes.ntotal, database_codes.d // 8)
    if query_codes.shape[1] != width:
        raise ValueError(f"query codes are {query_codes.shape[1]} bytes wide, but database codes are {width}.")
    check_whole("k", k, 1, n)
    queries = np.ascontiguousarray(query_codes)
    if exact:
        distances, rows = faiss.knn_hamming(queries, np.ascontiguousarray(database_codes), k)
    else:
        distances, rows = database_codes.search(queries, k)
    distances = np.where(rows < 0, np.iinfo(np.int32).max, distances)
    order = np.lexsort((rows, distances), axis=1)  # an index may return ties in any order; this one is always the same
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(rows, order, axis=1)


#: The indexes of `build_index`: exact, or faster and incomplete.
INDEXES = ("flat", "hash", "ivf", "hnsw")
FLAT_UP_TO = 10_000_000  #: codes; see `kind_for`
MOST_CELLS = 2048  #: of "ivf": each code is compared with every centre when it is added
CODES_PER_CELL = 64  #: that find the centres of "ivf"; more do not find better ones
BLOCK = 1_000_000  #: codes added at a time, so that what adding needs is little beside the codes


def kind_for(n: int) -> str:
    """The index for n codes: "flat", which is exact, as long as a query by itself takes less than 10 ms, then "ivf".

    Measured with 64 bits on one thread (benchmarks/scale.py, results/scale.csv). On a machine ten times slower, the
    limit is 0.1 s, which still seems immediate. "ivf" then takes two to three times the codes' memory.
    """
    return "flat" if n <= FLAT_UP_TO else "ivf"


def build_index(codes: np.ndarray, kind: str = "auto", *, effort: int = 16):
    """A faiss index of packed codes (n, bytes) uint8, for `search`; they may be a memory map.

    "flat" compares with every code, and is exact. "hash" looks into buckets that share the first bits with the query,
    "ivf" into the cells of the nearest centres, "hnsw" follows a graph: they miss some. "auto" is what `kind_for` says.
    For `effort` see `set_effort`.
    """
    import faiss

    check_choice("index", kind, ("auto", *INDEXES))
    n, width = _check_codes(codes)
    kind = kind_for(n) if kind == "auto" else kind
    d, cells = 8 * width, min(MOST_CELLS, max(1, int(np.sqrt(n))))
    made = {"flat": "BFlat", "hash": f"BHash{min(d, max(1, int(np.log2(n))))}"}  # about one code per bucket
    made |= {"ivf": f"BIVF{cells}", "hnsw": "BHNSW16"}
    index = set_effort(faiss.index_binary_factory(d, made[kind]), effort)
    if kind == "ivf":
        index.cp.min_points_per_centroid = 1
        index.train(np.ascontiguousarray(codes[:: max(1, n // (CODES_PER_CELL * cells))]))
    block = n if kind == "flat" else BLOCK  # its codes are one array, which would be copied as it grows
    for start in range(0, n, block):
        index.add(np.ascontiguousarray(codes[start : start + block]))
    return index


def set_effort(index, effort: int):
    """Set how much an index of `build_index` searches, and return it: more finds more, but slower.

    `effort` is for "ivf" the cells, for "hnsw" the candidates kept (times 4), for "hash" the bits flipped to reach
    neighbouring buckets (effort / 8, at most 3). "flat" always searches everything.
    """
    import faiss

    check_whole("effort", effort, 1)
    if isinstance(index, faiss.IndexBinaryIVF):
        index.nprobe = effort
    elif isinstance(index, faiss.IndexBinaryHNSW):
        index.hnsw.efSearch = 4 * effort
    elif isinstance(index, faiss.IndexBinaryHash):
        index.nflip = min(3, effort // 8)
    return index


def _check_codes(codes: np.ndarray) -> tuple[int, int]:
    """Number and bytes of packed codes; ValueError if they are none."""
    if codes.dtype != np.uint8 or codes.ndim != 2 or not len(codes):
        raise ValueError(f"codes are {codes.shape} {codes.dtype}, but a search needs packed codes, (n, bytes) uint8.")
    return codes.shape


def recall_of(distances: np.ndarray, exact: np.ndarray) -> float:
    """Share, 0 to 1, of distances (q, k) that are at most the k-th of an exact search, `exact` (q, k)."""
    # all ties count: which of them the exact search lists is arbitrary
    return float((distances <= exact[:, -1:]).mean())
