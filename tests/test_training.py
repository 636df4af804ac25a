import errno
import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
import several
import timm
import torch

from hhlib import losses, metrics, retrieval, runs, settings, training
from hhlib.training import keeping, reports, stopping

SHORT = dict(net=several.LAYERS, epochs=3, batch_size=16, drop_path=0.1, validate_every=1, small_epochs=1, shift=4)
QUICK = dict(epochs=1, small_epochs=0)
LEARNT = "database_codes.npz"  #: which other methods do not leave


@pytest.fixture(scope="module")
def split():
    return several.small_digits()


def how(**changes):
    return settings.read(**dict(bits=12, device="cpu") | SHORT | changes)


def fit(split, path, told=(), **changes):
    return training.fit(split, runs.Run(path), how(**changes), told)


def fit_with(kind, split, path, **changes):
    """`training.fit` with another kind of trainer."""
    trainer, run = kind(split, how(**changes)), runs.Run(path)
    keeping.begin(trainer, run)
    trainer.fit(run, ())
    return trainer


def stop_after(epochs):
    """A report that stops the training after so many epochs, as the stop button would."""

    def report(progress):
        if len(progress.history) == epochs:
            raise KeyboardInterrupt

    return report


def weights(run):
    return run.model().state_dict()


def same(a, b):
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def assert_same(a, b):
    """Two runs are equal, bit for bit."""
    assert same(a, b)
    pd.testing.assert_frame_equal(a.history(), b.history(), check_exact=True)


@pytest.fixture(scope="module")
def trained(split, tmp_path_factory):
    return fit(split, tmp_path_factory.mktemp("run"))


def z_of(run, part):
    facts = run.record["data"]
    return retrieval.encode(run.model(), part, mean=facts["mean"], std=facts["std"])


def test_a_run_holds_what_is_needed_to_repeat_it(trained, split):
    record = trained.record
    assert record["parameters"]["recipe"]["epochs"] == 3
    assert record["parameters"]["recipe"]["loss"] == {"alpha": None}
    assert record["data"]["sizes"] == split.sizes
    assert record["data"]["classes"] == split.classes
    assert record["data"]["trained_on"] + record["data"]["validation"] == len(split.train)
    assert set(record["packages"]) >= {"torch", "timm", "numpy"}
    history = trained.history()
    assert list(history["epoch"]) == [1, 2, 3]
    assert history["validation_map"].isna().tolist() == [True, False, False]  # the first saw small images
    assert history["validation_map"][1:].between(0, 1).all()


def test_it_learns(split, tmp_path):
    """45 images by heart: from knowing nothing, 2 ln 2, to far below."""
    quick = dict(epochs=25, small_epochs=0, batch_size=9, learning_rate=2e-3, shift=0, validation=0, drop_path=0)
    loss = fit(replace(split, network_size=16), tmp_path, **quick, loss={"alpha": 0.5}).history()["loss"]
    assert loss[0] > 1.2
    assert loss.iloc[-1] < 1.0


def test_same_seed_same_history_and_codes(trained, split, tmp_path):
    again = fit(split, tmp_path / "again")
    assert_same(trained, again)
    assert torch.equal(z_of(trained, split.query), z_of(again, split.query))
    assert not same(trained, fit(split, tmp_path / "other", seed=1))


# --- a step ----------------------------------------------------------------------------------------------------------


def plain_loop():
    """The function of page 3's cell with the tag plain-loop."""
    page = nbformat.read(Path(__file__).parent.parent / "notebooks" / "03_gpu_training.ipynb", as_version=4)
    (cell,) = (cell for cell in page.cells if "plain-loop" in cell.metadata.get("tags", []))
    names = {"torch": torch}
    exec(cell.source, names)  # what the reader runs
    return names["plain_loop"]


@pytest.mark.parametrize("method", ["hybridhash", "csq", "greedyhash"])
def test_the_plain_loop_of_page_3_is_what_a_trainer_does(method, split):
    given = how(method=method, precision="float32", small_epochs=0, epochs=2)
    ours, plain = training.Trainer(split, given), training.Trainer(split, given)
    batches = list(ours.batches(0))
    results = []
    for trainer in (ours, plain):
        torch.manual_seed(0)
        trainer.generator.manual_seed(0)
        trainer.net.train()
        if trainer is ours:
            results.append([float(trainer.step(batch)[0]) for batch in batches])
        else:
            parts = trainer.net, trainer.loss, trainer.optimizer, trainer.schedule
            results.append(plain_loop()(*parts, batches, trainer.network_input))
    assert len(batches) == 2
    assert results[1] == pytest.approx(results[0], rel=1e-6)
    assert results[0][1] != results[0][0]
    for (name, a), b in zip(ours.net.state_dict().items(), plain.net.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6, msg=name)


def test_steps_lower_the_loss_of_their_batch(split):
    still = dict(shift=0, drop_path=0, small_epochs=0, schedule="constant", precision="float32")
    trainer = training.Trainer(split, how(method="csq", **still))  # each image has a target: no memory that changes
    batch = next(trainer.batches(0))
    values = [float(trainer.step(batch)[0]) for _ in range(5)]
    assert values[-1] < values[0]


# --- stopping and resuming -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["dnnh", "hashnet", "cnnh", "adsh", "jldsh_style", "mdshc"])
def test_methods_with_hooks_heads_or_parameters_resume_after_a_stop(method, split, tmp_path):
    """Stopped after the second epoch: in the middle of an alternating round, and with a moving copy of the network.

    The others ask no more of the loop than hybridhash does; test_methods.py resumes the state of each.
    """
    loss = {"mdshc": {"pairs_from": 1}, "adsh": {"sample": 20}}.get(method, {})
    changes = dict(validate_every=3, loss=loss, method=method)
    whole = fit(split, tmp_path / "whole", **changes)
    with pytest.raises(KeyboardInterrupt):
        fit(split, tmp_path / "stopped", told=[stop_after(2)], **changes)
    resumed = fit(split, tmp_path / "stopped", **changes)
    assert_same(whole, resumed)
    learnt = whole.database_codes()
    assert (learnt is not None) == (losses.method(method).family == "asymmetric")
    if learnt is not None:
        assert (learnt == resumed.database_codes()).all()
        assert learnt.shape == (len(split.database), 2)
        assert whole.history()["validation_map"].isna().all()


def test_a_stopped_run_resumes_and_ends_bit_identical(trained, split, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(split, tmp_path, told=[stop_after(1)])
    assert len(runs.Run(tmp_path).history()) == 1
    for name in ("codes.npz", "metrics.json"):  # of the weights of now
        (tmp_path / name).write_text("old")
    assert_same(trained, fit(split, tmp_path))
    assert not (tmp_path / "codes.npz").exists()
    assert not (tmp_path / "metrics.json").exists()


def test_a_finished_run_is_left_as_it_is_and_other_parameters_are_refused(trained, split):
    before = kept(trained)
    fit(split, trained.path)
    assert kept(trained) == before
    for changes, what in [(dict(epochs=4), "recipe.epochs = 3, but 4"), (dict(bits=8), "bits = 12, but 8")]:
        with pytest.raises(ValueError, match=what):
            fit(split, trained.path, **changes)
    with pytest.raises(ValueError, match=r"recipe.loss.alpha = None, but 0.5 is asked for"):
        fit(split, trained.path, loss={"alpha": 0.5})


def test_a_run_from_before_a_field_existed_is_known_again(split, tmp_path):
    """Older runs have no optimizer in their recipe, no class names, "preset" for the network's name, and alpha 0.5."""
    before_that = dict(optimizer="adamw", loss={"alpha": 0.5})
    run = fit(split, tmp_path, **before_that)
    record = json.loads((tmp_path / "run.json").read_text())
    del record["parameters"]["recipe"]["choose"], record["parameters"]["recipe"]["optimizer"], record["data"]["classes"]
    del record["parameters"]["recipe"]["loss"]["alpha"], record["loss"]["alpha"]
    record["model"]["preset"] = record["model"].pop("name")
    (tmp_path / "run.json").write_text(json.dumps(record))
    before = kept(run)
    fit(split, tmp_path, **before_that)
    assert kept(run) == before
    assert weights(run)
    with pytest.raises(ValueError, match="recipe.loss.alpha = 0.5, but None is asked for"):
        fit(split, tmp_path, optimizer="adamw")
    with pytest.raises(ValueError, match="recipe.choose = 'validation', but 'queries' is asked for"):
        fit(split, tmp_path, **before_that, choose="queries")


def test_a_record_that_lacks_a_part_or_has_a_long_value_is_told_in_a_short_sentence(trained, split, tmp_path):
    copied(trained, tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    for changed, said in [
        ({name: part for name, part in record.items() if name != "model"}, "is not the record of a run.*model"),
        (record | {"model": record["model"] | {"net": "9" * 5000}}, "holds a run with net = '999"),
        (record | {"loss": record["loss"] | {"a" * 5000: 1}}, "holds a run with aaa"),
    ]:
        (tmp_path / "run.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=said) as refused:
            fit(split, tmp_path)
        assert len(str(refused.value)) < 1000


def test_training_afresh_leaves_nothing_of_the_earlier_run(trained, split, tmp_path):
    copied(trained, tmp_path)
    (tmp_path / "metrics.json").write_text("{}")
    run = runs.Run(tmp_path)
    keeping.begin(training.Trainer(split, how(bits=8, resume=False)), run)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert run.parameters["bits"] == 8


@pytest.mark.parametrize("choose", ["validation", "queries"])
def test_the_best_epoch_is_kept(choose, split, tmp_path):
    """By the column that chooses; the other one would choose the last."""
    chooses, other = iter([0.2, 0.9, 0.5]), iter([0.1, 0.2, 0.3])
    validation, queries = (chooses, other) if choose == "validation" else (other, chooses)
    seen = []

    class Scored(training.Trainer):
        def validate(self):
            seen.append({name: tensor.clone() for name, tensor in self.net.state_dict().items()})
            return {"validation_map": next(validation), "distinct_codes": 1.0, "query_map": next(queries)}

    fit_with(Scored, split, tmp_path, small_epochs=0, choose=choose)
    best = weights(runs.Run(tmp_path))
    equal = [all(torch.equal(tensor, best[name]) for name, tensor in state.items()) for state in seen]
    assert equal == [False, True, False]


def test_the_released_way_of_choosing_keeps_the_epoch_that_is_best_on_the_queries(split, tmp_path):
    run = fit(split, tmp_path, choose="queries", precision="float32")
    assert run.parameters["recipe"]["choose"] == "queries"
    history = run.history()
    assert history["query_map"].isna().tolist() == [True, False, False]
    z = [z_of(run, part).numpy() for part in (split.query, split.database)]
    pair = z[0], split.query.labels.numpy(), z[1], split.database.labels.numpy()
    kept = metrics.evaluate(*pair, topk=split.protocol.topk)["map"]["expected"]
    assert kept == pytest.approx(history["query_map"].max(), rel=1e-9)
    with pytest.raises(ValueError, match="choose is 'queries', but adsh is asymmetric"):
        fit(split, tmp_path / "asymmetric", choose="queries", method="adsh")


def test_a_gpu_that_is_too_small_says_what_to_lower(split, tmp_path):
    class Small(training.Trainer):
        def step(self, batch):
            raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(MemoryError, match="batch_size 16 and images of 32 pixels: raise micro_batches"):
        fit_with(Small, split, tmp_path)


def test_without_validation_the_last_epoch_is_kept(split, tmp_path):
    run = fit(split, tmp_path, epochs=2, validation=0)
    last = torch.load(run.path / "training_state.pt", weights_only=True)["net"]
    assert all(torch.equal(tensor, last[name]) for name, tensor in weights(run).items())
    assert np.isnan(run.history()["validation_map"]).all()


def kept(run):
    """What a run keeps, by name, without its lock."""
    return {path.name: path.read_bytes() for path in run.path.iterdir() if path.name[0] != "."}


def copied(run, folder, **cut):
    """A copy of a run; of the files in `cut`, only that share."""
    for name, raw in kept(run).items():
        (folder / name).write_bytes(raw[: int(len(raw) * cut.get(name.split(".")[-2], 1))])


def test_a_checkpoint_cut_short_is_refused_where_there_is_no_other(trained, split, tmp_path):
    copied(trained, tmp_path, training_state=0.5, previous=0.5, model=0.5)
    with pytest.raises(ValueError, match="training_state.pt and .*previous.pt .* resume=false"):
        fit(split, tmp_path)
    (tmp_path / "training_state.previous.pt").unlink()
    with pytest.raises(ValueError, match="training_state.pt cannot be read; .* resume=false"):
        fit(split, tmp_path)
    with pytest.raises(ValueError, match="model.safetensors is .*damaged or cut short"):
        runs.Run(tmp_path).model()


def test_a_damaged_checkpoint_costs_one_epoch(trained, split, tmp_path, capsys):
    copied(trained, tmp_path, training_state=0.5)
    (tmp_path / "model.safetensors").unlink()
    resumed = fit(split, tmp_path)
    assert "training_state.pt is not a training state, or is damaged" in capsys.readouterr().out
    assert_same(trained, resumed)


def put(value, *path):
    """A change of a state: another value in one place."""

    def change(state):
        for name in path[:-1]:
            state = state[name]
        state[path[-1]] = value

    return change


SPOILT = {
    "no optimizer": lambda state: state.pop("optimizer"),
    "no weight of the last norm": lambda state: state["net"].pop("norm.weight"),
    "a weight of another shape": lambda state: state["net"].update({"norm.weight": torch.ones(3)}),
    "a weight that is not finite": lambda state: state["net"]["norm.weight"].fill_(math.nan),
    "a moment of another shape": put(torch.ones(3), "optimizer", "state", 0, "exp_avg"),
    "no schedule": put("none", "schedule"),
    "more epochs than there are": lambda state: state["history"].extend(2 * state["history"]),
    "rows that are no rows": put([1, 2, 3], "history"),
    "rows without a loss": lambda state: state["history"][0].pop("loss"),
    "unknown sums": put({"steps": 3, "other": 1}, "tally"),
}


def test_a_state_with_a_missing_or_wrong_part_gives_way_to_the_one_before(trained, split, tmp_path, capsys):
    copied(trained, tmp_path)
    path, trainer = tmp_path / "training_state.pt", training.Trainer(split, how())
    good, whole = path.read_bytes(), torch.load(path.with_name(keeping.PREVIOUS), weights_only=True)
    for name, spoil in SPOILT.items():
        path.write_bytes(good)
        keeping.begin(trainer, runs.Run(tmp_path))
        assert len(trainer.history) == 3
        spoil(state := torch.load(path, weights_only=True))
        torch.save(state, path)
        keeping.begin(trainer, runs.Run(tmp_path))
        assert f"{path} is not a state of this training" in capsys.readouterr().out, name
        assert len(trainer.history) == len(trainer.timing) == 2, name
        assert all(torch.equal(tensor, whole["net"][part]) for part, tensor in trainer.net.state_dict().items()), name


def test_codes_and_scores_of_weights_that_are_replaced_go_with_them(split, tmp_path):
    """They are made once and then kept: a training that was scored when it was stopped would keep its old score."""
    changes = dict(epochs=2, small_epochs=0, validation=0)
    with pytest.raises(KeyboardInterrupt):
        fit(split, tmp_path, told=[stop_after(1)], **changes)
    for name in ("codes.npz", "metrics.json"):
        (tmp_path / name).write_bytes(b"of the first epoch")
    (tmp_path / ".training_state.pt.123.pt").write_bytes(b"a draft of a process that was killed")
    fit(split, tmp_path, **changes)
    assert kept(runs.Run(tmp_path)).keys() == {"run.json", *keeping.MADE} - {"codes.npz", "metrics.json", LEARNT}


def test_a_network_whose_state_was_lost_is_kept(split, tmp_path):
    run = fit(split, tmp_path, epochs=3)
    whole = kept(run)
    (tmp_path / "training_state.pt").rename(tmp_path / "elsewhere")
    again = kept(fit(split, tmp_path, epochs=3))  # from the state before
    assert all(again[name] == whole[name] for name in ("model.safetensors", "history.csv"))
    for name in ("training_state.pt", keeping.PREVIOUS):
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match="holds a network of 3 epochs, but no training_state.pt .* resume=false"):
        fit(split, tmp_path, epochs=3)
    assert kept(run)["model.safetensors"] == whole["model.safetensors"]
    assert len(fit(split, tmp_path, epochs=3, resume=False).history()) == 3


def test_files_that_were_lost_beside_a_state_come_back_or_the_run_is_refused(split, tmp_path):
    changes = dict(epochs=2, small_epochs=0)
    run = fit(split, tmp_path, **changes, validation=0)
    whole = kept(run)
    for name in ("history.csv", "model.safetensors"):
        (tmp_path / name).unlink()
    fit(split, tmp_path, **changes, validation=0)
    assert all(kept(run)[name] == whole[name] for name in ("history.csv", "model.safetensors"))
    state = torch.load(tmp_path / "training_state.pt", weights_only=True)
    state["history"][0]["validation_map"] = 1.0  # so the weights were those of the first epoch
    torch.save(state, tmp_path / "training_state.pt")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="model.safetensors is gone, .* another epoch; use resume=false"):
        fit(split, tmp_path, **changes, validation=0)


@pytest.mark.parametrize("method", ["hybridhash", "adsh"])
def test_a_signal_in_the_middle_of_an_epoch_loses_no_step(method, trained, split, tmp_path, capsys):
    changes = dict(batch_size=8, method=method) if method == "adsh" else {}
    whole = trained if method == "hybridhash" else fit(split, tmp_path / "whole", **changes)
    steps = []

    class Stopped(training.Trainer):
        def step(self, batch):
            steps.append(batch[2].tolist())
            if len(steps) == 4:
                os.kill(os.getpid(), signal.SIGINT)
            return super().step(batch)

    with pytest.raises(KeyboardInterrupt, match="stopped in epoch 2 of ., after step .; run this again to resume"):
        fit_with(Stopped, split, tmp_path / "stopped", **changes)
    assert len(steps) == 4  # the first step of the second epoch (of the third, hybridhash)
    assert len(runs.Run(tmp_path / "stopped").history()) == 1
    capsys.readouterr()
    assert_same(whole, fit(split, tmp_path / "stopped", **changes))
    assert capsys.readouterr().out.startswith("resumes in epoch 2 of 3, after step ")


def test_a_second_signal_stops_at_once():
    with stopping.StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked(1, torch.device("cpu"))
        with pytest.raises(KeyboardInterrupt, match="stopped at once"):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_request_of_the_system_ends_the_program_with_its_code(number, code, capsys):
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with stopping.StopRequest() as stop:
            os.kill(os.getpid(), number)
            with pytest.raises(SystemExit) as ended:
                stop.leave("after step 3 of epoch 1")
    finally:
        signal.signal(number, before)
    assert ended.value.code == code


def test_a_training_started_with_nohup_does_not_hear_that_its_terminal_is_closed():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping.StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked(1, torch.device("cpu"))
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_training_says_in_a_line_that_it_starts_resumes_or_is_done(split, tmp_path, capsys):
    for epochs in (1, 2):  # stopped after the first, and resumed
        with pytest.raises(KeyboardInterrupt):
            fit(split, tmp_path, told=[stop_after(epochs)])
    run = fit(split, tmp_path)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "trains 3 epochs ..."
    assert [line.split(",")[0] for line in said[1:]] == ["resumes after epoch 1 of 3", "resumes after epoch 2 of 3"]
    scores = run.history().set_index("epoch")["validation_map"]
    fit(split, tmp_path)
    best = f"best validation mAP {scores.max():.3f} in epoch {scores.idxmax()}"
    assert capsys.readouterr().out == f"finished before: 3 epochs, {best}; resume=false trains anew.\n"
    unscored = training.Progress([{"epoch": 1, "validation_map": math.nan}], [1.0], epochs=1)
    assert unscored.start(0) == "finished before: 1 epochs; resume=false trains anew."


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
    assert same(trained, fit(split, tmp_path))


def test_a_checkpoint_of_another_size_is_refused(trained, tmp_path):
    record = trained.record
    record["model"]["bits"] = 24
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "model.safetensors").write_bytes((trained.path / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"to_bits.*\(12, .*\(24"):
        runs.Run(tmp_path).model()


# --- what is watched -------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_training(split, tmp_path):
    class Diverged(training.Trainer):
        def step(self, batch):
            loss, z = super().step(batch)
            return loss * math.nan, z

    with pytest.raises(FloatingPointError, match="nan in epoch 1, step 1"):
        fit_with(Diverged, split, tmp_path)


def test_the_first_step_that_is_not_finite_is_named():
    sums, z = reports.Tally(), torch.tensor([[1.0, -1.0], [2.0, 1.0]])
    for loss in (1.0, 2.0, math.inf, 1.0, math.nan):
        sums.add(torch.tensor(loss), z)
    with pytest.raises(FloatingPointError, match="nan in epoch 8, step 3"):
        sums.check(7)


def test_the_history_says_what_the_codes_are_worth():
    sums = reports.Tally()
    for z in ([[3.0, 1.0, -1.0], [3.0, -1.0, -1.0]], [[3.0, 1.0, -1.0], [3.0, 1.0, -1.0]]):
        sums.add(torch.tensor(1.5), torch.tensor(z))
    row = sums.means()
    assert row["loss"] == 1.5
    assert row["constant_bits"] == 2  # the first is always +1, the last always -1
    assert row["bit_balance"] == pytest.approx((0.5 + 0.25 + 0.5) / 3)
    assert row["quantisation_gap"] == pytest.approx((1 - math.tanh(3) + 2 * (1 - math.tanh(1))) / 3)


def test_bf16_trains_too(split, tmp_path):
    run = fit(split, tmp_path, **QUICK, precision="bf16")
    assert np.isfinite(run.history()["loss"]).all()


def test_precision_is_chosen_by_what_the_machine_says():
    fast, slow = {"amx_bf16": True}, {"avx512_bf16": False}
    cpus = [SimpleNamespace(get_capabilities=lambda can=can: can) for can in (fast, slow)]
    cpus += [SimpleNamespace()]  # PyTorch 2.10 says nothing, and float32 is safe
    assert [training.choose_precision("auto", "cpu", cpu) for cpu in cpus] == ["bf16", "float32", "float32"]
    assert training.choose_precision("bf16", "cpu", cpus[2]) == "bf16"


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
        fit(split, tmp_path, told=[broken])
    run = fit(split, tmp_path, told=[lambda progress: seen.append((len(progress.history), progress.epochs))])
    assert seen == [1, (2, 3), (3, 3)]
    assert same(run, trained)


def test_tensorboard_shows_the_history(split, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = runs.Run(tmp_path)
    fit(split, tmp_path, told=[training.TensorBoard(run)])
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for column in ("loss", "quantisation_gap", "validation_map"):
        expected = run.history().set_index("epoch")[column].dropna()
        assert {e.step: e.value for e in events.Scalars(column)} == pytest.approx(dict(expected), rel=1e-6)


# --- other recipes, and what is refused ------------------------------------------------------------------------------


def test_the_released_recipe_trains_from_pretrained_weights(split, tmp_path, hub):
    """A network of NesT-T's size, with weights that were fetched from the hub before."""
    torch.manual_seed(1)
    nest = timm.create_model("nest_tiny_jx")
    hub("timm/nest_tiny_jx.goog_in1k", nest)
    given = settings.read("recipe=released epochs=1 learning_rate=1e-9", network="tiny", bits=12, device="cpu")
    run = training.fit(split, runs.Run(tmp_path / "run"), given)
    # Moved by next to nothing: RMSprop's first step is ten times the learning rate.
    torch.testing.assert_close(weights(run)["levels.2.pool.conv.weight"], nest.levels[2].pool.conv.weight.detach())


def test_weights_that_cannot_be_fetched_or_do_not_exist(split, tmp_path, hub):
    with pytest.raises(ConnectionError, match="nest_tiny_jx .* cannot be reached"):
        fit(split, tmp_path / "run", pretrained=True, network="tiny", small_epochs=0, net={})
    with pytest.raises(ValueError, match="'micro' has no pretrained weights; .* base, small"):
        fit(split, tmp_path / "run", pretrained=True, net={})
    assert not (tmp_path / "run").exists()


def test_the_compiled_network_is_trained_and_the_plain_one_kept(split, tmp_path, monkeypatch):
    """Compiling takes a minute, so what it compiles is looked at, and the network itself put in its place."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda net: compiled.append(net) or net)
    fit(split, tmp_path, compile=True, epochs=2)
    assert len(compiled) == 3  # at the start, and at each change of the image side
    assert len(set(map(id, compiled))) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="speaks of machines without a GPU")
def test_asking_for_a_gpu_that_does_not_exist_is_an_error(split, tmp_path):
    with pytest.raises(ValueError, match="device is 'cuda'"):
        fit(split, tmp_path, device="cuda")
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(shift=32, small_epochs=0), "shift is 32, .* 32 pixels"),
        (dict(erase=32, small_epochs=0), "erase is 32"),
        (
            dict(network="tiny", pretrained=False, net={}),
            "small_epochs is 1, .* multiple of 16",
        ),  # half of 32 is 16: fits
    ],
)
def test_a_recipe_that_does_not_fit_the_images_is_refused(changes, message, split, tmp_path):
    if changes.get("network") == "tiny":
        split = replace(split, network_size=48)  # half of it is 24, which 4 x 4 blocks of 4 pixels do not divide
    with pytest.raises(ValueError, match=message):
        fit(split, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_a_split_that_leaks_is_not_trained_on(split, tmp_path):
    with pytest.raises(ValueError, match="query images of digits .* train"):
        fit(replace(split, train=split.query), tmp_path)
    assert list(tmp_path.iterdir()) == []
