"""The tables of README.md (and README.zh.md) and of the pages beside results and benchmarks, each a function.

`tables.py` calls each with the table as it stands, and it makes it anew as Markdown. All numbers come from results/.
"""

import math
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pandas as pd
from publish import NOTEBOOKS

import hhlib as hh

PROJECT = Path(__file__).resolve().parent.parent
KINDS = {"hybridhash": "", "frozen": "-frozen", "tuned": "-tuned"}  #: how README calls a network, in this order
DATASETS = {"cifar10": "cifar10", "clothes-validation": "clothes"}  #: of fair.csv, and what its table calls them
GROUPS = {
    "compared": "symmetric and central",
    "asymmetric": "asymmetric, learnt database codes",
    "reconstruction": "our reconstructions, asymmetric too",
}
WRONG = "differing_above_1e-4"  #: column of exports.csv
FAMILIES = {"symmetric": "symmetric", "asymmetric": GROUPS["asymmetric"], "central": "central"}
#: methods with two rows in the table of families: what each is called, and whether its hyper-parameters are its own
VARIANTS = {
    "hybridhash": (("hybridhash, alpha = 10 / K", False), ("hybridhash, alpha = 0.5 (`cifar10`: 0.15)", True)),
    "dpsh": (("dpsh", False), ("dpsh, balanced", True)),
}


def kept(name: str, **how) -> pd.DataFrame:
    """A table that comes with the kit, results/<name>.csv."""
    return pd.read_csv(PROJECT / "results" / f"{name}.csv", **how)


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table as Markdown, a line a row."""
    head = list(head)
    lines = ("|".join(["", *(f" {cell} " if cell else " " for cell in row), ""]) for row in [head, *rows])
    first, *rest = lines
    return "\n".join([first, "|" + "---|" * len(head), *rest, ""])


# ---- README.md


def runs(_: str, head: tuple[str, ...], to: str) -> str:
    """The kept runs and their scores; `to` stands between the ends of a range."""
    table = kept("runs")
    table["kind"] = table["network"].map(hh.network.kind)
    table["name"] = table["dataset"].str.removesuffix("-validation") + table["kind"].map(KINDS)
    table["place"] = table["kind"].map(list(KINDS).index)
    table["set"] = table["dataset"].map(hh.data.names().index)
    return markdown(head, (run_cells(row, to) for row in table.sort_values(["place", "set"]).itertuples()))


def run_cells(row, to: str) -> tuple[str, ...]:
    """A line of that table."""
    sizes = f"{row.query:,} / {row.train:,} / {row.database:,}"
    spread = f"{row.worst:.3f} {to} {row.best:.3f}"
    return (
        f"[{row.name}](results/{row.folder})",
        f"{row.bits}",
        sizes,
        f"{row.expected:.3f}",
        spread,
        f"{row.chance:.3f}",
    )


def pages(old: str, head: tuple[str, ...]) -> str:
    """The pages: what you learn is written by hand, minutes are those that the page says, seconds were measured."""
    learn = dict(re.findall(r"^\| \[(\w+)\]\(.*?\) \| (.*?) \| ", old, re.MULTILINE))
    seconds = kept("pages").set_index("page")["seconds"]
    rows = []
    for path in NOTEBOOKS:
        link = f"[{path.stem}](notebooks/{path.name})"
        rows.append((link, learn.get(path.stem, ""), str(minutes_to_read(path.stem)), str(seconds.get(path.stem, ""))))
    return markdown(head, rows)


def minutes_to_read(page: str) -> int:
    """The minutes that a page says it takes to read."""
    text = (PROJECT / "notebooks" / f"{page}.ipynb").read_text(encoding="utf-8")
    return int(re.search(r"\*\*Takes\*\* about (\d+) minutes to read", text)[1])


# ---- results/README.md


def exports(_: str) -> str:
    """Exported networks, compared with PyTorch in float32."""
    table = kept("exports").query("form != 'PyTorch, float32'")
    table["run"] = table["run"].where(~table["run"].duplicated(), "")  # once per run
    head = "run", "form", "equal bits", "differ", "mAP", "seconds", "MB"
    return markdown(head, (export_cells(row) for row in table.rename(columns={WRONG: "wrong"}).itertuples()))


def export_cells(row) -> tuple[str, ...]:
    """A line of that table."""
    shares = f"{row.equal_bits:.4f}", f"{row.wrong:,}", f"{row.map:.3f}", f"{row.seconds_ratio:.2f}"
    return row.run, row.form, *shares, f"{row.bytes / 1e6:.1f}"


def explanations(_: str) -> str:
    """Which maps can be believed, on photographs."""
    table = kept("cifar10-2-64bits/explanations").set_index(["map", "test", "control"])
    tests, controls = ("deletion", "insertion", "ROAD"), ("random", "another's map")
    cell = "{0.difference:+.3f} {0.verdict}".format
    head = ("map", *(f"{test}: random" if c == "random" else c for test in tests for c in controls))
    maps = table.index.get_level_values("map").unique()
    return markdown(head, ((m, *(cell(table.loc[m, t, c]) for t in tests for c in controls)) for m in maps))


def first_recipe(_: str) -> str:
    """How the earlier recipe was found."""
    table = kept("first_recipe", dtype=str)
    head = "epochs, of which half-size", "learning rate", "regularisation", "last loss", "validation", "mAP"
    cells = table[["learning_rate", "regularisation", "loss", "validation", "expected"]]
    epochs = [f"{row.epochs}, {row.small_epochs}" for row in table.itertuples()]
    epochs[-1] = f"**{epochs[-1]}**"  # the last one was chosen
    return markdown(head, ((first, *rest) for first, rest in zip(epochs, cells.to_numpy(), strict=True)))


def families(_: str) -> str:
    """Fourteen methods from scratch, by family."""
    table = kept("families").query("bits == 32")
    rows = []
    for family, title in FAMILIES.items():
        rows.append((f"*{title}*", "", "", "", ""))
        for method in (m for m in hh.losses.names(nested=False) if hh.losses.method(m).family == family):
            for name, own in VARIANTS.get(method, ((method, False),)):
                of_method = table[(table["method"] == method) & (table["loss"].notna() == own)]
                rows.append((name, *family_cells(of_method.groupby("dataset")["expected"])))
    return markdown(("method", "digits", "smallest to largest", "shapes", "cifar10, 32 epochs"), rows)


def family_cells(scores) -> list[str]:
    """Mean and range on digits, one seed on the others."""
    found = scores.agg(["mean", "min", "max"])
    digits = found.loc["digits"]
    others = [f"{found.loc[name, 'mean']:.3f}" if name in found.index else "" for name in ("shapes", "cifar10")]
    return [f"{digits['mean']:.3f}", f"{digits['min']:.3f} to {digits['max']:.3f}", *others]


def nested(_: str) -> str:
    """One network for several lengths."""
    table = kept("nested", dtype=str).drop(columns="dataset")
    names = [f"{row.how}, seed {row.seed}" for row in table.itertuples()]
    cells = table.drop(columns=["how", "seed"]).to_numpy()
    head = "", "16 bits", "32", "48", "64", "seconds"
    return markdown(head, ((name, *rest) for name, rest in zip(names, cells, strict=True)))


def fair(_: str) -> str:
    """Fourteen methods on a frozen backbone, in groups, the best on CIFAR-10 at 64 bits first."""
    scores = kept("fair").groupby(["method", "dataset", "bits"])["expected"].agg(["mean", "std"])
    ranking, lengths = kept("fair_neighbours").query("dataset == 'cifar10' and bits == 64"), (16, 32, 64)
    head = ["method", *(f"{s}, {b} bits" if b == 16 else f"{b}" for s in DATASETS.values() for b in lengths)]
    rows = []
    for group, title in GROUPS.items():
        rows.append((f"*{title}*", *[""] * 6))
        for method in ranking[ranking["group"] == group].sort_values("place")["method"]:
            cells = (scores.loc[method, dataset, bits] for dataset in DATASETS for bits in lengths)
            rows.append((method, *(f"{cell['mean']:.3f} ± {cell['std']:.3f}" for cell in cells)))
    return markdown(head, rows)


def whole_networks(_: str) -> str:
    """Pretrained networks trained as a whole."""
    table = kept("whole_networks", dtype=str, keep_default_na=False)
    after = [f", after epoch {epoch}" if epoch else "" for epoch in table["best_epoch"]]
    table["validation"] = table["validation"] + after
    table.loc[table.index[-1], "pixels"] = f"**{table['pixels'].iloc[-1]}**"  # the run that is kept
    head = "pixels", "epochs", "learning rate", "validation", "mAP", "minutes"
    return markdown(head, table.drop(columns="best_epoch").to_numpy())


def memory(_: str) -> str:
    """Memory of a training step, in MiB."""
    table = kept("memory")
    return markdown(table.columns, ([f"{value:,}" for value in row] for row in table.to_numpy()))


def kills(_: str) -> str:
    """Work that was killed again and again."""
    rows = kept("kills", dtype=str, keep_default_na=False)[["what", "kills", "ends", "differences"]]
    return markdown(rows.columns, rows.to_numpy())


# ---- benchmarks/README.md


def determinism(_: str) -> str:
    """What changes a result: a line for each claim, with the files that prove it."""
    rows = kept("determinism", keep_default_na=False).itertuples()
    head = "of", "what changes", "result", "", "proof"
    return markdown(head, ((r.of, r.what, r.result, r.note, proving_files(r.proof)) for r in rows))


def proving_files(proof: str) -> str:
    """The files of a proof, each once."""
    files = dict.fromkeys(one.partition("::")[0] for one in proof.split("; "))
    return proof if proof == "not run" else ", ".join(f"`{Path(file).name}`" for file in files)


def benchmarks(_: str) -> str:
    """Reading pictures and scoring, the kit's way against the plain way."""
    rows = timed().query("script != 'training.py'")
    cells = ((f"`{row.script}`", row.case, *benchmark_cells(row)) for row in rows.itertuples())
    return markdown(("benchmark", "case", "what", "kit", "plain", "ratio"), cells)


def training(_: str) -> str:
    """Training and encoding, the kit's way against the plain way."""
    rows = timed().query("script == 'training.py'")
    head = "network, image, batch, rounds", "what", "kit", "plain", "ratio"
    return markdown(head, ((row.case, *benchmark_cells(row)) for row in rows.itertuples()))


def timed() -> pd.DataFrame:
    """The benchmarks, each number with as many digits as were measured."""
    return kept("benchmarks", dtype=str, keep_default_na=False)


def benchmark_cells(row) -> tuple[str, ...]:
    """What was timed, both speeds, and their ratio: its median if that is known, and its range."""
    kit, plain = (f"{float(x):,.0f}" if float(x) >= 1000 else x for x in (row.kit, row.plain))
    spread = f"{row.smallest} to {row.largest}"
    ratio = f"{row.ratio} ({spread})" if row.ratio else spread
    return row.what, f"{kit} {row.unit}", f"{plain} {row.unit}", ratio


def method_steps(_: str) -> str:
    """What a method adds to a training step."""
    rows = kept("method_steps", dtype=str).itertuples()
    return markdown(
        ("method", "step / network alone"), ((r.method, f"{r.median} ({r.lower} to {r.upper})") for r in rows)
    )


def scale(_: str) -> str:
    """Search among many codes: what each index takes, with the usual effort."""
    rows = kept("scale").query("effort.isna() or effort == 16").to_dict("records")
    head = "codes", "index", "built in", "memory / codes", "queries per second, one at a time", "100 together"
    return markdown((*head, "recall@10"), map(scale_cells, rows))


def scale_cells(row: dict) -> tuple[str, ...]:
    """A line of that table; an index that was not built says so."""
    name = f"{row['codes'] / 1e6:g} million", row["index"]
    if isinstance(row["note"], str):
        return (*name, row["note"], *[""] * 4)
    built = "" if row["index"] == "file" else f"{three(row['build_seconds'])} s"
    speed = three(row["alone_per_second"]), three(row["batch_per_second"])
    return *name, built, f"{row['times_codes']:.2f}", *speed, f"{row['recall']:.3f}"


def scale_codes(_: str) -> str:
    """How like real codes the made ones are."""
    rows = kept("scale_codes").to_dict("records")
    head = "codes", "", "distinct", "distance of the nearest", "of the tenth", "tied with the tenth", "differs"
    lines = []
    for row in rows:
        shares = ("" if math.isnan(row[name]) else f"{100 * row[name]:.1f} %" for name in ("tied", "differs"))
        what = f"{row['codes']:,}", "made" if row["made"] else "real", f"{row['distinct']:,}"
        lines.append((*what, f"{row['nearest']:.2f}", f"{row['tenth']:.2f}", *shares))
    return markdown(head, lines)


def rerank(_: str) -> str:
    """Floats, codes, and codes whose first results are sorted again by floats."""
    head = "searched", "sorted again", "bytes per image", "µs per query, all together", "one at a time", "mAP@10"
    cells = map(rerank_cells, kept("rerank").to_dict("records"))
    return markdown((*head, "precision@10"), dict.fromkeys(cells))  # codes have two rows, beside z and beside vectors


def rerank_cells(row: dict) -> tuple[str, ...]:
    """A line of that table."""
    by_code, again = row["way"].startswith("codes"), row["first"] > 0
    way = "codes" if by_code else f"{row['floats']}, {row['way'].removeprefix('exact, ')}"
    size = f"{row['memory_bytes']:,}" + (f" + {row['more_bytes']:,.0f}" if again else "")
    first = f"first {row['first']:,.0f} by {row['floats']}" if again else ""
    times = three(row["batch_us"]), three(row["alone_us"])
    return way, first, size, *times, f"{row['map@10']:.3f}", f"{row['precision@10']:.3f}"


def hostile(_: str) -> str:
    """Hostile inputs by kind, from results/hostile.csv."""
    head = ("what it claims to be", "inputs", "refused in a sentence", "used as far as it can be")
    rows = []
    for kind, found in kept("hostile").groupby("kind"):
        count = found["outcome"].value_counts()
        rows.append((kind, str(len(found)), str(count.get("refused", 0)), str(count.get("used", 0))))
    return markdown(head, rows)


def three(value: float) -> str:
    """A number to three digits."""
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{float(f'{value:.3g}'):,.{digits}f}"


README = {
    "pages": partial(pages, head=("page", "what you learn", "minutes to read", "seconds to compute")),
    "runs": partial(
        runs,
        head=("run", "bits", "query / train / database", "mAP@all, expected", "worst to best tie order", "chance"),
        to="to",
    ),
}
README_ZH = {
    "pages": partial(pages, head=("页", "你将学到", "阅读分钟数", "计算秒数")),
    "runs": partial(
        runs,
        head=("运行", "位数", "查询 / 训练 / 数据库", "mAP@all（期望值）", "最坏至最好的并列顺序", "随机水平"),
        to="至",
    ),
}
PAGES: dict[str, dict[str, Callable]] = {
    "README.md": README,
    "README.zh.md": README_ZH,
    "results/README.md": {f.__name__: f for f in (explanations, first_recipe, families, nested, fair, whole_networks)}
    | {"memory": memory, "exports": exports, "kills": kills},
    "SECURITY.md": {"hostile": hostile},
    "benchmarks/README.md": {f.__name__: f for f in (benchmarks, training, method_steps, determinism)}
    | {f.__name__: f for f in (scale, scale_codes, rerank)},
}
