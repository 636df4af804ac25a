"""Encode a set once, keep the packed codes, search them.

Codes are stored the way they are searched: 8 bits a byte. CIFAR-10's 54,000 database images at 64 bits are 432 KB.
"""

import numpy as np
import torch
from torch import Tensor, nn

from hhlib.common import check_choice, check_whole
from hhlib.data import Part, loader, normalise
from hhlib.metrics import pack_signs, unpack_signs


def pack(z: Tensor | np.ndarray) -> np.ndarray:
    """Binary codes of network outputs: z (n, K) -> (n, ceil(K/8)) uint8, bit = z >= 0 (zero counts as +1)."""
    return pack_signs(z.detach().float().cpu().numpy() if isinstance(z, Tensor) else z)


def unpack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Packed codes (n, ceil(K/8)) uint8 -> (n, K) int8 of -1 and +1."""
    return unpack_signs(codes, bits)


@torch.inference_mode()
def encode(
    net: nn.Module,
    part: Part,
    *,
    mean: list[float],
    std: list[float],
    precision: str = "float32",
    batch_size: int = 500,
    features: bool = False,
) -> Tensor:
    """The network's outputs for all images of a part, in its order: -> z (n, K) float32, on the CPU.

    Args:
        mean, std: of the images' channels, as in training (`run.json` keeps them).
        precision: "float32", or "bf16" for automatic mixed precision where the machine has it.
        batch_size: images at a time; lower it if memory runs out.
        features: the backbone's features instead, averaged over the image, (n, D).
    """
    device = next(net.parameters()).device
    net.eval()
    outputs = []
    for images, _, _ in loader(part, batch_size=batch_size, device=device.type):
        images = normalise(images.to(device, non_blocking=True), mean, std, net.img_size)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            z = net.forward_features(images).mean(dim=(2, 3)) if features else net(images)
            outputs.append(z.float().cpu())
    return torch.cat(outputs)


def search(query_codes: np.ndarray, database_codes, *, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest database images of each query, by Hamming distance; equal distances in database order.

    Args:
        query_codes: packed, (q, bytes) uint8.
        database_codes: packed, (n, bytes) uint8, as wide: searched exactly, through faiss' binary flat index. Or an
            index from `build_index`, which may miss some.
        k: 1 to n.

    Returns:
        (distances, rows): (q, k) int32 in bits, (q, k) int64. What an index did not find is row -1, at the end.
    """
    index = build_index(database_codes) if isinstance(database_codes, np.ndarray) else database_codes
    if 8 * query_codes.shape[1] != index.d:
        raise ValueError(
            f"query codes are {query_codes.shape[1]} bytes wide and database codes {index.d // 8}, but they must be "
            "equally wide."
        )
    check_whole("k", k, 1, index.ntotal)
    distances, rows = index.search(np.ascontiguousarray(query_codes), k)
    distances = np.where(rows < 0, np.iinfo(np.int32).max, distances)
    order = np.lexsort((rows, distances), axis=1)  # an index may give ties in any order; this one is always the same
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(rows, order, axis=1)


#: The indexes of `build_index`: exact, or faster and incomplete.
INDEXES = ("flat", "hash", "ivf", "hnsw")


def build_index(codes: np.ndarray, kind: str = "flat", *, effort: int = 16):
    """A faiss index over packed codes, for `search`.

    Args:
        codes: (n, bytes) uint8.
        kind: "flat" compares with every code, and is exact. "hash" looks into buckets that share the first bits with
            the query, "ivf" into the cells of the nearest centres, "hnsw" follows a graph: they miss some.
        effort: what the last three may spend: for "ivf" cells looked into, for "hnsw" candidates kept (times 4), for
            "hash" bits flipped to reach neighbouring buckets (effort / 8, at most 3). More finds more and takes longer.

    Raises:
        ValueError: for an unknown kind or codes that are not packed.
    """
    import faiss

    check_choice("index", kind, INDEXES)
    check_whole("effort", effort, 1)
    if codes.dtype != np.uint8 or codes.ndim != 2 or not len(codes):
        raise ValueError(f"codes are {codes.shape} {codes.dtype}, but an index needs packed codes, (n, bytes) uint8.")
    codes, d, n = np.ascontiguousarray(codes), 8 * codes.shape[1], len(codes)
    if kind == "hash":
        index = faiss.IndexBinaryHash(d, min(d, max(1, int(np.log2(n)))))  # about one code a bucket
        index.nflip = min(3, effort // 8)
    elif kind == "ivf":
        index = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(d), d, max(1, int(np.sqrt(n))))
        index.cp.min_points_per_centroid = 1
        index.nprobe = effort
        index.train(codes)
    elif kind == "hnsw":
        index = faiss.IndexBinaryHNSW(d, 16)
        index.hnsw.efSearch = 4 * effort
    else:
        index = faiss.IndexBinaryFlat(d)
        index.use_heap = False  # counting instead of a heap: ties come out in database order
    index.add(codes)
    return index


def recall_of(distances: np.ndarray, exact: np.ndarray) -> float:
    """How much of an exact search another one found, 0 to 1: results that are no further than the exact k-th one.

    Any image at that distance will do: which of several the exact search lists is arbitrary.

    Args:
        distances, exact: (q, k) as `search` gives them.
    """
    return float((distances <= exact[:, -1:]).mean())
