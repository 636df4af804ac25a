"""Train as page 3 does, without the page: on several GPUs or machines, or wherever no notebook should run.

    python tools/train.py -p dataset cifar10 -p bits 16 -p loss.alpha 0.2
    torchrun --nproc-per-node 8 tools/train.py -p dataset imagenet -p lists FOLDER -p network base

NAME is any setting; `hh.settings.helps()` lists them. The notebooks then read the run: give them the same settings.
"""

import sys

from run_notebooks import parameter_parser

import hhlib as hh
from hhlib.common import command


@command
def main() -> int:
    """Train what the command line asks for; 2, with one sentence, for what cannot be done."""
    given = parameter_parser(__doc__).parse_args().parameter
    hh.open(hh.settings.words(given)).fit()
    return 0


if __name__ == "__main__":
    sys.exit(main())
