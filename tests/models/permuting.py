"""Image models of torchvision that permute to channels last by themselves, with random weights."""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from torch import nn


def convnext(batch_size: int, image_size: int = 64) -> tuple[nn.Module, Any]:
    return torchvision.models.convnext_tiny(weights=None), (torch.randn(batch_size, 3, image_size, image_size),)


def swin(batch_size: int, image_size: int = 64) -> tuple[nn.Module, Any]:
    return torchvision.models.swin_t(weights=None), (torch.randn(batch_size, 3, image_size, image_size),)


class ChannelsLastByItself(nn.Module):
    """A model whose weights are not those that were asked for."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.module(x)
        return out


def channels_last_weights(batch_size: int) -> tuple[nn.Module, Any]:
    from runner.worker import models

    module, inputs = models.tiny(batch_size)
    return ChannelsLastByItself(module).to(memory_format=torch.channels_last), inputs  # type: ignore[call-overload]
