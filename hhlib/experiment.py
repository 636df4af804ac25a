"""The front door: from settings to split, network, run folder, codes and scores.

    import hhlib as hh
    ex = hh.open(dataset="digits", bits=16)
    ex.fit()
    ex.evaluate()["map"]["expected"]
    z = ex.encode("new.jpg")  # (1, 16)

An experiment knows the mean and the spread of its training images, the precision and the device; nobody else needs to.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hhlib import data, features, locking, metrics, network, retrieval, runs, training
from hhlib.common import Missing, resolve
from hhlib.settings import Settings, read

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = ("query", "train", "database", "validation")


def open(settings: str = "", /, **values: Any) -> "Experiment":
    """An experiment, by its settings: ``hh.open("erase=0 loss.alpha=0.2", dataset="cifar10", bits=16)``.

    Nothing is loaded or trained yet. See `hhlib.settings.read` for what can be given, `hhlib.settings.helps` for names.

    Raises:
        ValueError: for a name that does not exist or a value that does not fit.
    """
    return Experiment(read(settings, **values))


def kept(name: str, **where: Any) -> "Experiment":
    """A run that comes with the kit, results/<name>: its network and codes, to look at without training.

    where: settings that say nothing about the run itself, such as data_dir, live and download.
    """
    run = runs.kept(name)
    named = {key: run.parameters[key] for key in runs.NAMED}
    return Experiment(read(**named, **where), run)


class Experiment:
    """A run that exists or is about to: its data, its network, its codes, its scores.

    Attributes:
        settings: what it is.
        run: its folder, by default the one that the settings name.
    """

    def __init__(self, settings: Settings, run: runs.Run | None = None):
        self.settings = settings
        self.run = run or runs.Run(runs.folder(settings))
        self.device = training.choose_device(settings.device)

    def __repr__(self) -> str:
        s = self.settings
        what = f"{s.named()['dataset']}: {s.method}, {s.network} network, {s.bits} bits, seed {s.seed}"
        return f"{what}, on {self.device} in {self.precision}; {self.run.state}"

    def has(self, name: str) -> bool:
        """Whether the run has a file already, such as "model.safetensors", "codes.npz" or "metrics.json"."""
        return (self.run.path / name).is_file()

    @cached_property
    def split(self) -> data.Split:
        """The data set's query, train and database part; read when first asked for."""
        s, size = self.settings, self._side()
        where = dict(root=s.data_dir, size=size, lists=s.lists or None)
        return data.load(s.dataset, seed=s.seed, cache=s.cache, download=s.download, skip=s.skip, **where)

    def _side(self) -> int | None:
        """Side of the pictures in pixels; None leaves those in memory as they are, and scales those on disk to 224."""
        s, known = self.settings, network.facts_of(self.settings.network)
        if s.image_size:
            return s.image_size
        if known:
            small = 32 if s.dataset.split("-")[0] in data.sources.MEMORY else None
            return network.input_size(s.network.removeprefix(network.TUNED), picture=small)
        own = 64 if s.network == "micro" else network.PRESETS[s.network]["img_size"]  # a folder: pictures of any size
        return None if s.dataset in data.names() else own

    @cached_property
    def backbone(self) -> features.Backbone | None:
        """The frozen backbone, None if the network is trained as a whole."""
        if network.kind(self.settings.network) != "frozen":
            return None
        precision = training.choose_precision(self.settings.precision, self.device)
        return features.Backbone(self.settings.network, self.split.image_size, self.device, precision)

    @cached_property
    def inputs(self) -> data.Split:
        """The split as the network gets it: pictures or, for a frozen backbone, vectors, which are computed once."""
        if self.backbone is None:
            return self.split
        folder = resolve(self.settings.data_dir) / "features" / self.settings.named()["dataset"]
        return self.backbone.split(self.split, folder)

    @cached_property
    def validation(self) -> data.Part:
        """The training images held out to choose the epoch; empty for asymmetric methods, which hold out nothing."""
        return training.parts(self.split, self.settings)[1]

    @cached_property
    def _statistics(self) -> tuple[list[float], list[float]]:
        """Mean and spread of the channels: those that the run was trained with, or would be."""
        if self.has("run.json"):
            return self.run.record["data"]["mean"], self.run.record["data"]["std"]
        return training.statistics(training.parts(self.split, self.settings)[0], self.settings.network)

    @property
    def precision(self) -> str:
        """float32 or bf16: as the run was trained, or would be here."""
        kept = self.run.parameters.get("precision") if self.has("run.json") else None
        if self.backbone is not None and self.settings.precision == "auto":
            return kept or "float32"  # of the head, which is too small to gain from bf16
        return kept or training.choose_precision(self.settings.precision, self.device)

    def pictures(self, part: str | data.Part, rows: Sequence[int]) -> tuple[Tensor, Tensor, list[str]]:
        """Some images of a part: pictures (n, 3, S, S) uint8, the same as the network gets them, and their titles.

        What the head of a frozen backbone gets are vectors (n, D).
        """
        images, labels, _ = self._part(part).batch(rows)
        images = data.scale(images, self.split.image_size)
        return images, self.normalise(images), [self.split.describe(row) for row in labels]

    def normalise(self, images: Tensor) -> Tensor:
        """Pictures (n, 3, S, S) uint8 -> what the network gets, (n, 3, S', S') or (n, D) float, on its device."""
        if self.backbone is not None:
            return self.backbone(images).to(self.device)
        return data.normalise(images.to(self.device), *self._statistics, self.split.image_size)

    @cached_property
    def net(self) -> network.Network:
        """The trained network, on the device, in evaluation mode."""
        self.need("model.safetensors")
        return self.run.model().to(self.device)

    def untrained(self, **options) -> network.Network:
        """A network like this one's, but for `options`, with random weights drawn from the seed."""
        torch.manual_seed(self.settings.seed)
        return network.create(**training.model_of(self.inputs, self.settings) | options).to(self.device).eval()

    def trainer(self, **changes) -> training.Trainer:
        """A trainer at its start, to look at steps; `fit` makes its own. changes: settings that differ."""
        return training.Trainer(self.inputs, replace(self.settings, **changes))

    def fit(self, reports: Iterable[training.Report] = (training.print_line,)) -> runs.Run:
        """Train, or resume, or leave a finished run as it is; see `training.fit`."""
        reports = [*reports, *([training.TensorBoard(self.run)] if self.settings.tensorboard else [])]
        training.fit(self.inputs, self.run, self.settings, reports)
        for name in ("net", "codes", "_statistics"):
            self.__dict__.pop(name, None)  # what was looked at before training
        return self.run

    def encode(self, what: Any, *, net: network.Network | None = None) -> Tensor:
        """The network's outputs z (n, K) float32, on the CPU; a bit is z >= 0.

        Args:
            what: "query", "train", "database", "validation"; a `data.Part`; pictures (n, 3, S, S) uint8; a picture
                opened by Pillow; the path of a picture, or a list of paths.
            net: another network, such as `untrained()`.
        """
        mean, std = self._statistics
        recipe = self.run.parameters["recipe"] if self.has("run.json") else vars(self.settings.recipe)
        how = dict(mean=mean, std=std, precision=self.precision, flip=recipe["flip_average"] and self.split.flip)
        images = self._images(what) if self.backbone is None else self._vectors(self._images(what), self.backbone)
        return retrieval.encode(self.net if net is None else net, images, **how)

    def _vectors(self, images: data.Part | Tensor, backbone: features.Backbone) -> data.Part | Tensor:
        """What the frozen backbone says: of a part, kept on disk; of new pictures, computed now."""
        if isinstance(images, Tensor):
            return backbone(images)
        return images if len(images.pool.images.shape) == 2 else data.Part(self.inputs.query.pool, images.rows)

    def _images(self, what) -> data.Part | Tensor:
        if isinstance(what, data.Part | Tensor):
            return what
        if isinstance(what, str) and what in PARTS:
            return self._part(what)
        if isinstance(what, str | Path | Sequence):
            files = [str(resolve(path)) for path in ([what] if isinstance(what, str | Path) else what)]
            return data.ImageFiles("/", files, self.split.image_size)[:]
        return data.square_picture(what, self.split.image_size)[None]

    def _part(self, part: str | data.Part) -> data.Part:
        if isinstance(part, data.Part):
            return part
        return self.validation if part == "validation" else self.split.parts()[part]

    @cached_property
    def codes(self) -> dict[str, np.ndarray]:
        """Packed codes (n, ceil(K/8)) uint8 of "query" and "database"; encoded once, then kept in the run's codes.npz.

        The database's of an asymmetric method are those it learnt; `encode("database")` gives the network's.
        """
        self.need("model.safetensors")
        if self.run.record["data"]["fingerprint"] != self.split.fingerprint():
            raise ValueError(f"{self.run.path} was trained on another split of {self.split.name}; use resume=false.")
        if not self.has("codes.npz"):
            with locking.held(self.run.path, "encoding"):  # a training that goes on would change the network meanwhile
                learnt = self.run.database_codes()
                codes = {"query": retrieval.pack(self.encode("query"))}
                codes["database"] = retrieval.pack(self.encode("database")) if learnt is None else learnt
                kept = {f"{part}_codes": packed for part, packed in codes.items()}
                kept |= {f"{part}_labels": labels for part, labels in self.labels.items()}
                paths = codes if self.split.query.pool.paths else ()
                kept |= {f"{part}_paths": np.array(self._part(part).paths) for part in paths}
                self.run.save_codes(**kept, bits=np.array(self.settings.bits))
        stored = self.run.codes()
        return {part: stored[f"{part}_codes"] for part in ("query", "database")}

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Multi-hot labels (n, C) of "query" and "database"."""
        return {part: self._part(part).labels.numpy() for part in ("query", "database")}

    def score(self, query: np.ndarray | None = None, database: np.ndarray | None = None, **policy) -> dict:
        """`metrics.evaluate` with these codes, or the run's own, and the run's labels; nothing is kept."""
        self.split.need_labels()
        query = self.codes["query"] if query is None else query
        database = self.codes["database"] if database is None else database
        packed = query.dtype == database.dtype == np.uint8
        policy.setdefault("topk", self.settings.topk or self.split.protocol.topk)
        policy.setdefault("bits", self.settings.bits if packed else None)
        return metrics.evaluate(query, self.labels["query"], database, self.labels["database"], **policy)

    def evaluate(self, **policy) -> dict:
        """Score the codes, and keep the scores in metrics.json, with what must be said beside them.

        Returns:
            What `metrics.evaluate` does, and ``chance``, ``interval`` (95 % over queries), ``split`` (the audit's
            verdict), ``remarks`` (sentences), ``database_codes_learnt``.
        """
        self.need("model.safetensors")
        with locking.held(self.run.path, "evaluating"):
            scores, audit = self.score(**policy), data.audit(self.split)
            remarks = audit["problems"] + audit["notes"]
            if self.run.parameters["recipe"]["choose"] == "queries":
                remarks.append("the epoch was chosen on the query set, which makes scores better than they are")
            beside = dict(chance=metrics.chance(*self.labels.values(), topk=scores["topk"]), split=audit["verdict"])
            beside |= dict(interval=metrics.interval(scores["ap"]["expected"]), remarks=remarks)
            beside["database_codes_learnt"] = self.run.database_codes() is not None
            self.run.save_metrics(scores, **beside)
            return scores | beside

    def need(self, name: str) -> None:
        """Raise FileNotFoundError, with the one command that helps, unless the run has a file that training makes."""
        if not self.has(name):
            raise Missing(f"{self.run.path / name} does not exist; this makes it: {runs.command(self.settings)}")

    def bar(self, needs: str = "") -> None:
        """Show which run this is and which others there are; needs: its file that a page needs. See `hhlib.bar`."""
        from hhlib import bar

        bar.show(str(self), self.run, self.settings, needs)

    def show(self, figure: "Figure", name: str = "", caption: str = "") -> None:
        """Show a figure with its caption and, if it has a name, keep both as figures/<name>.png in the run's folder.

        A caption is a sentence that says what is drawn; it is also the picture's text for a screen reader.
        """
        from hhlib import widgets

        if name:
            self.run.save_figure(figure, name, caption)
        widgets.show(figure, caption)

    def photographs(self) -> "Experiment":
        """Where to look at pictures: here or, if these are drawings of the kit, in its kept run on photographs.

        Needs CIFAR-10 in `data_dir`; where it is not, this experiment is used, and a line says so.
        """
        s = self.settings
        if s.dataset not in data.sources.DRAWN:
            return self
        other = kept("cifar10-2-64bits", data_dir=s.data_dir, live=s.live, device=s.device, download=s.download)
        try:
            other.split  # noqa: B018, reads the pictures
        except FileNotFoundError:
            print(f"CIFAR-10 is not in {s.data_dir}, so this page looks at {s.dataset}; `-p download true` fetches it.")
            return self
        return other

    def explore(self, view: Callable, **choices: Sequence) -> None:
        """`widgets.explore`: menus over a drawing function where the notebook is live, plain figures elsewhere."""
        from hhlib import widgets

        widgets.explore(view, live=self.settings.live, **choices)
