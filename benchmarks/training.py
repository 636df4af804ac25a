"""How fast a network trains and encodes: the kit's way against the plain way, on the same network, in one run.

    python benchmarks/training.py [--network base --size 224 --batch 8] [--rounds 5] [--compile] [--memory]
                                  [--growth FILE]

The plain way is what most published code does: float32, attention written out as a softmax between two products,
images stored channel by channel, an optimizer that loops over parameters. The kit's: bf16 where the machine has it,
fused attention where it pays, channels last, a fused optimizer. On a GPU, fp16 with a loss scale is timed as a third
way; with `--compile`, the kit's way through torch.compile as another. A step is forward, loss (hybridhash, 5,000
remembered images, 64 bits), backward, clipping and update; the ways take turns.

`--memory` measures the peak of a step in a fresh process for several batch sizes, also with the layers checkpointed
and in four micro-batches; `--growth` draws what a step of the micro network costs by images, bits and image side.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from hhlib import losses, network, plots, training
from hhlib.training.scale.micro_batches import MicroBatches
from hhlib.training.setup import channels_last

BITS, IMAGES, CLASSES = 64, 5_000, 10
#: What is compared by `--memory`: the plain way, the kit's, and the kit's two ways to save.
SAVING = {"plain": {}, "kit": {}, "checkpointing": dict(checkpointing=True), "micro-batches": dict(micro_batches=4)}


def main() -> None:
    """Print what was asked for."""
    arguments = parse()
    if arguments.one_step:
        return one_step(arguments)
    speed(arguments)
    if arguments.memory:
        memory(arguments)
    if arguments.growth:
        growth(arguments)
    return None


class Way:
    """One way to train and encode: a network, its optimizer and its precision."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        dtype: torch.dtype,
        *,
        plain: bool,
        bits: int = BITS,
        checkpointing: bool = False,
        micro_batches: int = 1,
        compiled: bool = False,
    ):
        torch.manual_seed(0)
        self.device, self.dtype = torch.device(arguments.device), dtype
        self.net = network.create(arguments.network, bits=bits, img_size=arguments.size).to(self.device)
        self.loss = losses.create("hybridhash", bits=bits, num_classes=CLASSES, train_size=IMAGES).to(self.device)
        self.layout = torch.contiguous_format
        if plain:
            for module in self.net.modules():
                if isinstance(module, network.BlockAttention):
                    module.fused = False
        else:
            channels_last(self.net)
            self.layout = torch.channels_last
        self.net.set_grad_checkpointing(checkpointing)
        self.trained = self.net if micro_batches == 1 else MicroBatches(self.net, micro_batches, self)
        self.trained = torch.compile(self.trained) if compiled else self.trained
        how = dict(foreach=False) if plain else dict(fused=True)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-4, **how)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype == torch.float16)
        self.images = torch.randn(arguments.batch, 3, arguments.size, arguments.size, device=self.device)
        self.index = torch.arange(arguments.batch, device=self.device)
        self.labels = torch.eye(CLASSES, device=self.device)[self.index % CLASSES]

    def autocast(self) -> torch.autocast:
        """What sets the precision."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def outputs(self) -> torch.Tensor:
        """The network's answer to the batch."""
        with self.autocast():
            return self.trained(self.images.contiguous(memory_format=self.layout))

    def step(self) -> None:
        """One step of training."""
        self.net.train()
        self.optimizer.zero_grad()
        self.scaler.scale(self.loss(self.outputs(), self.labels, self.index)).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    @torch.inference_mode()
    def encode(self) -> None:
        """One batch of codes."""
        self.net.eval()
        self.outputs()

    def seconds(self, what) -> float:
        """How long `step` or `encode` takes."""
        self._wait()
        start = time.perf_counter()
        what()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def speed(arguments: argparse.Namespace) -> None:
    """Time all ways in turn, print images a second and ratios."""
    best = {"bf16": torch.bfloat16, "float32": torch.float32}
    precision = training.choose_precision("auto", arguments.device)
    ways = {f"kit, {precision}": Way(arguments, best[precision], plain=False)}
    ways["plain, float32"] = Way(arguments, torch.float32, plain=True)
    if arguments.compile:
        ways["kit, compiled"] = Way(arguments, best[precision], plain=False, compiled=True)
    if arguments.device == "cuda":
        ways["plain, fp16"] = Way(arguments, torch.float16, plain=True)
    print(f"{arguments.network} network, {arguments.size} pixels, batches of {arguments.batch}, {arguments.device}, "
          f"{torch.get_num_threads()} threads; median images/s of {arguments.rounds} rounds")  # fmt: skip
    for name in ("step", "encode"):
        taken = {way: [] for way in ways}
        for _ in range(arguments.rounds + 1):
            for way in ways:
                taken[way].append(ways[way].seconds(getattr(ways[way], name)))
        ours = np.array(taken[next(iter(ways))][1:])  # the first warms up
        for way, times in taken.items():
            times = np.array(times[1:])
            ratio = np.percentile(times / ours, [50, 0, 100])
            print(f"{name:7s} {way:15s} {arguments.batch / np.median(times):9.1f} images/s"
                  f"   the kit is {ratio[0]:.2f} times as fast ({ratio[1]:.2f} to {ratio[2]:.2f})")  # fmt: skip
        if name == "step":
            flops = operations(ways[next(iter(ways))])
            print(f"        products and convolutions of a step: {flops / 1e9:.0f} GFLOP, "
                  f"{flops / np.median(ours) / 1e12:.2f} TFLOP/s the kit's way")  # fmt: skip


def operations(way: Way) -> int:
    """Floating point operations of a step."""
    with FlopCounterMode(display=False) as counter:
        way.step()
    return counter.get_total_flops()


def one_step(arguments: argparse.Namespace) -> None:
    """In a process of its own: two steps, and the peak of memory in MiB."""
    plain = arguments.one_step == "plain"
    way = Way(arguments, torch.float32 if plain else torch.bfloat16, plain=plain, **SAVING[arguments.one_step])
    for _ in range(2):
        way.step()
    if arguments.device == "cuda":
        print(torch.cuda.max_memory_allocated() // 2**20)
    else:
        # Not ru_maxrss, which starts at the peak of the process that started this one.
        print(int(Path("/proc/self/status").read_text(encoding="utf-8").split("VmHWM:")[1].split()[0]) // 1024)


def memory(arguments: argparse.Namespace) -> None:
    """Peak memory by batch size, each in a process of its own."""
    print("peak in MiB by batch, " + ", ".join(SAVING))
    for batch in (1, 4, 16):
        peaks = []
        for way in SAVING:
            words = f"--network {arguments.network} --size {arguments.size} --device {arguments.device} --batch {batch}"
            command = [sys.executable, __file__, *words.split(), "--one-step", way]
            done = subprocess.run(command, capture_output=True, text=True)
            peaks.append(done.stdout.strip() or "too much")
        print(f"{batch:5d}", *(f"{peak:>10s}" for peak in peaks), flush=True)


def growth(arguments: argparse.Namespace) -> None:
    """Seconds of a step, the kit's way, by batch, bits and image side, each at the others' smallest."""
    axes_of = {"images per batch": ("batch", [4, 8, 16, 32, 64]), "bits": ("bits", [16, 64, 256, 1024])}
    axes_of["pixels of an image"] = ("size", [32, 64, 96, 128, 160])
    plots.theme()
    figure, axes = plt.subplots(1, 3, figsize=(9, 3))
    for ax, (label, (name, values)) in zip(axes, axes_of.items(), strict=True):
        seconds = []
        for value in values:
            case = argparse.Namespace(**vars(arguments) | {"network": "micro", "size": 32, "batch": 16})
            bits = value if name == "bits" else BITS
            if name != "bits":
                setattr(case, name, value)
            way = Way(case, torch.bfloat16, plain=False, bits=bits)
            seconds.append(np.median([way.seconds(way.step) for _ in range(arguments.rounds + 1)][1:]))
        x = [value**2 for value in values] if name == "size" else values
        ax.plot(x, seconds, marker="o")
        ax.set(xlabel=label, ylim=(0, 1.1 * max(seconds)))
        print(label, ", ".join(f"{a}: {b:.3f} s" for a, b in zip(x, seconds, strict=True)))
    axes[0].set_ylabel("seconds per step")
    figure.savefig(arguments.growth, dpi=150, bbox_inches="tight")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="micro", choices=network.names())
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--growth", metavar="FILE")
    parser.add_argument("--one-step", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
