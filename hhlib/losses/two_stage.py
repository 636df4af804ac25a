"""CNNH: a symmetric method in two stages. Codes for all training images from labels alone, then plain regression."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hhlib.common import at_least, check_whole, one_of, setting
from hhlib.compiled import compiled
from hhlib.losses.common import Method, full, generator, sign, similarity


class CNNHLoss(Method, knob="sweeps"):
    r"""CNNH: find a short code for every training image from the labels, then teach the network to produce it.

    Stage one (`prepare`), with S_ij = +1 if two training images share a label, else -1:

        min over H in [-1, 1]^(N x K) of || S - H H^T / K ||^2,   then H <- sgn(H)

    by coordinate descent, see `factorise`. Stage two, with u = tanh(z), is plain regression:

        L = mean of (u - H)^2

    ``regression="raw"`` takes u = z, "logistic" the mean of softplus(-2 H z). Xia, Pan, Lai, Liu and Yan, "Supervised
    Hashing for Image Retrieval via Image Representation Learning", AAAI 2014, whose stage two could not be read. The
    most copied re-implementation is raw; it shuffles labels but not H, so its targets are random (0.134 on CIFAR-10).
    """

    MOST = 20_000  #: training images; beyond this, the (N x N) matrix of stage one would take more than 1.6 GB

    regression: str = setting("tanh", "form of L: tanh, raw or logistic", one_of("tanh", "raw", "logistic"))
    sweeps: int = setting(10, "passes over all entries of H in stage one, at least 1", at_least(1))

    def __post_init__(self) -> None:
        super().__post_init__()
        what = "cnnh compares all training images with each other, and its train_size"
        check_whole(what, self.train_size, 1, self.MOST)
        self.register_buffer("H", torch.zeros(self.train_size, self.bits))

    def prepare(self, labels: Tensor) -> None:
        """Stage one: codes for all training images, from their labels (N, C) in the order of `index`."""
        S = similarity(labels, labels).cpu().numpy() * 2.0 - 1.0
        np.fill_diagonal(S, 1.0)  # an image without a label is similar to itself here
        H = torch.from_numpy(factorise(S, self.bits, self.sweeps, generator()))
        self.H.copy_(sign(H.float()))  # not every GPU takes float64

    def squash(self, z: Tensor) -> Tensor:
        """tanh(z); z itself for raw regression."""
        return full(z) if self.regression == "raw" else torch.tanh(full(z))

    def forward(self, z: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """See `Method.forward`."""
        self.check(z, labels, index)
        if self.regression == "logistic":
            return F.softplus(-2 * self.H[index] * full(z)).mean()
        u = self.squash(z)
        return F.mse_loss(u, self.H[index].to(u.dtype))

    def targets(self, labels: Tensor) -> Tensor:
        """H (N, K); where images with the same labels differ, their majority."""
        same = F.one_hot(labels.unique(dim=0, return_inverse=True)[1]).to(self.H.dtype)  # (N, Q)
        return sign(same @ (same.T @ self.H)).float()

    def settle(self, z: Tensor, labels: Tensor) -> None:
        """Make the codes of z the targets."""
        self.H.copy_(sign(z))


def factorise(S: np.ndarray, bits: int, sweeps: int, rng: np.random.Generator) -> np.ndarray:
    """Stage one: (N, N) similarities of -1 and +1 -> H (N, K) in [-1, 1] by coordinate descent on ||H H^T - K S||^2."""
    H = rng.uniform(-1, 1, (len(S), bits))
    best = objective(H, S)
    for _ in range(sweeps):
        before = H.copy()
        sweep(H, S, rng.permutation(len(S)))
        value = objective(H, S)
        if value >= best:
            return before  # a sweep that does not lower the objective is undone
        best = value
    return H


def objective(H: np.ndarray, S: np.ndarray) -> float:
    """||H H^T - K S||^2 without writing H H^T: ||H^T H||^2 - 2 K <S H, H> + K^2 ||S||^2."""
    K = H.shape[1]
    return float(np.sum((H.T @ H) ** 2) - 2 * K * np.sum((S @ H) * H) + K**2 * np.sum(S**2))


@compiled()
def sweep(H: np.ndarray, S: np.ndarray, order: np.ndarray) -> None:
    """Move every entry of H (N, K) once, in place, to the minimum of its quadratic approximation within [-1, 1]."""
    # with L = H H^T - K S, h = column j and d = the change of H_ij, the objective is exactly
    # f + g1 d + g2 d^2 / 2 + 4 H_ij d^3 + d^4, g1 = 4 <L_i, h>, g2 = 4 (<h, h> + H_ij^2 + L_ii)
    K = H.shape[1]
    G = H.T @ H  # (K, K), kept up to date
    for i in order:
        s = S[i] @ H  # (K,) <S_i, h_j>
        for j in range(K):
            x = H[i, j]
            g1 = 4 * (H[i] @ G[:, j].copy() - K * s[j])
            g2 = 4 * (G[j, j] + x * x + H[i] @ H[i] - K * S[i, i])
            # where it curves downwards, the minimum is at an end
            d = -g1 / g2 if g2 > 0 else (-2.0 if g1 > 0 else 2.0)
            d = min(max(d, -1 - x), 1 - x)
            G[j] += d * H[i]
            G[:, j] += d * H[i]
            G[j, j] += d * d
            H[i, j] = x + d
