"""Images as the network wants them, a whole batch at a time and on whichever device the batch lies."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hhlib.data.splits import Part


def channel_statistics(part: Part) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over a part's images, both in 0..1: -> (3 numbers, 3 numbers)."""
    pixels = part.pool.images[part.rows].permute(1, 0, 2, 3).flatten(1).float() / 255  # (3, n*S*S)
    return pixels.mean(dim=1).tolist(), pixels.std(dim=1).tolist()


def normalise(images: Tensor, mean: list[float], std: list[float]) -> Tensor:
    """(B, 3, S, S) uint8 -> float32 with about zero mean and unit spread a channel."""
    shape = (1, -1, 1, 1)
    mean, std = (torch.tensor(values, device=images.device).view(shape) for values in (mean, std))
    return (images.float() / 255 - mean) / std


def augment(images: Tensor, *, shift: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Shift each image at random by up to `shift` pixels each way (borders reflected), and mirror every other one.

    All images of the batch at once, by indexing: no loop over images. Needs 0 <= shift < S.

    Args:
        images: (B, 3, S, S) uint8.
        generator: source of the random numbers, on the CPU, so that every device draws the same.

    Returns:
        (B, 3, S, S) uint8.
    """
    B, _, S, _ = images.shape
    padded = F.pad(images.float(), (shift,) * 4, mode="reflect").to(images.dtype)  # (B, 3, S+2s, S+2s)
    offset = torch.randint(0, 2 * shift + 1, (2, B, 1), generator=generator)
    rows, columns = offset + torch.arange(S)  # (B, S) each
    if flip:
        mirrored = torch.rand(B, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    batch, rows, columns = (i.to(images.device) for i in (torch.arange(B), rows, columns))
    out = padded[batch[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (B, S, S, 3)
    return out.permute(0, 3, 1, 2).contiguous()
