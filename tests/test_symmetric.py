"""Values of the symmetric methods, computed by hand for the toy."""

import itertools

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from toy import INDEX, SEVERAL, U, Y, method

from hhlib.losses import two_stage
from hhlib.losses.symmetric import jaccard
from hhlib.losses.two_stage import factorise, objective


def value(name, labels=Y, **arguments):
    return method(name, num_classes=labels.shape[1], **arguments)(U, labels, INDEX).item()


def test_hashnet():
    assert value("hashnet", alpha=0.1) == pytest.approx(1.317683, abs=1e-6)
    slope = torch.tanh(2 * U)
    assert method("hashnet", alpha=0.1).of_pairs(slope, Y, slope, Y).item() == pytest.approx(1.230512, abs=1e-6)
    u = torch.tanh(U)
    for weight, expected in [(1, 0.177273), (9 / 5, 0.149280)]:  # the authors' form, alpha = 10 / K
        loss = method("hashnet", class_weight=weight)
        assert loss.of_pairs(u, Y, u, Y).item() == pytest.approx(expected, abs=1e-6)


def test_hashnet_weighs_pairs_by_the_labels_they_share():
    assert jaccard(SEVERAL, SEVERAL).tolist() == [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]
    assert value("hashnet", SEVERAL, alpha=0.1, jaccard=False) == pytest.approx(1.317683, abs=1e-6)
    assert value("hashnet", SEVERAL, alpha=0.1) == pytest.approx(1.188320, abs=1e-6)


def test_hashnets_tanh_grows_steeper_every_200_steps_of_training():
    loss = method("hashnet", bits=4, train_size=4)
    for steps, beta in [(0, 1), (199, 1), (200, 2**0.5), (2_000, 3.316625), (10_000, 7.141428)]:
        loss.steps.fill_(steps)
        assert loss.beta.item() == pytest.approx(beta, abs=1e-6)
    loss(U, Y, INDEX)
    assert loss.steps == 10_001
    loss.eval()(U, Y, INDEX)
    assert loss.steps == 10_001


def test_hashnet_with_two_halves_compares_only_across_them():
    loss, labels = method("hashnet", class_weight=5.0), torch.tensor([[1, 0], [0, 1], [1, 0], [1, 0]])
    z = torch.randn(4, 4, dtype=torch.float64)
    u = torch.tanh(z)
    theta = [(10 / 4 * float(u[i] @ u[j]), float(labels[i] @ labels[j])) for i in (0, 1) for j in (2, 3)]
    each = [(5 if s else 1, np.log1p(np.exp(t)) - s * t) for t, s in theta]
    expected = sum(w * v for w, v in each) / sum(w for w, _ in each)
    assert loss(z, labels, torch.arange(4) % 3).item() == pytest.approx(expected)


def test_dpsh():
    assert value("dpsh") == pytest.approx(0.481865 + 0.1 * 0.311667, abs=1e-6)
    assert value("dpsh", train_size=4, unseen="dissimilar") == pytest.approx(0.565852, abs=1e-6)
    assert value("dpsh", train_size=4) == value("dpsh")
    theta, similar = 0.5 * U @ U.T, Y @ Y.T > 0
    pairs = torch.log1p(theta.exp()) - similar * theta
    balanced = pairs[similar].mean() + pairs[~similar].mean() + 0.1 * 0.3116667
    assert value("dpsh", balanced=True) == pytest.approx(balanced.item(), abs=1e-6)
    zero = method("dpsh")(torch.zeros_like(U), Y, INDEX)
    assert zero.item() == pytest.approx(np.log(2) + 0.1)  # the sign of 0 is +1


def test_dsh():
    assert value("dsh") == pytest.approx(4.316, abs=1e-9)
    assert value("dsh", pairs="bank", alpha=0.1) == pytest.approx(0.981667, abs=1e-6)
    assert value("dsh", pairs="bank", alpha=0.1, train_size=4, unseen="dissimilar") == pytest.approx(1.575833, abs=1e-6)
    contrast = method("dsh", bits=2).contrast
    a, b = torch.tensor([[1.0, 1.0]]), torch.tensor([[-1.0, 1.0]])
    assert contrast(a, b, torch.tensor([[True]])).item() == 2
    assert contrast(a, b, torch.tensor([[False]])).item() == 0  # just at the margin


def test_an_unseen_row_pushes_dsh_away_from_the_origin():
    u = U.clone().requires_grad_()
    loss = method("dsh", pairs="bank", alpha=0.0, train_size=4, unseen="dissimilar")
    loss.contrast(u, loss.U[3:], torch.zeros(3, 1, dtype=torch.bool)).mean().backward()
    assert_close(u.grad, -U / 3)


def test_dch():
    assert value("dch", with_itself=True) == pytest.approx(2.112400, abs=1e-6)
    assert value("dch") == pytest.approx(2.112797, abs=1e-6)
    assert value("dch", with_itself=True, gamma=2.0) == pytest.approx(0.568962, abs=1e-6)
    assert value("dch", variant="released") == pytest.approx(1.391609, abs=1e-6)
    d = method("dch").distance(U, U)
    assert_close(d[[0, 0, 1], [1, 2, 2]], torch.tensor([0.033243, 2.700818, 2.819492]).double(), rtol=0, atol=1e-6)


def test_dch_sees_directions_only_and_survives_a_zero():
    loss = method("dch")
    assert_close(loss(7.3 * U, Y, INDEX), loss(U, Y, INDEX))
    assert loss.distance(torch.zeros(1, 4).double(), U).tolist() == [[2.0] * 3]  # K / 2
    codes = torch.tensor([[1.0, 1, -1, 1], [-1, 1, 1, 1]])
    assert loss.distance(codes[:1], codes[1:]).item() == 2  # the Hamming distance


def test_dnnh():
    assert value("dnnh", epsilon=0.5) == pytest.approx(0.783477, abs=1e-6)
    assert method("dnnh", bits=3, epsilon=0.2).squash(torch.tensor([0.9, 0.2, 0.6]).logit()).tolist() == pytest.approx(
        [1, 0, 0.6]
    )
    same = torch.full((3, 4), 0.7)
    assert method("dnnh", margin=2.0).of_codes(same, Y, INDEX).item() == 2  # collapsed codes cost exactly the margin
    alone = method("dnnh")(U.requires_grad_(), torch.zeros(3, 2), INDEX)
    assert alone.item() == 0
    assert alone.requires_grad
    U.requires_grad_(False)


@pytest.mark.parametrize(("margin", "expected"), [(1.0, 0.6275), (2.0, 1.6275)])
def test_dnnh_on_one_triplet(margin, expected):
    u = torch.tensor([[0.9, 0.2, 0.6], [0.8, 0.1, 0.5], [0.3, 0.4, 0.55]], dtype=torch.float64)
    both = method("dnnh", bits=3, margin=margin).of_codes(u, Y, INDEX)  # (0, 1, 2) and (1, 0, 2)
    other = margin + 0.03 - float((u[1] - u[2]).square().sum())
    assert both.item() == pytest.approx((expected + other) / 2)


def test_dnnh_equals_a_loop_over_all_triplets():
    torch.manual_seed(0)
    u, labels = torch.rand(7, 5).double(), (torch.rand(7, 4) < 0.5).long()
    values = [
        max(0, 1 + float((u[q] - u[p]).square().sum() - (u[q] - u[n]).square().sum()))
        for q, p, n in itertools.permutations(range(7), 3)
        if labels[q] @ labels[p] > labels[q] @ labels[n]
    ]
    loss = method("dnnh", bits=5, num_classes=4)
    assert loss.of_codes(u, labels, torch.arange(7)).item() == pytest.approx(np.mean(values))
    loss.MOST = 100  # two queries at a time: an estimate from a part of the triplets
    assert 0.5 * np.mean(values) < loss.of_codes(u, labels, torch.arange(7)).item() < 2 * np.mean(values)


def test_cnnh_regression():
    for regression, expected in [("raw", 0.311667), ("tanh", 0.348783), ("logistic", 0.333899)]:
        loss = method("cnnh", regression=regression)
        loss.H.copy_(torch.where(U >= 0, 1, -1))
        assert loss(U, Y, INDEX).item() == pytest.approx(expected, abs=1e-6)


def test_cnnh_moves_an_entry_uphill_never():
    """Where the quadratic part curves downwards, its stationary point is a maximum: the plain rule loses 5.4375."""
    H, S = np.array([[0.5, 0.5], [0.5, -0.5]]), np.ones((2, 2))
    assert objective(H, S) == pytest.approx(((H @ H.T - 2 * S) ** 2).sum())
    moved = H.copy()
    two_stage.sweep(moved, S, np.array([0]))
    assert moved[0, 0] == 1  # by +0.5, not by -1.5
    H[0, 0] = 1
    assert objective(H, S) - objective(np.array([[0.5, 0.5], [0.5, -0.5]]), S) == pytest.approx(-3.5625)


@pytest.mark.parametrize(("classes", "left", "between"), [(2, 0.0, 8.0), (5, 33.07, 4.8)])
def test_cnnh_finds_one_code_a_class(classes, left, between):
    labels = np.repeat(np.eye(classes), 8, axis=0)
    S = 2 * (labels @ labels.T) - 1
    H = factorise(S, 8, 5, np.random.default_rng(0))
    assert objective(H, S) / S.size == pytest.approx(left, abs=0.01)
    b = np.where(H >= 0, 1, -1)
    distance = (8 - b @ b.T) / 2
    assert distance[S > 0].max() == 0
    assert distance[S < 0].mean() == pytest.approx(between)


def test_cnnh_targets_stand_in_the_order_of_the_training_images():
    torch.manual_seed(0)
    labels = torch.eye(3)[torch.randint(0, 3, (60,))]
    loss = method("cnnh", bits=12, num_classes=3, train_size=60)
    loss.prepare(labels)
    for c in range(3):
        assert len(loss.H[labels[:, c] > 0].unique(dim=0)) == 1
    assert len(loss.H.unique(dim=0)) == 3


def test_bad_hyperparameters_are_refused():
    for name, arguments, message in [
        ("dnnh", {"epsilon": 0.6}, "epsilon is 0.6.* at most 0.5"),
        ("dnnh", {"epsilon": 0.0}, "epsilon is 0.0.* above 0"),
        ("dch", {"closest": 1.0}, "closest is 1.0.* below 1"),
        ("dch", {"closest": 0.0}, "closest is 0.0.* above 0"),
        ("dch", {"gamma": 0}, "gamma is 0.* above 0"),
        ("dsh", {"pairs": "all"}, "pairs is 'all'.* batch, bank"),
        ("cnnh", {"regression": "l1"}, "regression is 'l1'"),
        ("cnnh", {"sweeps": 1.5}, "sweeps is 1.5.* whole number"),
        ("dpsh", {"alpha": -1}, "alpha is -1.* at least 0"),
        ("hashnet", {"jaccard": 1}, "jaccard is 1.* true or false"),
        ("dpsh", {"balanced": "no"}, "balanced is 'no'.* true or false"),
        ("dch", {"with_itself": 0}, "with_itself is 0.* true or false"),
    ]:
        with pytest.raises(ValueError, match=message):
            method(name, **arguments)
