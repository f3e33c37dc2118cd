"""State of this process that a model's code can change, and that changes what is measured without a word.

What contradicts the cell or its identity is evidence, for the gate to refuse: another priority, a debugger that traces
every line, processes of the model's own that compute beside it. What a model may want is a note on its cell.
"""

from __future__ import annotations

import os
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.overrides import _get_current_function_mode_stack as function_modes
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack as dispatch_modes

from runner.protocol import inherited, kernel
from runner.protocol.jobfile import TUNING
from runner.worker.call import Call, is_equal
from runner.worker.measure import process_cpu_clock

# In a name of our own, because torch's stubs don't export it.
_autograd: Any = torch.autograd

# Read when this module is imported, which is before the model's code is.
_INHERITED = inherited.read()
_VARIABLES = dict(os.environ)
# Percent of an iteration's CPU time that processes of the model's own may take.
_CHILDREN_PCT = 10


class Children:
    """The processes that this one has started, and the CPU time that they took while it made an iteration."""

    def __init__(self) -> None:
        self._pids = _descendants(os.getpid())
        self._share_pct = 0.0

    def watched(self, iterate: Callable[[], Any]) -> Any:
        """What an iteration returns, which is made here."""
        before, own = self._cpu_s(), time.process_time()
        output = iterate()
        used_s, own_s = self._cpu_s() - before, time.process_time() - own
        self._share_pct = 100 * used_s / (used_s + own_s) if used_s else 0.0
        return output

    def _cpu_s(self) -> float:
        return sum(map(_cpu_s, self._pids))

    @property
    def work(self) -> str:
        """What they did in that iteration; empty if that was nothing to speak of."""
        if self._share_pct <= _CHILDREN_PCT:
            return ""
        return f"{len(self._pids)}, which took {self._share_pct:.0f} % of the CPU time of an iteration"


def observe(children: Children) -> dict[str, str]:
    """Name -> value of what was changed, is at work in this process, or computes for it in another."""
    states = {**_changes(inherited.read()), **dict(_tools()), "processes of its own": children.work}
    return {name: value for name, value in states.items() if value}


def _changes(now: Mapping[str, str]) -> dict[str, str]:
    names = dict.fromkeys([*_INHERITED, *now])
    ordinary = "as usual"
    return {
        name: f"{_INHERITED.get(name, ordinary)} at first, now {now.get(name, ordinary)}"
        for name in names
        if _INHERITED.get(name) != now.get(name)
    }


def _tools() -> Iterator[tuple[str, str]]:
    """The tools that look at every line, call or operator of this process."""
    for name, function in (("sys.settrace", sys.gettrace()), ("sys.setprofile", sys.getprofile())):
        if function is not None:
            yield name, _described(function)
    monitoring: Any = getattr(sys, "monitoring", None)  # Python 3.12
    tools = [monitoring.get_tool(number) for number in range(6)] if monitoring else []
    if any(tools):
        yield "sys.monitoring", ", ".join(filter(None, tools))
    if tracemalloc.is_tracing():
        yield "tracemalloc", "on"
    if torch.is_anomaly_enabled():
        yield "torch.autograd.set_detect_anomaly", "on"
    if _autograd._profiler_enabled():
        yield "torch.profiler", "running"


def _described(value: object) -> str:
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{getattr(kind, '__module__', '?')}.{getattr(kind, '__qualname__', '?')}"


def _descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that these have."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    parents = {each: kernel.parent(each) for each in pids}
    found, waiting = [], [pid]
    while waiting:
        above = waiting.pop()
        below = [child for child, parent in parents.items() if parent == above]
        found += below
        waiting += below
    return found


def _cpu_s(pid: int) -> float:
    """The CPU time of a process; 0 if it is gone."""
    try:
        return time.clock_gettime(process_cpu_clock(pid))
    except OSError:
        return 0.0


def settings() -> list[str]:
    """What the model's code has set in torch or in the processor that holds for everything after it: sentences."""
    modes = [type(mode).__name__ for mode in (*function_modes(), *dispatch_modes())]
    least = [5e-324]  # in a list, so that Python does not compute with it in advance
    sentences = {
        "flushes denormal numbers to zero, which are slow and part of float32": least[0] * 1.0 == 0.0,
        "turned oneDNN off (torch.backends.mkldnn)": not torch._C._get_mkldnn_enabled(),
        "asks for deterministic algorithms, which fill new memory": torch.are_deterministic_algorithms_enabled(),
        f"left a mode on through which every operator goes ({', '.join(modes)})": bool(modes),
    }
    return [f"the model's code {sentence}" for sentence, holds in sentences.items() if holds]


def variables() -> list[str]:
    """The variables that tune libraries and that the model's code has set: sentences. Call it when the model is built.

    Later, Intel Extension for PyTorch and torch.compile set some of their own.
    """
    names = sorted(name for name in os.environ.keys() | _VARIABLES.keys() if TUNING.fullmatch(name))
    changed = [name for name in names if os.environ.get(name) != _VARIABLES.get(name)]
    if not changed or "intel_extension_for_pytorch" in sys.modules:
        return []
    values = ", ".join(f"{name}={os.environ.get(name, '(removed)')}" for name in changed)
    return [f"the model's code set variables that tune libraries: {values[:300]}"]


def sameness(calls: Sequence[Call], outputs: Sequence[Sequence[torch.Tensor]]) -> list[str]:
    """Whether the input sets, or what the reference computes from them, are all the same: a sentence.

    Args:
        calls: every input set. outputs: the reference's output of each.
    """
    if len(calls) < 2:
        return []
    if all(is_equal(calls[0].tensors(), call.tensors()) for call in calls[1:]):
        return [f"all {len(calls)} input sets are the same: the model's callable makes no others with another seed"]
    if all(is_equal(outputs[0], output) for output in outputs[1:]):
        return ["the model's output is the same for all input sets: that it is right proves little"]
    return []
