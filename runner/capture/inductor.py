"""Which of inductor's kernels took how long, and which operators each computes. Pure.

Each call of a generated kernel is a range of its own, named after it (``cpp_fused_add_relu_3``); in a package, whose
kernels record themselves, after its graph as well (``graph_0_cpp_fused_add_relu_3``: see ``enable_kernel_profile`` in
torch/_inductor/config.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from runner.protocol.stored import Count, Duration

# A range of a generated kernel; the number of the graph is left out where torch knows none.
_KERNEL = re.compile(r"(?:graph_\d{1,9}_)?(cpp_\w+)")
# An operator that torch or an extension has a kernel for: aten::mm, mkldnn::_linear_pointwise, torch_ipex::...
_OPERATOR = re.compile(r"[A-Za-z_]\w*::\w")
# The operators in what inductor says of a kernel's nodes: see get_kernel_metadata() in torch/_inductor/utils.py.
_MADE_OF = re.compile(r"Original ATen: \[([^\]]{0,5000})\]")


@dataclass(frozen=True)
class ProfilerRow:
    """A row of the profiler's table, as the worker leaves it: all ranges of one name, over all iterations."""

    name: str
    calls: Count
    total_s: Duration
    self_s: Duration


@dataclass(frozen=True)
class Kernel:
    """What ran in an iteration under one name; its times are means over the iterations."""

    name: str
    """The kernel's own name (``cpp_fused_add_relu_3``), that of an operator (``aten::mm``), or that of a range of
    torch.compile's around them (``Torch-Compiled Region: 0/0``)."""
    kind: str
    """``generated``, ``operator``, or ``around``, which names no work."""
    self_s: float
    """Seconds per iteration without the ranges inside."""
    calls: float
    """Calls per iteration."""
    operators: tuple[str, ...]
    """The operators that a generated kernel computes, as inductor's source says; empty for others."""


def operators_of(comments: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Generated kernel -> the operators of the model that it computes (``aten.add``), in the order of the graph.

    Args:
        comments: kernel -> what inductor says of its nodes, once for each graph that has a kernel of this name.
    """
    return {
        name: tuple(
            dict.fromkeys(
                operator.strip()
                for text in texts
                for made_of in _MADE_OF.findall(text)
                for operator in made_of.split(",")
                if operator.strip()
            )
        )
        for name, texts in comments.items()
    }


def kernels(ranges: Sequence[ProfilerRow], iterations: int, operators: Mapping[str, tuple[str, ...]]) -> list[Kernel]:
    """The kernels, operators and ranges around them in an iteration, longest first.

    Args:
        ranges: the profiler's rows, without those of the iterations themselves.
        iterations: how many iterations they are of.
        operators: what `operators_of` found.
    """
    by_name: dict[tuple[str, str], list[ProfilerRow]] = {}
    for row in ranges:
        generated = _KERNEL.fullmatch(row.name)
        kind = "generated" if generated else "operator" if _OPERATOR.match(row.name) else "around"
        by_name.setdefault((generated[1] if generated else row.name, kind), []).append(row)
    found = [
        Kernel(
            name,
            kind,
            sum(row.self_s for row in rows) / iterations,
            sum(row.calls for row in rows) / iterations,
            operators.get(name, ()),
        )
        for (name, kind), rows in by_name.items()
    ]
    return sorted(found, key=lambda kernel: -kernel.self_s)


def named_pct(found: Iterable[Kernel], step_s: float) -> float:
    """How much of an iteration's time is in generated kernels and operators, in percent.

    Args:
        step_s: the mean time of an iteration under the profiler, in seconds.
    """
    return 100 * sum(kernel.self_s for kernel in found if kernel.kind != "around") / step_s
