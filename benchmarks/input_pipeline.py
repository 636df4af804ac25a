"""How many images a second reach the network: our batches against a plain torchvision loader, in one run.

    python benchmarks/input_pipeline.py [--root FOLDER_WITH_CIFAR] [--size 224] [--images 4000] [--rounds 5]

Both start from the same CIFAR-10 images and end with the same thing: a float32 batch (B, 3, size, size), shifted
at random, mirrored at random, scaled, normalised, on the device. The plain way is the one the field's code uses: a
folder of PNG files, ImageFolder, one transform after the other for each image, in worker processes. Ours is
`data.loader`, `augment` and `normalise`. The two take turns, and the ratio is that of their medians.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import to_pil_image

from hhlib import data

MEAN, STD = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]
BATCH = 64


def main() -> None:
    """Write the pictures, let the two take turns, print images a second and the ratio."""
    arguments = parse()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    part = data.load("cifar10", root=arguments.root).train.subset(range(min(arguments.images, 5_000)))
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(part, Path(folder))
        ways = {
            "ImageFolder, a transform an image": lambda: plain(folder, arguments.size, arguments.workers, device),
            "hhlib, whole batches": lambda: ours(part, arguments.size, device),
        }
        speed = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                speed[name].append(len(part) / seconds(way(), device))
    print(
        f"CIFAR-10 at {arguments.size} pixels, batches of {BATCH}, {device}, {torch.get_num_threads()} threads, "
        f"{arguments.workers} workers for ImageFolder; median of {arguments.rounds} rounds over {len(part):,} images"
    )
    for name, found in speed.items():
        print(f"  {name:36s} {statistics.median(found):8,.0f} images/s  ({min(found):,.0f} to {max(found):,.0f})")
    plain_speed, our_speed = (statistics.median(found) for found in speed.values())
    print(f"  ratio {our_speed / plain_speed:.1f}")


def plain(folder: str, size: int, workers: int, device: str):
    """Batches as most published code makes them."""
    each = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
            transforms.Resize(size),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    loader = DataLoader(
        ImageFolder(folder, each), BATCH, shuffle=True, num_workers=workers, pin_memory=device == "cuda"
    )
    for images, _ in loader:
        yield images.to(device, non_blocking=True)


def ours(part: data.Part, size: int, device: str):
    """Batches as hhlib's training makes them."""
    generator = torch.Generator().manual_seed(0)
    for images, _, _ in data.loader(part, batch_size=BATCH, shuffle=True, device=device):
        images = data.augment(images.to(device, non_blocking=True), shift=4, flip=True, generator=generator)
        yield data.normalise(images, MEAN, STD, size)


def seconds(batches, device: str) -> float:
    """Time to make all batches; each is looked at, so that none is made for nothing."""
    start, total = time.perf_counter(), 0
    for images in batches:
        total += images[:, :, ::97, ::97].sum()
    float(total)  # waits for the device
    return time.perf_counter() - start


def write_pictures(part: data.Part, folder: Path) -> None:
    """The part as a folder of PNG files in class folders, as ImageFolder wants it."""
    for i in range(len(part)):
        image, labels, _ = part[i]
        path = folder / str(int(labels.argmax())) / f"{i:05d}.png"
        path.parent.mkdir(exist_ok=True)
        to_pil_image(image).save(path)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="folder that holds cifar-10-batches-py")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=torch.get_num_threads(), help="processes of the plain loader")
    return parser.parse_args()


if __name__ == "__main__":
    main()
