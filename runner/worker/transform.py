"""What each axis does to the model, in the order it is done.

A new axis that changes the model adds one function here and one check in ``runner.gate``.
"""

from __future__ import annotations

import torch
from torch import nn

from runner.job import JobSpec


def _apply_ipex(spec: JobSpec, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> nn.Module:
    if spec.ipex == "off":
        return module
    import intel_extension_for_pytorch as ipex

    # sample_input lets oneDNN choose the prepacked weight layout for this very shape; without it a
    # ResNet-50 keeps weight reorders in every step.
    optimized: nn.Module = ipex.optimize(module, dtype=torch.float32, sample_input=inputs)
    return optimized


def transform(spec: JobSpec, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> nn.Module:
    """Return the module as the cell asks for it, in inference mode."""
    return _apply_ipex(spec, module.eval(), inputs)
