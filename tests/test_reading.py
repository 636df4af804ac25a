"""Files of runs, networks and indexes that are broken or hostile: one sentence that names the file."""

import io
import json
import os
import pickle
import shutil
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st
from safetensors.torch import save_file
from test_index import segment_of

from hhlib import data, encoder, index, network, reading, runs
from hhlib.index.store import Store, about_of

BITS, PHOTOS = 12, os.path.abspath("photos")
TOY = dict(
    img_size=16, patch_size=2, embed_dims=(8, 16, 32), num_heads=(1, 2, 4), depths=(1, 1, 1), interaction_heads=4
)
CODES = np.packbits(np.eye(3, BITS, dtype=bool), axis=1)
RECORD = {
    "parameters": dict(dataset="digits", method="csq", network="micro", bits=BITS, seed=0, recipe={"epochs": 2}),
    "model": dict(name="lite0", bits=BITS, dim=4, hidden=0),
    "loss": {},
    "data": dict(mean=[0.5] * 3, std=[0.2] * 3, classes=["a", "b"], sizes={"query": 3}, fingerprint="abc"),
}
SCORES = {"map": dict(expected=0.5, worst=0.1, best=0.9), "chance": 0.1, "interval": [0.4, 0.6]}
LABELS = np.eye(3, dtype=bool)
ARRAYS = dict(query_codes=CODES, database_codes=CODES, query_labels=LABELS, database_labels=LABELS)
ARRAYS |= dict(bits=np.array(BITS), query_paths=np.array(["a", "b", "c"]))


def changed(content, path, value):
    """The same names and values, with another value at a path such as "data.mean"; ... leaves it out."""
    content = json.loads(json.dumps(content))
    *folders, last = path.split(".")
    place = content
    for name in folders:
        place = place[name]
    place.pop(last, None)
    return content if value is ... else place.update({last: value}) or content


@pytest.fixture
def run(tmp_path):
    run = runs.Run(tmp_path / "digits" / "run")
    runs.write_json(run.path / "run.json", RECORD)
    run.save_codes(**ARRAYS)
    run.save_codes("database_codes.npz", codes=CODES)
    run.save_metrics(SCORES)
    (run.path / "history.csv").write_text("epoch,loss,validation_map\n1,0.5,\n2,0.4,0.9\n")
    (run.path / "timing.csv").write_text("epoch,seconds\n1,60\n2,60\n")
    runs.write_json(run.path / "pages.json", {"variant": "a"})
    save_file(network.create(**RECORD["model"]).state_dict(), run.path / "model.safetensors")
    torch.save({"net": {"weight": torch.ones(3)}, "history": [{"epoch": 1}]}, run.path / "training_state.pt")
    return run


#: How each file of a run is read.
READERS = {
    "run.json": lambda run: run.record,
    "metrics.json": lambda run: run.metrics(),
    "history.csv": lambda run: run.history(),
    "timing.csv": lambda run: run.seconds(),
    "pages.json": runs.row,
    "codes.npz": lambda run: run.codes(),
    "database_codes.npz": lambda run: run.database_codes(),
    "model.safetensors": lambda run: run.model(),
    "training_state.pt": lambda run: reading.read_state(run.path / "training_state.pt"),
}


def told(run, name, error=ValueError):
    """What is said when a file is read: one sentence, with the file's name."""
    with pytest.raises(error) as caught:
        READERS[name](run)
    said = str(caught.value)
    assert name in said
    assert "\n" not in said
    assert len(said) < 800
    return said


def test_whole_files_are_read(run):
    for read in READERS.values():
        read(run)
    assert run.seconds() == 120
    assert run.codes()["query_paths"].tolist() == ["a", "b", "c"]
    assert runs.table(run.path.parent.parent)["variant"].tolist() == ["a"]


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\x80\x04]\x94.", b"PK\x03\x04", b"[" * 100_000, b'{"a": 1}'])
def test_no_bytes_are_taken_for_what_they_are_not(name, content, run):
    (run.path / name).write_bytes(content)
    if name == "run.json" and content[:1] == b"{":
        with pytest.raises(reading.Damaged, match="run.json does not say 'parameters'"):
            run.record["parameters"]["bits"]
    else:
        told(run, name)


@pytest.mark.parametrize("name", READERS)
def test_a_file_cut_short_or_changed_gives_the_right_thing_or_a_sentence(name, run):
    whole = (run.path / name).read_bytes()

    @given(st.data())
    @profile(max_examples=25, suppress_health_check=list(HealthCheck))
    def check(data):
        raw = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
        for _ in range(data.draw(st.integers(0, 3))):
            if raw:
                raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        (run.path / name).write_bytes(raw)
        said = ""
        try:
            READERS[name](run)
        except ValueError as error:
            said = str(error)
        assert not said or str(run.path) in said
        assert "\n" not in said

    check()


#: A value in run.json or metrics.json, and what is said of it.
BROKEN = [
    ("run.json", RECORD, "parameters", [1], "parameters is"),
    ("run.json", RECORD, "parameters.bits", 10**6, "bits is 1000000, .* 1 to 1024"),
    ("run.json", RECORD, "parameters.bits", "12", "bits is '12'"),
    ("run.json", RECORD, "parameters.seed", -1, "seed is -1"),
    ("run.json", RECORD, "parameters.method", 5, "method is '5'"),
    ("run.json", RECORD, "parameters.recipe", None, "recipe is None"),
    ("run.json", RECORD, "parameters.recipe.learning_rate", float("inf"), "learning_rate is inf"),
    ("run.json", RECORD, "parameters.recipe.flip_average", "yes", "flip_average is 'yes'"),
    ("run.json", RECORD, "data.mean", [0.5, float("nan"), 0.5], "mean is .*nan"),
    ("run.json", RECORD, "data.mean", "0.5", "mean is '0.5'"),
    ("run.json", RECORD, "data.std", [0.2, 0, 0.2], "std is .* from 0.001 to 1"),
    ("run.json", RECORD, "data.std", ..., "run.json does not say 'std'"),
    ("run.json", RECORD, "data.classes", 3, "classes is '3'"),
    ("run.json", RECORD, "data.sizes", {"query": -3}, "query is -3"),
    ("run.json", RECORD, "data.image_size", 10**9, "image_size is 1000000000, .* 1 to 2048"),
    ("metrics.json", SCORES, "map.expected", float("nan"), "expected is 'nan', .* from 0 to 1"),
    ("metrics.json", SCORES, "map.expected", 946458504.99, "expected is '946458504.99'"),
    ("metrics.json", SCORES, "map", 0.5, "map is 0.5"),
    ("metrics.json", SCORES, "map", ..., "metrics.json does not say 'map'"),
    ("metrics.json", SCORES, "map.worst", ..., "metrics.json does not say 'worst'"),
    ("metrics.json", SCORES, "interval", [0.4], "interval is"),
    ("metrics.json", SCORES, "chance", True, "chance is 'True'"),
    ("pages.json", {"variant": ""}, "variant", ..., "pages.json does not say 'variant'"),
]


@pytest.mark.parametrize(("name", "content", "path", "value", "said"), BROKEN, ids=[f"{b[2]}={b[3]}" for b in BROKEN])
def test_values_that_cannot_be_are_refused_by_name(name, content, path, value, said, run, capsys):
    runs.write_json(run.path / name, changed(content, path, value))
    with pytest.raises(ValueError, match=said):
        READERS[name](run)
    assert runs.find(run.path.parent.parent) == [] or name == "pages.json"
    assert runs.table(run.path.parent.parent).empty
    assert f"{run.path} is left out: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"query_labels": LABELS[:2]}, r"query_labels are \(2, 3\) bool, but there are 3 query codes"),
        ({"query_codes": CODES.astype(int)}, "query codes are .* int64"),
        ({"query_codes": CODES[:, :1]}, r"query codes are \(3, 1\) uint8, but 12 bits need"),
        ({"database_codes": CODES | 1}, "bits is 12, but row 0 of the database codes has a bit set beyond"),
        ({"bits": np.array(0)}, "bits is 0"),
        ({"bits": np.array([12, 12])}, r"bits is \[12, 12\]"),
        ({"query_paths": np.arange(3)}, "query_paths are"),
        ({"query_paths": np.array([{}, [], 1], dtype=object)}, "Python objects, which are never loaded"),
    ],
)
def test_codes_that_do_not_fit_each_other_are_refused(changes, said, run):
    run.save_codes(**ARRAYS | changes)
    with pytest.raises(ValueError, match=f"codes.npz .*{said}"):
        run.codes()


def bomb(path, header, size):
    """An .npz file whose one array says that it has a shape, and unpacks to so many zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("codes.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(size >> 20):
            file.write(b"\0" * (1 << 20))


@pytest.mark.parametrize(
    ("shape", "size", "said"),
    [
        ((10**12, 2), 1 << 20, "does not hold the"),
        ((-1, 2), 1 << 20, "does not hold the"),
        ((1 << 23,), 1 << 23, "at most"),
    ],
)
def test_what_an_archive_would_unpack_to_is_known_before_it_is(shape, size, said, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MOST_UNPACKED", 4 << 20)
    bomb(tmp_path / "x.npz", {"descr": "|u1", "fortran_order": False, "shape": shape}, size)
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"x.npz is not codes, .*{said}"):
        reading.read_arrays(tmp_path / "x.npz", "codes")
    assert tracemalloc.get_traced_memory()[1] < 2 << 20
    tracemalloc.stop()


def test_code_in_a_training_state_is_not_run(run, tmp_path):
    class Code:
        def __reduce__(self):
            return Path.touch, (tmp_path / "run",)

    torch.save({"net": Code()}, run.path / "training_state.pt")
    assert "more than tensors and plain values, which is never loaded" in told(run, "training_state.pt")
    (run.path / "training_state.pt").write_bytes(pickle.dumps(Code()))
    told(run, "training_state.pt")
    assert not (tmp_path / "run").exists()


def test_a_compressed_state_is_refused_because_pytorch_writes_none(run):
    path = run.path / "training_state.pt"
    raw = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert "it is compressed" in told(run, "training_state.pt")


def test_a_pipe_a_folder_or_a_huge_file_is_not_read(run, monkeypatch):
    monkeypatch.setattr(reading, "MOST_TEXT", 1000)
    (run.path / "metrics.json").write_text(" " * 1001)
    assert "it has 1,001 bytes, but at most 1,000" in told(run, "metrics.json")
    monkeypatch.setattr(reading, "MOST_HEAD", 20)
    assert "its first line is longer than 20 bytes" in told(run, "history.csv")
    (run.path / "history.csv").unlink()
    (run.path / "history.csv").mkdir()
    told(run, "history.csv", FileNotFoundError)
    with pytest.raises(ValueError, match="it is no file"):
        reading.read_array(Path(os.devnull))


#: Arguments of a network that no memory may be taken for.
HUGE = [
    ("micro", dict(depths=[1, 1, 10**6]), r"depths\[2\] is 1000000, .* 1 to 256"),
    ("micro", dict(embed_dims=[64, 128, 10**9]), r"embed_dims\[2\] is 1000000000"),
    ("micro", dict(embed_dims=[8192, 8192, 8192], depths=[2, 2, 2]), "parameters, but at most 1,000,000,000"),
    ("micro", dict(img_size=10**6), "img_size is 1000000, .* 1 to 2048"),
    ("micro", dict(img_size=2048, patch_size=1, embed_dims=[512, 512, 512]), "parameters, but at most"),
    ("micro", dict(patch_size=10**9), "patch_size is 1000000000"),
    ("micro", dict(in_chans=10**9), "in_chans is 1000000000"),
    ("micro", dict(interaction_heads=0), "interaction_heads is 0"),
    ("micro", dict(num_heads=[0, 1, 1]), r"num_heads\[0\] is 0"),
    ("micro", dict(depths=[1.5, 1, 1]), r"depths\[0\] is 1.5"),
    ("micro", dict(depths="111"), "depths is '111'"),
    ("micro", dict(drop_path_rate=float("nan")), "drop_path_rate is nan"),
    ("lite0", dict(dim=10**12), "parameters, but at most"),
    ("lite0", dict(dim=1280, hidden=10**7), "parameters, but at most"),
    ("timm:lite0", dict(img_size=10**6), "img_size is 1000000"),
    (["micro"], {}, "network is .*, but it must be a name"),
]


@pytest.mark.parametrize(("name", "arguments", "said"), HUGE, ids=[f"{h[0]} {h[1]}" for h in HUGE])
def test_a_network_is_refused_before_memory_is_taken(name, arguments, said, run):
    with pytest.raises(ValueError, match=said):
        network.create(name, bits=BITS, **arguments)
    runs.write_json(run.path / "run.json", RECORD | {"model": dict(name=name, bits=BITS) | arguments})
    with pytest.raises(ValueError, match=f"run.json is not the record of a network, .*{said}"):
        run.model()


def test_from_pretrained_checks_arguments_and_weights_too(tmp_path):
    net = network.HybridHash(BITS, **TOY)
    net.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    runs.write_json(tmp_path / "config.json", config | {"depths": [1, 1, 10**6]})
    with pytest.raises(ValueError, match=r"config.json .*depths\[2\] is 1000000"):
        network.HybridHash.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"bits": ')
    with pytest.raises(ValueError, match="config.json is not a network's arguments"):
        network.HybridHash.from_pretrained(tmp_path)
    runs.write_json(tmp_path / "config.json", config)
    save_file(net.state_dict() | {"norm.weight": torch.full((32,), torch.nan)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="model.safetensors does not fit this network: norm.weight"):
        network.HybridHash.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "weights",
    [
        torch.ones(32, dtype=torch.bool),
        torch.ones(32, dtype=torch.complex64),
        torch.full((32,), 1e300, dtype=torch.float64),
        torch.ones(32).to_sparse(),
        torch.ones(32, device="meta"),
        [1.0] * 32,
        None,
    ],
    ids=["bool", "complex", "infinite as float32", "sparse", "without memory", "a list", "nothing"],
)
def test_weights_that_would_give_another_network_are_refused(weights):
    net = network.HybridHash(BITS, **TOY)
    with pytest.raises(ValueError, match="norm.weight is .* finite torch.float32 numbers of shape"):
        network.fill(net, net.state_dict() | {"norm.weight": weights})


@pytest.fixture
def store(tmp_path):
    rows = segment_of(np.zeros((4, 8)), np.zeros((4, 64), np.float16), "old")
    made = Store.create(tmp_path / "index", {"built": False})
    made.change([rows])
    return made


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, "its format is 2"),
        ({"segments": ["../../elsewhere"]}, "it has the segment '../../elsewhere'"),
        ({"segments": [5]}, "it has the segment 5"),
        ({"segments": 5}, "index.json is not"),
        ({"built": "yes"}, "built is 'yes'"),
        ({"root": "photos", "level": None, "vectors": "none"}, "root is 'photos'"),
        ({"root": PHOTOS, "level": 7, "vectors": "none"}, "level is 7"),
        ({"root": PHOTOS, "level": None, "vectors": 1}, "vectors is 1"),
        ({"root": PHOTOS}, "index.json does not say 'level'"),
    ],
)
def test_an_index_that_says_what_cannot_be_is_refused(changes, said, store, tmp_path):
    about = json.loads((store.folder / "index.json").read_text()) | changes
    runs.write_json(store.folder / "index.json", about)
    for read in (about_of, Store):
        with pytest.raises(ValueError, match=said):
            read(store.folder)


@pytest.mark.parametrize("name", ["keys", "codes", "facts", "vectors", "paths", "paths-ends", "labels-ends"])
def test_a_part_of_an_index_that_is_cut_short_or_of_another_kind_is_named(name, store):
    file = next(store.folder.glob(f"segments/*/{name}.npy"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=f"{name}.npy is not an array, or is damaged"):
        Store(store.folder)
    np.save(file, np.zeros((4, 3), dtype=complex))
    with pytest.raises(ValueError, match=f"{name}.npy is complex128"):
        Store(store.folder)


def test_parts_of_an_index_of_unequal_length_are_refused_and_texts_stay_in_their_file(store):
    folder = next(store.folder.glob("segments/*"))
    np.save(folder / "codes.npy", np.zeros((3, 1), np.uint8))
    with pytest.raises(ValueError, match="unequal numbers of rows"):
        Store(store.folder)
    np.save(folder / "codes.npy", np.zeros((4, 1), np.uint8))
    np.save(folder / "paths-ends.npy", np.array([4, 2, 10**12, -1]))
    paths = Store(store.folder).segments[0].paths
    assert len(paths[0]) == 4
    for row in (1, 2, 3):
        with pytest.raises(ValueError, match=f"paths-ends.npy is damaged in row {row}"):
            paths[row]


def test_indexes_are_found_by_their_folder_and_broken_ones_named(tmp_path, capsys):
    about = {"built": True, "level": None, "vectors": "none"}
    for name in ("cats", "dogs"):
        Store.create(tmp_path / f"index-{name}", about | {"root": str(tmp_path / name)})
    (tmp_path / "index-half").mkdir()
    (tmp_path / "index-half" / "index.json").write_text('{"root": "/do')
    assert index.find(tmp_path, of=tmp_path / "dogs") == [tmp_path / "index-dogs"]
    assert {place.name for place in index.find(tmp_path)} == {"index-cats", "index-dogs"}
    assert capsys.readouterr().out.count(f"{tmp_path / 'index-half'} is left out: ") == 2


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("images.npy", lambda file: np.save(file, np.zeros((3, 2), np.float32))),
        ("images.npy", lambda file: np.save(file, np.zeros((3, 2), object), allow_pickle=True)),
        ("marks.npy", lambda file: np.save(file, np.ones((3, 2)))),
        ("marks.npy", lambda file: file.write_bytes(file.read_bytes()[:-8])),
        ("cache.json", lambda file: file.write_text("[" * 100_000)),
    ],
)
def test_rows_of_a_damaged_cache_are_computed_again(name, spoil, tmp_path):
    facts, rows = np.arange(3, dtype=np.uint64), np.arange(6, dtype=np.float16).reshape(3, 2)
    kept = data.KeptRows(tmp_path, {"of": "a test"}, (3, 2), np.float16, facts, "computing")
    kept.get(lambda wanted: rows[wanted])
    spoil(tmp_path / name)
    assert kept.get(lambda wanted: rows[wanted]).numpy().tolist() == rows.tolist()


def test_an_encoder_from_elsewhere_is_checked(tmp_path):
    found = encoder.Encoder(dict(name="micro", bits=BITS, img_size=16), mean=[0.5] * 3, std=[0.2] * 3)
    found.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for changes, said in [
        ({"std": [0.2, 0.0, 0.2]}, "std is"),
        ({"mean": [], "std": []}, "mean is .*, but micro needs"),
        ({"model": 5}, "must be a mapping, not int"),
        ({"model": dict(name="micro", bits=BITS, depths=[1, 1, 10**6])}, "depths"),
        ({"about": 5}, "about is 5"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
        ({"other": 1}, "other"),
    ]:
        runs.write_json(tmp_path / "config.json", config | changes)
        with pytest.raises(ValueError, match=f"config.json .*{said}"):
            encoder.load(tmp_path)


def test_a_broken_neighbour_is_named_and_nobody_else_suffers(run, capsys):
    root = run.path.parent.parent
    for name, file, content in [
        ("half", "metrics.json", '{"map": {"exp'),
        ("list", "run.json", "[1]"),
        ("other", "history.csv", "a,b\n1,2,3\n"),
        ("binary", "run.json", "\0\0"),
    ]:
        shutil.copytree(run.path, run.path.with_name(name))
        (run.path.with_name(name) / file).write_text(content)
    (root / "digits" / "loop").symlink_to("loop")
    (root / "digits" / "gone").symlink_to("nowhere")
    assert {found.path.name for found in runs.find(root)} == {"run", "other"}
    assert {found.path.name for found in runs.find(root, "history.csv")} == {"run", "half"}
    capsys.readouterr()
    assert len(runs.table(root)) == 1
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4
    assert all("is left out: " in line for line in said)
