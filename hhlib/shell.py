"""From the shell: index a folder of pictures, search it, train on it.

    hhlib index animals          # codes of all pictures; needs no labels and no training
    hhlib search new.jpg         # the ten nearest of the last index
    hhlib train animals          # a folder per class: learn codes that tell the classes apart, in seconds
    hhlib evaluate animals       # how good they are on pictures that training has not seen

Each command tells its options with --help. Indexes and runs are kept below runs/.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import hhlib as hh

#: What `train` starts from: of the methods with a head on a frozen network, hashnet had the best mean at 64 bits on
#: both data sets of results/fair.csv.
USUAL = {"network": "lite0", "method": "hashnet", "bits": 64, "live": False}


def main(words: Sequence[str] | None = None) -> int:
    """Do what a command line asks for -> its exit code, see `hhlib.common.command`."""
    given = _parser().parse_args(words)
    return hh.common.command(_do, f"hhlib {given.command}: ")(given)


def _do(given: argparse.Namespace) -> int:
    # progress and warnings go to standard error, the answer alone to standard output
    with redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(message, file=sys.stderr)
        answer, text = given.does(given)
    print(json.dumps(answer, indent=1, default=str) if given.json else text)
    return 0


def train(given: argparse.Namespace) -> tuple[dict, str]:
    """Train on a folder of pictures, or resume."""
    experiment = _experiment(given)
    experiment.split.need_labels()
    run = experiment.fit()
    best = run.history()["validation_map"].max()
    answer = {"run": str(run.path), "validation_map": best, "epochs": len(run.history())}
    lines = [f"{run.path}", f"mAP of held-out pictures {best:.3f}"]
    if _path(given.folder).is_dir():
        lines += [f"next: hhlib evaluate {given.folder}, or hhlib index {given.folder} --run {run.path}"]
    return answer, "\n".join(lines)


def index(given: argparse.Namespace) -> tuple[dict, str]:
    """Code the pictures of a folder, or bring their index up to date."""
    folder, how = _path(given.folder), {name: getattr(given, name) for name in ("vectors", "size", "workers")}
    run = given.run and _path(given.run)
    if run is None and given.network is None and given.bits is None:
        run = _trained(folder)
    how |= {"network": given.network, "bits": given.bits, "seed": given.seed}  # the first two are refused beside a run
    made = hh.index.build(folder, run=run, where=given.to and _path(given.to), **how)
    if run is not None:
        print(f"codes by the trained network in {run}; --network lite0 takes an untrained one")
    answer = {"index": str(made.where), "pictures": len(made), "bits": made.bits, **vars(made.report)}
    return answer, f"{made}\n{made.report}"


def search(given: argparse.Namespace) -> tuple[list, str]:
    """Find the pictures that are nearest to others."""
    files = [_path(file) for file in given.picture]
    if folders := [file for file in files if file.is_dir()]:
        raise ValueError(f"{folders[0]} is a folder, but a query is a picture.")
    opened = hh.index.open(_place(given.index))
    found = opened.search(files, given.k, rerank=given.rerank)
    answer = [
        {"query": str(file), "hits": [hit._asdict() for hit in hits]} for file, hits in zip(files, found, strict=True)
    ]
    lines = [str(opened)]
    for file, hits in zip(files, found, strict=True):
        lines += ["", f"{file}", "  bits  similarity  picture"]
        lines += [f"{hit.distance:6d}  {hit.similarity:10.3f}  {hit.path}" for hit in hits]
    return answer, "\n".join(lines)


def evaluate(given: argparse.Namespace) -> tuple[dict, str]:
    """Score a trained network on the pictures of the folder that it has not seen."""
    experiment = _experiment(given)
    if not experiment.has("model.safetensors"):
        how = f"hhlib train {given.folder}, with the same -p, does it"
        raise FileNotFoundError(f"{experiment.run.path} is not trained; {how}.")
    scores = experiment.evaluate()
    score, (low, high) = scores["map"], scores["interval"]
    answer = {"run": str(experiment.run.path), **experiment.run.metrics()}
    lines = [f"mAP {score['expected']:.3f} (95 % interval {low:.3f} to {high:.3f}), by chance {scores['chance']:.3f}"]
    lines += [f"tie orders: {score['worst']:.3f} to {score['best']:.3f}", scores["split"], *scores["remarks"]]
    return answer, "\n".join(lines)


def _experiment(given: argparse.Namespace) -> hh.Experiment:
    others = {name: value for name, value in USUAL.items() if name not in dict(given.parameter)}
    return hh.open(hh.settings.words(given.parameter), dataset=str(_path(given.folder)), **others)


def _path(text: str) -> Path:
    """A path as the shell means it: relative to where the command was called."""
    return Path(text).expanduser().absolute()


def _trained(folder: Path) -> Path | None:
    """The run that `hhlib train` made of a folder, if there is one."""
    if not folder.is_dir():
        return None
    run = hh.open(dataset=str(folder), **USUAL).run
    return run.path if (run.path / "model.safetensors").is_file() else None


def _place(text: str | None) -> Path:
    """The index that is meant: the last one, that of a folder of pictures, or the one in this place."""
    if text and (_path(text) / "index.json").is_file():
        return _path(text)
    places = hh.index.find(of=text and _path(text))
    if not places:
        of = f" of {_path(text)}" if text else ""
        raise FileNotFoundError(
            f"there is no index{of} below {hh.common.resolve('runs')}; `hhlib index FOLDER` makes one."
        )
    return places[-1]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "hhlib", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"hhlib {hh.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for does in (train, index, search, evaluate):
        command = commands.add_parser(does.__name__, help=does.__doc__, description=does.__doc__, allow_abbrev=False)
        command.set_defaults(does=does)
        command.add_argument("--json", action="store_true", help="print the answer as JSON, and nothing else")
        _arguments(command, does)
    return parser


def _arguments(command: argparse.ArgumentParser, does: Callable) -> None:
    add = command.add_argument
    if does is search:
        add("picture", nargs="+", metavar="PICTURE", help="a picture to search with")
        add("--index", metavar="PLACE", help="an index, or a folder of pictures that has one; default: the newest")
        add("-k", type=int, default=10, help="how many pictures to find (default: 10)")
        add("--rerank", type=int, default=0, metavar="N", help="order the N nearest by similarity, not by bits")
        return
    add("folder", metavar="FOLDER", help="a folder of pictures" + ("" if does is index else ", a folder per class"))
    if does is index:
        add("--network", help="a pretrained network, such as lite0; if left out, the one trained on FOLDER, or lite0")
        add("--bits", type=int, help="length of a code (default: 64)")
        add("--run", metavar="RUN", help="a run, whose trained network makes the codes")
        add("--to", metavar="PLACE", help="where the index is kept (default: below runs/)")
        add("--vectors", default="auto", choices=hh.index.VECTORS, help="what breaks ties between equal distances")
        add("--size", type=int, help="side to which pictures are scaled, in pixels (default: the network's own)")
        add("--workers", type=int, help="threads that open pictures (default: one per core)")
        add("--seed", type=int, default=0, help="of codes without training (default: 0)")
        return
    how = "any setting, such as -p bits 32 -p method csq; `hh.settings.helps()` lists them"
    add("-p", dest="parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help=how)


if __name__ == "__main__":
    sys.exit(main())
