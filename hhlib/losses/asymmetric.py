"""Asymmetric methods: queries go through the network; the database's codes are free variables, solved bit by bit.

The two alternate. For a few epochs (a round) the network learns from a sample of the database, with all database codes
fixed; then every bit of every database code is set to its better value, with the network's outputs fixed. This uses the
labels of the whole database, here the training images, at little cost; queries are compared with the learnt codes.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hhlib.common import at_least, setting
from hhlib.losses.common import Method, sign, similarity, unit_means

PAIRS = 1 << 19  #: pairs at a time in the discrete step: its (rows x sample) matrices fit the cache


class ADSHLoss(Method, family="asymmetric", knob="gamma"):
    r"""ADSH: products of query outputs u = tanh(z) and database codes v should match the labels' similarity.

    With S_ij = 1 for similar pairs, else -r (similar / dissimilar pairs: S sums to 0), and a sample Omega of m images,

        J = sum over i in Omega and all j of (<u_i, v_j> - K S_ij)^2 + gamma * sum over i in Omega of ||v_i - u_i||^2

    A batch's part of J is divided by n B. The discrete step sets each column of V, the others fixed, to its exact
    minimum; in a tie, a bit stays. Jiang and Li, "Asymmetric Deep Supervised Hashing", AAAI 2018, and the authors' code
    (in the paper S is -1 for dissimilar pairs). There V starts at 0, so the first round learns nothing; here at random.
    The most copied code evaluates the network's database codes, not V, and divides by the training images, not n.
    """

    gamma: float = setting(200.0, 'weight of "code and output of an image agree", at least 0', at_least(0.0))
    sample: int = setting(2000, "m, images per round, at least 1; all of a smaller database", at_least(1))
    epochs_a_round: int = setting(3, "passes over the sample before V is solved again, at least 1", at_least(1))

    def __post_init__(self) -> None:
        super().__post_init__()
        self.m = self.images_an_epoch = min(self.sample, self.train_size)
        self.register_buffer("V", torch.zeros(self.train_size, self.bits))
        self.register_buffer("Y", torch.zeros(self.train_size, self.num_classes))
        self.register_buffer("U", torch.zeros(self.train_size, self.bits))  # outputs of the sample; other rows unused
        self.register_buffer("omega", torch.zeros(self.m, dtype=torch.int64))
        self.register_buffer("r", torch.ones(()))

    def prepare(self, labels: Tensor) -> None:
        """Start V at random, and keep the database's labels (n, C)."""
        self.Y.copy_(labels)
        self.V.copy_(sign(torch.rand(self.V.shape) - 0.5))

    def start_epoch(self, epoch: int) -> Tensor:
        """-> the rows (m,) of the sample, drawn anew at the start of each round."""
        if epoch % self.epochs_a_round == 0:
            self.omega.copy_(torch.randperm(self.train_size)[: self.m].sort().values)
            self.r.fill_(self._similar_to_dissimilar())
        return self.omega

    def _similar_to_dissimilar(self) -> float:
        """r over the (m x n) block; 1 if all its pairs are of one kind."""
        blocks = self.Y.split(max(1, PAIRS // self.m))
        similar = sum(int(similarity(rows, self.Y[self.omega]).sum()) for rows in blocks)
        dissimilar = self.m * self.train_size - similar
        return similar / dissimilar if similar and dissimilar else 1.0

    def of_codes(self, u: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """A batch's part of J, over n B, of outputs u (B, K) after tanh, which are kept for the discrete step."""
        self.U[index] = u.detach().to(self.U.dtype)
        own = (self.V[index] - u).square().sum()
        pairs = self.pairs(u @ self.V.T, similarity(labels, self.Y))  # (B, n)
        return (pairs.sum() + self.gamma * own) / (self.train_size * len(u))

    def pairs(self, products: Tensor, similar: Tensor) -> Tensor:
        """What each pair adds to J, from its product <u_i, v_j>; any shape."""
        return (products - self.bits * torch.where(similar, 1.0, -self.r)).square()

    def end_epoch(self, epoch: int, *, last: bool) -> None:
        """Solve V at the end of a round, even an incomplete one."""
        if last or (epoch + 1) % self.epochs_a_round == 0:
            self.solve()

    @torch.no_grad()
    def solve(self) -> None:
        """The discrete step: set each bit of all codes to its better value, column by column."""
        # column k becomes the sign of K S^T U_k + gamma U_k - V^ U^T U_k, where V^ is V without it
        U, Y = self.U[self.omega], self.Y[self.omega]  # (m, K), (m, C)
        pull = torch.zeros_like(self.V)
        pull[self.omega] = self.gamma * U  # of the sampled images' own outputs
        for rows in torch.arange(self.train_size, device=U.device).split(max(1, PAIRS // self.m)):
            V, similar = self.V[rows], similarity(self.Y[rows], Y)  # (n', K), (n', m)
            wanted = self.bits * torch.where(similar, 1.0, -self.r) @ U + pull[rows]  # (n', K) apart from other bits
            self._solve_rows(V, wanted, U.T @ U, U=U, similar=similar, rows=rows)
            self.V[rows] = V

    def _solve_rows(self, V: Tensor, wanted: Tensor, G: Tensor, **more: Tensor) -> None:
        """Set each column of V (n', K), in place, to the sign of wanted - V^ G^, both without that column and row."""
        for k in range(self.bits):
            x = wanted[:, k] - (V @ G[:, k] - V[:, k] * G[k, k])
            V[:, k] = torch.where(x == 0, V[:, k], torch.sign(x))

    def database_codes(self) -> Tensor:
        """V, (n, K) of -1 and +1."""
        return self.V

    def settle(self, z: Tensor, labels: Tensor) -> None:
        """Make the codes of z those of the database, and draw a sample."""
        self.V.copy_(sign(z))
        self.U.copy_(self.squash(z))
        self.start_epoch(0)


class ADMHStyleLoss(ADSHLoss, knob="tau"):
    r"""ADMH-style, our reconstruction: ADSH plus a margin between similar and dissimilar pairs.

    Only the abstract of ADMH (Ma et al., Neurocomputing 2020) could be read: an asymmetric method whose database codes
    are learnt with a metric-learning scheme. This is the least that fits it, NOT the paper's formula. With the soft
    Hamming distance d_ij = (K - <u_i, v_j>) / 2 and epsilon_ij = +1 for similar pairs, -1 for others,

        J = ADSH's J + mu * sum over pairs of softplus(1 - epsilon_ij (tau - d_ij))

    The discrete step has no closed form: of each bit's two values, the one with the smaller J is taken, which is exact.
    """

    tau: float | None = setting(None, "threshold distance in bits, at least 0; None takes K / 4", at_least(0.0))
    mu: float | None = setting(None, "weight of the margin, at least 0; None makes both terms equal", at_least(0.0))

    def __post_init__(self) -> None:
        super().__post_init__()
        self.threshold = self.bits / 4 if self.tau is None else self.tau

    def weight(self) -> float:
        """mu; by default, what makes both sums equal for random codes: all products are 0, so d = K / 2."""
        if self.mu is not None:
            return self.mu
        similar = float(self.r / (1 + self.r))  # share of similar pairs
        margins = [math.log1p(math.exp(1 + side * (self.bits / 2 - self.threshold))) for side in (1, -1)]
        return self.bits**2 * float(self.r) / (similar * margins[0] + (1 - similar) * margins[1])

    def pairs(self, products: Tensor, similar: Tensor) -> Tensor:
        """What each pair adds to J, from its product <u_i, v_j>; any shape."""
        d = (self.bits - products) / 2
        margin = F.softplus(1 - torch.where(similar, 1.0, -1.0) * (self.threshold - d))
        return super().pairs(products, similar) + self.weight() * margin

    def _solve_rows(self, V: Tensor, wanted: Tensor, G: Tensor, **more: Tensor) -> None:
        """Flip each bit of V (n', K), in place, if J falls. The part of the squares has a closed form."""
        U, similar = more["U"], more["similar"]
        side, mu = torch.where(similar, 1.0, -1.0).to(V.dtype), self.weight()  # epsilon, (n', m)
        x = 1 - side * (self.threshold - (self.bits - V @ U.T) / 2)  # (n', m), the arguments of softplus
        margin = F.softplus(x).sum(dim=1)  # (n',)
        for k in range(self.bits):
            v = V[:, k]
            flipped_x = torch.addcmul(x, side, v[:, None] * U[:, k])
            flipped_margin = F.softplus(flipped_x).sum(dim=1)
            rise = 4 * G[k, k] - 4 * v * (V @ G[:, k] - wanted[:, k]) + mu * (flipped_margin - margin)
            flip = rise < 0
            V[:, k] = torch.where(flip, -v, v)
            x[flip], margin = flipped_x[flip], torch.where(flip, flipped_margin, margin)


class JLDSHStyleLoss(ADSHLoss, knob="mu"):
    r"""JLDSH-style, our reconstruction: ADSH whose codes must also tell the class, on both sides.

    Of JLDSH (Gu et al., Neurocomputing 2020, "joint learning") only the title and its place among asymmetric methods
    are known. This is a guess that fits them, NOT the paper's formula. With a linear classifier W_c on the outputs and
    ridge regression W (K, C) on the database codes, Y the multi-hot labels,

        J = ADSH's J + mu ||Y - V W||^2 + nu ||W||^2,   and the network also minimises eta * cross-entropy(u W_c, y)

    A round solves W = (mu V^T V + nu I)^-1 mu V^T Y, then each column of V. With several labels per image the
    cross-entropy is binary, per class. eta defaults to a tenth of the first term for random codes.
    """

    mu: float = setting(10.0, "weight of the ridge regression, at least 0", at_least(0.0))
    nu: float = setting(1.0, "weight of ||W||^2, at least 1e-12", at_least(1e-12))
    eta: float | None = setting(None, "weight of the cross-entropy, at least 0; None: a tenth of J", at_least(0.0))

    def __post_init__(self) -> None:
        super().__post_init__()
        self.classifier = nn.Linear(self.bits, self.num_classes, bias=False)
        self.register_buffer("W", torch.zeros(self.bits, self.num_classes))

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

    def _solve_rows(self, V: Tensor, wanted: Tensor, G: Tensor, **more: Tensor) -> None:
        """As in ADSH, with the part of the ridge regression."""
        super()._solve_rows(V, wanted + self.mu * self.Y[more["rows"]] @ self.W.T, G + self.mu * self.W @ self.W.T)

    def settle(self, z: Tensor, labels: Tensor) -> None:
        """As in ADSH; both classifiers fit the codes."""
        super().settle(z, labels)
        self.W.copy_(self.ridge())
        self.classifier.weight.copy_(unit_means(sign(z), labels))


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Of a softmax if every image has one label, else binary, of each class; (B, C) twice -> scalar."""
    labels = labels.to(logits.dtype)
    single = (labels.sum(dim=1) == 1).all()
    return F.cross_entropy(logits, labels) if single else F.binary_cross_entropy_with_logits(logits, labels)
