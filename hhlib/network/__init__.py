"""The HybridHash network: its `parts`, the whole (`model`), loaded `weights`; pretrained networks (`backbones`) and
what makes codes of them (`heads`); all of them by name (`presets`)."""

from hhlib.network.backbones import Facts, bare, digest, input_size, pretrained
from hhlib.network.heads import Head, TimmHash
from hhlib.network.model import HybridHash
from hhlib.network.parts import (
    HEADS,
    STEMS,
    VARIANTS,
    BlockAttention,
    BlockTokenAttention,
    HashLayer,
    Interaction,
    evaluating,
)
from hhlib.network.presets import (
    PRESETS,
    TUNED,
    Network,
    check_hybridhash,
    check_options,
    check_pretrained,
    create,
    facts_of,
    kind,
    load_pretrained,
    names,
    options,
)
from hhlib.network.weights import MatchReport, Published, fill, load_nest, load_released, load_weights
