"""Asymmetric methods: queries go through the network; the database's codes are free variables, solved bit by bit.

The two alternate. For a few epochs (a round) the network learns from a sample of the database, with all database codes
fixed; then every bit of every database code is set to its better value, with the network's outputs fixed. So the labels
of the whole database are used at little cost, and retrieval compares a query's output with the learnt codes
(`Method.database_codes`). "Training images" are the database here.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hhlib.common import check_at_least, check_whole
from hhlib.losses.common import Method, full, sign, sign_or, similarity

PAIRS = 1 << 19  #: pairs at a time in the discrete step: its (rows x sample) matrices stay in the cache


class ADSHLoss(Method):
    r"""ADSH: products of query outputs u = tanh(z) and database codes v should match the labels' similarity.

    With S_ij = 1 if i and j share a label, else -r, r = similar / dissimilar pairs so that S sums to 0, and the sample
    Omega of m database images,

        J = sum over i in Omega and all j of (<u_i, v_j> - K S_ij)^2 + gamma * sum over i in Omega of ||v_i - u_i||^2

    A batch's part of J is divided by n B. The discrete step sets each column of V, the others fixed, to its exact
    minimum; where both values are equally good, a bit stays. Jiang and Li, "Asymmetric Deep Supervised Hashing", AAAI
    2018, and the authors' code (the paper's S is -1 for dissimilar pairs). There V starts at 0, so that nothing is
    learnt in the first round; here at random. The most copied re-implementation evaluates the network's codes of the
    database instead of V, and divides by the training images instead of n.

    Args:
        bits, num_classes, train_size: see `Method`; train_size is the database's n.
        gamma: weight of "code and output of an image agree"; at least 0.
        sample: m, images trained on in a round; of smaller databases, all.
        epochs_a_round: passes over the sample before V is solved again.
    """

    family = "asymmetric"

    def __init__(
        self,
        bits: int,
        num_classes: int,
        train_size: int,
        *,
        gamma: float = 200.0,
        sample: int = 2000,
        epochs_a_round: int = 3,
    ):
        super().__init__(bits, num_classes, train_size)
        self.gamma = check_at_least("gamma", gamma)
        self.m = min(check_whole("sample", sample, 1), train_size)
        self.epochs_a_round = check_whole("epochs_a_round", epochs_a_round, 1)
        self.register_buffer("V", torch.zeros(train_size, bits))
        self.register_buffer("Y", torch.zeros(train_size, num_classes))
        self.register_buffer("U", torch.zeros(train_size, bits))  # outputs of the sample; other rows unused
        self.register_buffer("omega", torch.zeros(self.m, dtype=torch.int64))
        self.register_buffer("r", torch.ones(()))

    def prepare(self, labels: Tensor) -> None:
        """Start V at random, and keep the labels (n, C) of the database."""
        self.Y.copy_(labels)
        self.V.copy_(sign(torch.rand(self.V.shape) - 0.5))

    @property
    def images_an_epoch(self) -> int:
        """m."""
        return self.m

    def start_epoch(self, epoch: int) -> Tensor:
        """-> the sample's rows (m,), drawn anew at the start of a round."""
        if epoch % self.epochs_a_round == 0:
            self.omega.copy_(torch.randperm(self.train_size)[: self.m].sort().values)
            self.r.fill_(self._similar_to_dissimilar())
        return self.omega

    def _similar_to_dissimilar(self) -> float:
        """r over the (m x n) block; 1 where it has pairs of one kind only."""
        blocks = self.Y.split(max(1, PAIRS // self.m))
        similar = sum(int(similarity(rows, self.Y[self.omega]).sum()) for rows in blocks)
        dissimilar = self.m * self.train_size - similar
        return similar / dissimilar if similar and dissimilar else 1.0

    def forward(self, z: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """z (B, K) before squashing, labels (B, C) multi-hot, index (B,) rows of the sample -> scalar."""
        self.check(z, labels, index)
        u = torch.tanh(full(z))
        self.U[index] = u.detach().to(self.U.dtype)
        return self.of_codes(u, labels, index)

    def of_codes(self, u: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """A batch's part of J, over n B, of outputs u (B, K) after tanh."""
        similar = similarity(labels, self.Y)  # (B, n)
        own = (self.V[index] - u).square().sum()
        return (self.pairs(u @ self.V.T, similar).sum() + self.gamma * own) / (self.train_size * len(u))

    def pairs(self, products: Tensor, similar: Tensor) -> Tensor:
        """What each pair adds to J, from <u_i, v_j>; any shape."""
        return (products - self.bits * torch.where(similar, 1.0, -self.r)).square()

    def end_epoch(self, epoch: int, *, last: bool) -> None:
        """At the end of a round, full or not, solve V."""
        if last or (epoch + 1) % self.epochs_a_round == 0:
            self.solve()

    @torch.no_grad()
    def solve(self) -> None:
        """The discrete step: set each bit of all codes to its better value, one column after the other."""
        U, Y = self.U[self.omega], self.Y[self.omega]  # (m, K), (m, C)
        pull = torch.zeros_like(self.V)
        pull[self.omega] = self.gamma * U  # of the sampled images' own outputs
        for rows in torch.arange(self.train_size, device=U.device).split(max(1, PAIRS // self.m)):
            V = self.V[rows]  # (n', K)
            self._solve_rows(V, U, similarity(self.Y[rows], Y), pull[rows], rows)
            self.V[rows] = V

    def _solve_rows(self, V: Tensor, U: Tensor, similar: Tensor, pull: Tensor, rows: Tensor) -> None:
        """Codes V (n', K), in place. Column k: sign of K S^T U_k + gamma U_k - V^ U^T U_k, where V^ is V without it."""
        set_columns(V, self._wanted(U, similar, pull), U.T @ U)

    def _wanted(self, U: Tensor, similar: Tensor, pull: Tensor) -> Tensor:
        """K S^T U + gamma U, (n', K): which way each bit is drawn, the other bits apart."""
        return self.bits * torch.where(similar, 1.0, -self.r) @ U + pull

    def database_codes(self) -> Tensor:
        """V, (n, K) of -1 and +1."""
        return self.V


def set_columns(V: Tensor, wanted: Tensor, G: Tensor) -> None:
    """Set each column of V (n, K), in place, to the sign of wanted - V^ G^, both without that column and row."""
    for k in range(V.shape[1]):
        V[:, k] = sign_or(wanted[:, k] - (V @ G[:, k] - V[:, k] * G[k, k]), V[:, k])


class ADMHStyleLoss(ADSHLoss):
    r"""ADMH-style, our reconstruction: ADSH plus a margin between similar and dissimilar pairs.

    Only the abstract of ADMH (Ma et al., Neurocomputing 2020) could be read: an asymmetric method whose database codes
    are learnt with a metric-learning scheme. This is the least that fits it, NOT the paper's formula. With the soft
    Hamming distance d_ij = (K - <u_i, v_j>) / 2 and epsilon_ij = +1 for similar pairs, -1 for others,

        J = ADSH's J + mu * sum over pairs of softplus(1 - epsilon_ij (tau - d_ij))

    The discrete step has no closed form: of each bit's two values, the one with the smaller J is taken, which is exact.

    Args:
        bits, num_classes, train_size, gamma, sample, epochs_a_round: see `ADSHLoss`.
        tau: threshold distance in bits; None takes K / 4.
        mu: weight of the margin; None makes it as large as the first term for random codes.
    """

    def __init__(
        self,
        bits: int,
        num_classes: int,
        train_size: int,
        *,
        tau: float | None = None,
        mu: float | None = None,
        **asymmetric,
    ):
        super().__init__(bits, num_classes, train_size, **asymmetric)
        self.tau = bits / 4 if tau is None else check_at_least("tau", tau)
        self.mu = mu if mu is None else check_at_least("mu", mu)

    def weight(self) -> float:
        """mu, or what makes both sums alike when all products are 0, so d = K / 2."""
        if self.mu is not None:
            return self.mu
        similar = float(self.r / (1 + self.r))  # share of similar pairs
        margins = [math.log1p(math.exp(1 + side * (self.bits / 2 - self.tau))) for side in (1, -1)]
        return self.bits**2 * float(self.r) / (similar * margins[0] + (1 - similar) * margins[1])

    def pairs(self, products: Tensor, similar: Tensor) -> Tensor:
        """What each pair adds to J, from <u_i, v_j>; any shape."""
        d = (self.bits - products) / 2
        margin = F.softplus(1 - torch.where(similar, 1.0, -1.0) * (self.tau - d))
        return super().pairs(products, similar) + self.weight() * margin

    def _solve_rows(self, V: Tensor, U: Tensor, similar: Tensor, pull: Tensor, rows: Tensor) -> None:
        """Codes V (n', K), in place: a bit is flipped if J falls. The squares' part of that is a closed form."""
        side, mu = torch.where(similar, 1.0, -1.0).to(V.dtype), self.weight()  # epsilon, (n', m)
        wanted = self._wanted(U, similar, pull)  # (n', K)
        G = U.T @ U  # (K, K)
        x = 1 - side * (self.tau - (self.bits - V @ U.T) / 2)  # (n', m) what softplus is taken of
        margin = F.softplus(x).sum(dim=1)  # (n',)
        for k in range(self.bits):
            v = V[:, k]
            flipped_x = torch.addcmul(x, side, v[:, None] * U[:, k])
            flipped_margin = F.softplus(flipped_x).sum(dim=1)
            rise = 4 * G[k, k] - 4 * v * (V @ G[:, k] - wanted[:, k]) + mu * (flipped_margin - margin)
            flip = rise < 0
            V[:, k] = torch.where(flip, -v, v)
            x[flip], margin = flipped_x[flip], torch.where(flip, flipped_margin, margin)


class JLDSHStyleLoss(ADSHLoss):
    r"""JLDSH-style, our reconstruction: ADSH whose codes must also tell the class, on both sides.

    Of JLDSH (Gu et al., Neurocomputing 2020, "joint learning") only the title and its place among asymmetric methods
    are known. This is a guess that fits them, NOT the paper's formula. With a linear classifier W_c on the outputs and
    ridge regression W (K, C) on the database codes, Y the multi-hot labels,

        J = ADSH's J + mu ||Y - V W||^2 + nu ||W||^2,   and the network also minimises eta * cross-entropy(u W_c, y)

    A round solves W = (mu V^T V + nu I)^-1 mu V^T Y, then each column of V. Several labels: cross-entropy a class.

    Args:
        bits, num_classes, train_size, gamma, sample, epochs_a_round: see `ADSHLoss`.
        mu, nu: weights of the ridge regression; mu at least 0, nu above 0.
        eta: weight of the classifier; None makes it a tenth of the first term for random codes.
    """

    def __init__(
        self,
        bits: int,
        num_classes: int,
        train_size: int,
        *,
        mu: float = 10.0,
        nu: float = 1.0,
        eta: float | None = None,
        **asymmetric,
    ):
        super().__init__(bits, num_classes, train_size, **asymmetric)
        self.mu, self.nu = check_at_least("mu", mu), check_at_least("nu", nu, 1e-12)
        self.eta = eta if eta is None else check_at_least("eta", eta)
        self.classifier = nn.Linear(bits, num_classes, bias=False)
        self.register_buffer("W", torch.zeros(bits, num_classes))

    def of_codes(self, u: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """A batch's part of J, over n B, plus the classifier's cross-entropy."""
        eta = 0.1 * self.bits**2 * self.r / math.log(max(2, self.num_classes)) if self.eta is None else self.eta
        return super().of_codes(u, labels, index) + eta * cross_entropy(self.classifier(u), labels)

    def ridge(self) -> Tensor:
        """The best W (K, C) for the present codes."""
        eye = torch.eye(self.bits, device=self.V.device, dtype=self.V.dtype)
        return torch.linalg.solve(self.mu * self.V.T @ self.V + self.nu * eye, self.mu * self.V.T @ self.Y)

    @torch.no_grad()
    def solve(self) -> None:
        """The discrete step: W first, then each column of V."""
        self.W.copy_(self.ridge())
        super().solve()

    def _solve_rows(self, V: Tensor, U: Tensor, similar: Tensor, pull: Tensor, rows: Tensor) -> None:
        wanted = self._wanted(U, similar, pull) + self.mu * self.Y[rows] @ self.W.T  # (n', K)
        set_columns(V, wanted, U.T @ U + self.mu * self.W @ self.W.T)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Of a softmax where every image has one label, else of each class by itself; (B, C) twice -> scalar."""
    labels = labels.to(logits.dtype)
    if (labels.sum(dim=1) == 1).all():
        return F.cross_entropy(logits, labels)
    return F.binary_cross_entropy_with_logits(logits, labels)
