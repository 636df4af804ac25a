"""A kill before any write leaves the old state or the new one, and the same command then ends as if undisturbed."""

from dataclasses import replace

import numpy as np
import pytest
import several
from moments import Moments, different, visible
from PIL import Image
from test_run_machine import digest, experiment

import hhlib as hh
from hhlib.data.cache import KeptRows

OLD, NEW = 1e-3, 2e-2  # learning rates


def outcome(folder):
    """What a training and its evaluation leave that is the same in a repeat."""
    files = visible(folder)
    return {name: files[name] for name in ("history.csv", "model.safetensors", "codes.npz", "metrics.json")}


def test_a_training_killed_before_any_write_ends_the_same(tmp_path):
    """In a folder that holds another run, which the training replaces."""
    folder, weights = tmp_path / "run", {OLD: set(), NEW: set()}
    old, new = experiment(folder, OLD, epochs=1), experiment(folder, NEW, epochs=2, resume=False)
    old.fit([lambda _: weights[OLD].add(digest(folder))])
    before = old.evaluate()["map"]["expected"]
    with Moments(folder, tmp_path / "killed") as moments:
        new.fit([lambda _: weights[NEW].add(digest(folder))])
        new.evaluate()
    expected, copies = outcome(folder), different(moments.copies)
    assert len(copies) > 15
    for copy in copies:
        there, rate = visible(copy), hh.runs.Run(copy).parameters["recipe"]["learning_rate"]
        if "model.safetensors" in there:  # of the run that the record tells of
            assert digest(copy) in weights[rate]
        if rate == OLD and there.keys() >= {"model.safetensors", "codes.npz"}:
            assert experiment(copy, OLD, epochs=1).evaluate()["map"]["expected"] == before
        again = experiment(copy, NEW, epochs=2, resume=rate == NEW)
        again.fit([])
        again.evaluate()
        assert outcome(copy) == expected


def paint(file, seed):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(file)


@pytest.fixture(scope="module")
def encodes(tmp_path_factory):
    """A small network, and what an index of it needs."""
    run = hh.runs.Run(tmp_path_factory.mktemp("run"))
    hh.training.fit(several.small_digits(), run, several.how(epochs=1, small_epochs=0, net=several.SMALL), [])
    return dict(run=run, precision="float32", device="cpu", workers=0)


def rows(index):
    """What an index says of each picture."""
    return dict(zip(index.paths, map(bytes, index.codes), strict=True))


def test_an_index_killed_before_any_write_is_the_old_or_the_new(encodes, tmp_path):
    where, folder = tmp_path / "index", tmp_path / "pictures"
    for number in range(6):
        paint(folder / f"{number}.png", number)
    for number in range(3):
        paint(tmp_path / "more" / f"{number}.png", 10 + number)
    changes = [
        lambda index: index.add(tmp_path / "more"),
        lambda index: index.remove([folder / "0.png", tmp_path / "more" / "1.png"]),
        lambda index: index.save(),
    ]
    with Moments(where, tmp_path / "build") as moments:
        index = hh.index.build(folder, where=where, **encodes)
    for copy in different(moments.copies):
        built = hh.index.build(folder, where=copy, **encodes)
        assert rows(built) == rows(index)
    for number, change in enumerate(changes):
        before = rows(index)
        with Moments(where, tmp_path / str(number)) as moments:
            change(index)
        after, copies = rows(index), different(moments.copies)
        assert len(copies) > 5
        found = []
        for copy in copies:
            other = hh.index.open(copy, device="cpu")
            found.append(rows(other))
            if found[-1] != after:
                change(other)
                assert rows(other) == after
        moment = found.index(after) if after in found else len(found)
        assert found == [before] * moment + [after] * (len(found) - moment)


def test_a_copy_of_an_index_that_was_killed_is_no_index(encodes, tmp_path):
    """It must not pass for one with fewer pictures."""
    for number in range(3):
        paint(tmp_path / "pictures" / f"{number}.png", number)
    index = hh.index.build(tmp_path / "pictures", where=tmp_path / "index", **encodes)
    with Moments(tmp_path / "copy", tmp_path / "killed") as moments:
        index.save(tmp_path / "copy")
    assert len(moments.copies) > 10
    whole = 0
    for copy in moments.copies:
        try:
            assert rows(hh.index.open(copy, device="cpu")) == rows(index)
            whole += 1
        except FileNotFoundError:
            pass
    assert whole < len(moments.copies)


def test_pictures_that_changed_before_a_first_build_resumes_are_seen_as_they_are(tmp_path):
    """The codes are fitted to what the blocks on disk say of the pictures, not to what they showed before."""
    folder, how = tmp_path / "pictures", dict(bits=4, size=32, precision="float32", device="cpu", workers=0)
    for number in range(12):
        paint(folder / f"{number:02d}.png", number)
    with Moments(tmp_path / "index", tmp_path / "killed") as moments:
        hh.index.build(folder, where=tmp_path / "index", **how)
    seen = [copy for copy in moments.copies if [*copy.glob("blocks/*/0*")] and not (copy / "encoder").exists()]
    for number in range(5):
        paint(folder / f"{number:02d}.png", 100 + number)
    resumed, fresh = (hh.index.build(folder, where=where, **how) for where in (seen[0], tmp_path / "fresh"))
    assert resumed.model == fresh.model
    assert rows(resumed) == rows(fresh)


def test_pictures_none_of_which_can_be_opened_are_refused_in_a_sentence(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"none of the 1 pictures can be opened, beginning with .*a\.png"):
        hh.index.build(tmp_path / "pictures", where=tmp_path / "index", size=32, device="cpu", workers=0)


def test_vectors_killed_before_any_write_or_between_blocks_end_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("hhlib.data.cache.BLOCK", 3)
    facts = np.arange(1, 9, dtype=np.uint64)
    kept = KeptRows(tmp_path / "kept", {"what": 1}, (8, 2), np.float32, facts, "looking")

    def see(rows):
        return np.stack([facts[rows], -facts[rows].astype(float)], axis=1)

    with Moments(kept.folder, tmp_path / "killed") as moments:

        def watched(rows):
            moments.copy()
            return see(rows)

        whole = kept.get(watched).numpy()
    assert whole.tolist() == see(np.arange(8)).tolist()
    looked = []

    def counted(rows):
        looked[-1] += len(rows)
        return see(rows)

    for copy in moments.copies:
        looked.append(0)
        assert (replace(kept, folder=copy).get(counted, check=True).numpy() == whole).all()
        assert not [*copy.glob(".*.npy")]  # no draft, as large as all rows, stays
    assert {8, 5, 2} <= {*looked}  # what blocks on disk hold is not looked at again


class Killed(np.ndarray):
    """Facts of pictures at which a process dies that is about to mark a picture as done."""

    def __getitem__(self, row):
        raise KeyboardInterrupt


def test_a_changed_picture_that_changes_back_gets_no_vector_of_the_other(tmp_path):
    """Stopped between the other picture's vector and its mark: the old mark must not vouch for it."""
    kept = KeptRows(tmp_path / "kept", {}, (2, 1), np.float32, np.array([5, 6], dtype=np.uint64), "looking")
    assert kept.get(lambda rows: np.ones((len(rows), 1))).tolist() == [[1], [1]]
    changed = replace(kept, facts=np.array([5, 7], dtype=np.uint64).view(Killed))
    with pytest.raises(KeyboardInterrupt):
        changed.get(lambda rows: np.full((len(rows), 1), 2.0))
    assert kept.get(lambda rows: np.ones((len(rows), 1))).tolist() == [[1], [1]]
