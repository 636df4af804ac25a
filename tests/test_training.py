import errno
import json
import math
import os
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file

from hhlib import data, losses, metrics, retrieval, runs, training
from hhlib.data import Split

RECIPE = training.Recipe(epochs=3, batch_size=16, learning_rate=1e-3, drop_path=0.1, validate_every=1, small_epochs=1)
NAME = dict(method="hybridhash", network_name="micro", bits=12)


@pytest.fixture(scope="module")
def split():
    """A twentieth of digits: enough to move, small enough for a test."""
    whole = data.load("digits")
    parts = (part.subset(range(0, len(part), 20)) for part in (whole.query, whole.train, whole.database))
    return Split("digits", 0, whole.protocol, *parts)


def fit(split, path, recipe=RECIPE, **changes):
    return training.fit(split, runs.Run(path), recipe=recipe, **{**NAME, "device": "cpu", **changes})


def weights(run):
    return run.model().state_dict()


def same(a, b):
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def trained(split, tmp_path_factory):
    return fit(split, tmp_path_factory.mktemp("run"))


def test_a_run_holds_what_is_needed_to_repeat_it(trained, split):
    record = trained.record
    assert record["parameters"]["recipe"]["epochs"] == 3
    assert record["data"]["sizes"] == split.sizes
    assert record["data"]["trained_on"] + record["data"]["validation"] == len(split.train)
    assert set(record["packages"]) >= {"torch", "timm", "numpy"}
    history = trained.history()
    assert list(history["epoch"]) == [1, 2, 3]
    assert history["validation_map"].isna().tolist() == [True, False, False]  # the first saw small images
    assert history["validation_map"][1:].between(0, 1).all()


def test_it_learns(split, tmp_path):
    """45 images by heart: from knowing nothing, 2 ln 2, to far below."""
    recipe = training.Recipe(epochs=25, batch_size=9, learning_rate=5e-4, shift=0, validation=0.0)
    loss = fit(split, tmp_path, recipe=recipe).history()["loss"]
    assert loss[0] > 1.2
    assert loss.iloc[-1] < 1.0


def test_same_seed_same_history_and_codes(trained, split, tmp_path):
    again = fit(split, tmp_path / "again")
    pd.testing.assert_frame_equal(trained.history(), again.history(), check_exact=True)
    facts = trained.record["data"]
    how = dict(mean=facts["mean"], std=facts["std"])
    codes = [retrieval.encode(run.model(), split.query, **how) for run in (trained, again)]
    assert torch.equal(*codes)
    other = fit(split, tmp_path / "other", seed=1)
    assert not same(trained, other)


@pytest.mark.parametrize("method", ["dnnh", "hashnet", "cnnh", "adsh", "jldsh_style", "mdshc"])
def test_methods_with_hooks_heads_or_parameters_go_on_after_a_stop(method, split, tmp_path, monkeypatch):
    """Stopped after the second epoch: in the middle of an alternating round, and with a moving copy of the network.

    The others ask no more of the loop than hybridhash does; test_methods.py resumes the state of each.
    """
    loss = {"mdshc": {"pairs_from": 1}, "adsh": {"sample": 20}}.get(method, {})
    recipe = replace(RECIPE, validate_every=3, loss=loss)
    whole = fit(split, tmp_path / "whole", recipe=recipe, method=method)
    save = training.loop.save

    def stop_after_second_epoch(accelerator, state, *arguments):
        save(accelerator, state, *arguments)
        if len(state.history) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training.loop, "save", stop_after_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        fit(split, tmp_path / "stopped", recipe=recipe, method=method)
    monkeypatch.setattr(training.loop, "save", save)
    resumed = fit(split, tmp_path / "stopped", recipe=recipe, method=method)
    pd.testing.assert_frame_equal(whole.history(), resumed.history(), check_exact=True)
    assert same(whole, resumed)
    learnt = whole.database_codes()
    assert (learnt is not None) == (losses.METHODS[method].family == "asymmetric")
    if learnt is not None:
        assert (learnt == resumed.database_codes()).all()
        assert learnt.shape == (len(split.database), 2)
        assert whole.history()["validation_map"].isna().all()


def test_a_stopped_run_goes_on_and_ends_bit_identical(trained, split, tmp_path, monkeypatch):
    save, count = training.loop.save, []

    def stop_after_first_epoch(*arguments):
        save(*arguments)
        count.append(1)
        if len(count) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(training.loop, "save", stop_after_first_epoch)
    with pytest.raises(KeyboardInterrupt):
        fit(split, tmp_path)
    assert len(runs.Run(tmp_path).history()) == 1
    resumed = fit(split, tmp_path)
    assert same(trained, resumed)
    pd.testing.assert_frame_equal(trained.history(), resumed.history(), check_exact=True)


def test_a_finished_run_is_left_as_it_is_and_other_parameters_are_refused(trained, split):
    before = (trained.path / "model.safetensors").stat().st_mtime_ns
    fit(split, trained.path)
    assert (trained.path / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"recipe.epochs = 3, but 4 is asked for; use resume=False"):
        fit(split, trained.path, recipe=replace(RECIPE, epochs=4))
    with pytest.raises(ValueError, match=r"bits = 12, but 8 is asked for"):
        fit(split, trained.path, bits=8)


def test_a_run_from_before_a_recipe_had_a_field_is_known_again(trained, split, tmp_path):
    copied(trained, tmp_path)
    record = trained.record
    del record["parameters"]["recipe"]["choose"]
    (tmp_path / "run.json").write_text(json.dumps(record))
    before = kept(runs.Run(tmp_path))
    fit(split, tmp_path)
    assert kept(runs.Run(tmp_path)) == before
    with pytest.raises(ValueError, match="recipe.choose = 'validation', but 'queries' is asked for"):
        fit(split, tmp_path, recipe=replace(RECIPE, choose="queries"))


def test_training_afresh_leaves_nothing_of_the_earlier_run(trained, split, tmp_path, monkeypatch):
    for path in trained.path.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "metrics.json").write_text("{}")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(training.loop, "train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(split, tmp_path, bits=8, resume=False)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert runs.Run(tmp_path).parameters["bits"] == 8


@pytest.mark.parametrize("choose", ["validation", "queries"])
def test_the_best_epoch_is_kept(choose, split, tmp_path, monkeypatch):
    """By the column that chooses; the other one would choose the last."""
    chooses, other = iter([0.2, 0.9, 0.5]), iter([0.1, 0.2, 0.3])
    validation, queries = (chooses, other) if choose == "validation" else (other, chooses)
    monkeypatch.setattr(training.loop, "_validate", lambda *_, **__: {"validation_map": next(validation)})
    monkeypatch.setattr(training.loop, "_score", lambda *_, **__: next(queries))
    kept, save = [], training.keeping.save_file
    monkeypatch.setattr(training.keeping, "save_file", lambda *a: (kept.append(1), save(*a)))
    best = fit(split, tmp_path / "best", recipe=replace(RECIPE, small_epochs=0, choose=choose))
    assert len(kept) == 2
    last = torch.load(best.path / "training_state.pt", weights_only=True)["net"]
    assert not all(torch.equal(tensor, last[name]) for name, tensor in weights(best).items())


def test_the_released_way_of_choosing_is_marked_and_its_optimism_told(split, tmp_path):
    run = fit(split, tmp_path, recipe=replace(RECIPE, choose="queries"))
    assert run.parameters["recipe"]["choose"] == "queries"
    history, facts = run.history(), run.record["data"]
    assert history["query_map"].isna().tolist() == [True, False, False]
    z = [retrieval.encode(run.model(), p, mean=facts["mean"], std=facts["std"]) for p in (split.query, split.database)]
    pair = z[0].numpy(), split.query.labels.numpy(), z[1].numpy(), split.database.labels.numpy()
    kept = metrics.evaluate(*pair, topk=split.protocol.topk)["map"]["expected"]
    assert kept == pytest.approx(history["query_map"].max(), abs=0.02)  # encoded in another precision
    with pytest.raises(ValueError, match="choose is 'queries', but adsh is asymmetric"):
        fit(split, tmp_path / "asymmetric", recipe=replace(RECIPE, choose="queries"), method="adsh")
    with pytest.raises(ValueError, match="choose is 'test', but it must be one of validation, queries"):
        replace(RECIPE, choose="test")


def test_a_gpu_that_is_too_small_says_what_to_lower(split, tmp_path, monkeypatch):
    def forward(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(losses.HybridHashLoss, "forward", forward)
    with pytest.raises(MemoryError, match="batch_size 16 and images of 32 pixels: raise micro_batches"):
        fit(split, tmp_path)


def test_without_validation_the_last_epoch_is_kept(split, tmp_path):
    run = fit(split, tmp_path, recipe=replace(RECIPE, epochs=2, validation=0.0))
    last = torch.load(run.path / "training_state.pt", weights_only=True)["net"]
    assert all(torch.equal(tensor, last[name]) for name, tensor in weights(run).items())
    assert np.isnan(run.history()["validation_map"]).all()


def kept(run):
    """What a run keeps, by name."""
    return {path.name: path.read_bytes() for path in run.path.iterdir()}


def copied(run, folder, **cut):
    """A copy of a run; of the files in `cut`, only that share."""
    for name, raw in kept(run).items():
        (folder / name).write_bytes(raw[: int(len(raw) * cut.get(name.split(".")[-2], 1))])


def test_a_checkpoint_cut_short_is_refused_where_there_is_no_other(trained, split, tmp_path):
    copied(trained, tmp_path, training_state=0.5, previous=0.5, model=0.5)
    with pytest.raises(ValueError, match="training_state.pt and .* are damaged or cut short; use resume=False"):
        fit(split, tmp_path)
    (tmp_path / "training_state.previous.pt").unlink()
    with pytest.raises(ValueError, match="training_state.pt is damaged or cut short; use resume=False"):
        fit(split, tmp_path)
    with pytest.raises(ValueError, match="model.safetensors is damaged or cut short"):
        runs.Run(tmp_path).model()


def test_a_damaged_checkpoint_costs_one_epoch(trained, split, tmp_path, capsys):
    copied(trained, tmp_path, training_state=0.5)
    (tmp_path / "model.safetensors").unlink()
    resumed = fit(split, tmp_path)
    assert "is damaged or cut short; going on from the one before" in capsys.readouterr().out
    assert same(trained, resumed)
    pd.testing.assert_frame_equal(trained.history(), resumed.history(), check_exact=True)


@pytest.mark.parametrize("method", ["hybridhash", "adsh"])
def test_a_signal_in_the_middle_of_an_epoch_loses_no_step(method, trained, split, tmp_path, monkeypatch):
    recipe = replace(RECIPE, batch_size=8) if method == "adsh" else RECIPE
    whole = trained if method == "hybridhash" else fit(split, tmp_path / "whole", recipe=recipe, method=method)
    seen, original = [], losses.METHODS[method].forward

    def forward(self, *batch):
        seen.append(batch[2].tolist())
        if len(seen) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *batch)

    monkeypatch.setattr(losses.METHODS[method], "forward", forward)
    with pytest.raises(KeyboardInterrupt, match="stopped after step . of epoch 2; the same call goes on from there"):
        fit(split, tmp_path / "stopped", recipe=recipe, method=method)
    assert len(seen) == 4  # the first step of the second epoch (of the third, hybridhash)
    assert len(runs.Run(tmp_path / "stopped").history()) == 1
    resumed = fit(split, tmp_path / "stopped", recipe=recipe, method=method)
    assert same(whole, resumed)
    pd.testing.assert_frame_equal(whole.history(), resumed.history(), check_exact=True)


def test_a_second_signal_stops_at_once():
    with training.loop.StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked(1, torch.device("cpu"))
        with pytest.raises(KeyboardInterrupt, match="stopped at once"):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_request_of_the_system_ends_the_program_with_its_code():
    with training.loop.StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit) as ended:
            stop.leave("after step 3 of epoch 1")
    assert ended.value.code == 143


def test_a_full_disk_leaves_the_checkpoint_before_whole(trained, split, tmp_path, monkeypatch):
    written, real = [], torch.save

    def save(stored, path):
        real(stored, path)
        written.append(path)
        if len(written) == 2:
            path.write_bytes(path.read_bytes()[:1000])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(OSError, match="No space left"):
        fit(split, tmp_path)
    assert not written[1].exists()
    monkeypatch.setattr(torch, "save", real)
    resumed = fit(split, tmp_path)
    assert same(trained, resumed)


def test_a_checkpoint_of_another_size_is_refused(trained, tmp_path):
    record = trained.record
    record["model"]["bits"] = 24
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "model.safetensors").write_bytes((trained.path / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"does not fit this network: .*to_bits.* \(12, .* needs \(24"):
        runs.Run(tmp_path).model()


def test_a_loss_that_is_not_finite_stops_the_training(split, tmp_path, monkeypatch):
    monkeypatch.setattr(losses.HybridHashLoss, "of_codes", lambda self, u, *_: u.sum() * float("nan"))
    with pytest.raises(FloatingPointError, match="the loss is nan in epoch 1, step 1; lower"):
        fit(split, tmp_path)


def test_the_first_step_that_is_not_finite_is_named():
    tally, z = training.tally.Tally(), torch.tensor([[1.0, -1.0], [2.0, 1.0]])
    for loss in (1.0, 2.0, math.inf, 1.0, math.nan):
        tally.add(torch.tensor(loss), z)
    with pytest.raises(FloatingPointError, match="the loss is nan in epoch 8, step 3;"):
        tally.check(7)


def test_the_history_says_what_the_codes_are_worth():
    tally = training.tally.Tally()
    for z in ([[3.0, 1.0, -1.0], [3.0, -1.0, -1.0]], [[3.0, 1.0, -1.0], [3.0, 1.0, -1.0]]):
        tally.add(torch.tensor(1.5), torch.tensor(z))
    row = tally.means()
    assert row["loss"] == 1.5
    assert row["constant_bits"] == 2  # the first is always +1, the last always -1
    assert row["bit_balance"] == pytest.approx((0.5 + 0.25 + 0.5) / 3)
    assert row["quantisation_gap"] == pytest.approx((1 - math.tanh(3) + 2 * (1 - math.tanh(1))) / 3)


def test_bf16_trains_too(split, tmp_path):
    run = fit(split, tmp_path, recipe=replace(RECIPE, epochs=1, small_epochs=0), precision="bf16")
    assert np.isfinite(run.history()["loss"]).all()


def test_recipes():
    shorter = training.recipe_for("cifar10-1", epochs=7)
    assert (shorter.epochs, shorter.small_epochs) == (7, 1)  # 10 of 64, in proportion
    assert training.recipe_for("digits", epochs=0, learning_rate=0.0) == training.RECIPES["digits"]
    with pytest.raises(ValueError, match="epochs is -3"):
        training.recipe_for("digits", epochs=-3)
    with pytest.raises(ValueError, match="learning_rate is -1"):
        training.recipe_for("digits", learning_rate=-1)
    assert training.recipe_for("cifar10").loss == {"alpha": 0.15}
    assert training.recipe_for("cifar10", method="csq").loss == {}
    assert training.recipe_for("digits", method="dnnh").learning_rate == pytest.approx(3e-4)
    assert training.recipe_for("digits", method="dnnh", learning_rate=1e-3).learning_rate == 1e-3
    assert training.recipe_for("cifar10", loss='{"unseen": "skip"}').loss == {"alpha": 0.15, "unseen": "skip"}
    for text in ("alpha=1", "[1]"):
        with pytest.raises(ValueError, match="but it must be a JSON object such as"):
            training.recipe_for("digits", loss=text)
    with pytest.raises(ValueError, match="alpha is no hyper-parameter of csq"):
        training.recipe_for("digits", method="csq", loss='{"alpha": 1}')
    with pytest.raises(ValueError, match="small_epochs is 3, but it must be a whole number from 0 to 2"):
        replace(RECIPE, small_epochs=3)


def test_the_released_recipe():
    recipe = training.recipe_for("imagenet", name="released", method="dnnh")
    assert (recipe.optimizer, recipe.learning_rate, recipe.weight_decay) == ("rmsprop", 2.5e-5, 1e-5)
    assert (recipe.batch_size, recipe.epochs, recipe.validate_every, recipe.pretrained) == (64, 12, 3, True)
    assert (recipe.shift, recipe.flip) == (16, True)  # 224 of 256 pixels
    recipe = training.recipe_for("cifar10", name="released", epochs=2)
    assert (recipe.epochs, recipe.shift, recipe.flip, recipe.loss) == (2, 0, False, {})
    with pytest.raises(ValueError, match="recipe_name is 'paper', but it must be one of ours, released"):
        training.recipe_for("cifar10", name="paper")


def test_every_field_of_a_recipe_can_be_given():
    more = '{"weight_decay": 0.01, "optimizer": "rmsprop", "flip": false}'
    recipe = training.recipe_for("digits", more=more, epochs=3)
    assert (recipe.weight_decay, recipe.optimizer, recipe.flip, recipe.epochs) == (0.01, "rmsprop", False, 3)
    for text, message in [
        ("[1]", "more is '.*', but it must be a JSON object such as"),
        ('{"weight": 1}', "a name in more is 'weight', but it must be one of epochs, batch_size"),
        ('{"optimizer": "sgd"}', "optimizer is 'sgd', but it must be one of adamw, rmsprop"),
        ('{"schedule": "step"}', "schedule is 'step'"),
        ('{"clip": -1}', "clip is -1"),
        ('{"warmup": 1}', "warmup is 1, but it must be at least 0 and below 1"),
        ('{"weight_decay": "little"}', "weight_decay is 'little'"),
        ('{"micro_batches": 0}', "micro_batches is 0"),
        ('{"flip": "no"}', "flip is 'no', but it must be one of False, True"),
    ]:
        with pytest.raises(ValueError, match=message):
            training.recipe_for("digits", more=text)


def test_the_released_recipe_trains_from_pretrained_weights(split, tmp_path, monkeypatch):
    """A network of NesT-T's size; a file stands where the download would be."""
    torch.manual_seed(1)
    nest = timm.create_model("nest_tiny_jx")
    save_file(nest.state_dict(), tmp_path / "nest.safetensors")
    create = timm.create_model
    file = {"file": str(tmp_path / "nest.safetensors")}
    monkeypatch.setattr(timm, "create_model", lambda name, **how: create(name, pretrained_cfg_overlay=file, **how))
    recipe = replace(training.recipe_for("digits", name="released", epochs=1), learning_rate=1e-9)
    run = fit(split, tmp_path / "run", recipe=recipe, network_name="tiny")
    # Moved by next to nothing: RMSprop's first step is ten times the learning rate.
    torch.testing.assert_close(weights(run)["levels.2.pool.conv.weight"], nest.levels[2].pool.conv.weight.detach())


def test_weights_that_cannot_be_fetched_or_do_not_exist(split, tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ConnectionError, match="pretrained weights nest_tiny_jx could not be fetched: no route"):
        fit(split, tmp_path, recipe=replace(RECIPE, pretrained=True), network_name="tiny")
    with pytest.raises(ValueError, match="hybridhash_micro has no pretrained weights; those exist for base, small"):
        fit(split, tmp_path, recipe=replace(RECIPE, pretrained=True))
    assert list(tmp_path.iterdir()) == []


def test_the_compiled_network_is_trained_and_the_plain_one_kept(split, tmp_path, monkeypatch):
    """Compiling takes a minute, so what it compiles is looked at, and the network itself put in its place."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda net: compiled.append(net) or net)
    fit(split, tmp_path, recipe=replace(RECIPE, compile=True, epochs=2))
    assert len(compiled) == 3  # at the start, and at each change of the image side
    assert len(set(map(id, compiled))) == 1


def test_time_left_knows_that_small_images_are_quick():
    left = lambda seconds: training.Progress([], seconds, epochs=5, small_epochs=2).seconds_left  # noqa: E731
    assert left([1.0]) == 1 + 3 * 2  # a full-size epoch has not been seen: twice as long
    assert left([1.0, 1.0, 4.0]) == 2 * 4
    assert left([1.0, 1.0, 4.0, 4.0, 4.0]) == 0


def test_reports_see_every_epoch_and_a_broken_one_loses_nothing(split, tmp_path, trained):
    seen = []

    def broken(progress):
        seen.append(len(progress.history))
        raise RuntimeError("no screen")

    with pytest.raises(RuntimeError, match="no screen"):
        fit(split, tmp_path, reports=[broken])
    run = fit(split, tmp_path, reports=[lambda progress: seen.append((len(progress.history), progress.epochs))])
    assert seen == [1, (2, 3), (3, 3)]
    assert same(run, trained)


def test_tensorboard_shows_the_history(split, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = runs.Run(tmp_path)
    fit(split, tmp_path, reports=[training.TensorBoard(run)])
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for column in ("loss", "quantisation_gap", "validation_map"):
        expected = run.history().set_index("epoch")[column].dropna()
        assert {e.step: e.value for e in events.Scalars(column)} == pytest.approx(dict(expected), rel=1e-6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="speaks of machines without a GPU")
def test_asking_for_a_gpu_that_is_not_there_is_an_error(split, tmp_path):
    with pytest.raises(ValueError, match="device is 'cuda', but PyTorch sees no CUDA GPU"):
        fit(split, tmp_path, device="cuda")
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "magic"}, "method is 'magic'"),
        ({"network_name": "huge"}, "network is 'huge'"),
        ({"bits": 12.5}, "bits is 12.5"),
        ({"device": "tpu"}, "device is 'tpu', but it must be one of auto, cpu, cuda"),
        ({"precision": "fp8"}, "precision is 'fp8', but it must be one of auto, float32, bf16"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(split, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        fit(split, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_a_split_that_leaks_is_not_trained_on(split, tmp_path):
    with pytest.raises(ValueError, match="query images of digits also stand in its train set"):
        fit(replace(split, train=split.query), tmp_path)
    assert list(tmp_path.iterdir()) == []
