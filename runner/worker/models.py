"""The models that come with the runner: callables that return a module and example inputs.

The rest of the worker does not depend on them, because users add models of their own: ``_target_`` in a ``model`` file
names any callable with such a signature. The models of whole libraries are in modules beside this one. Weights are
random (the worker sets the seed before the call) unless ``weights`` names a local file, so that nothing is downloaded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from runner.worker.imports import import_transformers

Inputs = tuple[torch.Tensor, ...]


def images(batch_size: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Smooth coloured shapes with some noise, in float32 and NCHW.

    Noise alone averages out over an image: all outputs of a random network would be the same, and a wrong
    transformation could not be distinguished from a right one.
    """
    shapes: torch.Tensor = nn.functional.interpolate(
        torch.randn(batch_size, channels, 4, 4), size=(height, width), mode="bilinear"
    )
    return shapes + 0.3 * torch.randn(batch_size, channels, height, width)


def random_batch_norm(module: nn.Module) -> None:
    """Give batch norms statistics that matter: the initial ones are the identity, and would hide a wrong folding."""
    with torch.no_grad():
        for child in module.modules():
            if not isinstance(child, nn.modules.batchnorm._BatchNorm):
                continue
            if child.running_mean is not None and child.running_var is not None:
                child.running_mean.normal_(0, 0.1)
                child.running_var.uniform_(0.5, 1.5)
            if child.affine:
                child.weight.uniform_(0.5, 1.5)
                child.bias.normal_(0, 0.1)


def load(module: nn.Module, weights: str | None) -> None:
    """Load a state dict from a local file (torch.save); without a file, make the random weights non-trivial."""
    if weights is None:
        random_batch_norm(module)
    else:
        module.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))


def _seed_of_inputs() -> None:
    """Draw the inputs from a seed of their own.

    Versions of transformers draw more or fewer numbers for the same weights: the inputs would differ even where weights
    come from a file.
    """
    torch.manual_seed(torch.initial_seed() + 10**9)


def resnet50(batch_size: int, image_size: int = 224, weights: str | None = None) -> tuple[nn.Module, Inputs]:
    """Make torchvision's ResNet-50 and a float32 batch of shape (batch_size, 3, image_size, image_size).

    Args:
        weights: a file with a state dict, like torchvision's own .pth files.
    """
    import torchvision

    module = torchvision.models.resnet50(weights=None)
    load(module, weights)
    return module, (images(batch_size, 3, image_size, image_size),)


def bert(
    batch_size: int, sequence_length: int, weights: str | None = None, **config: Any
) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Make transformers' BertModel and token ids of shape (batch_size, sequence_length), none of which is masked.

    The model is base and uncased unless ``config`` says otherwise.

    Args:
        weights: a folder with config.json and the weights, as save_pretrained() writes it.
        config: fields of transformers.BertConfig, like num_hidden_layers.
    """
    transformers = import_transformers()
    if weights is None:
        module = transformers.BertModel(transformers.BertConfig(**config))
    else:
        module = transformers.BertModel.from_pretrained(weights, local_files_only=True, **config)
    shape = (batch_size, sequence_length)
    _seed_of_inputs()
    return module, {
        "input_ids": torch.randint(0, module.config.vocab_size, shape),
        "attention_mask": torch.ones(shape, dtype=torch.long),
    }


def vit(batch_size: int, weights: str | None = None, **config: Any) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Make transformers' ViTForImageClassification and a float32 batch of (batch_size, 3, image_size, image_size).

    The model is the base one with patches of 16 pixels unless ``config`` says otherwise.

    Args:
        weights: a folder with config.json and the weights, as save_pretrained() writes it.
        config: fields of transformers.ViTConfig, like num_hidden_layers; num_labels is 1000 by default.
    """
    transformers = import_transformers()
    if weights is None:
        module = transformers.ViTForImageClassification(transformers.ViTConfig(**{"num_labels": 1000, **config}))
    else:
        module = transformers.ViTForImageClassification.from_pretrained(weights, local_files_only=True, **config)
    size = module.config.image_size
    _seed_of_inputs()
    return module, {"pixel_values": images(batch_size, 3, size, size)}


class ConvRelu(nn.Module):
    """Conv2d(16, 33, 3, stride=2) + ReLU: the operators of the example in PyTorch's launcher tutorial."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 33, 3, stride=2)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 16, H, W) -> (N, 33, H', W')."""
        out: torch.Tensor = self.relu(self.conv(x))
        return out


def conv_relu(batch_size: int, height: int = 50, width: int = 100) -> tuple[nn.Module, Inputs]:
    """Make ConvRelu and a float32 batch of shape (batch_size, 16, height, width)."""
    return ConvRelu(), (images(batch_size, 16, height, width),)


def tiny(batch_size: int, image_size: int = 16) -> tuple[nn.Module, Inputs]:
    """Make a classifier small enough for a test: a batch of (batch_size, 3, image_size, image_size) -> 10 classes."""
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )
    random_batch_norm(module)
    return module, (images(batch_size, 3, image_size, image_size),)
