"""A batch that is too large for the memory goes through the network in micro-batches: the same loss, in less memory."""

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class MicroBatches(nn.Module):
    """A network through which the images pass one micro-batch after another, and once more in the backward pass.

    A hashing loss compares all images of a batch, so it is not a sum over small batches, which the usual way to save
    memory (adding up gradients) takes for granted. Here all outputs exist before the loss is computed. Of each
    micro-batch only the images and the last feature map are kept; everything in between is computed again when its
    gradient is due. The hash layer sees the whole batch, so batch normalisation in it means the same.

    Idea: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021, there
    in two separate passes.

    Args:
        net: the network, which keeps its parameters.
        number: of micro-batches.
        accelerator: knows the precision.
    """

    def __init__(self, net: nn.Module, number: int, accelerator: Accelerator):
        super().__init__()
        self.net, self.number, self.autocast = net, number, accelerator.autocast

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> z (B, K)."""
        with self.autocast():
            features = [
                checkpoint(self.net.forward_features, some, use_reentrant=False) for some in images.chunk(self.number)
            ]  # (B / number, C, b, b) each
            return self.net.forward_head(torch.cat(features)).float()
