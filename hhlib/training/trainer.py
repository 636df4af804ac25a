"""The training loop. `Trainer.step` is the lesson; everything else repeats it, watches it, or keeps what it made.

The choice of the epoch never looks at the query set: a validation part is cut from the training set.
"""

import math
import time
from collections.abc import Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from hhlib import data, losses, metrics, retrieval
from hhlib import network as networks
from hhlib.runs import Run
from hhlib.settings import Settings
from hhlib.training import keeping, setup, start
from hhlib.training.reports import Progress, Report, Tally, print_line
from hhlib.training.scale.processes import check_batch_size, together
from hhlib.training.stopping import StopRequest

Batch = tuple[Tensor, Tensor, Tensor]  #: images (B, 3, S, S) uint8, labels (B, C), rows of the training part (B,)


class Trainer:
    """A network, a loss, an optimizer, and the images they see; ValueError if settings and split do not fit.

    Of the split, only the training part is used; by asymmetric methods, only the database; all of it if the recipe
    chooses the epoch on the queries. fresh=False leaves pretrained weights out: a stored state will replace them.

    Attributes:
        net, loss, optimizer, schedule: what a step works on; `forward` is the network as a step calls it.
        part, validation: what is trained on, and what is held out to choose the epoch.
        mean, std: of each channel of the training images, both in 0..1.
        record: what run.json holds, without versions and machine.
        history, timing: one row per finished epoch.
    """

    def __init__(self, split: data.Split, settings: Settings, *, fresh: bool = True):
        self.split, self.settings, self.recipe = split, settings, settings.recipe
        start.check(split, settings)
        device = setup.choose_device(settings.device)
        frozen = networks.kind(settings.network) == "frozen"
        wanted = "float32" if frozen and settings.precision == "auto" else settings.precision  # a head gains nothing
        self.precision = setup.choose_precision(wanted, device)
        self.part, self.validation = start.parts(split, settings)
        self.mean, self.std = start.statistics(self.part, settings.network)
        self.record = self._record(device)
        self.accelerator = setup.accelerator_for(device, self.precision, settings.seed)
        self.batch_size = min(self.recipe.batch_size, len(self.part))
        check_batch_size(self.batch_size, self.accelerator.num_processes)
        self.history, self.timing, self.tally = [], [], Tally()
        torch.manual_seed(settings.seed)
        self.generator = torch.Generator().manual_seed(settings.seed)
        net, loss = networks.create(**self.record["model"]), losses.create(**self.record["loss"])
        if self.recipe.pretrained and fresh and not split.vectors_of:
            self.accelerator.print(networks.load_pretrained(net, self.settings.network))
        optimizer = setup.optimizer_for(net, loss, self.recipe)
        images = len(data.class_by_class(self.part, self.generator)) if self.recipe.balanced else loss.images_an_epoch
        schedule = setup.schedule_for(optimizer, images, self.recipe)
        self.net = setup.ready(net, self.accelerator, self.recipe)
        self.optimizer, self.schedule = self.accelerator.prepare(optimizer, schedule)
        self.forward = setup.for_training(self.net, self.accelerator, self.recipe)
        self.loss = loss.to(self.accelerator.device)
        self.loader = self._loader()
        self.copy = setup.moving_copy(self.net, self.loss.momentum)
        self.average = setup.moving_copy(self.net, self.recipe.average)
        self.loss.prepare(self.part.labels)

    def step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Learn from one batch -> its loss, and the network's outputs z (B, K)."""
        images, labels, index = batch
        x = self.network_input(images, index)  # (B, 3, S, S) float
        z = self.forward(x)  # (B, K), before squashing
        if self.loss.remembers:
            with torch.inference_mode():
                remembered = together(self.copy(x))  # (B, K), of the slowly moving copy
            self.loss.remember(remembered, index)
        loss = self.loss(z, labels, index)
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        if self.recipe.clip:
            self.accelerator.clip_grad_norm_([*self.net.parameters(), *self.loss.parameters()], self.recipe.clip)
        self.optimizer.step()
        self.schedule.step()
        return loss.detach(), z.detach()

    def network_input(self, images: Tensor, index: Tensor | None = None) -> Tensor:
        """(B, 3, S, S) uint8 -> float: augmented at random, normalised, at half the side in the small epochs.

        index (B,): the images' rows; with `alternate`, the odd ones are mirrored in one epoch and the even in the next.
        """
        if images.ndim == 2:  # vectors (B, D) of a frozen backbone
            return images.float()
        recipe, flip = self.recipe, self.recipe.flip and self.split.flip
        if flip and recipe.alternate and index is not None:
            own = index.chunk(self.accelerator.num_processes)[self.accelerator.process_index]
            flip = (own + len(self.history)) % 2 == 0
        how = dict(shift=recipe.shift, erase=recipe.erase, paste=recipe.paste)
        images = data.augment(images, **how, flip=flip, generator=self.generator)
        x = data.normalise(images, self.mean, self.std, self.split.image_size)
        return F.avg_pool2d(x, 2) if self.net.img_size < self.split.image_size else x

    def epoch(self, number: int, stop: StopRequest) -> bool:
        """One pass over the training images, or what a stop has left of it -> whether it reached its end.

        Everything that is random in a step comes from a seed of that step, so that a resumed run draws what an
        uninterrupted one would have drawn.
        """
        generator = setup.reseed(self.settings.seed, number)
        rows = self.loss.start_epoch(number)
        if self.recipe.balanced:
            rows = data.class_by_class(self.part, generator)
        if rows is not None:
            self.loader = self._loader(rows)
        self.net.train()
        self.loss.train()
        for batch in self.batches(number):
            place = self.tally.steps, self.accelerator.process_index
            self.generator = setup.reseed(self.settings.seed, number, *place)
            self.tally.add(*self.step(batch))
            for copy in self.copies():
                copy.update_parameters(self.net)
            if stop.asked(self.tally.steps, self.accelerator.device):
                self.tally.check(number)
                return False
        self.tally.check(number)
        self.loss.end_epoch(number, last=number + 1 == self.recipe.epochs)
        return True

    def copies(self) -> list[AveragedModel]:
        """The slowly moving copies of the network: the one that the loss asks for, the one that is kept."""
        return [copy for copy in (self.copy, self.average) if copy is not None]

    @property
    def kept(self) -> nn.Module:
        """The network that is scored and kept: with averaged weights if the recipe says so."""
        return self.net if self.average is None else self.average.module

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch that are still to come. Each process gets its share of the images, all the labels."""
        self.loader.set_epoch(epoch)
        done = self.tally.steps
        for images, labels, index in self.accelerator.skip_first_batches(self.loader, done) if done else self.loader:
            yield images, together(labels), together(index)

    def _loader(self, rows: Tensor | None = None):
        """Shuffled batches of the training part, or of some of its rows; the last, smaller one is left out."""
        size = min(self.recipe.batch_size, len(self.part if rows is None else rows))
        how = dict(shuffle=not self.recipe.balanced, drop_last=True, device=self.accelerator.device.type, rows=rows)
        return self.accelerator.prepare(data.loader(self.part, batch_size=size, **how))

    def set_image_side(self, epoch: int) -> None:
        """Let the network expect the images of this epoch: at half their side in the first ones, then at full."""
        side = self.split.image_size // (2 if epoch < self.recipe.small_epochs else 1)
        if self.net.img_size in (None, side):  # None: the head of a frozen backbone, which sees no images
            return
        setup.resize(self.net, side, self.optimizer, self.copies())
        self.forward = None  # an earlier wrapper would average the gradients a second time
        self.forward = setup.for_training(self.net, self.accelerator, self.recipe)

    def validate(self) -> dict[str, float]:
        """Scores of the present network, NaN where they are not wanted.

        ``validation_map`` is the expected mAP of the held-out images among each other: unseen queries and an unseen
        database, as in the test. Against the training images, whose codes the network knows by heart, any network
        looks better than it is. ``distinct_codes``: different codes per image, 1 if each image has its own.
        ``query_map``: of the queries, only if the recipe chooses on them.
        """
        scores = {"validation_map": math.nan, "distinct_codes": math.nan}
        if len(self.validation):
            codes, labels = self._codes(self.validation)
            scores["validation_map"] = metrics.leave_one_out_map(codes, labels, bits=self.settings.bits)
            scores["distinct_codes"] = len(np.unique(codes, axis=0)) / len(codes)
        if self.recipe.choose == "queries":
            pair = *self._codes(self.split.query), *self._codes(self.split.database)
            how = dict(bits=self.settings.bits, topk=self.split.protocol.topk, database_order=False)
            scores["query_map"] = metrics.evaluate(*pair, **how)["map"]["expected"]
        return scores

    def _codes(self, part: data.Part) -> tuple[np.ndarray, np.ndarray]:
        how = dict(precision=self.precision, flip=self.recipe.flip_average and self.split.flip)
        z = retrieval.encode(self.kept, part, mean=self.mean, std=self.std, **how)
        return retrieval.pack(z), part.labels.numpy()

    def fit(self, run: Run, reports: Iterable[Report] = (print_line,)) -> None:
        """Train until the last epoch, keeping all that is needed to resume after each; see `training.fit`."""
        self.accelerator.print(self.progress().start(self.tally.steps), flush=True)
        with StopRequest() as stop:
            for epoch in range(len(self.history), self.recipe.epochs):
                began = time.perf_counter()
                self.set_image_side(epoch)
                if not self._complete(epoch, stop):
                    keeping.save_state(self, run)
                    stop.leave(f"in epoch {epoch + 1} of {self.recipe.epochs}, after step {self.tally.steps}")
                self._close(epoch, began)
                keeping.save(self, run)
                if self.accelerator.is_main_process:
                    for report in reports:
                        report(self.progress())
                if epoch + 1 < self.recipe.epochs and stop.asked(0, self.accelerator.device):
                    stop.leave(f"after epoch {epoch + 1} of {self.recipe.epochs}")
        self.accelerator.wait_for_everyone()  # nobody leaves before everything is on disk

    def _complete(self, epoch: int, stop: StopRequest) -> bool:
        try:
            return self.epoch(epoch, stop)
        except torch.OutOfMemoryError as error:
            size = self.split.image_size
            raise MemoryError(
                f"the GPU's memory is too small for a step with batch_size {self.batch_size} and images of {size} "
                "pixels: raise micro_batches, lower batch_size or image_size, "
                "choose a smaller network, or precision bf16. The last state stays on disk."
            ) from error

    def _close(self, epoch: int, began: float) -> None:
        """Write down what an epoch brought; scores every few epochs and after the last, once images have full size."""
        row = {"epoch": epoch + 1} | self.tally.means() | {"learning_rate": self.schedule.get_last_lr()[0]}
        nothing = {"validation_map": math.nan, "distinct_codes": math.nan}
        nothing |= {"query_map": math.nan} if self.recipe.choose == "queries" else {}
        due = (epoch + 1) % self.recipe.validate_every == 0 or epoch + 1 == self.recipe.epochs
        self.history.append(row | (self.validate() if due and epoch >= self.recipe.small_epochs else nothing))
        self.timing.append({"epoch": epoch + 1, "seconds": time.perf_counter() - began})
        self.tally = Tally()

    def progress(self) -> Progress:
        """How far the training is."""
        seconds = [row["seconds"] for row in self.timing]
        return Progress(list(self.history), seconds, self.recipe.epochs, self.recipe.small_epochs)

    def _record(self, device: str) -> dict:
        split, settings, recipe = self.split, self.settings, self.recipe
        sizes = dict(num_classes=len(split.classes), train_size=len(self.part))
        facts = dict(sizes=split.sizes, trained_on=len(self.part), validation=len(self.validation))
        facts |= dict(vectors_of=split.vectors_of) if split.vectors_of else {}
        facts |= dict(
            image_size=split.image_size,
            flip=split.flip,
            topk=split.protocol.topk,
            split_seed=split.seed,
            fingerprint=split.fingerprint(),
        )
        return {
            "parameters": settings.named() | {"recipe": dict(vars(recipe)), "precision": self.precision},
            "model": start.model_of(split, settings),
            "loss": dict(name=settings.method, bits=settings.bits) | sizes | recipe.loss,
            "data": facts | dict(mean=self.mean, std=self.std, classes=split.classes),
            "device": device,
        }
