"""Models that look wrong and are right, most of them reported by people whose tools refused them; random weights."""

from __future__ import annotations

import time
from typing import Any

import torch
import torchvision
from torch import nn

from runner.worker import models


def _of_images(name: str, batch_size: int) -> tuple[nn.Module, Any]:
    return getattr(torchvision.models, name)(weights=None), (torch.randn(batch_size, 3, 64, 64),)


def convnext(batch_size: int) -> tuple[nn.Module, Any]:
    """Permutes to channels last by itself in every block."""
    return _of_images("convnext_tiny", batch_size)


def swin(batch_size: int) -> tuple[nn.Module, Any]:
    """Permutes around its norms and before its last pooling."""
    return _of_images("swin_t", batch_size)


def mobilenet(batch_size: int) -> tuple[nn.Module, Any]:
    """Its outputs are tiny, with the random weights that torchvision gives it: of a norm of 1e-8."""
    return _of_images("mobilenet_v3_small", batch_size)


def detector(batch_size: int) -> tuple[nn.Module, Any]:
    """Its input is a list of images, and its output a list of boxes, labels and scores of each."""
    factory = torchvision.models.detection.ssdlite320_mobilenet_v3_large
    module = factory(weights=None, weights_backbone=None, num_classes=5)
    return module, ([torch.rand(3, 64, 64) for _ in range(batch_size)],)


class Odd(nn.Module):
    """Waits for something else than arithmetic, masks what it returns, and returns something very small beside it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        time.sleep(0.1)
        y: torch.Tensor = self.module(x)
        small = y * 1e-10
        y[:, ::4] = float("-inf")
        return {"log_probabilities": torch.log_softmax(y, 1), "small": small}


def odd(batch_size: int) -> tuple[nn.Module, Any]:
    """-inf where the reference has it, a norm below 1e-8, and cores that are idle."""
    module, inputs = models.tiny(batch_size)
    return Odd(module), inputs


class Labelled(nn.Module):
    """Marks itself for the profiler with a label that torch writes into its traces as it is."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.profiler.record_function('block "stem" \\ of\nthe model'):
            y: torch.Tensor = self.module(x)
        return y


def labelled(batch_size: int) -> tuple[nn.Module, Any]:
    module, inputs = models.tiny(batch_size)
    return Labelled(module), inputs
