"""Write a run, its network or a data set's split for others, in a format that their programs know.

    python tools/export.py run -p dataset digits -p bits 32 TARGET    # a run, as an RO-Crate
    python tools/export.py run results/digits-32bits TARGET           # a run, by its folder
    python tools/export.py network -p dataset digits -p bits 32 TARGET    # its network, for PyTorch and ONNX Runtime
    python tools/export.py dataset -p dataset cifar10 TARGET          # who is in which part, as Croissant

TARGET is a new folder or, if it ends in .zip, a new archive. Settings say which run and which data set, as everywhere.
A network is compared on pictures: beside a run's folder, settings such as data_dir say where those are.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from run_notebooks import parameter_parser

import hhlib as hh
from hhlib.common import command, resolve


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes the target, or is packed into it, only if everything went well.

    Raises:
        ValueError: if the target is there already.
    """
    if target.exists():
        raise ValueError(f"{target} exists already, but it must be a new folder or a new file that ends in .zip.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as draft:
        folder = Path(draft) / target.stem
        yield folder
        made = shutil.make_archive(str(folder), "zip", folder) if target.suffix == ".zip" else folder
        Path(made).replace(target)


def export_run(given: argparse.Namespace, target: Path) -> list[str]:
    """A run's crate -> nothing to remark."""
    from crate import write

    if given.folder and given.parameter:
        raise ValueError(f"{given.folder} and -p both say which run, but only one of them may.")
    if given.folder:
        run = hh.runs.Run(given.folder)
        run.need("run.json", "training")
    else:
        experiment = hh.open(hh.settings.words(given.parameter))
        experiment.need("run.json")
        run = experiment.run
    with whole(target) as folder:
        write(run, folder)
    return []


def export_network(given: argparse.Namespace, target: Path) -> list[str]:
    """A run's network in several formats -> nothing to remark."""
    from portable import write

    experiment = trained(given)
    with whole(target) as folder:
        write(experiment, folder)
    return []


def trained(given: argparse.Namespace) -> hh.Experiment:
    """The run that settings name, or that of a folder, whose settings then say where its pictures are."""
    text = hh.settings.words(given.parameter)
    if not given.folder:
        return hh.open(text)
    run = hh.runs.Run(given.folder)
    run.need("run.json", "training")
    names = [name for name, _ in given.parameter]
    known = {name: run.parameters[name] for name in hh.runs.NAMED}
    usual = known | {"image_size": run.record["model"].get("img_size")}
    settings = hh.settings.read(text, **{name: value for name, value in usual.items() if name not in names})
    if settings.named() != known:
        raise ValueError(f"{given.folder} is the run {known}, but -p says {settings.named()}.")
    return hh.Experiment(settings, run)


def export_dataset(given: argparse.Namespace, target: Path) -> list[str]:
    """A split's description -> what is missing that Croissant recommends."""
    from croissant import write

    if given.folder:
        raise ValueError(f"{given.folder} is one path too many: a data set is named by -p dataset {given.folder}.")
    settings = hh.settings.read(hh.settings.words(given.parameter))
    own = resolve(settings.dataset)
    given = bool(settings.lists)
    if settings.dataset not in hh.data.names() and own.is_dir():
        given = given or hh.data.holds_lists(own) or hh.data.scan(own).parts is not None
    with whole(target) as folder:
        return write(hh.Experiment(settings).split, folder, drawn=not given)


EXPORTS = {"run": export_run, "network": export_network, "dataset": export_dataset}


@command
def main() -> int:
    """Export what the command line asks for; 2 if it asks for what does not exist."""
    parser = parameter_parser(__doc__)
    parser.add_argument("kind", choices=EXPORTS)
    parser.add_argument("folder", nargs="?", help="of the run, instead of settings")
    parser.add_argument("target")
    given = parser.parse_intermixed_args()
    target = resolve(given.target)
    try:
        remarks = EXPORTS[given.kind](given, target)
    except ModuleNotFoundError as error:
        how = "python -m pip install --constraint constraints.txt '.[export]'"
        print(f"{error.name.split('.')[0]} is not installed; this installs it: {how}", file=sys.stderr)
        return 2
    print(target, *remarks, sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
