"""Models that go wrong, for the tests of failed cells; found through PYTHONPATH, as a user's own would be."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import torch
from torch import nn


class Step(nn.Module):
    def __init__(self, action: Any) -> None:
        super().__init__()
        self.action = action

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.action()
        return x


def hangs(batch_size: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    return Step(lambda: time.sleep(600)), (torch.zeros(batch_size),)


def killed(batch_size: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    return Step(lambda: os.kill(os.getpid(), signal.SIGKILL)), (torch.zeros(batch_size),)


def segfaults(batch_size: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    return Step(lambda: os.kill(os.getpid(), signal.SIGSEGV)), (torch.zeros(batch_size),)


def raises(batch_size: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    raise ValueError(f"no model of batch size {batch_size}")


def exits(batch_size: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    os._exit(0)


def sets_threads(batch_size: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    torch.set_num_threads(7)
    return nn.Identity(), (torch.zeros(batch_size),)
