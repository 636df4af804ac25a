"""Fields of the recipe that most runs leave off, and parts of the network that settings change."""

from collections import Counter

import numpy as np
import pytest
import several
import torch

import hhlib as hh
from hhlib import data, losses, network, retrieval, runs, settings, training
from hhlib.training import keeping, reports, setup, stopping

SHORT = dict(bits=12, device="cpu", precision="float32", epochs=2, batch_size=15, validate_every=2)
QUICK = SHORT | dict(net=several.LAYERS)


@pytest.fixture(scope="module")
def split():
    return several.small_digits()


def trainer_of(split, **changes):
    return training.Trainer(split, settings.read(**QUICK | changes))


# --- Muon ------------------------------------------------------------------------------------------------------------


def test_a_step_of_muon_is_orthogonal_for_matrices_and_kernels_and_adam_for_the_rest():
    """All singular values of the change are near one number, 0.2 * rate * sqrt(longer side); AdamW's are not."""
    torch.manual_seed(0)
    net = network.create("micro", bits=16, depths=(1, 1, 1))
    loss = losses.create("hybridhash", bits=16, num_classes=4, train_size=8)
    rate = 1e-2
    optimizer = setup.optimizer_for(net, loss, settings.Recipe(optimizer="muon", learning_rate=rate, weight_decay=0.0))
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    for name in ("levels.2.transformer_encoder.0.mlp.fc1.weight", "levels.1.pool.conv.weight"):
        change = (dict(net.named_parameters())[name].detach() - before[name]).flatten(1)  # (out, in * 9)
        values = torch.linalg.svdvals(change) / (0.2 * rate * max(change.shape) ** 0.5)
        assert 0.5 < values.quantile(0.1) < values.max() < 1.5, name
    change = (net.norm.weight - before["norm.weight"]).detach()  # Adam's first step: a sign, whatever the gradient
    torch.testing.assert_close(change, -net.norm.weight.grad.sign() * change.abs().max(), rtol=1e-2, atol=0)
    assert 0 < change.abs().max() <= 2 * 0.25 * rate  # Nesterov's first step is nearly twice as long


def test_position_embeddings_and_biases_do_not_decay_under_muon():
    net = network.create("micro", bits=8, depths=(1, 1, 1))
    loss = losses.create("hybridhash", bits=8, num_classes=4, train_size=8)
    optimizer = setup.optimizer_for(net, loss, settings.Recipe(optimizer="muon", weight_decay=0.5))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, p in net.named_parameters():
        assert decay[id(p)] == (0.5 if p.ndim > 1 and "pos_embed" not in name else 0.0), name


def test_muon_for_processors_without_bfloat16_makes_the_same_steps():
    torch.manual_seed(0)
    weights, gradients = torch.randn(2, 12, 20), torch.randn(3, 12, 20)
    ended = []
    for kind in (setup.Muon, setup.PortableMuon):
        weight = torch.nn.Parameter(weights[0].clone())  # (out, in)
        optimizer = kind([weight], lr=0.1)
        for gradient in gradients:
            weight.grad = gradient
            optimizer.step()
        ended.append(weight.detach() - weights[0])
    torch.testing.assert_close(*ended, rtol=0, atol=0.02 * ended[0].abs().max().item())  # bfloat16 has 8 bits


def test_products_are_summed_in_float32_and_then_rounded():
    torch.manual_seed(0)
    x, a, b = torch.randn(9, 7), torch.randn(9, 64), torch.randn(64, 7)
    x, a, b = (matrix.bfloat16() for matrix in (x, a, b))
    expected = (0.5 * x.double() + a.double() @ b.double()).bfloat16()
    with setup.Float32Products():
        found, into = torch.addmm(x, a, b, beta=0.5), torch.empty_like(x)
        assert torch.addmm(x, a, b, beta=0.5, out=into) is into
    assert torch.equal(found, into)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=2**-8, atol=0)  # a sum next to the middle may go the other way


def test_a_gpu_and_a_processor_with_bfloat16_use_muon_as_it_is(monkeypatch):
    assert setup.quick_bfloat16(torch.device("cuda"))
    for capability in ("AVX512", "AVX2", "DEFAULT"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        assert setup.quick_bfloat16(torch.device("cpu")) == (capability == "AVX512")


# --- averaged weights, averaged outputs ------------------------------------------------------------------------------


def test_what_is_kept_is_the_moving_average_of_the_weights(split, tmp_path):
    trainer = trainer_of(split, average=0.9)
    expected = None
    for batch in trainer.batches(0):
        trainer.step(batch)
        now = trainer.net.norm.weight.detach().clone()
        expected = now if expected is None else 0.9 * expected + 0.1 * now
        trainer.average.update_parameters(trainer.net)
    torch.testing.assert_close(trainer.kept.norm.weight, expected)
    assert not torch.equal(trainer.kept.norm.weight, trainer.net.norm.weight)
    run = training.fit(split, runs.Run(tmp_path), settings.read(**QUICK | dict(average=0.9)), ())
    stored = torch.load(run.path / keeping.STATE, weights_only=True)
    for name, tensor in run.model().state_dict().items():
        assert torch.equal(tensor, stored["average"][f"module.{name}"])


def test_a_run_with_averaged_weights_resumes_as_if_it_had_not_stopped(split, tmp_path):
    how = settings.read(
        **QUICK | dict(average=0.9, optimizer="muon", alternate=True, balanced=True, paste=True, erase=4)
    )
    whole = training.fit(split, runs.Run(tmp_path / "whole"), how, ())

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.fit(split, runs.Run(tmp_path / "stopped"), how, [stop])
    resumed = training.fit(split, runs.Run(tmp_path / "stopped"), how, ())
    assert resumed.history().equals(whole.history())
    ours, theirs = whole.model().state_dict(), resumed.model().state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_flip_averaging_gives_the_mean_of_both_outputs_and_the_same_for_a_mirror_image():
    net = network.create("micro", bits=8, depths=(1, 1, 1))
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    how = dict(mean=[0.5] * 3, std=[0.25] * 3)
    one, other = (retrieval.encode(net, x, **how) for x in (images, images.flip(3)))
    both = retrieval.encode(net, images, flip=True, **how)
    torch.testing.assert_close(both, (one + other) / 2)
    torch.testing.assert_close(both, retrieval.encode(net, images.flip(3), flip=True, **how))


def test_an_experiment_averages_over_flips_as_its_run_did_and_never_for_digits(tmp_path):
    ex = hh.open(dataset="digits", runs_dir=str(tmp_path), flip_average=True, **QUICK | dict(epochs=1))
    net = ex.untrained()
    torch.testing.assert_close(ex.encode("query", net=net), retrieval.encode(net, ex.split.query, **statistics(ex)))
    ex = hh.open(dataset="shapes", runs_dir=str(tmp_path), flip_average=True, **QUICK)
    images = ex.split.query.batch(range(4))[0]
    net = ex.untrained()
    expected = retrieval.encode(net, images, flip=True, **statistics(ex))
    torch.testing.assert_close(ex.encode(images, net=net), expected)


def statistics(ex):
    mean, std = ex._statistics
    return dict(mean=mean, std=std)


# --- batches ---------------------------------------------------------------------------------------------------------


def numbered(n, classes=3, side=8):
    """A part of images, each of one grey value: its row."""
    images = torch.arange(n, dtype=torch.uint8).view(-1, 1, 1, 1).expand(n, 3, side, side)
    labels = torch.eye(classes, dtype=torch.uint8)[torch.arange(n) % classes]
    return data.Part(data.Pool(images, labels, [str(c) for c in range(classes)], flip=True), np.arange(n))


def test_class_by_class_every_stretch_shows_every_class_once():
    part = numbered(32)  # 11, 11 and 10 images
    drawn = lambda seed: data.class_by_class(part, torch.Generator().manual_seed(seed))  # noqa: E731
    order = drawn(1)
    assert len(order) == len(set(order.tolist())) == 30
    assert (part.labels[order].view(-1, 3, 3).sum(dim=1) == 1).all()
    assert torch.equal(order, drawn(1))
    assert not torch.equal(order, drawn(2))


def test_balanced_batches_have_equally_many_images_of_each_class_in_every_epoch():
    trainer, seen = trainer_of(data.load("digits"), balanced=True, batch_size=20), []
    trainer.step = lambda batch: (seen.append(batch), (torch.zeros(()), torch.zeros(20, 12)))[1]
    with stopping.StopRequest() as stop:
        for epoch in range(2):
            trainer.epoch(epoch, stop)
            trainer.tally = reports.Tally()
    assert len(seen) == 2 * (900 // 20)
    for _, labels, _ in seen:
        assert set(labels.sum(dim=0).tolist()) == {2}
    assert not torch.equal(seen[0][2], seen[len(seen) // 2][2])  # the second epoch has another order


@pytest.mark.parametrize(("dataset", "method"), [("shapes", "hybridhash"), ("digits", "adsh")])
def test_balanced_batches_are_refused_where_they_have_no_meaning(dataset, method):
    with pytest.raises(ValueError, match="balanced is true, but it needs one label per image"):
        training.Trainer(data.load(dataset), settings.read(dataset=dataset, method=method, balanced=True))


def test_alternating_mirrors_each_image_in_exactly_one_of_two_epochs():
    ramp = torch.arange(8, dtype=torch.uint8).expand(6, 3, 8, 8)  # darker on the left
    rows = torch.arange(6)
    mirrored = Counter()
    for epoch in range(2):
        out = data.augment(ramp, shift=0, flip=(rows + epoch) % 2 == 0, generator=torch.Generator())
        for row in rows.tolist():
            assert torch.equal(out[row], ramp[row].flip(2)) or torch.equal(out[row], ramp[row])
            mirrored[row] += int(out[row, 0, 0, 0] == 7)
    assert mirrored == dict.fromkeys(range(6), 1)


def test_the_trainer_alternates(tmp_path):
    split = data.load("shapes")
    trainer = training.Trainer(split, settings.read(dataset="shapes", **SHORT | dict(alternate=True, shift=0, erase=0)))
    images, _, index = trainer.part.batch(range(6))
    first = trainer.network_input(images, index)
    trainer.history.append({})
    second = trainer.network_input(images, index)
    torch.testing.assert_close(first, second.flip(3))


def test_a_pasted_square_shows_another_image_and_nothing_else_changes():
    part = numbered(6)
    images = part.batch(range(6))[0]
    generator = torch.Generator().manual_seed(0)
    out = data.augment(images, shift=0, flip=False, erase=4, paste=True, generator=generator)
    for row in range(6):
        assert set(out[row].unique().tolist()) <= {row, (row - 1) % 6}
    assert (out != images).any()


# --- parts of the network --------------------------------------------------------------------------------------------


def test_options_of_the_network_are_settings_that_build_it_and_come_back_from_the_run(split, tmp_path):
    how = settings.read("net.depths=1,1,2 net.stem=conv net.hash_layer=mean net.global_branch=false", **SHORT)
    run = training.fit(split, runs.Run(tmp_path), how, ())
    net = run.model()
    assert [len(level.transformer_encoder) for level in net.levels] == [1, 1, 2]
    assert not hasattr(net.levels[1].pool, "tokens")
    assert net.patch_embed[0].conv.kernel_size == (3, 3)
    assert how.changes()["net.depths"] == (1, 1, 2)
    assert settings.read(settings.words(how.changes().items())) == how
    with pytest.raises(ValueError, match="net.stem = 'conv', but 'patch' is asked for"):
        training.fit(split, run, settings.read(net=how.recipe.net | {"stem": "patch"}, **SHORT), ())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("net.stems=conv", "net.stems is no option of network micro; .* Did you mean 'stem'"),
        ("net=conv", "net is 'conv', but what it holds is set by name"),
        ("net.depths=1,x,1", "net.depths is 'x', but it must be a whole number"),
        ("network=lite0 net.depths=1,1,1", "net.depths is no option of network lite0; those are head"),
        (
            "network=timm:lite0 net.variant=released",
            "net.variant is no option of network timm:lite0; those are head",
        ),
    ],
)
def test_an_option_that_does_not_exist_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        settings.read(given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(stem="cnv"), "stem is 'cnv'.*conv"),
        (dict(hash_layer="sum"), "hash_layer is 'sum'.*mean"),
        (dict(stem="conv", patch_size=3, img_size=48), "patch_size is 3, but stem 'conv' needs 2, 4, 8"),
    ],
)
def test_a_part_that_does_not_exist_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        network.create("micro", bits=8, **options)


@pytest.mark.parametrize(("patch", "side"), [(2, 32), (4, 64), (8, 64)])
def test_the_convolutional_stem_makes_the_same_grid_as_patches(patch, side):
    nets = [network.create("micro", bits=8, patch_size=patch, img_size=side, stem=s) for s in network.STEMS]
    x = torch.randn(2, 3, side, side)
    assert nets[0].patch_embed(x).shape == nets[1].patch_embed(x).shape == (2, 64, side // patch, side // patch)
    nets[1].set_input_size(2 * side)
    assert nets[1](torch.randn(2, 3, 2 * side, 2 * side)).shape == (2, 8)


def test_the_mean_layer_is_one_linear_map_of_the_mean_vector():
    net = network.create("micro", bits=8, hash_layer="mean").eval()
    x = torch.randn(2, 3, 32, 32)
    mean = net.forward_features(x).mean(dim=(2, 3))
    expected = mean @ net.hash_layer.to_bits.weight[:, :, 0, 0].T + net.hash_layer.to_bits.bias
    torch.testing.assert_close(net(x), expected)


@pytest.fixture
def control(from_tools):
    """A plain network that is not part of the kit; importing it makes it known to timm."""
    return from_tools("control")


def test_the_control_is_a_residual_network_for_small_pictures_with_the_same_hash_layer(control):
    net = network.create("timm:resnet10s", bits=24, img_size=32)
    assert isinstance(net.hash_layer, network.HashLayer)
    assert isinstance(net.backbone, control.ResNet10)
    assert net.forward_features(torch.randn(2, 3, 32, 32)).shape == (2, 256, 4, 4)
    x = torch.randn(2, 8, 4, 4)
    block = control.Residual(8).eval()
    torch.testing.assert_close(block(x) - x, block.two(x))


def test_the_control_trains_as_any_network(control, split, tmp_path):
    chosen = dict(network="timm:resnet10s", pretrained=False, small_epochs=0, drop_path=0.0)
    run = training.fit(split, runs.Run(tmp_path), settings.read(**SHORT | chosen | dict(method="orthohash")), ())
    model = dict(name="timm:resnet10s", bits=12, img_size=32, drop_path_rate=0.0, head="normalised")
    assert run.record["model"] == model
    assert run.model()(torch.randn(1, 3, 32, 32)).shape == (1, 12)


def test_a_network_without_pretrained_weights_is_trained_from_scratch_or_refused(control):
    assert network.kind("timm:resnet10s") == "tuned"
    with pytest.raises(ValueError, match="network is 'resnet10s', but it must be base, small, tiny, micro"):
        network.kind("resnet10s")  # frozen, with random weights, it would be of no use
    with pytest.raises(ValueError, match="network 'timm:resnet10s' has no pretrained weights"):
        network.check_pretrained("timm:resnet10s")
    with pytest.raises(ValueError, match="network is 'resnet10s', but it must be lite0"):
        network.pretrained("resnet10s")


# --- a bank with spare rows ------------------------------------------------------------------------------------------


def test_spare_rows_of_the_bank_are_the_released_code_s_empty_half():
    """Three images, a bank of four rows, see spec of the loss: 1.034022, and 0.981453 where empty rows are skipped."""
    u = torch.tensor([[0.5, -0.5, 1.0, 0.2], [0.4, -0.6, 0.8, 0.1], [-0.7, 0.3, -0.2, 0.9]])
    labels, sizes = torch.eye(2)[[0, 0, 1]], dict(bits=4, num_classes=2, train_size=3)
    for unseen, expected in (("dissimilar", 1.034022), ("skip", 0.981453)):
        loss = losses.create("hybridhash", **sizes, alpha=0.5, unseen=unseen, spare=1)
        assert float(loss.of_codes(u, labels, torch.arange(3))) == pytest.approx(expected, abs=1e-6)
