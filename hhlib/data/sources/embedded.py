"""What needs no download: scikit-learn's digits, and shapes drawn from a seed."""

import numpy as np
import torch
import torch.nn.functional as F

from hhlib.data.splits import Pool, one_hot

SHAPES = ["circle", "square", "triangle", "cross"]
COLOURS = {"red": (225, 55, 45), "green": (45, 165, 75), "blue": (55, 95, 220)}
SHAPES_COUNT, SHAPES_SIZE, _SUPER = 3_500, 32, 2  # images, side in pixels, samples per pixel along each side


def digits() -> Pool:
    """The 1,797 handwritten digits that come with scikit-learn (UCI Optical Recognition of Handwritten Digits).

    8 x 8 pixels of 17 grey levels, enlarged to 32 x 32, in three equal channels. Never mirrored: a mirrored 2 is no 2.
    """
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    grey = torch.from_numpy(pixels).float().view(-1, 8, 8)[:, None] * (255 / 16)  # (n, 1, 8, 8)
    grey = F.interpolate(grey, size=(32, 32), mode="bilinear", align_corners=False)
    images = grey.round().clamp(0, 255).to(torch.uint8).repeat(1, 3, 1, 1)  # (n, 3, 32, 32)
    return Pool(images, one_hot(classes, 10), [str(digit) for digit in range(10)], flip=False)


def shapes(count: int = SHAPES_COUNT, seed: int = 0) -> Pool:
    """Small multi-label pictures drawn from a seed: one to three coloured shapes on a noisy grey ground.

    Twelve concepts, each a colour and a shape ("red circle"); an image has the label of every concept in it. The shapes
    are in different quarters of the image, so none hides another.
    """
    rng = np.random.default_rng([seed, 2])
    side, ground = SHAPES_SIZE * _SUPER, rng.uniform(60, 200, (count, 1, 1, 1))
    canvas = np.broadcast_to(ground, (count, side, side, 3)).astype(np.float32)
    labels = np.zeros((count, len(SHAPES) * len(COLOURS)), dtype=np.uint8)
    how_many = rng.integers(1, 4, count)
    quarters = rng.permuted(np.tile(np.arange(4), (count, 1)), axis=1)
    for slot in range(3):
        rows = np.flatnonzero(how_many > slot)
        shape, colour = rng.integers(len(SHAPES), size=len(rows)), rng.integers(len(COLOURS), size=len(rows))
        mask = _mask(shape, quarters[rows, slot], rng)  # (m, side, side)
        paint = np.array(list(COLOURS.values()))[colour] + rng.normal(0, 12, (len(rows), 3))
        canvas[rows] = np.where(mask[..., None], paint[:, None, None, :], canvas[rows])
        labels[rows, colour * len(SHAPES) + shape] = 1
    pixels = canvas.reshape(count, SHAPES_SIZE, _SUPER, SHAPES_SIZE, _SUPER, 3).mean(axis=(2, 4))
    pixels = np.clip(pixels + rng.normal(0, 10, pixels.shape), 0, 255).round().astype(np.uint8)
    classes = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    return Pool(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels), classes, flip=True)


def _mask(shape: np.ndarray, quarter: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Which samples a shape covers: shape numbers (m,), quarters 0..3 (m,) -> bool (m, side, side)."""
    m, side = len(shape), SHAPES_SIZE * _SUPER
    radius = rng.uniform(0.14, 0.23, (m, 1, 1)).astype(np.float32)  # of the image's side
    centre = 0.25 + 0.5 * np.stack([quarter % 2, quarter // 2]) + rng.uniform(-0.03, 0.03, (2, m))
    angle = rng.uniform(-0.5, 0.5, (m, 1, 1)).astype(np.float32)
    grid = ((np.arange(side) + 0.5) / side).astype(np.float32)
    x = (grid[None, None, :] - centre[0][:, None, None].astype(np.float32)) / radius
    y = (grid[None, :, None] - centre[1][:, None, None].astype(np.float32)) / radius
    x, y = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x  # (m, side, side)
    ax, ay = np.abs(x), np.abs(y)
    covers = [  # in the order of SHAPES
        x**2 + y**2 <= 1,
        np.maximum(ax, ay) <= 0.85,
        (y <= 0.6) & (1.8 * ax - y <= 1.0),
        (np.minimum(ax, ay) <= 0.3) & (np.maximum(ax, ay) <= 1),
    ]
    return np.choose(shape[:, None, None], covers)
