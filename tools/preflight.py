"""The dry run of a batch: look at data, weights, memory, disk and time before anything starts.

Each data set is loaded, the presence of every picture is checked and some are opened; pretrained weights are loaded;
and of each kind of run, three steps and one batch of codes are made on this machine, in a process of its own, with the
data set's own pictures. Time is what those took, times what the recipe asks for.
"""

import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import torch

import hhlib as hh
from hhlib.settings import Settings
from hhlib.training import keeping

GIB = 2**30
OPENED = 200  #: pictures of each data set that are opened
STEPS = 3  #: of which the first warms up
ENCODED = 64  #: images


def check(batch) -> int:
    """Print what is there and what a batch will need; -> 0, or 1 if something is missing or too small."""
    todo = [job for job in batch.jobs if not job.finished]
    print(f"{len(batch.jobs)} runs: {len(batch.jobs) - len(todo)} are finished, {len(todo)} are to do")
    for job in todo:
        print(f"  {job}")
    problems = told(data(job.settings) for job in distinct(todo, of_data))
    problems += told(weights(job.settings) for job in distinct(todo, of_weights))
    if todo and not problems:
        problems += told([needs(todo)])
    for problem in problems:
        print(f"MISSING  {problem}")
    print("Not ready." if problems else "Ready: the same command without --dry-run runs it.")
    return int(bool(problems))


def told(findings: Iterable[Iterator[str]]) -> list[str]:
    """Print what is found, as it comes; -> what is missing: the lines that begin with "! "."""
    problems = []
    for line in chain.from_iterable(findings):
        if line.startswith("! "):
            problems.append(line[2:])
        else:
            print(line, flush=True)
    return problems


def distinct(jobs: list, key) -> list:
    """The first job of each kind."""
    first = {}
    for job in jobs:
        first.setdefault(key(job.settings), job)
    return list(first.values())


def of_data(s: Settings) -> tuple:
    """What decides which pictures a run reads."""
    return s.dataset, s.lists, s.data_dir


def of_weights(s: Settings) -> tuple:
    """What decides which pretrained weights a run starts from."""
    return s.network, s.recipe.pretrained


def of_cost(s: Settings) -> tuple:
    """What decides how long a run takes; its bits and its seed hardly do."""
    recipe = replace(s.recipe, loss={}, learning_rate=1.0, weight_decay=0.0)
    return s.dataset, s.lists, s.method, s.network, s.image_size, str(recipe)


def data(settings: Settings) -> Iterator[str]:
    """What is found of a data set."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the audit below says the same
            split = hh.Experiment(settings).split
    except (ValueError, FileNotFoundError) as error:
        yield f"! {error}"
        return
    sizes = ", ".join(f"{size:,} {part}" for part, size in split.sizes.items())
    yield f"data     {split.name}: {sizes}"
    yield from (f"         {problem}" for problem in hh.data.audit(split)["problems"])
    images = split.query.pool.images
    if not isinstance(images, hh.data.ImageFiles):
        return
    rows = np.unique(np.concatenate([part.rows.numpy() for part in split.parts().values()]))
    absent = [row for row in rows.tolist() if not (images.root / images.paths[row]).is_file()]
    if absent:
        yield f"! {split.name}: {len(absent):,} of {len(rows):,} pictures are missing, first {images.paths[absent[0]]}."
        return
    sample = np.random.default_rng(0).choice(rows, min(OPENED, len(rows)), replace=False)
    try:
        images[sample]
    except ValueError as error:
        yield f"! {error}"
        return
    yield f"         all {len(rows):,} pictures are there, {len(sample)} were opened"


def weights(settings: Settings) -> Iterator[str]:
    """What is found of pretrained weights."""
    if not settings.recipe.pretrained:
        yield f"weights  {settings.network}: from scratch"
        return
    try:
        if hh.network.kind(settings.network) == "frozen":
            hh.network.pretrained(settings.network)
            yield f"weights  {settings.network}: there, frozen"
            return
        net = hh.network.create(settings.network, bits=settings.bits)
        yield f"weights  {settings.network}: {hh.network.load_pretrained(net, settings.network)}"
    except (ValueError, ConnectionError) as error:
        yield f"! {error} Where jobs have no network, run this once where there is one, with the same HF_HOME."


def needs(todo: list) -> Iterator[str]:
    """Memory, disk and time of every kind of run, measured here."""
    hours, disk, top = 0.0, 0.0, 0.0
    for job in distinct(todo, of_cost):
        alike = sum(of_cost(other.settings) == of_cost(job.settings) for other in todo)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
            found = alone.submit(rehearse, job.settings).result()
        yield f"memory   {job}: {found['memory'] / GIB:.1f} GiB of {found['capacity'] / GIB:.0f} on {found['device']}"
        minutes = found["seconds"] / 60
        yield (f"time     {found['step']:.2f} s a step, {found['images_a_second']:.0f} images/s encoded: "
               f"{minutes:.1f} minutes a run, {alike} such runs")  # fmt: skip
        hours, disk = hours + alike * minutes / 60, disk + alike * found["disk"]
        top = max(top, found["memory"] / found["capacity"])
    free = shutil.disk_usage(hh.common.resolve("."))
    yield f"in all   {hours:.2f} hours one after the other, {disk / 1e9:.1f} GB of {free.free / 1e9:.0f} GB free disk"
    if disk > free.free:
        yield f"! the runs need {disk / 1e9:.1f} GB of disk, but {free.free / 1e9:.1f} GB are free."
    if top > 0.95:
        yield "! memory is too small: raise micro_batches or lower batch_size."


def rehearse(settings: Settings) -> dict:
    """In a process of its own: some steps and some codes -> seconds and disk of a whole run, memory of a step."""
    ex = hh.Experiment(settings)
    if hh.network.kind(settings.network) == "frozen":
        return of_backbone(ex)
    count = STEPS * settings.recipe.batch_size
    trainer = hh.training.Trainer(few(ex.split, count), replace(settings, recipe=short(settings.recipe)), fresh=False)
    trainer.net.train()
    steps = [timed(lambda batch=batch: trainer.step(batch)[0].item()) for batch in trainer.batches(0)]
    images = ex.split.query.subset(np.arange(min(ENCODED, len(ex.split.query))))
    how = dict(mean=trainer.mean, std=trainer.std, precision=trainer.precision)
    encode = timed(lambda: hh.retrieval.encode(trainer.kept, images, **how))
    with tempfile.TemporaryDirectory() as folder:
        trainer.history, trainer.timing = [{"epoch": 1, "validation_map": 0.0}], [{"epoch": 1, "seconds": 1.0}]
        keeping.save(trainer, hh.runs.Run(folder))
        files = {path.name: path.stat().st_size for path in Path(folder).iterdir()}
    found = cost(ex.split, settings, min(steps[1:] or steps), encode / len(images))
    return found | memory(ex.device) | {"disk": sum(files.values()) + files[keeping.STATE]}  # the state before, too


def of_backbone(ex: hh.Experiment) -> dict:
    """Of a frozen backbone: its vectors take the time, its head next to nothing."""
    images = ex.split.query.batch(range(min(ENCODED, len(ex.split.query))))[0]
    images = hh.data.scale(images, ex.split.image_size)
    seconds = timed(lambda: ex.backbone(images)) / len(images)
    pictures = sum(map(len, ex.split.parts().values()))
    found = {"step": 0.0, "images_a_second": 1 / seconds, "seconds": pictures * seconds}
    return found | memory(ex.device) | {"disk": pictures * 4096}


def few(split: hh.data.Split, count: int) -> hh.data.Split:
    """The same split with `count` images to train on, spread over the classes."""
    some = {}
    for name in ("train", "database"):
        part = getattr(split, name)
        some[name] = part.subset(np.linspace(0, len(part) - 1, min(count, len(part)), dtype=int))
    return replace(split, **some)


def short(recipe: hh.settings.Recipe) -> hh.settings.Recipe:
    """The same steps, but one epoch, and nothing held out."""
    return replace(recipe, epochs=1, small_epochs=0, validation=0.0, choose="validation", balanced=False)


def cost(split: hh.data.Split, settings: Settings, step: float, encode: float) -> dict:
    """Seconds of a whole run from those of a step and of encoding an image; epochs at half size count as whole ones."""
    recipe, (part, held) = settings.recipe, hh.training.parts(split, settings)
    searched = len(split.query) + len(split.database)
    looks = -(-recipe.epochs // recipe.validate_every)
    seen = looks * (len(held) + (searched if recipe.choose == "queries" else 0)) + searched
    seconds = recipe.epochs * max(1, len(part) // recipe.batch_size) * step + seen * encode
    return {"step": step, "images_a_second": 1 / encode, "seconds": seconds}


def memory(device: str) -> dict:
    """The most memory that this process took, and how much there is; of the GPU, if there is one."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
        free, _ = torch.cuda.mem_get_info()
        used = torch.cuda.max_memory_reserved()
        return {"memory": used, "capacity": free + torch.cuda.memory_reserved(), "device": name}
    status = Path("/proc/self/status")  # not ru_maxrss, which starts at the peak of the process that started this one
    now = psutil.Process().memory_info()
    used = getattr(now, "peak_wset", now.rss)  # Windows knows the peak, macOS only what it is now
    if status.is_file():
        used = int(status.read_text(encoding="utf-8").split("VmHWM:")[1].split()[0]) * 1024
    return {"memory": used, "capacity": psutil.virtual_memory().total, "device": "the CPU: a GPU is not seen here"}


def timed(work) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
