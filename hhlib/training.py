"""Fit a network: one readable loop, on the CPU or a GPU, that can be stopped at any moment and goes on where it was.

Model choice never looks at the query set: a validation part is cut from the training set, and the weights of the best
validated epoch are kept beside those of the last.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import pandas as pd
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.state import AcceleratorState
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from hhlib import data, losses, metrics, network, retrieval
from hhlib.common import check_choice, check_whole
from hhlib.runs import Run, atomic, check_parameters, surroundings, write_json

VALIDATION_DATABASE = 2_000  #: validation queries are ranked against at most so many training images


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: highest value of the one-cycle schedule.
        weight_decay: of AdamW, for matrices and kernels only.
        warmup: share of all steps during which the learning rate rises, 0 to below 1.
        shift: random shift, in pixels each way.
        drop_path: stochastic depth of the last layer, 0 to below 1.
        validation: share of the training images held out to choose the epoch, 0 to below 1; 0 keeps the last epoch.
        validate_every: epochs between two looks at the validation part.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.05
    warmup: float = 0.2
    shift: int = 4
    drop_path: float = 0.0
    validation: float = 0.1
    validate_every: int = 5

    def __post_init__(self):
        for name in ("epochs", "batch_size", "validate_every"):
            check_whole(name, getattr(self, name), 1)
        check_whole("shift", self.shift, 0)
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate!r}, but it must be above 0.")


#: Where to start, by data set; found on two CPU cores with the micro network.
RECIPES = {
    "digits": Recipe(epochs=30, batch_size=64, learning_rate=2e-3, shift=3),
    "shapes": Recipe(epochs=40, batch_size=64, learning_rate=2e-3),
    "cifar10": Recipe(epochs=24, batch_size=64, learning_rate=2e-3, drop_path=0.1, validate_every=8),
}


def recipe_for(dataset: str, **changes) -> Recipe:
    """The data set's recipe; `changes` that are 0 or None keep its value."""
    return replace(RECIPES[dataset.split("-")[0]], **{name: value for name, value in changes.items() if value})


# --- device --------------------------------------------------------------------------------------------------------


def choose_device(device: str) -> str:
    """"auto" is CUDA if there is a GPU, else the CPU. Asking for CUDA without one is an error, not a slow run."""
    check_choice("device", device, ("auto", "cpu", "cuda"))
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but PyTorch sees no CUDA GPU here; choose auto or cpu.")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def choose_precision(precision: str, device: str) -> str:
    """"auto" is bf16 where the hardware multiplies it natively; elsewhere, bf16 runs but is slower than float32."""
    check_choice("precision", precision, ("auto", "float32", "bf16"))
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    cpu = torch.cpu.get_capabilities()
    return "bf16" if cpu.get("avx512_bf16") or cpu.get("amx_bf16") else "float32"


# --- the loop ------------------------------------------------------------------------------------------------------


@dataclass
class State:
    """Everything that changes while training."""

    net: nn.Module
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    loader: DataLoader
    history: list[dict]
    timing: list[dict]


def fit(
    split: data.Split,
    run: Run,
    *,
    method: str,
    network_name: str,
    bits: int,
    recipe: Recipe,
    seed: int = 0,
    loss_arguments: dict | None = None,
    network_arguments: dict | None = None,
    device: str = "auto",
    precision: str = "auto",
    live: bool = False,
    resume: bool = True,
) -> Run:
    """Train a network and leave it in a run folder.

    Args:
        split: only its training part is looked at.
        run: the folder; created if need be.
        method, network_name, bits, seed: what the run is named after.
        recipe: how to train.
        loss_arguments, network_arguments: further arguments of the loss and of the network.
        device: "auto", "cpu" or "cuda".
        precision: "auto", "float32" or "bf16".
        live: a progress bar instead of a line an epoch.
        resume: go on with an earlier run in this folder, or leave a finished one as it is. False starts afresh.

    Returns:
        `run`, with run.json, history.csv, timing.csv, model.safetensors and training_state.pt.

    Raises:
        ValueError: for a bad value, or if the folder holds a run with other parameters.
        FloatingPointError: if the loss is no longer finite; the last epoch's state stays on disk.
    """
    check_parameters(dataset=split.name, method=method, network=network_name, bits=bits, seed=seed)
    device = choose_device(device)
    precision = choose_precision(precision, device)
    fit_part, validation = data.hold_out(split.train, recipe.validation, seed)
    torch.manual_seed(seed)
    model = dict(preset=network_name, bits=bits, img_size=split.image_size, drop_path_rate=recipe.drop_path)
    model |= network_arguments or {}
    net = network.create(**model)
    objective = losses.create(
        method, bits=bits, num_classes=len(split.classes), train_size=len(fit_part), **loss_arguments or {}
    )
    mean, std = data.channel_statistics(fit_part)
    record = {
        "parameters": dict(dataset=split.name, method=method, network=network_name, bits=bits, seed=seed)
        | {"recipe": asdict(recipe), "loss": loss_arguments or {}, "precision": precision},
        "model": model,
        "data": dict(sizes=split.sizes, trained_on=len(fit_part), validation=len(validation), topk=split.protocol.topk)
        | {"split_seed": split.seed, "fingerprint": split.fingerprint(), "mean": mean, "std": std},
        "device": device,
    }
    earlier = _earlier(run, record) if resume else None

    AcceleratorState._reset_state(reset_partial_state=True)  # a notebook may have trained on another device before
    accelerator = Accelerator(
        cpu=device == "cpu",
        mixed_precision="bf16" if precision == "bf16" else "no",
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=seed),
    )
    state = _prepare(accelerator, net, objective, fit_part, recipe)
    if earlier:
        _restore(state, earlier)
    else:
        write_json(run.path / "run.json", record | surroundings())
    bar = tqdm(total=recipe.epochs, initial=len(state.history), unit="epoch", disable=not live)
    for epoch in range(len(state.history), recipe.epochs):
        start = time.perf_counter()
        row = _train_epoch(accelerator, state, epoch, seed, recipe, lambda x: data.normalise(x, mean, std), split.flip)
        if len(validation) and ((epoch + 1) % recipe.validate_every == 0 or epoch + 1 == recipe.epochs):
            row["validation_map"] = _validate(accelerator.unwrap_model(state.net), fit_part, validation, mean, std, precision)
        state.history.append(row)
        state.timing.append({"epoch": epoch + 1, "seconds": time.perf_counter() - start})
        _save(accelerator, state, run)
        bar.update()
        (bar.set_postfix_str if live else print)(_progress_line(state, recipe))
    bar.close()
    return run


def _prepare(accelerator: Accelerator, net, objective, part, recipe: Recipe) -> State:
    """Optimizer, schedule and loader, placed on the device by accelerate."""
    matrices = [p for name, p in net.named_parameters() if p.ndim > 1 and "pos_embed" not in name]
    others = [p for name, p in net.named_parameters() if p.ndim == 1 or "pos_embed" in name]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        fused=True,
    )
    loader = DataLoader(
        part, batch_size=min(recipe.batch_size, len(part)), shuffle=True, drop_last=True, collate_fn=lambda batch: batch
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.learning_rate, total_steps=recipe.epochs * len(loader), pct_start=recipe.warmup
    )
    net = net.to(memory_format=torch.channels_last)
    net, optimizer, schedule, loader = accelerator.prepare(net, optimizer, schedule, loader)
    return State(net, objective.to(accelerator.device), optimizer, schedule, loader, history=[], timing=[])


def _train_epoch(accelerator: Accelerator, state: State, epoch: int, seed: int, recipe: Recipe, normalise, flip) -> dict:
    """One pass over the training images -> the epoch's line of the history."""
    # Seeded by epoch: a resumed run draws what an uninterrupted one would have drawn.
    torch.manual_seed(seed * 1_000_003 + epoch)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    state.loader.set_epoch(epoch)
    state.net.train()
    total, gap = 0.0, 0.0
    ones = 0.0
    for images, labels, index in state.loader:
        images = normalise(data.augment(images, shift=recipe.shift, flip=flip, generator=generator))
        z = state.net(images)  # (B, K)
        loss = state.loss(z, labels, index)
        state.optimizer.zero_grad()
        accelerator.backward(loss)
        state.optimizer.step()
        state.schedule.step()
        total += loss.detach()
        gap += (1 - torch.tanh(z.detach()).abs()).mean()
        ones += (z.detach() >= 0).float().mean(dim=0)
    steps = len(state.loader)
    if not math.isfinite(total):
        raise FloatingPointError(f"the loss is {float(total)} in epoch {epoch + 1}; lower learning_rate or use float32.")
    return {
        "epoch": epoch + 1,
        "loss": float(total) / steps,
        "learning_rate": state.schedule.get_last_lr()[0],
        "quantisation_gap": float(gap) / steps,
        "bit_balance": float(((ones / steps) - 0.5).abs().mean()),
        "validation_map": math.nan,
    }


def _validate(net: nn.Module, fit_part: data.Part, validation: data.Part, mean, std, precision: str) -> float:
    """Expected mAP of the validation images as queries, the training images (at most 2,000) as database."""
    database = fit_part.subset(range(0, len(fit_part), math.ceil(len(fit_part) / VALIDATION_DATABASE)))
    parts = [
        x for part in (validation, database)
        for x in (retrieval.encode(net, part, mean=mean, std=std, precision=precision).numpy(), part.labels.numpy())
    ]  # fmt: skip
    return metrics.evaluate(*parts)["map"]["expected"]


# --- keeping it ----------------------------------------------------------------------------------------------------


def _earlier(run: Run, record: dict) -> dict | None:
    """The state of an earlier run in this folder, None if there is none; refuses one with other parameters."""
    path = run.path / "training_state.pt"
    if not path.is_file():
        return None
    for part in ("parameters", "model", "data"):
        for name, old, new in _differences(run.record[part], record[part]):
            raise ValueError(
                f"{run.path} holds a run with {name} = {old!r}, but {new!r} is asked for; "
                "use resume=False to train afresh, or another runs_dir to keep both."
            )
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise ValueError(f"{path} is damaged or cut short; use resume=False to train afresh.") from error


def _differences(old: dict, new: dict, prefix: str = "") -> Iterator[tuple[str, object, object]]:
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{name}.")
        elif a != b and list(a if isinstance(a, list | tuple) else [a]) != list(b if isinstance(b, list | tuple) else [b]):
            yield prefix + name, a, b


def _parts(state: State) -> dict:
    return {name: getattr(state, name) for name in ("net", "loss", "optimizer", "schedule")}


def _restore(state: State, stored: dict) -> None:
    for name, part in _parts(state).items():
        part.load_state_dict(stored[name])
    state.history, state.timing = stored["history"], stored["timing"]


def _save(accelerator: Accelerator, state: State, run: Run) -> None:
    """After each epoch: history, the weights if they are the best so far, and all that is needed to go on."""
    scores = [row["validation_map"] for row in state.history]
    valid = [score for score in scores if not math.isnan(score)]
    if not valid or scores[-1] == max(valid):
        weights = accelerator.unwrap_model(state.net).state_dict()
        with atomic(run.path / "model.safetensors") as draft:
            save_file({name: tensor.contiguous() for name, tensor in weights.items()}, draft)
    with atomic(run.path / "history.csv") as draft:
        pd.DataFrame(state.history).to_csv(draft, index=False)
    with atomic(run.path / "timing.csv") as draft:
        pd.DataFrame(state.timing).to_csv(draft, index=False)
    stored = {name: part.state_dict() for name, part in _parts(state).items()}
    with atomic(run.path / "training_state.pt") as draft:
        torch.save(stored | {"history": state.history, "timing": state.timing}, draft)


def _progress_line(state: State, recipe: Recipe) -> str:
    row, seconds = state.history[-1], [entry["seconds"] for entry in state.timing]
    left = (recipe.epochs - len(seconds)) * sum(seconds) / len(seconds)
    score = "" if math.isnan(row["validation_map"]) else f"  validation mAP {row['validation_map']:.3f}"
    return f"epoch {row['epoch']:3d}/{recipe.epochs}  loss {row['loss']:.3f}{score}  {seconds[-1]:.1f} s, {left:.0f} s left"
