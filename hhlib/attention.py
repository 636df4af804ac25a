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

from hhlib.network import BlockAttention, HybridHash, evaluating


@contextmanager
def capture(net: nn.Module, *, gradients: bool = False) -> Iterator[dict[str, Tensor]]:
    """Collect the attention weights of every forward pass inside the block, by module name.

    ``with capture(net) as maps: net(images)`` fills `maps` with (B, H, T, N, N) tensors whose rows sum to 1. The pass
    itself is unchanged: the weights, which fused kernels never form, are computed separately from each layer's input.
    With `gradients` the softmax is written out instead, and `maps` are the very tensors that the outputs come from.
    All is undone on leaving, even after an error. RuntimeError if nothing was captured.
    """
    maps: dict[str, Tensor] = {}

    @torch.no_grad()
    def keep(module: BlockAttention, inputs: tuple[Tensor], used: Tensor | None = None, *, name: str) -> None:
        maps[name] = module.weights(inputs[0]) if used is None else used

    with ExitStack() as undo:
        for name, module in net.named_modules():
            if isinstance(module, BlockAttention):
                undo.callback(setattr, module, "fused", module.fused)
                module.fused = module.fused and not gradients
                hook = module.attn_drop.register_forward_hook if gradients else module.register_forward_pre_hook
                undo.callback(hook(partial(keep, name=name)).remove)
        yield maps
        if not maps:
            raise RuntimeError("no attention was captured: run a HybridHash network inside the block.")


def block_attention(net: HybridHash, images: Tensor) -> dict[tuple[int, int], Tensor]:
    """Attention of all layers for normalised images: ``{(level, layer): (B, H, T, N, N)}``, both from 0."""
    return by_layer(net, _attention(net, images))


def by_layer(net: HybridHash, maps: dict[str, Tensor]) -> dict[tuple[int, int], Tensor]:
    """What `capture` collected, for the layers within blocks: ``{(level, layer): (B, H, T, N, N)}``."""
    # pyrefly: ignore[bad-argument-type], a level of NesT
    places = [(i, j) for i, level in enumerate(net.levels) for j in range(len(level.transformer_encoder))]
    return {(i, j): maps[f"levels.{i}.transformer_encoder.{j}.attn"] for i, j in places}


def token_attention(net: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Attention among the block tokens of normalised images, by "level 1", "level 2" and "hash layer": (B, H, n, n)."""
    places = {"level 1": "levels.1.pool", "level 2": "levels.2.pool", "hash layer": "hash_layer"}
    found = _attention(net, images)  # n is 16, 4 and 1, or 4 times that with tokens_per_block=4
    return {k: found[name][:, :, 0] for k, place in places.items() if (name := f"{place}.tokens.attn") in found}


@torch.no_grad()
def _attention(net: nn.Module, images: Tensor) -> dict[str, Tensor]:
    with evaluating(net), capture(net) as maps:
        net(images)
    return maps


def of_head(weights: Tensor, head: int | str) -> Tensor:
    """One head, from 0, or the "mean" of all: (..., H, T, N, N) -> (..., T, N, N); IndexError for any other head."""
    if head == "mean":
        return weights.mean(dim=-4)
    if not 0 <= int(head) < weights.shape[-4]:
        raise IndexError(f'head is {head}, but it must be "mean" or a number from 0 to {weights.shape[-4] - 1}.')
    return weights[..., int(head), :, :, :]


def received(weights: Tensor) -> Tensor:
    """How much attention each token of a block gets from the block's tokens, on average: (..., N, N) -> (..., N)."""
    return weights.mean(dim=-2)


def to_grid(values: Tensor) -> Tensor:
    """Blocks put back in their places in the image: (..., T, N) -> (..., g, g), g = sqrt(T * N)."""
    *lead, T, N = values.shape
    grid = deblockify(values.reshape(-1, T, N, 1), round(N**0.5))  # (-1, g, g, 1)
    return grid.reshape(*lead, *grid.shape[1:3])


def of_token(weights: Tensor, row: int, column: int) -> Tensor:
    """What the token at a place of the level's grid looks at: (..., T, N, N) -> (..., g, g), zero outside its block."""
    *_, T, N, _ = weights.shape
    block, inside = divmod(int(to_grid(torch.arange(T * N).view(T, N))[row, column]), N)
    only = torch.zeros_like(weights[..., 0, :])  # (..., T, N)
    only[..., block, :] = weights[..., block, inside, :]
    return to_grid(only)


def entropy(weights: Tensor) -> Tensor:
    """Mean entropy of the attention rows, in bits, 0 (one token) to log2 N (even): (..., N, N) -> (...)."""
    return -(weights * weights.clamp(min=1e-12).log2()).sum(dim=-1).mean(dim=-1)


def rollout(blocks: dict[tuple[int, int], Tensor]) -> Tensor:
    """Attention followed from the hash layer's mean down to the patches, through all layers.

    Within a level: Abnar & Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020: half of each token stays
    in place (the residual branch), half follows the attention, averaged over heads; layers multiply. Between levels,
    each token passes equal shares to the four below it, so that even attention gives an even map. Convolutions, block
    tokens, MLPs and the overlap of the max pooling's windows are left out. `blocks` is from `block_attention`; the
    result is the share of each token of level 0, (B, g, g), and sums to 1 if the rows of `blocks` do.
    """
    share = blocks[2, 0].new_ones(len(blocks[2, 0]), 1, 1)
    for level in (2, 1, 0):
        layers = [blocks[key].mean(dim=1) for key in sorted(blocks) if key[0] == level]  # (B, T, N, N) each
        *_, T, N, _ = layers[0].shape
        finer = round((T * N) ** 0.5) // share.shape[1]
        share = torch.kron(share, share.new_ones(finer, finer)) / finer**2  # (B, g, g)
        share = blockify(share[..., None], round(N**0.5))[..., 0]  # (B, T, N)
        for attention in reversed(layers):
            share = (share + (share[..., None, :] @ attention)[..., 0, :]) / 2  # (B, T, N)
        share = to_grid(share)  # (B, g, g)
    return share
