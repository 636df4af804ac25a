"""Encode a set once, keep the packed codes, search them.

Codes are stored the way they are searched: 8 bits a byte. CIFAR-10's 54,000 database images at 64 bits are 432 KB.
"""

import numpy as np
import torch
from torch import Tensor, nn

from hhlib.common import check_bits, check_whole
from hhlib.data import Part, loader, normalise
from hhlib.metrics import pack_signs


def pack(z: Tensor | np.ndarray) -> np.ndarray:
    """Binary codes of network outputs: z (n, K) -> (n, ceil(K/8)) uint8, bit = z >= 0 (zero counts as +1)."""
    return pack_signs(z.detach().float().cpu().numpy() if isinstance(z, Tensor) else z)


def unpack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Packed codes (n, ceil(K/8)) uint8 -> (n, K) int8 of -1 and +1."""
    return np.unpackbits(codes, axis=1, count=check_bits(bits)).astype(np.int8) * 2 - 1


@torch.inference_mode()
def encode(
    net: nn.Module,
    part: Part,
    *,
    mean: list[float],
    std: list[float],
    precision: str = "float32",
    batch_size: int = 500,
) -> Tensor:
    """The network's outputs for all images of a part, in its order: -> z (n, K) float32, on the CPU.

    Args:
        mean, std: of the images' channels, as in training (`run.json` keeps them).
        precision: "float32", or "bf16" for automatic mixed precision where the machine has it.
        batch_size: images at a time; lower it if memory runs out.
    """
    device = next(net.parameters()).device
    net.eval()
    outputs = []
    for images, _, _ in loader(part, batch_size=batch_size, device=device.type):
        images = normalise(images.to(device, non_blocking=True), mean, std, net.img_size)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            outputs.append(net(images).float().cpu())
    return torch.cat(outputs)


def search(query_codes: np.ndarray, database_codes: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest database images of each query, by Hamming distance; equal distances in database order.

    Exact, through faiss' binary flat index.

    Args:
        query_codes, database_codes: packed, (q, bytes) and (n, bytes) uint8, equally wide.
        k: 1 to n.

    Returns:
        (distances, rows): (q, k) int32 in bits, (q, k) int64.
    """
    import faiss

    if query_codes.shape[1] != database_codes.shape[1]:
        widths = query_codes.shape[1], database_codes.shape[1]
        raise ValueError(
            f"query codes are {widths[0]} bytes wide and database codes {widths[1]}, but they must be equal."
        )
    check_whole("k", k, 1, len(database_codes))
    index = faiss.IndexBinaryFlat(8 * database_codes.shape[1])
    index.use_heap = False  # counting instead of a heap: ties come out in database order
    index.add(np.ascontiguousarray(database_codes))
    return index.search(np.ascontiguousarray(query_codes), k)
