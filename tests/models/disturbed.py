"""A model that disturbs itself: somebody else's busy loop on its cores, for the tests of contamination."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn

from runner.worker import models

STEP_S = 0.01
# Past the warm-up, and well inside the timed loop.
_STARTS_AT = 20


class Spins(nn.Module):
    """Computes for STEP_S, and starts a busy loop in one of its calls unless it finds the mark."""

    def __init__(self, mark: str, for_s: float) -> None:
        super().__init__()
        self.mark, self.for_s = mark, for_s
        self.calls = itertools.count(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        end = time.perf_counter() + STEP_S
        while time.perf_counter() < end:
            pass
        if next(self.calls) == _STARTS_AT and not (self.mark and Path(self.mark).exists()):
            until = f"end = time.monotonic() + {self.for_s}"
            spin = f"import time; {until}\nwhile time.monotonic() < end: pass"
            # No child of the worker, whose processes would be the model's own: setsid leaves it to another parent.
            subprocess.run(["setsid", "--fork", sys.executable, "-c", spin], check=True)
            if self.mark:
                Path(self.mark).touch()
        return x


def hogged(batch_size: int, mark: str = "", for_s: float = 1e9) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A busy loop starts while a process measures, and lives until its job is over at most: the runner ends what a job
    left.

    Args:
        mark: a file that the first such process leaves; where it is found, nothing is started. Empty: always started.
        for_s: how many seconds the busy loop lives.
    """
    module, inputs = models.tiny(batch_size)
    return nn.Sequential(module, Spins(mark, for_s)), inputs
