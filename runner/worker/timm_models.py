"""Any model of timm (PyTorch Image Models) by its name, with images of the size in the model's own configuration."""

from __future__ import annotations

from typing import Any

from torch import nn

from runner.worker.models import Inputs, images, load


def build(batch_size: int, architecture: str, weights: str | None = None, **config: Any) -> tuple[nn.Module, Inputs]:
    """Make a model of timm and a float32 batch of shape (batch_size, channels, height, width).

    Args:
        architecture: a name of timm.list_models().
        weights: a file with a state dict; without one, weights are random.
        config: further arguments of timm.create_model().
    """
    import timm

    module = timm.create_model(architecture, pretrained=False, **config)
    load(module, weights)
    return module, (images(batch_size, *timm.data.resolve_model_data_config(module)["input_size"]),)
