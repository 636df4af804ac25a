"""Images as the network wants them: a whole batch at a time, on the batch's device."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision.transforms.v2.functional import resize

from hhlib.common import check_whole
from hhlib.data.splits import Part


def loader(
    part: Part,
    *,
    batch_size: int,
    shuffle: bool = False,
    drop_last: bool = False,
    device: str = "cpu",
    rows: Tensor | None = None,
) -> DataLoader:
    """Whole batches of a part, ``(images (B, 3, S, S) uint8, labels (B, C) uint8, index (B,) int64)``, on the CPU.

    They stay uint8 until they are on the device, a quarter of the bytes to move; `augment` and `normalise` work there.
    Pictures on disk are opened by threads, see `ImageFiles`, and not by worker processes: those need shared memory, of
    which containers have little, are killed with it, and read a script again where processes are not forked.

    Args:
        batch_size: images per batch; the last may be smaller unless `drop_last`.
        device: "cuda" pins the batches' memory, so that they are copied while the GPU works.
        rows: use these rows of the part only, (m,) int64; `index` still counts in the whole part.
    """
    return DataLoader(
        part if rows is None else Subset(part, rows.tolist()),
        batch_size=check_whole("batch_size", batch_size, 1),
        shuffle=shuffle,
        drop_last=drop_last,
        collate_fn=tuple,  # a part gives whole batches already
        pin_memory=device == "cuda",
        generator=None if shuffle else torch.Generator(),  # looking at images draws no global random number
    )


def class_by_class(part: Part, generator: torch.Generator) -> Tensor:
    """An order of a part's rows in which the classes take turns, (m,) int64: every stretch of C rows shows all C.

    Inside a class, the order is random; all classes are cut to the size of the smallest one.
    """
    which = [column.nonzero().flatten() for column in part.labels.T if column.any()]  # rows of each class
    least = min(map(len, which))
    drawn = [rows[torch.randperm(len(rows), generator=generator)][:least] for rows in which]
    return torch.stack(drawn, dim=1).flatten()


def channel_statistics(part: Part) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over a part's images, both in 0..1: -> (3 numbers, 3 numbers)."""
    total, squares, count = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 0
    for rows in part.rows.split(1000):  # a set on disk need not fit into memory
        pixels = part.pool.images[rows].permute(1, 0, 2, 3).flatten(1).double() / 255  # (3, B*S*S)
        total, squares, count = total + pixels.sum(dim=1), squares + (pixels**2).sum(dim=1), count + pixels.shape[1]
    mean = total / count
    # At least one grey level, so that images of a single colour can be divided by it.
    return mean.tolist(), (squares / count - mean**2).clamp(min=255**-2).sqrt().tolist()


def check_pictures(images: Tensor) -> None:
    """Raise ValueError unless images are square pictures, (n, 3, S, S) uint8."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != (3, images.shape[-1], images.shape[-1]):
        raise ValueError(f"images are {tuple(images.shape)} {images.dtype}, but they must be (n, 3, S, S) torch.uint8.")


def normalise(images: Tensor, mean: list[float], std: list[float], size: int | None = None) -> Tensor:
    """(B, 3, S, S) of 0 to 255 -> float32 with about zero mean and unit spread per channel, on the images' device.

    `size` is the side to scale to, in pixels (bilinear; antialiased where it shrinks); None leaves S.
    """
    m, s = (torch.tensor(values, device=images.device).view(1, -1, 1, 1) for values in (mean, std))
    images = (images.float() / 255 - m) / s
    # Scaling keeps means, so it may come last; the arithmetic above then works on fewer pixels where it enlarges.
    return images if size is None else resize(images, [size, size], antialias=size < images.shape[-1])


def scale(images: Tensor, size: int) -> Tensor:
    """One image or many, (..., 3, S, S) uint8 -> (..., 3, size, size) uint8, the way `normalise` scales."""
    images = resize(images.float(), [size, size], antialias=size < images.shape[-1])
    return images.round().clamp(0, 255).to(torch.uint8)


def augment(
    images: Tensor, *, shift: int, flip: bool | Tensor, erase: int = 0, paste: bool = False, generator: torch.Generator
) -> Tensor:
    """Shift each image at random by up to `shift` pixels each way, mirror half of them, cover a square of each.

    Args:
        images: (B, 3, S, S) uint8; the result is the same. The whole batch at once, by indexing: no loop over images.
        shift: pixels, 0 <= shift < S; what comes in at the border is reflected.
        flip: whether to mirror an image, left to right, with probability 1/2; or which ones to mirror, (B,) bool.
        erase: side of the covered square in pixels, 0 <= erase <= S, 0 for none; see `_erase`.
        paste: what covers the square: another image's pixels, or the image's mean colour.
        generator: source of the random numbers, on the CPU, so that every device draws the same.
    """
    B, _, S, _ = images.shape
    padded = F.pad(images.float(), (shift,) * 4, mode="reflect").to(images.dtype)  # (B, 3, S+2s, S+2s)
    rows, columns = torch.randint(0, 2 * shift + 1, (2, B, 1), generator=generator) + torch.arange(S)  # (B, S) each
    if flip is not False:
        mirrored = torch.rand(B, generator=generator) < 0.5 if flip is True else flip.cpu()
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    batch, rows, columns = (i.to(images.device) for i in (torch.arange(B), rows, columns))
    out = padded[batch[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (B, S, S, 3)
    out = out.permute(0, 3, 1, 2).contiguous()  # (B, 3, S, S)
    return _erase(out, erase, paste, generator) if erase else out


def _erase(images: Tensor, side: int, paste: bool, generator: torch.Generator) -> Tensor:
    """Cover one square of each image, so that no single detail decides: (B, 3, S, S) -> the same.

    The square's centre is anywhere in the image, so part of it may be outside. It has the image's mean colour (DeVries
    & Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017, arXiv 1708.04552) or, with
    `paste`, what another image shows there (as in Yun et al., "CutMix", ICCV 2019, but the label stays one image's).
    """
    B, _, S, _ = images.shape
    first = torch.randint(0, S, (2, B, 1), generator=generator) - side // 2
    offset = torch.arange(S) - first  # (2, B, S)
    rows, columns = ((offset >= 0) & (offset < side)).to(images.device)
    covered = rows[:, None, :, None] & columns[:, None, None, :]  # (B, 1, S, S)
    mean = images.float().mean(dim=(2, 3), keepdim=True).to(images.dtype)  # (B, 3, 1, 1)
    return torch.where(covered, images.roll(1, dims=0) if paste else mean, images)
