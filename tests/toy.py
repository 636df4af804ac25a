"""The toy of the hand-computed loss values: three images, four bits; images 0 and 1 share a label."""

import torch

from hhlib import losses

U = torch.tensor([[0.5, -0.5, 1.0, 0.2], [0.4, -0.6, 0.8, 0.1], [-0.7, 0.3, -0.2, 0.9]], dtype=torch.float64)
Y = torch.tensor([[1, 0], [1, 0], [0, 1]])
SEVERAL = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 1]])  # the same similarities, with several labels
INDEX = torch.arange(3)


def method(name, *, bits=4, num_classes=2, train_size=3, **arguments):
    """A loss in float64, as the values were computed."""
    return losses.create(name, bits=bits, num_classes=num_classes, train_size=train_size, **arguments).double()
