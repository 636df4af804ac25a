"""What each method adds to a training step: network forward, loss, backward, against the network with a plain sum.

    python benchmarks/losses.py [--network micro] [--bits 64] [--rounds 15]

5,000 training images of 32 x 32 pixels in 10 classes, batches of 64. All methods are timed in turn within a round, and
each round's time is divided by the bare network's in the same round. What a method does between epochs (the discrete
step of the asymmetric ones) is timed apart and shared out to the steps of a round of epochs; what it does once before
training is printed in seconds.
"""

import argparse
import time

import numpy as np
import torch

from hhlib import losses, network, training
from hhlib.training.setup import channels_last, moving_copy

IMAGES, CLASSES, BATCH, LATE = 5_000, 10, 64, 30  # LATE: an epoch in which all terms count


def main() -> None:
    """Time every method, print a table."""
    arguments = parse()
    precision = training.choose_precision("auto", "cpu")
    labels = torch.eye(CLASSES)[torch.arange(IMAGES) % CLASSES]
    methods = {name: Step(name, arguments, labels) for name in losses.names(nested=False)}
    bare = {head: Step(None, arguments, labels, head) for head in network.HEADS}
    ratios = {name: [] for name in methods}
    for _ in range(arguments.rounds + 1):
        plain = {head: step.timed(precision) for head, step in bare.items()}
        for name, step in methods.items():
            ratios[name].append((step.timed(precision) + step.between / step.steps) / plain[step.head])
    print(f"{arguments.network} network in {precision}, {arguments.bits} bits, {torch.get_num_threads()} threads; "
          f"the network alone takes {1000 * plain['linear']:.0f} ms a step")  # fmt: skip
    print("method        step / network alone   once before training   between epochs, a round")
    for name, step in methods.items():
        found = np.array(ratios[name][1:])  # the first warms up
        low, high = np.percentile(found, [25, 75])
        print(f"{name:12s}  {np.median(found):.2f} ({low:.2f} to {high:.2f})"
              f"{step.before:18.2f} s{step.between:22.2f} s")  # fmt: skip


class Step:
    """One method with a network of its own, in the middle of a training; `None` sums the outputs instead."""

    def __init__(self, name: str | None, arguments: argparse.Namespace, labels: torch.Tensor, head: str = "linear"):
        torch.manual_seed(0)
        self.loss, self.labels, self.copy, self.between, self.steps = None, labels, None, 0.0, 1
        start = time.perf_counter()
        if name:
            self.loss = losses.create(name, bits=arguments.bits, num_classes=CLASSES, train_size=IMAGES)
            self.loss.prepare(labels)
            head = self.loss.head
        self.before, self.head = time.perf_counter() - start, head
        self.net = network.create(arguments.network, bits=arguments.bits, img_size=32, head=head).train()
        channels_last(self.net)
        rows = self.loss.start_epoch(LATE) if name else None
        self.index = (torch.arange(IMAGES) if rows is None else rows)[:BATCH]
        if name:
            self.copy = moving_copy(self.net, self.loss)
            self._share_out()

    def _share_out(self) -> None:
        epochs = getattr(self.loss, "epochs_a_round", 1)
        self.steps = epochs * max(1, self.loss.images_an_epoch // BATCH)
        start = time.perf_counter()
        self.loss.end_epoch(LATE, last=True)
        self.between = time.perf_counter() - start

    def timed(self, precision: str) -> float:
        """Seconds of one step: forward, loss, backward."""
        images = torch.randn(BATCH, 3, 32, 32)
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            z = self.net(images)
        if self.loss is None:
            value = z.float().sum()
        else:
            if self.copy is not None:
                self._remember(images, precision)
            value = self.loss(z, self.labels[self.index], self.index)
        value.backward()
        return time.perf_counter() - start

    def _remember(self, images: torch.Tensor, precision: str) -> None:
        self.copy.update_parameters(self.net)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            self.loss.remember(self.copy(images), self.index)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="micro", choices=network.names())
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    return parser.parse_args()


if __name__ == "__main__":
    main()
