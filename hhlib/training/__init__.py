"""Fit a network: a step that can be read, on the CPU or on GPUs, that can be stopped at any moment and resumed."""

from hhlib.training.fitting import fit
from hhlib.training.reports import Progress, Report, TensorBoard, print_line
from hhlib.training.scale.memory import find_micro_batches
from hhlib.training.setup import choose_device, choose_precision
from hhlib.training.trainer import Trainer, model_of, parts

__all__ = ["Progress", "Report", "TensorBoard", "Trainer", "choose_device", "choose_precision", "find_micro_batches"]
__all__ += ["fit", "model_of", "parts", "print_line"]
