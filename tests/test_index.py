"""An index against naive searches, and what happens to it when files change or writers die."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import hhlib as hh
from hhlib.index import encoding, searching, unsupervised
from hhlib.index.store import Segment, Store, Texts, key_of, writing

SIDE = 32


def paint(file, seed, colour):
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 120, (40, 40, 3))
    Image.fromarray((noise + np.array(colour)).astype(np.uint8)).save(file)


COLOURS = {"blue": (0, 0, 120), "green": (0, 120, 0), "red": (120, 0, 0)}


@pytest.fixture
def pictures(tmp_path):
    """Twelve pictures in each of three class folders."""
    for number, (name, colour) in enumerate(COLOURS.items()):
        for i in range(12):
            paint(tmp_path / "pictures" / name / f"{i:02d}.png", 100 * number + i, colour)
    return tmp_path / "pictures"


def build(folder, where, **how):
    return hh.index.build(folder, where=where, **{"size": SIDE, "bits": 16, "workers": 0, "device": "cpu"} | how)


def segment_of(codes, vectors=None, prefix="p"):
    paths = sorted((f"{prefix}{i}" for i in range(len(codes))), key=key_of)
    keys = np.array([key_of(path) for path in paths], dtype=np.uint64)
    facts = np.zeros(len(codes), dtype=np.uint64)
    return Segment(keys, np.asarray(codes, np.uint8), facts, Texts.of(paths), Texts.of([""] * len(paths)), vectors)


def naive(segments, query, similar=None):
    """Rows by distance, then by similarity if given, then by key: a loop over all."""
    rows = []
    for segment in segments:
        for row in range(len(segment)):
            d = sum(bin(a ^ b).count("1") for a, b in zip(query.tolist(), segment.codes[row].tolist(), strict=True))
            rows.append([d, 0.0, int(segment.keys[row]), len(rows)])
    for entry, s in zip(rows, similar if similar is not None else [], strict=False):
        entry[1] = -float(s)
    return sorted(rows)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, 40), st.integers(0, 1000))
def test_nearest_is_the_naive_search_with_ties_by_key(sizes, k, seed):
    rng = np.random.default_rng(seed)
    segments = [segment_of(rng.integers(0, 4, (n, 2)), prefix=f"{i}/") for i, n in enumerate(sizes)]
    k = min(k, sum(sizes))
    queries = rng.integers(0, 4, (3, 2)).astype(np.uint8)
    distances, rows = searching.nearest(segments, queries, k)
    for query, d, r in zip(queries, distances, rows, strict=True):
        expected = naive(segments, query)[:k]
        assert d.tolist() == [entry[0] for entry in expected]
        assert r.tolist() == [entry[3] for entry in expected]


def test_all_rows_as_far_as_the_last_are_candidates():
    """500 rows at distance 0, of which only 3 are asked for: every one of them is compared by its vector."""
    segments = [segment_of(np.zeros((250, 1)), prefix="a"), segment_of(np.zeros((250, 1)), prefix="b")]
    segments.append(segment_of(np.full((50, 1), 255), prefix="c"))
    distances, rows = searching.with_ties(segments, np.zeros((1, 1), np.uint8), 3)
    assert sorted(rows.tolist()) == list(range(500))
    assert set(distances.tolist()) == {0}


def test_similarity_is_the_cosine():
    vectors = np.array([[3, 4], [4, -3], [-6, -8]], dtype=np.float16)
    segment = segment_of(np.zeros((3, 1)), vectors)
    found = searching.similarities([segment], np.array([0.6, 0.8], np.float16), np.array([0, 1, 2]))
    np.testing.assert_allclose(found, [1, 0, -1], atol=1e-3)


@pytest.mark.parametrize("vectors", ["backbone", "outputs", "none"])
def test_search_is_brute_force_over_all_pictures(pictures, tmp_path, vectors):
    index = build(pictures, tmp_path / "index", vectors=vectors)
    assert len(index) == 36
    coded = index.encode([pictures / path for path in index.paths])
    codes = hh.retrieval.pack(coded.z)
    assert (codes == index.codes).all()
    query = pictures / "red" / "03.png"
    own = index.paths.index("red/03.png")
    distance = hh.metrics.hamming(codes[own : own + 1], codes)[0]
    similar = 1 - distance / 8
    if vectors != "none":
        unit = torch.nn.functional.normalize(torch.from_numpy(coded.vectors).double(), dim=1)
        similar = (unit @ unit[own]).numpy()
    keys = [int(key_of(path)) for path in index.paths]
    order = sorted(range(36), key=lambda row: (distance[row], -similar[row], keys[row]))
    hits = index.search(query, k=12)
    assert [hit.path for hit in hits] == [pictures / index.paths[row] for row in order[:12]]
    assert [hit.distance for hit in hits] == distance[order[:12]].tolist()
    np.testing.assert_allclose([hit.similarity for hit in hits], similar[order[:12]], atol=1e-5)
    assert hits[0] == (query, 0, pytest.approx(1))
    assert index.search([query], k=12) == [hits]
    if vectors != "none":
        by_vector = sorted(range(36), key=lambda row: -similar[row])[:5]
        assert [hit.path for hit in index.search(query, 5, rerank=36)] == [pictures / index.paths[r] for r in by_vector]


def test_ties_never_follow_the_order_of_folders(tmp_path):
    """One picture under 60 names in three folders: all are at distance 0 and equally similar."""
    for name in COLOURS:
        for i in range(20):
            paint(tmp_path / "same" / name / f"{i:02d}.png", 0, (10, 20, 30))
    for vectors in ("none", "backbone"):
        index = build(tmp_path / "same", tmp_path / vectors, vectors=vectors)
        hits = index.search(tmp_path / "same" / "red" / "00.png", k=60)
        assert {hit.distance for hit in hits} == {0}
        names = [hit.path.relative_to(tmp_path / "same").as_posix() for hit in hits]
        assert names == sorted(names, key=key_of)
        first = [name.split("/")[0] for name in names[:20]]
        assert len(set(first)) == 3


def test_pictures_come_and_go_and_none_is_encoded_twice(pictures, tmp_path):
    index = build(pictures, tmp_path / "index")
    assert (index.report.encoded, index.report.removed) == (36, 0)
    for i in range(5):
        paint(tmp_path / "new" / f"{i}.png", 900 + i, (60, 60, 0))
    paint(pictures / "red" / "new.png", 950, COLOURS["red"])
    report = index.add([*(tmp_path / "new").iterdir(), pictures / "red" / "new.png", pictures / "red" / "00.png"])
    assert (report.encoded, report.kept, len(index)) == (6, 1, 42)
    assert index.label("red/new.png") == "red"
    assert index.label(tmp_path / "new" / "0.png") == ""
    assert index.search(tmp_path / "new" / "3.png", k=1)[0][:2] == (tmp_path / "new" / "3.png", 0)
    report = index.remove(["red/00.png", tmp_path / "new" / "0.png"])
    assert (report.encoded, report.removed, len(index)) == (0, 2, 40)
    paint(pictures / "blue" / "01.png", 960, COLOURS["blue"])  # another picture under the same name
    (pictures / "blue" / "02.png").unlink()
    (tmp_path / "new" / "1.png").unlink()
    again = build(pictures, tmp_path / "index")  # red/00.png is in the folder, so it comes back
    assert (again.report.encoded, again.report.removed, len(again)) == (2, 2, 39)
    assert again.update().encoded == 0
    fresh = build(pictures, tmp_path / "other", seed=0)
    assert sorted(fresh.paths) == sorted(path for path in again.paths if not Path(path).is_absolute())
    assert len(index) == 40  # what was opened before sees its own state until it is opened again


def test_what_is_out_of_reach_keeps_its_row_and_what_is_broken_loses_it(pictures, tmp_path):
    disk = tmp_path / "disk"
    paint(disk / "far.png", 990, COLOURS["red"])
    (pictures / "red" / "far.png").symlink_to(disk / "far.png")
    index = build(pictures, tmp_path / "index")
    disk.rename(tmp_path / "unplugged")
    (pictures / "red" / "00.png").write_bytes(b"broken")
    (pictures / "red" / "01.png").write_bytes(b"")
    report = index.update()
    assert (report.encoded, report.removed, len(index)) == (0, 2, 35)
    assert "red/far.png" in index.paths
    (tmp_path / "unplugged").rename(disk)
    assert index.update().encoded == 0
    pictures.rename(tmp_path / "elsewhere")
    pictures.mkdir()
    with pytest.raises(ValueError, match="Nothing was removed"):
        index.update()
    assert len(hh.index.open(tmp_path / "index")) == 35


def test_a_copy_finds_the_same(pictures, tmp_path):
    index = build(pictures, tmp_path / "index")
    index.add(pictures / "red" / "00.png")
    copy = index.save(tmp_path / "copy")
    query = pictures / "green" / "05.png"
    assert copy.search(query) == index.search(query) == hh.index.open(tmp_path / "copy", device="cpu").search(query)
    with pytest.raises(ValueError, match="exists already"):
        index.save(tmp_path / "copy")
    before = index.search(query)
    paint(pictures / "red" / "99.png", 99, COLOURS["red"])
    index.add(pictures / "red" / "99.png")
    assert len(index.store.names) == 2
    assert len(index.save().store.names) == 1
    index.remove("red/99.png")
    assert hh.index.open(tmp_path / "index", device="cpu").search(query) == before


def test_a_trained_network_makes_the_codes(pictures, tmp_path):
    for network in ("micro", "lite0"):
        ex = hh.open(
            f"epochs=1 small_epochs=0 validation=0 image_size=32 runs_dir={tmp_path}/runs data_dir={tmp_path}",
            dataset=str(pictures), bits=16, network=network, device="cpu", live=False, recipe=dict(shift=1),
        )  # fmt: skip
        run = ex.fit(reports=[])
        index = build(pictures, None, run=run, size=None, bits=None)
        assert index.where == run.path / "index-pictures"
        files = [pictures / path for path in index.paths]
        z = ex.encode(files)
        assert (hh.retrieval.pack(z) == index.codes).mean() > 0.99  # of 32 pixels, and float16 vectors
        hit = index.search(files[3], k=1)[0]
        assert (hit.path, hit.distance) == (files[3], 0)


def test_a_query_of_another_model_is_refused(pictures, tmp_path):
    one, other = build(pictures, tmp_path / "one"), build(pictures, tmp_path / "other", seed=1)
    query = one.encode(pictures / "red" / "00.png")
    assert one.search(query)[0].distance == 0
    with pytest.raises(ValueError, match="bits mean different things"):
        other.search(query)
    with pytest.raises(ValueError, match="does not say what coded it"):
        one.search(query.z)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(bits=32), "bits 16, not 32"),
        (dict(size=64), "size 32, not 64"),
        (dict(vectors="outputs"), "vectors 'backbone', not 'outputs'"),
    ],
)
def test_an_index_of_something_else_is_refused(pictures, tmp_path, change, words):
    build(pictures, tmp_path / "index")
    with pytest.raises(ValueError, match=words):
        build(pictures, tmp_path / "index", **change)


def test_what_cannot_be_done_is_said_before_anything_is_written(pictures, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        build(tmp_path / "nowhere", tmp_path / "index")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no picture"):
        build(tmp_path / "empty", tmp_path / "index")
    with pytest.raises(ValueError, match="knows nothing before it is trained"):
        build(pictures, tmp_path / "index", network="micro")
    with pytest.raises(FileNotFoundError, match="there is no index in"):
        hh.index.open(tmp_path / "index")
    index = build(pictures, tmp_path / "index")
    for wrong in (lambda: index.remove(["red/00.png", "red/99.png"]), lambda: index.label("red/99.png")):
        with pytest.raises(ValueError, match="red/99.png is not in the index"):
            wrong()
    with pytest.raises(FileNotFoundError, match="1 of 2 are missing"):
        index.add([pictures / "red" / "00.png", tmp_path / "99.png"])
    with pytest.raises(ValueError, match="k is 0"):
        index.search(pictures / "red" / "00.png", k=0)
    assert len(hh.index.open(tmp_path / "index")) == 36


def test_broken_files_are_left_out_together_and_the_rest_is_found(pictures, tmp_path):
    (pictures / "red" / "broken.png").write_bytes(b"no picture")
    whole = (pictures / "red" / "01.png").read_bytes()
    (pictures / "red" / "short.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "red" / "empty.png").touch()
    (pictures / "red" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (pictures / "@eaDir").mkdir()
    index = build(pictures, tmp_path / "index")
    assert len(index) == 36
    left_out = {Path(path).name for paths in index.report.left_out.values() for path in paths}
    assert left_out == {"broken.png", "short.png", "empty.png", "gone.png"}


def test_few_pictures_get_random_planes(pictures, tmp_path):
    index = build(pictures / "red", tmp_path / "index", bits=64)
    assert "random planes" in repr(index)
    assert set(index.labels) == {""}
    assert index.search(pictures / "red" / "04.png", k=1)[0].path.name == "04.png"


def test_a_build_that_was_stopped_resumes(pictures, tmp_path, monkeypatch):
    """Of 36 pictures 25 were looked at, two blocks of 10 and a rest; the second build looks at the others."""
    monkeypatch.setattr(encoding, "BLOCK", 10)
    monkeypatch.setattr(encoding, "BATCH", 5)
    looks = []

    class Stopped(hh.Encoder):
        def look(self, images):
            looks.append(len(images))
            if sum(looks) > 25:
                raise KeyboardInterrupt
            return super().look(images)

    encoder = unsupervised.unfitted("lite0", bits=16, size=SIDE, precision="float32")
    stopped, report = Stopped(encoder.model, mean=[], std=[], size=SIDE), encoding.Report()
    stopped.load_state_dict(encoder.state_dict())
    files = sorted(pictures.rglob("*.png"))
    wanted = encoding.pictures_of(files, pictures, 0, report)
    blocks = encoding.Blocks(tmp_path / "index", encoder)
    with pytest.raises(KeyboardInterrupt):
        encoding.look(stopped, wanted, blocks, report, workers=0)
    assert [len(block) for block in blocks.read()] == [10, 10, 5]
    index = build(pictures, tmp_path / "index", precision="float32")
    assert (index.report.encoded, len(index)) == (11, 36)
    whole = build(pictures, tmp_path / "whole", precision="float32")
    assert (index.codes == whole.codes).all()
    assert not (tmp_path / "index" / "blocks").exists()


def test_codes_and_vectors_that_are_not_the_encoder_s_are_refused(pictures, tmp_path):
    index = build(pictures, tmp_path / "index", bits=12)
    folder = next(tmp_path.glob("index/segments/*"))
    for name, change, said in [
        ("codes", lambda x: x | 1, "codes.npy is not codes of 12 bits.*has a bit set beyond"),
        ("codes", lambda x: x[:, :1], "codes.npy is not codes of 12 bits"),
        ("vectors", lambda x: x[:, :5], "has 5 numbers a vector, but this index needs 1280"),
        ("vectors", lambda x: x * np.float16(np.nan), r"vectors\.npy is damaged: not all of its numbers are finite"),
    ]:
        file = folder / f"{name}.npy"
        whole = file.read_bytes()
        changed = change(np.load(file))
        file.unlink()  # it is mapped
        np.save(file, changed)
        with pytest.raises(ValueError, match=said):
            hh.index.open(tmp_path / "index").search(index.encode(pictures / "red" / "00.png"))
        file.unlink()
        file.write_bytes(whole)
    assert hh.index.open(tmp_path / "index").search(pictures / "red" / "00.png", 1)[0].distance == 0


def test_a_damaged_block_is_looked_at_again(pictures, tmp_path, capsys):
    encoder = unsupervised.unfitted("lite0", bits=16, size=SIDE, precision="float32")
    blocks, seen = encoding.Blocks(tmp_path / "index", encoder), np.ones((2, 1280), np.float16)
    for names in ("ab", "cd", "ef"):
        blocks.write([encoding.Picture(name, tmp_path / name, "", 0) for name in names], seen)
    next(blocks.folder.glob("*1/vectors.npy")).write_bytes(b"")
    assert [[*block.paths] for block in blocks.read()] == [["a", "b"], ["e", "f"]]
    assert "vectors.npy is not an array" in capsys.readouterr().out
    blocks.write([encoding.Picture("g", tmp_path / "g", "", 0)], seen[:1])
    assert [[*block.paths] for block in blocks.read()] == [["a", "b"], ["e", "f"], ["g"]]


def test_one_writer_at_a_time(pictures, tmp_path):
    index = build(pictures, tmp_path / "index")
    with ThreadPoolExecutor(1) as pool, writing(tmp_path / "index"):  # another thread is as another process
        refused = pool.submit(index.remove, "red/00.png").exception()
    assert isinstance(refused, RuntimeError)
    assert "is in use: indexing on" in str(refused)
    assert index.remove("red/00.png").removed == 1


WRITER = """
import sys, numpy as np
from pathlib import Path
from test_index import segment_of
from hhlib.index.store import Store
store, more = Store(Path(sys.argv[1])), segment_of(np.ones((3000, 8)), np.ones((3000, 64), np.float16), "new")
print("ready", flush=True)
while True:
    store.change([more])
    store.change(dropped=more.paths)
"""


def test_a_writer_that_is_killed_leaves_the_old_or_the_new(tmp_path):
    old = segment_of(np.zeros((2000, 8)), np.zeros((2000, 64), np.float16), "old")
    Store.create(tmp_path / "index", {"built": False}).change([old])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", WRITER, str(tmp_path / "index")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as writer:
        assert writer.stdout.readline() == "ready\n"
        time.sleep(0.3)
        os.kill(writer.pid, signal.SIGKILL)
    store = Store(tmp_path / "index")
    assert len(store) in (2000, 5000)
    names = {"old", "new"} if len(store) > 2000 else {"old"}
    assert {path[:3] for segment in store.segments for path in segment.paths} == names
    store.change(dropped=["old0"])  # and the next writer tidies up
    assert {folder.name for folder in (tmp_path / "index" / "segments").iterdir()} == set(store.names)


def test_a_folder_with_twenty_kinds_of_trouble(pictures, tmp_path):
    """What can be read is indexed, what cannot is named once with its reason, and what is no picture is passed over."""
    image, red = Image.new("RGB", (40, 40), (10, 200, 90)), pictures / "red"
    fine = {"cmyk.jpg": image.convert("CMYK"), "grey.png": image.convert("L"), "palette.gif": image.convert("P")}
    fine |= {"Äpfel und 猫.png": image, "clear.png": Image.new("RGBA", (40, 40), (9, 9, 9, 99))}
    fine |= {"deep.png": Image.fromarray(np.full((40, 40), 40_000, np.uint16)), "UPPER.JPG": image, "web.webp": image}
    fine |= {"huge.png": Image.new("1", (10_000, 10_000))}  # 100 megapixels
    for name, picture in fine.items():
        picture.save(red / name)
    (pictures / "lonely").mkdir()
    image.save(pictures / "lonely" / "only.png")
    (red / "linked.png").symlink_to(pictures / "lonely" / "only.png")
    (red / "folder.jpg").mkdir()
    image.save(pictures / "loose.png")
    for junk in ("@eaDir/SYNO.jpg", "__MACOSX/a.jpg", "red/._a.jpg", ".hidden/a.jpg", "red/Thumbs.db", "red/notes.txt"):
        (pictures / junk).parent.mkdir(exist_ok=True)
        (pictures / junk).write_bytes(b"junk")
    bad = {
        "phone.heic": b"ftypheic",
        "text.jpg": b"no picture",
        "post.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "empty.jpg": b"",
    }
    bad |= {"short.png": (red / "01.png").read_bytes()[:900], "raw.cr2": b"raw", "phone.jpg": b"\0\0\0\x18ftypheic"}
    for name, raw in bad.items():
        (red / name).write_bytes(raw)
    Image.new("1", (20_000, 10_000)).save(red / "larger.png")  # 200 megapixels
    (red / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(red / "pipe.jpg")
    index = build(pictures, tmp_path / "index")
    assert {Path(path).name for path in index.paths} == {
        *(f"{i:02d}.png" for i in range(12)), *fine, "only.png", "linked.png", "loose.png",
    }  # fmt: skip
    told = sorted(Path(path).name for paths in index.report.left_out.values() for path in paths)
    assert told == sorted([*bad, "larger.png", "gone.jpg", "pipe.jpg"])
    assert (index.label("loose.png"), index.label("lonely/only.png")) == ("", "lonely")
    for reason in ("HEIC", "links that lead nowhere", "damaged or cut short", "megapixels", "pipes", "empty files"):
        assert sum(reason in line for line in index.report.left_out) == 1
    again = index.update()
    assert (again.encoded, sorted(map(len, again.left_out))) == (0, sorted(map(len, index.report.left_out)))
