"""torch.autocast around a model: float32 weights and inputs, and bfloat16 inside the operators that torch's list names.

Weights are cast in every call, unless a graph has made constants of the cast ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

RECIPE = "torch.autocast(bfloat16)"


class Autocast(nn.Module):
    """A module whose calls run under torch.autocast."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module inside returns, with its lower precision where an operator of torch's list made it."""
        with torch.autocast("cpu", torch.bfloat16):
            return self.inner(*args, **kwargs)


@contextmanager
def to_trace(module: nn.Module) -> Iterator[nn.Module]:
    """The module that TorchScript is to trace: without the one around it, whose casts become a part of the trace."""
    if isinstance(module, Autocast):
        # With its cache on, a weight that two operators share would be cast in the trace of the first one only.
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            yield module.inner
    else:
        yield module
