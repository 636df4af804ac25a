"""What every method must do, whatever its formula."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from toy import INDEX, SEVERAL, U, Y, method

from hhlib import losses, network

NAMES = losses.names(nested=False)
BITWISE = [name for name in NAMES if name not in ("csq", "mdshc", "orthohash", "greedyhash", "jldsh_style")]


def ready(name, labels=Y, **arguments):
    """A loss in the middle of a training: prepared, in an epoch in which all of its terms count."""
    torch.manual_seed(0)
    loss = method(name, num_classes=labels.shape[1], train_size=len(labels), **arguments)
    loss.prepare(labels)
    loss.start_epoch(9)
    loss.remember(U[: len(labels)], torch.arange(len(labels)))
    return loss.eval()  # stops the continuation of hashnet


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("labels", [Y, SEVERAL], ids=["one label", "several"])
def test_gradients_agree_with_finite_differences(name, labels):
    loss = ready(name, labels)
    if name == "greedyhash":  # its gradient is that of the identity, not of the sign: by hand in test_central
        return
    z = (U * 0.9 + 0.013).requires_grad_()
    if isinstance(loss, losses.BankMethod) and name != "mdshc":  # the bank is a constant: hold it fixed
        masks = loss.write(z, labels, INDEX)
        loss.write = lambda *_: masks
    assert torch.autograd.gradcheck(lambda z: loss(z, labels, INDEX), (z,))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_outputs_give_a_finite_float32_loss_near_the_exact_one(name, dtype):
    exact = ready(name)(U, Y, INDEX)
    loss = ready(name).float()
    z = U.to(dtype).requires_grad_()
    value = loss(z, Y, INDEX)
    value.backward()
    assert value.dtype == torch.float32
    assert_close(value.double(), exact, rtol=0.02, atol=0.01)
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "labels", [torch.zeros(3, 2), torch.ones(3, 2), torch.tensor([[1, 0], [0, 0], [0, 0]])], ids=["none", "all", "one"]
)
def test_batches_without_similar_or_dissimilar_pairs_or_labels_are_finite(name, labels):
    loss, z = ready(name, labels), U.clone().requires_grad_()
    value = loss(z, labels, INDEX)
    value.backward()
    loss.end_epoch(0, last=True)
    assert value.isfinite()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_the_order_of_a_batch_does_not_matter(name, seed):
    loss = ready(name)
    order = torch.randperm(3, generator=torch.Generator().manual_seed(seed))
    value = loss(U, Y, INDEX)
    assert_close(loss(U[order], Y[order], INDEX[order]), value)


@pytest.mark.parametrize("name", BITWISE)
def test_the_order_of_bits_does_not_matter(name):
    loss, order = ready(name), torch.tensor([2, 0, 3, 1])
    value = loss(U, Y, INDEX)
    for buffer in ("V", "H"):
        if hasattr(loss, buffer):
            setattr(loss, buffer, getattr(loss, buffer)[:, order])
    assert_close(loss(U[:, order], Y, INDEX), value)


@pytest.mark.parametrize("name", NAMES)
def test_state_resumes(name):
    """The same values after a detour over state_dict, also in the middle of a round."""
    torch.manual_seed(1)
    labels = torch.eye(4)[torch.arange(40) % 4]
    one, other = (method(name, bits=12, num_classes=4, train_size=40) for _ in range(2))
    one.prepare(labels)
    rows = one.start_epoch(0)
    rows = torch.arange(40) if rows is None else rows
    z = torch.randn(4, 10, 12, dtype=torch.float64)
    for step in range(2):
        index = rows[10 * step : 10 * step + 10]
        one.remember(z[step], index)
        one(z[step], labels[index], index)
    other.load_state_dict(one.state_dict())
    results = []
    for loss in (one, other):
        torch.manual_seed(2)
        again = loss.start_epoch(1)
        again = torch.arange(40) if again is None else again
        values = [loss(z[s], labels[again[10 * s :][:10]], again[10 * s :][:10]) for s in (2, 3)]
        loss.end_epoch(2, last=False)
        codes = loss.database_codes()
        results.append([*values, torch.zeros(0) if codes is None else codes])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("bits", "classes"), [(12, 10), (48, 21), (6, 20)])
def test_any_code_length_and_number_of_classes(name, bits, classes):
    """Not a power of two; more classes than 2K."""
    labels = torch.eye(classes)
    loss = losses.create(name, bits=bits, num_classes=classes, train_size=classes)
    loss.prepare(labels)
    loss.start_epoch(0)
    assert loss(torch.randn(classes, bits), labels, torch.arange(classes)).isfinite()


@pytest.mark.parametrize("name", NAMES)
def test_a_step_lowers_the_loss(name):
    loss = ready(name)
    z = (0.3 * U).requires_grad_()
    value = loss(z, Y, INDEX)
    value.backward()
    assert loss(z.detach() - 1e-4 * z.grad / z.grad.norm(), Y, INDEX) < value or name == "greedyhash"


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_hyperparameters_are_checked(name):
    loss = losses.create(name, bits=4, num_classes=2, train_size=3)
    with pytest.raises(ValueError, match=r"codes \(3, 4\) and labels \(3, 5\) must be \(3, 4\) and \(3, 2\)"):
        loss(U.float(), torch.zeros(3, 5), INDEX)
    for argument in ("bits", "num_classes", "train_size"):
        with pytest.raises(ValueError, match=f"{argument} is 0"):
            losses.create(name, **dict(bits=4, num_classes=2, train_size=3) | {argument: 0})
    assert loss.family in ("symmetric", "asymmetric", "central")
    assert loss.head in network.HEADS


@pytest.mark.parametrize("name", [name for name in NAMES if name != "cnnh"])
def test_no_matrix_of_all_training_images_with_each_other(name):
    """60,000 images: a square matrix would take 14 GB in float32; tensors made here stay below 1 GB."""
    n = 60_000
    labels = torch.eye(10)[torch.arange(n) % 10]
    loss = losses.create(name, bits=16, num_classes=10, train_size=n)
    loss.prepare(labels)
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **kwargs or {})
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    with Watch():
        rows = loss.start_epoch(0)
        index = torch.arange(64) if rows is None else rows[:64]
        loss(torch.randn(64, 16, requires_grad=True), labels[index], index).backward()
        if name != "admh_style":  # its step is slow; it uses the same blocks
            loss.end_epoch(0, last=True)
    assert 0 < largest < 1 << 28


def test_cnnh_refuses_more_images_than_its_matrix_can_hold():
    with pytest.raises(
        ValueError, match="cnnh compares all training images with each other, and its train_size is 60000"
    ):
        losses.create("cnnh", bits=16, num_classes=10, train_size=60_000)


def test_nested_codes_are_the_mean_over_their_prefixes():
    torch.manual_seed(0)
    labels, z, index = torch.eye(3)[torch.arange(9) % 3], torch.randn(9, 8).double(), torch.arange(9)
    for name in ("hybridhash", "dsh", "hashnet", "dnnh"):
        loss = method(f"{name}_nested", bits=8, num_classes=3, train_size=9)
        assert loss.lengths == (2, 4, 6, 8)
        alone = [method(name, bits=k, num_classes=3, train_size=9)(z[:, :k], labels, index) for k in loss.lengths]
        assert_close(loss(z, labels, index), torch.stack(alone).mean())
        assert loss.head == losses.METHODS[name].head
    for name in ("hybridhash", "hashnet"):
        arguments, value = dict(num_classes=3, train_size=9), 0
        for k in (2, 4, 6, 8):  # without an alpha, each prefix has that of its own length
            value += method(name, bits=k, alpha=10 / k, **arguments)(z[:, :k], labels, index) / 4
        assert_close(method(f"{name}_nested", bits=8, alpha=None, **arguments)(z, labels, index), value)
    chosen = method("cnnh_nested", bits=8, num_classes=3, train_size=9, lengths=(3, 8), regression="raw")
    chosen.prepare(labels)
    expected = [(z[:, : part.bits] - part.H).square().mean() for part in chosen.parts]
    assert_close(chosen(z, labels, index), torch.stack(expected).mean())


@pytest.mark.parametrize("lengths", [(), (4,), (8, 4), (4, 4, 8), (4, 8, 9)])
def test_lengths_must_rise_to_all_bits(lengths):
    with pytest.raises(ValueError, match=r"but it must rise and end with the 8 bits"):
        method("dpsh_nested", bits=8, lengths=lengths)


def test_only_symmetric_methods_are_nested():
    assert {name.removesuffix("_nested") for name in set(losses.names()) - set(NAMES)} == {
        name for name in NAMES if losses.METHODS[name].family == "symmetric"
    }
    with pytest.raises(ValueError, match="method is 'csq_nested'"):
        losses.NestedLoss("csq", 8, 3, 9)


def test_what_is_known_of_a_method_holds_for_its_nested_variant_too():
    assert list(losses.METHODS) == NAMES
    for name in losses.names():
        assert losses.method(name) is losses.METHODS[name.removesuffix("_nested")]
    assert losses.method("dnnh_nested").head == "divide"
    assert losses.method("dnnh_nested").learning_rate_share == 0.3
    assert losses.method("mdshc").momentum == 0.9
    with pytest.raises(ValueError, match="method is 'csq_nested'.* hybridhash_nested"):
        losses.method("csq_nested")
    with pytest.raises(ValueError, match="class attribute is 'nob'.* mean 'knob'"):
        type("Mine", (losses.Method,), {}, nob="alpha")


def defaults(name):
    return {key: field.default for key, field in losses.hyperparameters(name).items()}


def test_hyperparameters_are_known_by_name():
    assert defaults("hybridhash") == {"alpha": 0.5, "unseen": "skip", "spare": 0}
    assert losses.hyperparameters("hybridhash")["alpha"].type == float | None
    assert defaults("adsh") == {"gamma": 200.0, "sample": 2000, "epochs_a_round": 3}
    assert defaults("admh_style") == {"tau": None, "mu": None} | defaults("adsh")
    assert defaults("mdshc") == {"beta": 1.0, "quantisation": 1e-4, "pairs_from": 9}  # no unseen: it would do nothing
    assert set(defaults("hashnet_nested")) == {"lengths", *defaults("hashnet")}
    with pytest.raises(ValueError, match="quantization .* csq; .* mean 'quantisation'"):
        method("csq", quantization=1.0)
    with pytest.raises(ValueError, match="bits is no hyper-parameter of csq"):
        losses.check_hyperparameters("csq", {"bits": 3})


@pytest.mark.parametrize("name", losses.names())
def test_every_hyperparameter_has_a_help_text_and_can_be_given_and_bad_values_are_refused(name):
    known, traits = losses.hyperparameters(name), losses.method(name)
    method(name, bits=8, **defaults(name))
    method(name, bits=8, **traits.recommended)
    assert traits.knob in known
    for key, field in known.items():
        assert len(field.metadata["help"]) > 10
        for bad in (math.nan, math.inf, "much", -1, [], *([] if field.type is bool else [True])):
            with pytest.raises(ValueError, match=key):
                method(name, bits=8, **{key: bad})


@pytest.mark.parametrize("name", losses.names())
def test_ideal_outputs_cost_less_than_with_wrong_bits(name):
    torch.manual_seed(0)
    kind = torch.arange(32) % 4
    labels, index = torch.eye(4)[kind], torch.arange(32)
    loss = losses.create(name, bits=32, num_classes=4, train_size=32)
    z, same = loss.ideal(labels), kind[:, None] == kind
    distance = (32 - losses.sign(z) @ losses.sign(z).T) / 2
    assert distance[same].max() == 0
    assert distance[~same].min() > 8
    plain = name.removesuffix("_nested") in ("dsh", "dpsh", "dch", "orthohash", "greedyhash")
    assert z.abs().unique().tolist() == [1 if plain else 2]
    least, wrong = loss.eval()(z, labels, index), []
    for _ in range(16):  # a likelihood may like a few of these better: it would rather be opposite than far
        flipped = z.clone()
        flipped[0, torch.randperm(32)[:16]] *= -1
        wrong.append(loss(flipped, labels, index))
    assert least < torch.stack(wrong).mean()
    codes = loss.database_codes()
    assert codes is None or torch.equal(codes, losses.sign(z))


@pytest.mark.parametrize("name", NAMES)
def test_ideal_outputs_are_one_per_combination_of_labels(name):
    torch.manual_seed(0)
    kinds = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 0]])
    kind = torch.arange(20) % 4
    z = losses.create(name, bits=16, num_classes=3, train_size=20).ideal(kinds[kind])
    for k in range(4):
        assert len(z[kind == k].unique(dim=0)) == 1
    assert len(z.unique(dim=0)) == 4 or losses.METHODS[name].family == "central"  # an even number of centers may tie


def test_each_method_squashes_in_its_own_way():
    z = U * 3
    for name in NAMES:
        expected = torch.tanh(z)
        if name in ("dsh", "dpsh", "dch", "orthohash", "greedyhash"):
            expected = z
        if name == "dnnh":  # sigmoid, and 0 or 1 outside of 0.1..0.9
            t = torch.sigmoid(z)
            expected = torch.where(t > 0.9, 1.0, torch.where(t < 0.1, 0.0, t))
        assert_close(method(name).squash(z), expected)
        assert method(name).squash(z.bfloat16()).dtype == torch.float32
    steep = method("hashnet")
    steep.steps.fill_(600)  # beta = sqrt(1 + 0.005 * 600) = 2
    assert_close(steep.squash(z), torch.tanh(2 * z))
    assert_close(method("dch", variant="released").squash(z), torch.tanh(z))
    assert_close(method("cnnh", regression="raw").squash(z), z)
