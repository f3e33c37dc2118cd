"""Any model of torchvision by its name, with inputs of the kind and size that its own weights were trained for.

Nothing is downloaded: weights are random unless ``weights`` names a file, and so are those of backbones.
"""

from __future__ import annotations

import difflib
import inspect
from typing import Any

import torch
from torch import nn

from runner.worker.models import images, load

# Frames of a clip: what torchvision's models of videos were trained with, and at least what each of them needs.
_FRAMES = 16
_SIZE = 224


def build(
    batch_size: int, architecture: str, weights: str | None = None, image_size: int | None = None, **config: Any
) -> tuple[nn.Module, tuple[Any, ...]]:
    """Make a model of torchvision and a float32 batch for it.

    Images are (batch_size, 3, H, W); detectors take a list of images, models of videos (batch_size, 3, frames, H, W),
    and models of optical flow two batches of images.

    Args:
        architecture: a name of torchvision.models.list_models().
        weights: a file with a state dict, like torchvision's own .pth files.
        image_size: height and width; by default those of the model's own weights.
        config: further arguments of torchvision's function.

    Raises:
        ValueError: torchvision has no such model.
    """
    from torchvision import models

    if architecture not in models.list_models():
        near = difflib.get_close_matches(architecture, models.list_models(), n=1)
        raise ValueError(
            f"torchvision has no model {architecture}{f'; did you mean {near[0]}?' if near else ''}; see "
            "torchvision.models.list_models()"
        )
    builder = models.get_model_builder(architecture)
    if "weights_backbone" in inspect.signature(builder).parameters:
        config.setdefault("weights_backbone", None)  # the default would be downloaded
    if architecture in ("googlenet", "inception_v3"):
        config.setdefault("init_weights", False)  # theirs takes half a minute and changes no time
    module = builder(weights=None, **config)
    load(module, weights)
    kind = builder.__module__.removeprefix("torchvision.models.").partition(".")[0]
    preset, meta = _preset(architecture)
    if kind == "detection":
        height, width = _detector_size(module, image_size)
        return module, (list(images(batch_size, 3, height, width).unbind()),)
    height, width = (image_size, image_size) if image_size else _size(preset)
    if kind == "video":
        frames = max(_FRAMES, meta.get("min_temporal_size", 0))
        clips = [images(frames, 3, height, width).transpose(0, 1) for _ in range(batch_size)]
        return module, (torch.stack(clips),)
    pictures = images(batch_size, 3, height, width)
    if kind == "optical_flow":
        return module, (pictures, images(batch_size, 3, height, width))
    return module, (pictures,)


def _preset(architecture: str) -> tuple[Any, dict[str, Any]]:
    """The transforms and the description of the model's default weights; (None, {}) if it has none."""
    from torchvision import models

    try:
        weights = list(models.get_model_weights(architecture))
    except ValueError:
        return None, {}
    return (weights[-1].transforms(), weights[-1].meta) if weights else (None, {})


def _size(preset: Any) -> tuple[int, int]:
    """(height, width) of the images that a preset of transforms makes."""
    size = getattr(preset, "crop_size", None) or getattr(preset, "resize_size", None) or [_SIZE]
    size = [size] if isinstance(size, int) else list(size)
    return size[0], size[-1]


def _detector_size(module: nn.Module, image_size: int | None) -> tuple[int, int]:
    """(height, width) of an image that a detector does not resize: 4:3, or a square where it wants one."""
    transform: Any = module.transform
    fixed = getattr(transform, "fixed_size", None)
    if image_size:
        return image_size, image_size
    if fixed:
        return int(fixed[1]), int(fixed[0])
    height = int(transform.min_size[-1])
    return height, min(height * 4 // 3, int(transform.max_size))
