"""What is the same on one process and on several: called by a test, and started by torchrun.

torchrun --nproc-per-node 2 tests/several.py FOLDER
"""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator

from hhlib import data, losses, network, runs, settings, training
from hhlib.training.scale.processes import replicas, share_normalisation, together

#: One of each kind: a memory bank, database codes, all triplets of a batch, a loss with parameters of its own.
METHODS = {"hybridhash": {"alpha": 0.5}, "adsh": {"sample": 20}, "dnnh": {}, "greedyhash": {}}

#: A network of three layers: what is tested of trainings does not depend on its size.
LAYERS = dict(embed_dims=(16, 32, 64), num_heads=(2, 2, 2), depths=(1, 1, 1))

#: Nothing random happens to an image or in the network, so that processes can be compared. Half size, then full.
RECIPE = dict(net=LAYERS, epochs=2, batch_size=16, learning_rate=1e-4, shift=0, small_epochs=1, validate_every=2)

#: Of a network that trains in a tenth of a second.
SMALL = dict(embed_dims=(8, 16, 16), num_heads=(1, 1, 1), depths=(1, 1, 1))


def small_digits() -> data.Split:
    """A twentieth of digits: enough to move, small enough for a test."""
    whole = data.load("digits")
    parts = (part.subset(range(0, len(part), 20)) for part in (whole.query, whole.train, whole.database))
    return data.Split("digits", 0, whole.protocol, *parts)


def how(method: str = "hybridhash", **changes) -> settings.Settings:
    """Settings of a training that ends in seconds."""
    values = dict(method=method, bits=12, device="cpu", precision="float32", loss=METHODS[method])
    return settings.read(**values | RECIPE | changes)


def trainings(folder: Path) -> None:
    """One run folder for each method."""
    for method in METHODS:
        training.fit(small_digits(), runs.Run(folder / method), how(method))


def normalised_steps() -> list[tuple[float, torch.Tensor]]:
    """Loss and first layer's gradient of three steps with a network that normalises over the batch, in float64.

    In float32 the division by a small spread makes rounding differences 100 times as large.
    """
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    images, labels, index = torch.randn(8, 3, 32, 32).double(), torch.eye(4)[torch.arange(8) % 4], torch.arange(8)
    net = (
        network.create("micro", bits=12, img_size=32, head="normalised", stem="conv", drop_path_rate=0.0, **LAYERS)
        .double()
        .train()
    )
    loss = losses.create("mdshc", bits=12, num_classes=4, train_size=8).double()
    loss.start_epoch(12)
    share_normalisation(net)
    everyone, optimizer, steps = replicas(net, accelerator), torch.optim.SGD(net.parameters(), 0.01), []
    mine = index.chunk(accelerator.num_processes)[accelerator.process_index]
    for _ in range(3):
        z, y, i = (together(x) for x in (everyone(images[mine]), labels[mine], index[mine]))
        loss.remember(z.detach(), i)
        value = loss(z, y, i)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        steps.append((value.item(), net.patch_embed[0].conv.weight.grad.clone()))
    return steps


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    trainings(folder)
    steps = normalised_steps()
    if Accelerator(cpu=True).is_main_process:
        torch.save(steps, folder / "normalised.pt")
    torch.distributed.destroy_process_group()
