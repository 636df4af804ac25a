"""Train as notebook 3 does, without the notebook: on several GPUs or machines, or wherever no notebook should be.

    torchrun --nproc-per-node 8 tools/train.py -p dataset imagenet -p lists FOLDER -p network base

Parameters and their defaults are those of notebook 3. The notebooks then read the run: give them the same parameters.
"""

import argparse
import sys

from run_notebooks import NOTEBOOKS, check_names, defaults, parameter_parser, values_of

import hhlib as hh

NOTEBOOK = next(path for path in NOTEBOOKS if path.stem.startswith("03"))


def main() -> int:
    """Train what the command line asks for; 2 if it asks for what does not exist."""
    given = values_of(parameter_parser(__doc__).parse_args())
    known = defaults(NOTEBOOK)
    try:
        check_names(given, {NOTEBOOK: known})
        train(argparse.Namespace(**known | given))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def train(p: argparse.Namespace) -> None:
    """What notebook 3 does between its pictures, with its parameters."""
    name = dict(dataset=p.dataset, method=p.method, network=p.network, bits=p.bits, seed=p.seed)
    run = hh.runs.Run(hh.runs.folder(**name, root=p.runs_dir))
    changes = dict(epochs=p.epochs, batch_size=p.batch_size, learning_rate=p.learning_rate, choose=p.choose)
    named = dict(name=p.recipe_name, method=p.method, loss=p.loss, more=p.more)
    where = dict(root=p.data_dir, size=p.image_size or None, lists=p.lists or None, cache=p.cache)
    hh.training.fit_in_processes(
        p.processes,
        hh.data.load(p.dataset, seed=p.seed, **where),
        run,
        **dict(method=p.method, network_name=p.network, bits=p.bits, seed=p.seed),
        recipe=hh.training.recipe_for(p.dataset, **named, **changes),
        device=p.device,
        precision=p.precision,
        reports=[hh.training.print_line] + ([hh.training.TensorBoard(run)] if p.tensorboard else []),
        resume=p.resume,
    )


if __name__ == "__main__":
    sys.exit(main())
