import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from hhlib import losses

GOLDEN = np.load(Path(__file__).parent / "golden" / "released_loss.npz")
U = torch.tensor([[0.5, -0.5, 1.0, 0.2], [0.4, -0.6, 0.8, 0.1], [-0.7, 0.3, -0.2, 0.9]])
Y = torch.tensor([[1, 0], [1, 0], [0, 1]])
INDEX = torch.arange(3)


def create(train_size=3, bits=4, num_classes=2, **arguments):
    return losses.create("hybridhash", bits=bits, num_classes=num_classes, train_size=train_size, **arguments)


def test_equals_the_released_loss_and_gradient_over_three_steps():
    loss = create(int(GOLDEN["num_train"]), int(GOLDEN["bits"]), int(GOLDEN["n_class"]), unseen="dissimilar")
    for step in range(3):
        u = torch.tensor(GOLDEN[f"step{step}/u"], requires_grad=True)
        value = loss.of_codes(u, *(torch.tensor(GOLDEN[f"step{step}/{name}"]) for name in ("labels", "index")))
        value.backward()
        assert value.item() == pytest.approx(float(GOLDEN[f"step{step}/loss"]), abs=1e-6)
        assert_close(u.grad, torch.tensor(GOLDEN[f"step{step}/grad_u"]), rtol=1e-5, atol=1e-7)


def test_the_network_output_is_squashed_by_tanh():
    z = torch.atanh(U * 0.9)
    assert_close(create()(z, Y, INDEX), create().of_codes(U * 0.9, Y, INDEX))


@pytest.mark.parametrize(
    ("train_size", "unseen", "value"), [(3, "skip", 0.981453), (4, "dissimilar", 1.034022), (4, "skip", 0.981453)]
)
def test_hand_computed_values(train_size, unseen, value):
    assert create(train_size, unseen=unseen).of_codes(U, Y, INDEX).item() == pytest.approx(value, abs=1e-6)


def test_hand_computed_gradient():
    u = U.clone().requires_grad_()
    create().of_codes(u, Y, INDEX).backward()
    expected = [
        [-0.067548, 0.052594, -0.069791, 0.039241],
        [-0.069335, 0.054784, -0.073550, 0.038448],
        [0.071912, -0.069625, 0.104404, -0.013254],
    ]
    assert_close(u.grad, torch.tensor(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("bits", [4, 20])
def test_without_an_alpha_theta_has_the_same_scale_for_every_length(bits):
    u = torch.ones(2, bits) * torch.tensor([[1.0], [-1.0]])  # two opposite codes: <u_i, u_j> = K or -K
    value = create(2, bits, alpha=None).of_codes(u, torch.eye(2), torch.arange(2)).item()
    assert value == pytest.approx(2 * math.log1p(math.exp(-10)), abs=1e-6)


def test_naive_loops_over_pairs_give_the_same():
    torch.manual_seed(0)
    u, labels = torch.rand(6, 5) * 2 - 1, (torch.rand(6, 3) < 0.4).long()
    groups = {True: [], False: []}
    for i in range(6):
        for j in range(6):
            theta = 0.7 * sum(float(a * b) for a, b in zip(u[i], u[j], strict=True))
            share = any(int(a) and int(b) for a, b in zip(labels[i], labels[j], strict=True))
            groups[share].append(math.log1p(math.exp(theta)) - share * theta)
    expected = sum(sum(values) / len(values) for values in groups.values() if values)
    value = create(6, 5, 3, alpha=0.7).of_codes(u, labels, torch.arange(6))
    assert value.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("bits", "value"), [(4, 0.253856), (64, 2.5e-14)])
def test_ideal_codes(bits, value):
    c = torch.ones(bits, dtype=torch.float64)
    theta = 0.5 * torch.stack([c, c, -c]) @ torch.stack([c, c, -c]).T
    similar = losses.similarity(Y, Y)
    total = losses.balanced_mean(losses.pair_loss(theta, similar), similar, torch.ones_like(similar))
    assert total.item() == pytest.approx(value, rel=0.02)
    assert total.item() == pytest.approx(2 * math.log1p(math.exp(-0.5 * bits)), rel=1e-9)


def test_facts_about_the_pair_loss():
    pair = lambda theta, s: losses.pair_loss(torch.tensor(theta), torch.tensor(s)).item()  # noqa: E731
    assert pair(0.0, 1.0) == pair(0.0, 0.0) == pytest.approx(math.log(2))
    assert pair(1000.0, 1.0) == 0
    assert pair(1000.0, 0.0) == 1000
    assert create().of_codes(torch.zeros(3, 4), Y, INDEX).item() == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("labels", [torch.zeros(3, 2), torch.ones(3, 2)])
def test_an_empty_group_of_pairs_is_dropped(labels):
    u = U.clone().requires_grad_()
    loss = create().of_codes(u, labels, INDEX)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(u.grad).all()


@given(st.integers(0, 10_000))
def test_order_of_the_batch_order_of_bits_and_sign_of_a_bit_do_not_matter(seed):
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(5, 6, generator=generator) * 2 - 1
    labels = (torch.rand(5, 3, generator=generator) < 0.5).long()
    value = create(5, 6, 3).of_codes(u, labels, torch.arange(5))
    order, bits = torch.randperm(5, generator=generator), torch.randperm(6, generator=generator)
    assert_close(create(5, 6, 3).of_codes(u[order], labels[order], order), value)
    assert_close(create(5, 6, 3).of_codes(u[:, bits], labels, torch.arange(5)), value)
    flipped = u * torch.tensor([1, -1, 1, 1, 1, 1])
    assert_close(create(5, 6, 3).of_codes(flipped, labels, torch.arange(5)), value)


def test_bank_is_written_first_remembered_and_resumed():
    loss = create(4)
    first = loss.of_codes(U, Y, INDEX)
    assert_close(loss.of_codes(U, Y, INDEX), first)  # the same batch again: nothing new
    assert loss.seen.tolist() == [True, True, True, False]
    again = create(4)
    again.load_state_dict(loss.state_dict())
    late = (U[:1], Y[:1], torch.tensor([3]))
    assert_close(again.of_codes(*late), loss.of_codes(*late))


def test_gradient_agrees_with_finite_differences():
    u = (U * 0.9).double().requires_grad_()
    bank = U.double()

    def against_bank(u):
        theta, similar = 0.5 * u @ bank.T, losses.similarity(Y, Y)
        return losses.balanced_mean(losses.pair_loss(theta, similar), similar, torch.ones_like(similar))

    assert torch.autograd.gradcheck(against_bank, (u,))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="method is 'hybridhashh'.* one of hybridhash.* mean 'hybridhash'"):
        losses.create("hybridhashh", bits=4, num_classes=2, train_size=3)
    for arguments, message in [
        ({"bits": "many"}, "bits is 'many'"),
        ({"train_size": 0}, "train_size is 0"),
        ({"alpha": 0.0}, "alpha is 0.0, but it must be above 0"),
        ({"unseen": "guess"}, "unseen is 'guess', but it must be one of skip, dissimilar"),
    ]:
        with pytest.raises(ValueError, match=message):
            create(**arguments)
