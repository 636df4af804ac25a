"""Values of the central methods, computed by hand for the toy."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from toy import INDEX, SEVERAL, U, Y, method

from hhlib.losses import centers
from hhlib.losses.central import soft_cross_entropy

H4 = torch.tensor(centers.hadamard(4))
CODES = torch.tensor([[1, -1, 1, 1], [-1, 1, -1, 1], [1, 1, -1, -1]], dtype=torch.float64)


def test_csq():
    for quantisation, expected in [(0.0, 0.550566), (1e-4, 0.550601), (0.05, 0.568005)]:
        loss = method("csq", quantisation=quantisation)
        loss.H = H4[[1, 3]]
        assert loss(U, Y, INDEX).item() == pytest.approx(expected, abs=1e-6)


def test_csq_asks_for_each_bit_of_the_center():
    loss = method("csq", quantisation=0.0, num_classes=1)
    loss.H = torch.tensor([[1.0, 1, -1, 1]]).double()
    one = torch.ones(1, 1)
    for z, expected in [([1, -2, 0.5, 0], 1.537872), ([0, 0, 0, 0], math.log(2)), ([-10, -10, 10, -10], 20.0)]:
        z = torch.tensor([z], dtype=torch.float64)
        assert loss(z, one, INDEX[:1]).item() == pytest.approx(expected, abs=1e-6)
        p = (torch.tanh(z.clamp(-5, 5)) + 1) / 2
        if z.abs().max() < 5:  # the formula as published, where it does not saturate
            assert F.binary_cross_entropy(p, (loss.H + 1) / 2).item() == pytest.approx(expected, abs=1e-6)
    z = torch.full((1, 4), -50.0, requires_grad=True)
    loss.float()(z, one, INDEX[:1]).backward()
    assert_close(z.grad, torch.tensor([[-0.5, -0.5, 0.0, -0.5]]))  # a wrong, saturated bit still learns


def test_several_labels_have_the_majority_of_their_centers():
    loss = method("csq", num_classes=4)
    assert_close(loss.H, H4)
    assert loss.targets(torch.tensor([[1, 1, 1, 0]])).tolist() == [[1, 1, 1, -1]]
    tied = loss.targets(torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0]]))
    assert (tied[:, [0, 2]] == 1).all()
    assert (tied[:, [1, 3]] == loss.tie[[1, 3]]).all()


def test_csq_leaves_images_without_a_label_out():
    loss = method("csq")
    assert_close(loss(U, torch.tensor([[1, 0], [0, 0], [0, 1]]), INDEX), loss(U[[0, 2]], Y[[0, 2]], INDEX[:2]))


def test_mdshc():
    labels = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0]])
    loss = method("mdshc", num_classes=3, pairs_from=0)
    loss.H = CODES
    loss.U.copy_(U), loss.Y.copy_(labels), loss.seen.fill_(True)
    assert loss.to_centers(U, labels).item() == pytest.approx(0.082683, abs=1e-6)
    assert loss.to_similar(U, labels).item() == pytest.approx(0.694813, abs=1e-6)
    assert loss.of_codes(U, labels, INDEX).item() == pytest.approx(0.777527, abs=1e-6)


@pytest.mark.parametrize(
    ("bits", "classes", "even", "aligned"), [(64, 100, 0.056002, 0.000648), (16, 10, 0.325083, 0.029522)]
)
def test_mdshc_values_of_the_center_term(bits, classes, even, aligned):
    loss = method("mdshc", bits=bits, num_classes=classes)
    loss.H = torch.eye(classes, max(bits, classes)).double()  # orthogonal stand-ins, so that cosines are 0 or 1
    label, u = torch.eye(classes)[:1], torch.zeros(1, max(bits, classes)).double()
    assert loss.to_centers(u, label).item() == pytest.approx(even, abs=1e-6)
    u[0, 0] = 3
    assert loss.to_centers(u, label).item() == pytest.approx(aligned, abs=1e-6)


def test_mdshc_pairs_start_late_and_find_a_full_bank():
    loss = method("mdshc", pairs_from=2)
    for epoch, remembers in [(0, False), (1, True), (2, True)]:
        loss.start_epoch(epoch)
        assert loss.remembers == remembers
        if remembers:
            loss.remember(U, INDEX)
        plain = loss.to_centers(torch.tanh(U), Y) + 1e-4 * (torch.tanh(U).abs() - 1).square().mean()
        pairs = loss.to_similar(torch.tanh(U), Y)
        assert_close(loss(U, Y, INDEX), plain + (pairs if epoch == 2 else 0) if epoch else plain)
    bound = loss.to_similar(torch.tanh(U), Y).item()
    assert math.log(2) <= bound <= math.log(1 + math.e)


def test_orthohash():
    for margin, expected in [(0.2, 0.000545), (0.0, 0.000110)]:
        loss = method("orthohash", margin=margin)
        loss.H = CODES[:2]
        assert loss(U, Y, INDEX).item() == pytest.approx(expected, abs=1e-6)
    loss = method("orthohash")
    loss.H = CODES[:2]
    assert loss(U, torch.tensor([[1, 0], [1, 0], [1, 1]]), INDEX).item() == pytest.approx(1.338103, abs=1e-6)
    assert_close(loss(5 * U, Y, INDEX), loss(U, Y, INDEX))


def test_greedyhash():
    loss = method("greedyhash")
    loss.classifier.weight.data = torch.tensor([[0.5, -0.5, 0.5, 0.5], [-0.5, 0.5, -0.5, 0.5]]).double()
    assert loss(U, Y, INDEX).item() == pytest.approx(0.070771, abs=1e-6)
    loss.alpha = 0.0
    u = U.clone().requires_grad_()
    value = loss(u, Y, INDEX)
    value.backward()
    assert value.item() == pytest.approx(0.048587, abs=1e-6)
    row = torch.tensor([-0.015809, 0.015809, -0.015809, 0.0]).double()  # the gradient passes the sign unchanged
    assert_close(u.grad, torch.stack([row, row, -row]), rtol=0, atol=1e-6)
    assert loss.classifier.weight.grad.abs().sum() > 0


def test_soft_labels_share_out_and_skip_images_without_any():
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.3, 0.1, 0.2]])
    log_p = torch.log_softmax(logits, dim=1)
    assert soft_cross_entropy(logits, torch.tensor([[1.0, 1, 0], [0, 0, 0]])).item() == pytest.approx(
        -(log_p[0, 0] + log_p[0, 1]).item() / 2
    )
    assert SEVERAL.sum() == 4
