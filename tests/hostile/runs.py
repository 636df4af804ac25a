"""Run folders that others send, and broken ones beside healthy ones."""

import io
import json
import zipfile

import numpy as np

from hhlib import metrics, runs
from hostile import hostile, refused


def run_in(folder, **files):
    """A copy of a kept run in which some files are others: bytes, text, or what is put into its JSON; None: missing."""
    kept = runs.kept("digits-32bits")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("run.json", "metrics.json", "history.csv", "timing.csv", "codes.npz"):
        raw = (kept.path / name).read_bytes()
        change = files.get(name.replace(".", "_"), raw)
        if isinstance(change, dict):
            change = json.dumps(json.loads(raw) | change)
        if change is not None:
            (folder / name).write_bytes(change if isinstance(change, bytes) else change.encode())
    return runs.Run(folder)


def archive(**arrays):
    """codes.npz with these arrays."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def bomb():
    """codes.npz of 2 MB with an array of 2 GB."""
    head, file = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(head, dict(descr="|u1", fortran_order=False, shape=(2_000_000_000, 1)))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made, made.open("query_codes.npy", "w") as member:
        member.write(head.getvalue() + bytes(1000))
    return file.getvalue()


def said(folder, file, change, read):
    """What a reader makes of a run with one file changed."""
    return read(run_in(folder, **{file: change}))


def state(run):
    """What the run says of itself."""
    return run.state


def codes(run):
    """Its codes, which must fit each other."""
    found = run.codes()
    for part in ("query", "database"):
        assert found[f"{part}_codes"].dtype == np.uint8
        assert len(found[f"{part}_codes"]) == len(found[f"{part}_labels"])
    return found


CODES = dict(query_codes=np.zeros((2, 4), "u1"), query_labels=np.eye(2, dtype="u1"))
CODES |= dict(database_codes=np.zeros((2, 4), "u1"), database_labels=np.eye(2, dtype="u1"), bits=np.array(32))
NO_MAP = {"map": {"expected": "high", "worst": 0, "best": 1}}
refused(
    "run",
    lambda folder, how: said(folder, *how),
    [
        ("run.json that is no JSON", ("run_json", "{", lambda run: run.record), "run.json"),
        ("run.json that is a list", ("run_json", "[1, 2]", lambda run: run.record), "run.json"),
        ("run.json without parameters", ("run_json", "{}", lambda run: run.record), "run.json"),
        (
            "run.json with text as its recipe",
            ("run_json", {"parameters": {"recipe": "x"}}, lambda run: run.record),
            "run.json",
        ),
        ("run.json of 10,000 lists in each other", ("run_json", "[" * 10_000, lambda run: run.record), "run.json"),
        ("run.json that is no text", ("run_json", b"\xff\xfe\0", lambda run: run.record), "run.json"),
        (
            "run.json that is missing",
            ("run_json", None, lambda run: run.record),
            "run.json does not exist: training makes it",
        ),
        ("metrics.json, cut short", ("metrics_json", '{"map": {"exp', lambda run: run.metrics()), "metrics.json"),
        ("metrics.json without scores", ("metrics_json", "{}", state), "metrics.json"),
        ("metrics.json with a score that is text", ("metrics_json", NO_MAP, state), "metrics.json"),
        ("history.csv of zero bytes", ("history_csv", bytes(100), lambda run: run.history()), "history.csv"),
        ("history.csv of nothing", ("history_csv", "", lambda run: run.history()), "history.csv"),
        ("history.csv without the column of scores", ("history_csv", "epoch\n1\n", runs.row), "history.csv"),
        (
            "history.csv with more fields than its head names",
            ("history_csv", "epoch\n1,2\n1,2,3\n", lambda run: run.history()),
            "history.csv",
        ),
        (
            "codes.npz with objects that would run code",
            ("codes_npz", archive(**CODES | {"query_codes": np.array([{}])}), codes),
            "codes.npz",
        ),
        ("codes.npz, cut short", ("codes_npz", archive(**CODES)[:200], codes), "codes.npz"),
        ("codes.npz that is no archive", ("codes_npz", b"x" * 100, codes), "codes.npz"),
        ("codes.npz without the database", ("codes_npz", archive(bits=np.array(32)), codes), "codes.npz"),
        (
            "codes.npz with more labels than codes",
            ("codes_npz", archive(**CODES | {"query_labels": np.eye(3)}), codes),
            "codes.npz",
        ),
        (
            "codes.npz with codes that are not packed",
            ("codes_npz", archive(**CODES | {"query_codes": np.ones((2, 32))}), codes),
            "codes.npz",
        ),
        ("codes.npz that says it unpacks to 2 GB", ("codes_npz", bomb(), codes), "codes.npz"),
        ("codes.npz that is missing", ("codes_npz", None, codes), "codes.npz does not exist: evaluation makes it"),
    ],
)


def beside(what, **broken):
    """Enter a broken run that stands beside a healthy one."""

    @hostile("run", f"a neighbour with {what}", gives="it is named and left out of the table of runs")
    def _(folder):
        run_in(folder / "digits" / "good")
        run_in(folder / "digits" / "broken", **broken)
        assert len(runs.table(folder)) == 1


beside("half a metrics.json", metrics_json='{"map": {"exp')
beside("metrics.json that is a number", metrics_json="3")
beside("run.json that is a list", run_json="[1]")
beside("run.json of an unknown method", run_json={"parameters": {"dataset": "digits", "method": "harm", "recipe": {}}})
beside("no run.json", run_json=None)


@hostile("run", "a link to a run elsewhere", gives="it is read where it is")
def _(folder):
    run_in(folder / "elsewhere")
    (folder / "runs" / "digits").mkdir(parents=True)
    (folder / "runs" / "digits" / "linked").symlink_to(folder / "elsewhere")
    assert len(runs.table(runs.find(folder / "runs"))) == 1


def scored(folder, codes):
    """The score of two queries and four images of two classes."""
    q, ql, d, dl = codes
    return metrics.evaluate(q, ql, d, dl)


GOOD = np.where(np.random.default_rng(0).integers(0, 2, (4, 8)), 1.0, -1.0)
LABELS = np.eye(2, dtype=np.uint8)[[0, 1, 0, 1]]
refused(
    "codes",
    scored,
    [
        ("codes that are not numbers", (GOOD * np.nan, LABELS, GOOD, LABELS), "query codes have nan in row 0"),
        (
            "codes of 0 and 1 in place of -1 and 1",
            ((GOOD > 0).astype(float), LABELS, (GOOD > 0).astype(float), LABELS),
            "query codes are 0 and 1",
        ),
        ("labels of a half", (GOOD, LABELS * 0.5, GOOD, LABELS), "query labels have 0.5 in row 0"),
        ("labels that are not numbers", (GOOD, LABELS * np.nan, GOOD, LABELS), "query labels have nan in row 0"),
        ("negative class numbers", (GOOD, [0, -1, 0, 1], GOOD, LABELS), "query labels have -1 in row 1"),
        (
            "codes of other lengths",
            (GOOD[:, :4], LABELS, GOOD, LABELS),
            "database codes have shape (4, 8), but 4 bits need (n, 4)",
        ),
        (
            "fewer labels than codes",
            (GOOD, LABELS[:3], GOOD, LABELS),
            "there are 4 query codes but 3 rows of query labels",
        ),
    ],
)
