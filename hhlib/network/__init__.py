"""The HybridHash network: its `parts`, the whole (`model`), its sizes by name (`presets`), loaded `weights`."""

from hhlib.network.model import HybridHash
from hhlib.network.parts import HEADS, VARIANTS, BlockAttention, BlockTokenAttention, HashLayer, Interaction, evaluating
from hhlib.network.presets import PRESETS, check_pretrained, create, load_pretrained, names
from hhlib.network.weights import MatchReport, load_nest, load_released, load_weights
