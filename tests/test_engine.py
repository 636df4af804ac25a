"""Milvus Lite finds what an exact search finds, up to ties; where it is not installed, these tests are skipped."""

import csv
import io

import numpy as np
import pytest

from hhlib import metrics, retrieval

how = "needs Milvus Lite 2.5 with its old setuptools: python -m pip install --constraint constraints.txt '.[engine]'"
pytest.importorskip("milvus_lite", reason=how)
CODES = np.random.default_rng(0).integers(0, 256, (3000, 8), dtype=np.uint8)
QUERIES = np.concatenate([CODES[:5], np.random.default_rng(1).integers(0, 256, (20, 8), dtype=np.uint8)])


@pytest.fixture
def tool(from_tools):
    return from_tools("engine")


def test_it_finds_what_an_exact_search_finds(tool, tmp_path):
    """Twice: loading replaces what was there."""
    client = tool.connect(str(tmp_path / "codes.db"))
    paths = [f"animals/ä {i}.jpg" for i in range(len(CODES))]
    tool.load(client, CODES[:100])
    tool.load(client, CODES, paths)
    found = tool.search(client, QUERIES, k=20)
    client.close()
    exact, _ = retrieval.search(QUERIES, CODES, k=20)
    true = metrics.hamming(QUERIES, CODES)
    for q, hits in enumerate(found):
        distances, rows, names = (list(part) for part in zip(*hits, strict=True))
        assert distances == exact[q].tolist() == true[q, rows].tolist()
        assert len(set(rows)) == 20
        assert names == [paths[row] for row in rows]
    assert [hits[0][1] for hits in found[:5]] == [0, 1, 2, 3, 4]


def test_the_command_loads_a_folder_and_searches_it(tool, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "kept"
    folder.mkdir()
    np.save(folder / "codes.npy", CODES[:50])
    (folder / "paths.txt").write_text("".join(f"{i}.jpg\n" for i in range(50)))

    def call(*words):
        monkeypatch.setattr("sys.argv", ["engine.py", *map(str, words), "--uri", str(tmp_path / "codes.db")])
        return tool.main(), *capsys.readouterr()

    assert call("load", folder)[0] == 0
    code, out, _ = call("search", folder, "--k", 3)
    lines = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [line["path"] for line in lines[::3]] == [f"{i}.jpg" for i in range(50)]
    (folder / "paths.txt").write_text("1.jpg\n")
    code, _, err = call("load", folder)
    assert (code, err) == (2, "there are 1 paths but 50 codes.\n")
