"""The models that ship with the runner: callables that return a module and example inputs.

Apart from the rest of the worker because a model is the user's to add: any importable callable with
this signature can be named by ``_target_`` in a ``conf/model`` file. Weights are random (seeded by
the worker before the call), so that nothing is downloaded.
"""

from __future__ import annotations

import torch
from torch import nn

Inputs = tuple[torch.Tensor, ...]


def resnet50(batch_size: int, image_size: int = 224) -> tuple[nn.Module, Inputs]:
    """torchvision's ResNet-50 on a float32 batch of (batch_size, 3, image_size, image_size)."""
    import torchvision

    return torchvision.models.resnet50(weights=None), (torch.rand(batch_size, 3, image_size, image_size),)


class ConvRelu(nn.Module):
    """Conv2d(16, 33, 3, stride=2) + ReLU, the tutorial's operator example."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 33, 3, stride=2)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 16, H, W) -> (N, 33, H', W')."""
        out: torch.Tensor = self.relu(self.conv(x))
        return out


def conv_relu(batch_size: int, height: int = 50, width: int = 100) -> tuple[nn.Module, Inputs]:
    """ConvRelu on a float32 batch of (batch_size, 16, height, width)."""
    return ConvRelu(), (torch.rand(batch_size, 16, height, width),)


def tiny(batch_size: int, image_size: int = 16) -> tuple[nn.Module, Inputs]:
    """A convolutional classifier small enough for a test: (batch_size, 3, image_size, image_size) -> 10 classes."""
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    return module, (torch.rand(batch_size, 3, image_size, image_size),)
