"""Weights that one torch build hands over to the others, where these would make different ones from the same seed."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn


def save(module: nn.Module, file: Path) -> None:
    """Leave the parameters and buffers of a module in a file, whole or not at all."""
    unfinished = file.with_suffix(".tmp")
    torch.save(module.state_dict(), unfinished)
    unfinished.replace(file)


def load(module: nn.Module, file: Path) -> None:
    """Give a module the weights that `save` left.

    They are left as they are if names or shapes differ: packages rename parameters from version to version. The
    evidence then says that the model is another one.
    """
    weights = torch.load(file, weights_only=True)
    own = module.state_dict()
    if weights.keys() == own.keys() and all(weights[name].shape == own[name].shape for name in own):
        module.load_state_dict(weights)
