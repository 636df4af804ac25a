"""What changes a result and what does not: the claims of results/determinism.csv that no other test file proves."""

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import elsewhere
import numpy as np
import pytest
import several
import torch
from PIL import Image

import hhlib as hh
from hhlib.runs import kept_table

TESTS = Path(__file__).parent
RESULTS = ("the same bits", "equal up to rounding", "another result", "not known")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Fifty pictures of two classes; every other picture of the second is there twice, under two names."""
    folder, rng = tmp_path_factory.mktemp("data") / "pictures", np.random.default_rng(0)
    for i in range(20):
        for name, files in (("a", [i]), ("é", [i, i + 20][: 1 + i % 2])):
            pixels = rng.integers(0, 256, (9, 9, 3)).astype(np.uint8)
            for file in files:
                (folder / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / name / f"{file}.png")
    return folder


@pytest.fixture(scope="module")
def there(pictures, tmp_path_factory):
    """What `elsewhere` gives in another process where everything around is different."""
    folder = tmp_path_factory.mktemp("there")
    other = dict(PYTHONHASHSEED="1", TZ="Pacific/Kiritimati", LC_ALL="C", NUMBA_NUM_THREADS="2")
    other |= dict(OMP_NUM_THREADS=str(torch.get_num_threads()), OMP_WAIT_POLICY="passive")  # two threads on a busy core
    command = [sys.executable, elsewhere.__file__, str(pictures), str(folder)]
    done = subprocess.run(command, env=os.environ | other, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_surroundings_change_nothing(pictures, there, tmp_path):
    """Hashes of text, time zone, language, order of files, random numbers drawn before, numba's threads, folder."""
    assert there[0] == json.loads(json.dumps(elsewhere.facts(pictures, tmp_path)))


def test_with_other_threads_a_step_is_equal_up_to_rounding(there):
    """A whole training is not: results/measured.csv."""
    np.testing.assert_allclose(elsewhere.step(threads=1), there[1], rtol=1e-3, atol=1e-6)


def trained(folder, split):
    how = several.how(validation=0, epochs=1, small_epochs=0)
    run = hh.training.fit(split, hh.runs.Run(folder), how, ())
    return run.history()["loss"].to_numpy(), run.model().state_dict()


def test_pictures_from_files_or_memory_give_the_same_training(pictures, tmp_path):
    split = hh.data.load(pictures, size=32)
    pool = split.query.pool
    loss, weights = trained(tmp_path / "files", split)
    other, others = trained(tmp_path / "memory", split.moved(replace(pool, images=pool.images[:])))
    assert other.tolist() == loss.tolist()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize(("how", "limit"), [(dict(batch_size=3), 1e-5), (dict(precision="bf16"), 0.05)])
def test_encoding_changes_outputs_by_rounding_and_bits_only_where_they_are_near_zero(how, limit):
    torch.manual_seed(0)
    net, images = hh.network.create("micro", bits=32).eval(), hh.data.load("digits").query.batch(range(20))[0]
    normal = dict(mean=[0.5] * 3, std=[0.3] * 3)
    whole, z = hh.retrieval.encode(net, images, **normal), hh.retrieval.encode(net, images, **normal, **how)
    assert (z - whole).abs().max() < limit
    assert ((z >= 0) == (whole >= 0))[whole.abs() >= limit].all()


def proofs():
    """Of each claim, what it names as its proof."""
    for row in kept_table("determinism").fillna("").to_dict("records"):
        yield row, row["proof"].split("; ")


def test_every_claim_names_tests_or_results_that_exist():
    for row, named in proofs():
        for proof in named:
            file, _, name = proof.partition("::")
            if name:
                defined = ast.walk(ast.parse((TESTS / f"{file}.py").read_text(encoding="utf-8")))
                assert name in {node.name for node in defined if isinstance(node, ast.FunctionDef)}, proof
            else:
                assert (row["result"], proof) == ("not known", "not run") or (TESTS.parent / proof).is_file(), proof


def test_a_claim_of_equal_bits_is_proved_by_a_test():
    assert {row["result"] for row, _ in proofs()} == {*RESULTS}
    assert all("::" in named[0] for row, named in proofs() if row["result"] in RESULTS[:2])
