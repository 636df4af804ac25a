"""What the network looks at: attention inside blocks and among block tokens, taken from the model, laid on the grid.

NesT attends only *inside* a block, and the blocks of the three levels are 1/16, 1/4 and all of the image. A map of the
whole image is therefore a patchwork: each block's weights sum to 1 on their own, and blocks must not be compared.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from timm.models.nest import blockify, deblockify
from torch import Tensor, nn

from hhlib.network import BlockAttention


@contextmanager
def capture(net: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect the attention weights of every forward pass inside the block, by module name.

    ``with capture(net) as maps: net(images)`` fills `maps` with (B, H, T, N, N) tensors whose rows sum to 1. The pass
    itself stays as it is, fused kernels included: the weights, which those never form, are computed beside it from
    each layer's input. No hook stays on leaving, also after an error.

    Raises:
        RuntimeError: if the block ends without a single map: a silent empty result has fooled people before.
    """
    maps: dict[str, Tensor] = {}

    @torch.no_grad()
    def keep(module: BlockAttention, inputs: tuple[Tensor], *, name: str) -> None:
        maps[name] = module.weights(inputs[0])

    with ExitStack() as undo:
        for name, module in net.named_modules():
            if isinstance(module, BlockAttention):
                undo.callback(module.register_forward_pre_hook(partial(keep, name=name)).remove)
        yield maps
        if not maps:
            raise RuntimeError("no attention was captured: run the network inside the block, on a HybridHash.")


def block_attention(net: nn.Module, images: Tensor) -> dict[tuple[int, int], Tensor]:
    """Attention of every transformer layer: ``{(level, layer): (B, H, T, N, N)}``, levels and layers from 0.

    Args:
        images: (B, 3, S, S), normalised.
    """
    return {
        (int(name.split(".")[1]), int(name.split(".")[3])): weights
        for name, weights in _attention(net, images).items()
        if ".transformer_encoder." in name
    }


def token_attention(net: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Attention among block tokens: before level 1, before level 2, in the hash layer.

    Returns:
        ``{"level 1": (B, H, 16, 16), "level 2": (B, H, 4, 4), "hash layer": (B, H, 1, 1)}`` at one token a block.
    """
    names = {"levels.1.": "level 1", "levels.2.": "level 2", "hash_layer.": "hash layer"}
    found = _attention(net, images)
    return {
        label: weights[:, :, 0]
        for start, label in names.items()
        for name, weights in found.items()
        if name.startswith(start) and ".tokens." in name
    }


@torch.no_grad()
def _attention(net: nn.Module, images: Tensor) -> dict[str, Tensor]:
    was_training = net.training
    net.eval()
    try:
        with capture(net) as maps:
            net(images)
    finally:
        net.train(was_training)
    return maps


def received(weights: Tensor) -> Tensor:
    """How much attention each token of a block gets from the block's tokens, on average: (..., N, N) -> (..., N)."""
    return weights.mean(dim=-2)


def to_grid(values: Tensor) -> Tensor:
    """Blocks put back where they lie in the image: (..., T, N) -> (..., g, g), g = sqrt(T * N)."""
    *lead, T, N = values.shape
    grid = deblockify(values.reshape(-1, T, N, 1), round(N**0.5))  # (-1, g, g, 1)
    return grid.reshape(*lead, *grid.shape[1:3])


def of_token(weights: Tensor, row: int, column: int) -> Tensor:
    """What one token looks at: (..., T, N, N) -> (..., g, g), zero outside the token's block.

    Args:
        row, column: the token's place in the level's grid, from 0.
    """
    *_, T, N, _ = weights.shape
    edge, blocks = round(N**0.5), round(T**0.5)
    block = row // edge * blocks + column // edge
    inside = row % edge * edge + column % edge
    only = torch.zeros_like(weights[..., 0, :])  # (..., T, N)
    only[..., block, :] = weights[..., block, inside, :]
    return to_grid(only)


def entropy(weights: Tensor) -> Tensor:
    """Mean entropy of the attention rows, in bits, 0 (one token) to log2 N (even): (..., N, N) -> (...)."""
    return -(weights * weights.clamp(min=1e-12).log2()).sum(dim=-1).mean(dim=-1)


def distance(weights: Tensor) -> Tensor:
    """How far a token looks, on average, in tokens of its level: (..., N, N) -> (...), 0 to the block's diagonal."""
    N = weights.shape[-1]
    edge = round(N**0.5)
    place = torch.stack([torch.arange(N) // edge, torch.arange(N) % edge], dim=1).to(weights)  # (N, 2)
    return (weights * torch.cdist(place, place)).sum(dim=-1).mean(dim=-1)


def rollout(blocks: dict[tuple[int, int], Tensor]) -> Tensor:
    """Attention followed from the hash layer's mean down to the patches, through all layers.

    Within a level: Abnar & Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020: half of each token stays
    where it is (the residual branch), half goes along the attention, averaged over heads; layers multiply. Between
    levels, each token stands for the four below it, in equal shares, so that even attention gives an even map. Left
    out: convolutions, block tokens, MLPs, and the overlap of the max pooling's windows.

    Args:
        blocks: of `block_attention`.

    Returns:
        (B, g, g), the share of each token of level 0; sums to 1.
    """
    top = max(level for level, _ in blocks)
    share = None
    for level in range(top, -1, -1):
        layers = [blocks[key].mean(dim=1) for key in sorted(blocks) if key[0] == level]  # (B, T, N, N) each
        B, T, N, _ = layers[0].shape
        edge = round(N**0.5)
        share = layers[0].new_full((B, T, N), 1 / (T * N)) if share is None else _finer(share, edge)
        for attention in reversed(layers):
            share = (share + (share[..., None, :] @ attention)[..., 0, :]) / 2  # (B, T, N)
        share = to_grid(share)  # (B, g, g)
    return share


def _finer(share: Tensor, edge: int) -> Tensor:
    """(B, g, g) shares of a level -> (B, T, N) shares of the finer level below, 2g tokens along an edge."""
    grid = share.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2) / 4  # (B, 2g, 2g)
    return blockify(grid[..., None], edge)[..., 0]
