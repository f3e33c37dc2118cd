"""The recording of the ITT collector: its ranges, nested per thread, a timeline of them, and a table of operators.

The file's format is that of runner/worker/itt_collector.c. There are two domains: ``PyTorch`` holds the iterations
(``step_0``, ``step_1``, ...) and the operators, from ``emit_itt()``; in ``dnnl::primitive::execute`` oneDNN marks a
primitive on every thread that works on it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from runner.capture.steps import median_over
from runner.protocol.stored import FormatError

_BEGIN, _END = 1, 2
_EVENT = struct.Struct("<QIBBH")
STEP = re.compile(r"step_\d+")

# oneDNN's domain: its primitives are shown as dnnl::convolution, next to torch's aten::conv2d.
_ONEDNN = "dnnl::primitive::execute"


@dataclass
class Range:
    """A range on one thread."""

    tid: int
    depth: int
    domain: str
    name: str
    start_ns: int
    """When it began, on CLOCK_MONOTONIC."""
    end_ns: int = 0
    inside_ns: int = 0
    """The time spent in the ranges directly inside this one."""

    @property
    def seconds(self) -> float:
        """The time from its begin to its end."""
        return (self.end_ns - self.start_ns) / 1e9

    @property
    def self_s(self) -> float:
        """The time from its begin to its end, without that of the ranges inside."""
        return (self.end_ns - self.start_ns - self.inside_ns) / 1e9


@dataclass
class Recording:
    """The ITT ranges of one process."""

    ranges: list[Range] = field(default_factory=list)
    """The complete ranges, in the order of their ends."""
    threads: dict[int, str] = field(default_factory=dict)
    """Thread id -> the name that the system has for the thread."""
    dropped: int = 0
    """The number of ranges that the collector had no memory for."""
    unmatched: int = 0
    """The number of begins without an end, and the reverse: ranges that were open at the start or end of recording."""

    @property
    def steps(self) -> list[Range]:
        """The ranges of the iterations, ``step_0``, ``step_1``, ..., in order of time."""
        return sorted((r for r in self.ranges if STEP.fullmatch(r.name)), key=lambda r: r.start_ns)


def read(data: bytes) -> Recording:
    """Read the collector's file.

    Raises:
        FormatError: the file is torn, or of another version.
    """
    try:
        return _read(data)
    except (struct.error, IndexError, OverflowError) as error:
        raise FormatError(f"the ITT recording is torn: {error}") from error


def _read(data: bytes) -> Recording:
    position = 0

    def take(form: str) -> tuple[Any, ...]:
        nonlocal position
        values = struct.unpack_from("<" + form, data, position)
        position += struct.calcsize("<" + form)
        return values

    def text() -> str:
        (size,) = take("I")
        (raw,) = take(f"{size}s")
        return str(raw.decode("utf-8", "replace"))

    magic, version, lost = take("4sIQ")
    if magic != b"ITTC" or version != 1:
        raise FormatError(f"not an ITT recording of format 1: {magic!r}, {version}")
    domains = [text() for _ in range(take("I")[0])]
    names = [text() for _ in range(take("I")[0])]
    recording = Recording(dropped=lost)
    for _ in range(take("I")[0]):
        tid, raw_name, dropped, count = take("i32sQQ")
        recording.threads[tid] = raw_name.split(b"\0")[0].decode("utf-8", "replace")
        recording.dropped += dropped
        if len(data) < position + count * _EVENT.size:
            raise FormatError("the ITT recording is torn: events are missing")
        events = _EVENT.iter_unpack(data[position : position + count * _EVENT.size])
        position += count * _EVENT.size
        _nest(recording, tid, events, domains, names)
    return recording


def _nest(
    recording: Recording,
    tid: int,
    events: Iterable[tuple[int, int, int, int, int]],
    domains: Sequence[str],
    names: Sequence[str],
) -> None:
    open_ranges: list[Range] = []
    for ns, name, kind, domain, _ in events:
        if kind == _BEGIN:
            open_ranges.append(Range(tid, len(open_ranges), domains[domain], names[name], ns))
        elif kind == _END and open_ranges and open_ranges[-1].domain == domains[domain]:
            ended = open_ranges.pop()
            if ns < ended.start_ns:
                raise FormatError(f"the ITT recording is torn: {ended.name!r} ends before it begins")
            ended.end_ns = ns
            if open_ranges:
                open_ranges[-1].inside_ns += ns - ended.start_ns
            recording.ranges.append(ended)
        else:
            recording.unmatched += 1
    recording.unmatched += len(open_ranges)


def operator_name(span: Range) -> str:
    """The name to show for a range: torch's own (``aten::conv2d``); ``dnnl::convolution`` for oneDNN's primitives."""
    return f"dnnl::{span.name}" if span.domain == _ONEDNN else span.name


@dataclass(frozen=True)
class Op:
    """An operator over all iterations; its times per iteration are medians over the iterations."""

    name: str
    calls_per_iteration: float
    total_s: float
    """Its time per iteration, including the operators that it calls."""
    self_s: float
    """Its time per iteration, without the operators that it calls."""
    p50_s: float
    """The median time of one call."""

    @property
    def is_named(self) -> bool:
        """Whether it is an operator or a primitive, and not a range around several, as of a compiled region."""
        return "::" in self.name


def by_op(recording: Recording) -> list[Op]:
    """The operators of the thread that ran the iterations, the one with the longest time of its own first.

    The other threads' ranges are of the same primitives at the same time: adding them up would count them twice.
    """
    steps = recording.steps
    # Operator -> index of an iteration -> the operator's ranges in it.
    ranges_of: dict[str, dict[int, list[Range]]] = {}
    index = 0
    for call in sorted((r for r in recording.ranges if steps and r.tid == steps[0].tid), key=lambda r: r.start_ns):
        while index < len(steps) and call.start_ns > steps[index].end_ns:
            index += 1
        if index < len(steps) and steps[index].start_ns < call.start_ns and call.end_ns <= steps[index].end_ns:
            ranges_of.setdefault(operator_name(call), {}).setdefault(index, []).append(call)
    ops = [
        Op(
            name,
            sum(map(len, by_step.values())) / len(steps),
            median_over([sum(r.seconds for r in ranges) for ranges in by_step.values()], len(steps)),
            median_over([sum(r.self_s for r in ranges) for ranges in by_step.values()], len(steps)),
            median(r.seconds for ranges in by_step.values() for r in ranges),
        )
        for name, by_step in ranges_of.items()
    ]
    return sorted(ops, key=lambda op: -op.self_s)


def timeline(recording: Recording, title: str, work: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The recording as Chrome's trace events, which Perfetto opens.

    Format: "Trace Event Format" of the Chromium project; the events are complete ones ("X"), in microseconds since the
    first iteration. Ranges from before the first iteration are left out.

    Args:
        recording: the ranges.
        title: the name of the process.
        work: axis -> value, for the axes that say what was worked on, which other data repeat.
    """
    steps, other_data = recording.steps, {"title": title, **(work or {})}
    if not steps:
        return {"traceEvents": [], "displayTimeUnit": "ms", "otherData": other_data}
    zero, main = steps[0].start_ns, steps[0].tid
    events: list[dict[str, Any]] = [{"ph": "M", "pid": 1, "name": "process_name", "args": {"name": title}}]
    for number, (tid, name) in enumerate(sorted(recording.threads.items(), key=lambda item: item[0] != main)):
        label = "iterations and operators" if tid == main else f"OpenMP or other thread {number} ({name})"
        events.append({"ph": "M", "pid": 1, "tid": tid, "name": "thread_name", "args": {"name": label}})
        events.append({"ph": "M", "pid": 1, "tid": tid, "name": "thread_sort_index", "args": {"sort_index": number}})
    for span in sorted(recording.ranges, key=lambda r: (r.start_ns, r.depth)):
        if span.start_ns >= zero:
            events.append(
                {
                    "ph": "X",
                    "pid": 1,
                    "tid": span.tid,
                    "ts": round((span.start_ns - zero) / 1e3, 3),
                    "dur": round((span.end_ns - span.start_ns) / 1e3, 3),
                    "name": operator_name(span),
                    "cat": span.domain,
                }
            )
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": other_data}
