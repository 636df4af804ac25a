"""The asymmetric methods: hand-computed values, and a discrete step that is exact."""

import itertools

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from toy import method

from hhlib.losses.asymmetric import cross_entropy

U2 = torch.tensor([[0.8, -0.4], [-0.6, 0.2]], dtype=torch.float64)
V3 = torch.tensor([[1, 1], [1, -1], [-1, 1]], dtype=torch.float64)
LABELS = torch.tensor([[1, 0], [0, 1], [1, 0]])
ADSH = ("adsh", {})
ADMH = ("admh_style", {"tau": 1.0, "mu": 1.0})
JLDSH = ("jldsh_style", {"mu": 1.0, "nu": 1.0, "eta": 0.0})


def small(name, **arguments):
    """Two bits, a database of three images, the first two sampled."""
    loss = method(name, bits=2, num_classes=2, train_size=3, gamma=2.0, sample=2, **arguments)
    loss.prepare(LABELS)
    loss.V.copy_(V3)
    loss.omega.copy_(torch.arange(2))
    loss.r.fill_(loss._similar_to_dissimilar())
    loss.U[:2] = U2
    return loss


def objective(loss, V=None):
    """J, from the definition, for codes V of the database."""
    V = loss.V if V is None else V
    u = loss.U[loss.omega]
    total = 2 * (V[loss.omega] - u).square().sum()
    for i, row in enumerate(loss.omega):
        for j in range(len(V)):
            similar = bool((loss.Y[row] * loss.Y[j]).sum() > 0)
            product = u[i] @ V[j]
            total += (product - loss.bits * (1.0 if similar else -loss.r)) ** 2
            if hasattr(loss, "threshold"):
                side = 1 if similar else -1
                total += loss.weight() * torch.nn.functional.softplus(
                    1 - side * (loss.threshold - (loss.bits - product) / 2)
                )
    if hasattr(loss, "W"):
        total += loss.mu * (loss.Y - V @ loss.W).square().sum() + loss.nu * loss.W.square().sum()
    return total.item()


@pytest.mark.parametrize(
    ("name", "arguments", "before", "after"),
    [(*ADSH, 53.28, 8.64), (*ADMH, 62.430838, 14.491510), (*JLDSH, 54.813333, 15.382222)],
)
def test_hand_computed_values_and_sweep(name, arguments, before, after):
    loss = small(name, **arguments)
    assert loss.r == 1
    if hasattr(loss, "W"):
        loss.W.copy_(loss.ridge())
        assert_close(loss.W, torch.tensor([[0.133333, 0.2], [0.533333, -0.2]]).double(), rtol=0, atol=1e-6)
    assert objective(loss) == pytest.approx(before, abs=1e-6)
    loss.solve()
    assert loss.V.tolist() == [[1, -1], [-1, 1], [1, -1]]
    assert objective(loss) == pytest.approx(after, abs=1e-6)


def test_batch_loss_and_gradient():
    loss, u = small("adsh"), U2.clone().requires_grad_()
    value = loss.of_codes(u, LABELS[:2], torch.arange(2))
    assert value.item() == pytest.approx(8.88)
    value.backward()
    assert_close(6 * u.grad, torch.tensor([[8.8, -21.6], [-14.4, 19.2]]).double())
    margin = small("admh_style", tau=1.0, mu=1.0)
    assert 6 * margin.of_codes(U2, LABELS[:2], torch.arange(2)).item() == pytest.approx(62.430838, abs=1e-6)


def larger(name, seed, **arguments):
    torch.manual_seed(seed)
    loss = method(name, bits=3, num_classes=3, train_size=7, gamma=2.0, sample=4, **arguments)
    loss.prepare(torch.eye(3)[torch.randint(0, 3, (7,))])
    loss.start_epoch(0)
    loss.U[loss.omega] = torch.rand(4, 3).double() * 2 - 1
    return loss


@pytest.mark.parametrize(("name", "arguments"), [ADSH, ADMH, JLDSH], ids=["adsh", "admh", "jldsh"])
@pytest.mark.parametrize("seed", range(5))
def test_each_column_is_the_best_of_all_columns(name, arguments, seed, monkeypatch):
    loss = larger(name, seed, **arguments)
    monkeypatch.setattr("hhlib.losses.asymmetric.PAIRS", 12)  # several blocks of rows
    if hasattr(loss, "W"):
        loss.W.copy_(loss.ridge())
        loss.ridge = lambda: loss.W
    start, V = objective(loss), loss.V.clone()
    loss.solve()
    assert objective(loss) <= start + 1e-9
    for k in range(3):  # by hand: column after column, all 2^7 of each
        columns = [torch.tensor(c).double() for c in itertools.product((-1.0, 1.0), repeat=7)]
        trials = [torch.cat([V[:, :k], c[:, None], V[:, k + 1 :]], dim=1) for c in columns]
        V = trials[int(np.argmin([objective(loss, trial) for trial in trials]))]
    assert objective(loss) == pytest.approx(objective(loss, V), abs=1e-9)


def test_without_its_own_term_each_is_adsh():
    plain = larger("adsh", 0)
    plain.solve()
    for name, arguments in [("admh_style", {"mu": 0.0}), ("jldsh_style", {"mu": 0.0, "eta": 0.0})]:
        other = larger(name, 0, **arguments)
        other.omega.copy_(plain.omega), other.Y.copy_(plain.Y), other.U.copy_(plain.U), other.r.copy_(plain.r)
        torch.manual_seed(0)
        other.V.copy_(larger("adsh", 0).V)
        other.solve()
        assert torch.equal(other.V, plain.V)


def test_the_ridge_regression_is_the_minimum():
    loss = larger("jldsh_style", 1, nu=0.5)
    loss.W.copy_(loss.ridge())
    least, W = objective(loss), loss.W.clone()
    for seed in range(20):
        loss.W.copy_(W + 0.1 * torch.randn(W.shape, generator=torch.Generator().manual_seed(seed)))
        assert objective(loss) > least


def test_margin_term():
    loss = method("admh_style", tau=2.0, mu=1.0, bits=4)
    plain = method("adsh", bits=4)
    for products, similar, expected in [(4.0, True, 0.313262), (-4.0, False, 0.313262), (0.0, True, 1.313262)]:
        pair = torch.tensor(products).double(), torch.tensor(similar)
        assert (loss.pairs(*pair) - plain.pairs(*pair)).item() == pytest.approx(expected, abs=1e-6)


def test_similarities_sum_to_zero_over_the_sampled_block():
    loss = larger("adsh", 3)
    similar = loss.Y[loss.omega] @ loss.Y.T > 0
    assert torch.where(similar, 1.0, -loss.r).sum().item() == pytest.approx(0, abs=1e-9)
    alike = method("adsh", num_classes=1, train_size=5, sample=2)
    alike.prepare(torch.ones(5, 1))
    alike.start_epoch(0)
    assert alike.r == 1  # no dissimilar pair: plain +1 and -1


def test_a_round_draws_a_sample_and_ends_with_new_codes():
    loss = method("adsh", bits=6, train_size=30, num_classes=3, sample=10, epochs_a_round=2)
    labels = torch.eye(3)[torch.arange(30) % 3]
    loss.prepare(labels)
    assert set(loss.V.unique().tolist()) == {-1, 1}
    rows, V = loss.start_epoch(0).clone(), loss.V.clone()
    assert len(rows.unique()) == loss.images_an_epoch == 10
    assert torch.equal(loss.start_epoch(1), rows)
    loss(torch.randn(10, 6).double(), labels[rows], rows)
    loss.end_epoch(0, last=False)
    assert torch.equal(loss.V, V)
    loss.end_epoch(1, last=False)
    assert not torch.equal(loss.V, V)
    assert torch.equal(loss.database_codes(), loss.V)
    assert not torch.equal(loss.start_epoch(2), rows)


def test_a_bit_stays_where_both_values_are_equally_good():
    loss = small("adsh")
    loss.U.zero_()
    loss.solve()
    assert_close(loss.V, V3)


def test_cross_entropy_knows_one_label_from_several():
    logits = torch.tensor([[1.0, -1.0], [0.0, 2.0]])
    one, several = torch.tensor([[1, 0], [0, 1]]), torch.tensor([[1, 1], [0, 1]])
    assert_close(cross_entropy(logits, one), torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, several.float())
    assert_close(cross_entropy(logits, several), expected)
