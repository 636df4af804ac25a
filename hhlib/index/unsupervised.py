"""Codes without labels: a frozen backbone looks, and a linear map fitted to what it sees makes the bits."""

import numpy as np
import torch
from torch import nn

from hhlib import baselines, network
from hhlib.encoder import Encoder, see_with
from hhlib.features import Backbone


def unfitted(name: str, *, bits: int, size: int | None, precision: str) -> Encoder:
    """An encoder whose backbone can look already; its linear map (D, K) is still to be fitted, see `fit`.

    Raises:
        ValueError: if the network of this name has no pretrained weights.
        ConnectionError: if they cannot be fetched.
    """
    if network.kind(name) != "frozen":
        allowed = "a pretrained network such as lite0, or `run`, a trained one"
        raise ValueError(f"network is {name!r}, which knows nothing before it is trained; it must be {allowed}.")
    backbone = Backbone(name, size or network.input_size(name))
    model = dict(name=name, bits=bits, dim=backbone.dim, hidden=0)
    encoder = Encoder(model, mean=[], std=[], size=backbone.size, precision=precision, about={})
    see_with(encoder, backbone)
    return encoder


def fit(encoder: Encoder, vectors: np.ndarray, seed: int = 0) -> None:
    """Fit the linear map to vectors (n, D): iterative quantisation or, if they are few, random planes."""
    x, bits = vectors.astype(np.float32), encoder.bits
    n, D = x.shape
    enough = n >= 2 * bits and bits <= D
    codes = (baselines.itq if enough else baselines.lsh)(x, bits, seed=seed)
    offset = codes(np.zeros((1, D), np.float32))  # (1, K); both are affine maps, so this and
    weight = codes(np.eye(D, dtype=np.float32)) - offset  # (D, K) say all
    parts = [*encoder.net.modules()]
    norm, linear = (next(part for part in parts if isinstance(part, kind)) for kind in (nn.BatchNorm1d, nn.Linear))
    norm.running_var.fill_(1 - norm.eps)  # so that it changes nothing
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight.T))
        linear.bias.copy_(torch.from_numpy(offset[0]))
    encoder.about["fitted"] = "iterative quantisation" if enough else "random planes"
