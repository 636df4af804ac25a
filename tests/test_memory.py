"""Less memory for the same training: micro-batches, checkpointing, and how many are needed."""

import pytest
import several
import torch

from hhlib import losses, network, runs, settings, training
from hhlib.training.setup import accelerator_for, for_training

SHORT = dict(epochs=1, small_epochs=0, validate_every=1)


def step(method: str, **changes):
    """Loss and gradients of one step of a network without randomness, in float64."""
    recipe = settings.Recipe(**changes)
    torch.manual_seed(0)
    images, labels, index = torch.randn(10, 3, 32, 32).double(), torch.eye(4)[torch.arange(10) % 4], torch.arange(10)
    head = losses.method(method).head
    net = network.create("micro", bits=12, img_size=32, head=head, drop_path_rate=0.0).double().train()
    net.set_grad_checkpointing(recipe.checkpointing)
    loss = losses.create(method, bits=12, num_classes=4, train_size=10).double()
    loss.prepare(labels)
    value = loss(for_training(net, accelerator_for("cpu", "float32", 0), recipe)(images).double(), labels, index)
    value.backward()
    return value, {name: p.grad for name, p in net.named_parameters()} | dict(net.named_buffers())


@pytest.mark.parametrize("method", ["hybridhash", "mdshc", "dnnh"])  # pairs, batch normalisation, triplets
@pytest.mark.parametrize("how", [{"micro_batches": 3}, {"micro_batches": 10}, {"checkpointing": True}])
def test_the_loss_and_its_gradients_are_those_of_the_whole_batch(method, how):
    value, gradients = step(method)
    other, others = step(method, **how)
    assert other.item() == pytest.approx(value.item(), rel=1e-6)  # outputs pass through float32
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-4, atol=1e-7)


def test_a_training_in_micro_batches_is_the_same_training(tmp_path):
    histories = []
    for number in (1, 4):
        how = several.how(**SHORT, micro_batches=number)
        run = training.fit(several.small_digits(), runs.Run(tmp_path / str(number)), how)
        histories.append(run.history())
    assert histories[0]["loss"].tolist() == pytest.approx(histories[1]["loss"].tolist(), rel=1e-5)


def test_images_in_memory_at_once_are_those_of_a_micro_batch(monkeypatch):
    seen = []
    forward = network.BlockAttention.forward
    monkeypatch.setattr(network.BlockAttention, "forward", lambda self, x: seen.append(len(x)) or forward(self, x))
    step("hybridhash", micro_batches=4)
    in_layers = [n for n in seen if n != 10]  # the hash layer sees all ten
    assert set(in_layers) == {3, 1}
