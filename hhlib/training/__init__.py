"""Fit a network: a step that can be read, on the CPU or on GPUs, that can be stopped at any moment and resumed."""

from hhlib.training.fitting import fit
from hhlib.training.reports import Progress, Report, TensorBoard, print_line
from hhlib.training.setup import choose_device, choose_precision
from hhlib.training.start import model_of, parts, statistics
from hhlib.training.trainer import Trainer
