"""What is kept of a run fits together: the codes and scores are those of the rounded weights."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import hhlib as hh

TINY = "net.embed_dims=16,32,64 net.num_heads=2,2,2 net.depths=1,1,1"


@pytest.fixture
def keep(from_tools):
    return from_tools("keep")


def test_kept_codes_are_those_of_the_kept_weights(keep, tmp_path):
    quick = dict(bits=12, epochs=1, batch_size=50, validate_every=1)
    ex = hh.open(f"{TINY} net.stem=conv", dataset="digits", runs_dir=str(tmp_path / "runs"), **quick)
    ex.fit(())
    scores = keep.keep(ex, tmp_path / "kept", weights=True)
    run = hh.runs.Run(tmp_path / "kept")
    dtypes = [tensor.dtype for tensor in load_file(run.path / "model.safetensors").values()]
    assert set(dtypes) == {torch.bfloat16, torch.int64}  # the stem's normalisation counts its batches
    facts = run.record["data"]
    how = dict(mean=facts["mean"], std=facts["std"], precision=ex.precision)
    expected = hh.retrieval.pack(hh.retrieval.encode(run.model(), ex.split.database, **how))
    assert np.array_equal(run.codes()["database_codes"], expected)
    assert run.metrics()["map"]["expected"] == scores["map"]["expected"]
    size = (run.path / "model.safetensors").stat().st_size
    assert size < 0.51 * (ex.run.path / "model.safetensors").stat().st_size
    assert not ex.has("metrics.json")  # the run itself is as it was


def test_without_weights_the_records_and_the_run_s_own_scores_are_kept(keep, tmp_path):
    quick = dict(bits=12, epochs=1, batch_size=50, validate_every=1)
    ex = hh.open(TINY, dataset="digits", runs_dir=str(tmp_path / "runs"), **quick)
    ex.fit(())
    scores = keep.keep(ex, tmp_path / "kept", weights=False)
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {*keep.RECORDS, "codes.npz", "metrics.json"}
    assert hh.runs.Run(tmp_path / "kept").metrics()["map"]["expected"] == scores["map"]["expected"]
