"""oneDNN's verbose log as tables: by kind of primitive, line by line, and by shape. Pure.

runner.capture.kernels makes figures of the same log, and the groups whose medians the first table adds up.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.capture.kernels import Group, groups
from runner.capture.onednn import Log
from runner.capture.primitives import Primitive, isa_family
from runner.capture.steps import seconds_per_iteration


def by_primitive(log: Log, step_s: Mapping[str, Sequence[float]], streams: int = 1) -> dict[str, list[Any]]:
    """The columns of a table with one row per kind and implementation of primitive, longest first.

    Times and calls per iteration are sums of the medians of `groups`, as the figures of `kernels.summarize` are.
    """
    alike: dict[tuple[str, str], list[Group]] = {}
    for group in groups(log, step_s, streams):
        alike.setdefault((group.kind, group.implementation), []).append(group)
    post_ops: dict[tuple[str, str], set[str]] = {}
    for p in log.primitives.distinct:
        post_ops.setdefault((p.kind, p.implementation), set()).update(p.post_ops)
    rows = [
        (
            f"{kind} {implementation}",
            1e3 * sum(group.seconds for group in members),
            sum(group.calls for group in members),
            "+".join(sorted({group.copy for group in members})),
            "+".join(sorted({group.dtype for group in members})),
            isa_family(implementation),
            "+".join(sorted(post_ops[kind, implementation])),
        )
        for (kind, implementation), members in alike.items()
    ]
    rows.sort(key=lambda row: -row[1])
    names = ("primitive", "ms per iteration", "calls per iteration", "copies", "dtypes", "isa", "post-ops")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


TRACE = (
    "step", "copy", "operation", "engine", "primitive", "implementation", "propagation",
    "src_dtype", "src_layout", "wei_dtype", "wei_layout", "bia_dtype", "bia_layout", "dst_dtype", "dst_layout",
    "attributes", "post_ops", "auxiliary", "problem", "seconds", "timestamp_s",
)  # fmt: skip

# The columns of TRACE that `by_shape` reads.
OF_SHAPES = frozenset({"step", "copy", "operation", "primitive", "implementation", "post_ops", "problem", "seconds"})


def trace(log: Log, work: Mapping[str, str] | None = None) -> str:
    """The lines of `trace_lines` as one text."""
    return "".join(trace_lines(log, work))


def trace_lines(log: Log, work: Mapping[str, str] | None = None) -> Iterator[str]:
    """The log as CSV, line by line: one row per executed primitive and graph partition, in the order of the log.

    Args:
        log: the log.
        work: axis -> value, for the axes that say what was worked on: each is a column, the last ones.
    """
    work = work or {}
    last = f",{_row(list(work.values()))}" if work else _row([])
    yield _row([*TRACE, *work])
    # What is the same in every execution of a primitive, with the commas around it.
    same = [f",{_row(_same(p)).removesuffix(_END)}," for p in log.primitives.distinct]
    for run in log.primitives.runs():
        first = _row([run.step, run.copy]).removesuffix(_END)
        if all(map(math.isnan, run.timestamps_s)):
            rest = f",{last}"
            for which, seconds in zip(run.which, run.seconds, strict=True):
                yield f"{first}{same[which]}{seconds:.9g}{rest}"
        else:
            for which, seconds, stamp in zip(run.which, run.seconds, run.timestamps_s, strict=True):
                date = "" if math.isnan(stamp) else _date(stamp)
                yield f"{first}{same[which]}{seconds:.9g},{date}{last}"
    for g in log.graphs:
        # A partition's time repeats that of the primitives inside.
        empty = [""] * (2 * len(_TENSORS))
        yield _row(
            [g.step, g.copy, "graph", g.engine, g.kind, g.implementation, "", *empty, "",
             " ".join(g.operations), g.backend, "", f"{g.seconds:.9g}", _date(g.timestamp_s), *work.values()]
        )  # fmt: skip


def _same(p: Primitive) -> list[str]:
    tensors = [p.tensors.get(name) or p.tensors.get(f"{name}_0") or p.tensors.get(f"{name}0") for name in _TENSORS]
    cells = [text for tensor in tensors for text in ((tensor.dtype, tensor.tag) if tensor else ("", ""))]
    return [
        "exec", p.engine, p.kind, p.implementation, p.prop_kind, *cells, p.attributes, " ".join(p.post_ops),
        p.auxiliary, p.shape,
    ]  # fmt: skip


# Of a line of CSV (RFC 4180).
_END = "\r\n"


def _row(cells: Sequence[object]) -> str:
    """One line of CSV with its end."""
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue()


_TENSORS = ("src", "wei", "bia", "dst")


@dataclass(frozen=True)
class Problem:
    """All that oneDNN did per iteration for one kind of primitive on one shape."""

    name: str
    """The kind and the shape as oneDNN prints it (``convolution mb32_ic3oc64_ih224...``)."""
    ms: float
    """Milliseconds per iteration: the median over the iterations, summed over the copies."""
    calls: float
    """Calls per iteration."""
    by: str
    """The implementations with their post-ops in brackets, joined by +: ``jit:avx512_core (eltwise_relu)``."""


def by_shape(rows: Iterable[Mapping[str, str]], streams: int = 1) -> list[Problem]:
    """The primitives of a `trace` that was read back, by kind and shape, longest first; graphs are left out.

    Args:
        rows: the trace, column -> text.
        streams: see `kernels.groups`.
    """
    groups: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    steps: dict[str, set[str]] = {}
    for row in rows:
        steps.setdefault(row["copy"], set()).add(row["step"])
        if row["operation"] == "exec":
            groups.setdefault((row["primitive"], row["problem"]), []).append(row)
    problems = []
    iterations = {copy: len(names) for copy, names in steps.items()}
    for (kind, shape), group in groups.items():
        times = ((row["copy"], row["step"], float(row["seconds"])) for row in group)
        problems.append(
            Problem(
                f"{kind} {shape}",
                1e3 * seconds_per_iteration(times, iterations) / streams,
                sum(1 / iterations[row["copy"]] for row in group),
                "+".join(sorted({_computed_by(row) for row in group})),
            )
        )
    return sorted(problems, key=lambda problem: -problem.ms)


def _computed_by(row: Mapping[str, str]) -> str:
    after = ", ".join(row["post_ops"].split())
    return f"{row['implementation']} ({after})" if after else row["implementation"]


def _date(timestamp_s: float | None) -> str:
    return "" if timestamp_s is None else f"{timestamp_s:.6f}"
