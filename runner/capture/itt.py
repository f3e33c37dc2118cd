"""What the ITT collector recorded: ranges nested per thread, a timeline, and a table of operators.

The file's format is that of runner/worker/itt_collector.c. Domains: ``PyTorch`` (the steps and the operators, from
``emit_itt()``) and ``dnnl::primitive::execute``, in which oneDNN marks a primitive on every thread that works on it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from runner.capture.steps import median_over
from runner.protocol.stored import FormatError

_BEGIN, _END = 1, 2
_EVENT = struct.Struct("<QIBBH")
STEP = re.compile(r"step_\d+")

# oneDNN's domain; its primitives are shown as dnnl::convolution beside torch's aten::conv2d.
_ONEDNN = "dnnl::primitive::execute"


@dataclass
class Range:
    """One range on one thread."""

    tid: int
    depth: int
    domain: str
    name: str
    start_ns: int
    """CLOCK_MONOTONIC."""
    end_ns: int = 0
    inside_ns: int = 0
    """Time in the ranges directly inside."""

    @property
    def seconds(self) -> float:
        """From begin to end."""
        return (self.end_ns - self.start_ns) / 1e9

    @property
    def self_s(self) -> float:
        """Without the ranges inside."""
        return (self.end_ns - self.start_ns - self.inside_ns) / 1e9


@dataclass
class Recording:
    """One process."""

    ranges: list[Range] = field(default_factory=list)
    """In the order of their ends."""
    threads: dict[int, str] = field(default_factory=dict)
    """Thread id -> the system's name of it."""
    dropped: int = 0
    """Ranges that the collector had no memory for."""
    unmatched: int = 0
    """Begins without end and ends without begin: ranges that were open when recording started or stopped."""

    @property
    def steps(self) -> list[Range]:
        """The ranges ``step_0``, ``step_1``, ... in order of time."""
        return sorted((r for r in self.ranges if STEP.fullmatch(r.name)), key=lambda r: r.start_ns)


def read(data: bytes) -> Recording:
    """Read the collector's file.

    Raises:
        FormatError: it is torn, or of another version.
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


def shown_name(one: Range) -> str:
    """``aten::conv2d`` as torch spells it; oneDNN's primitives as ``dnnl::convolution``."""
    return f"dnnl::{one.name}" if one.domain == _ONEDNN else one.name


@dataclass(frozen=True)
class Op:
    """One operator over all steps; its times a step are medians over the steps."""

    name: str
    calls_per_iteration: float
    total_s: float
    """With what it calls."""
    self_s: float
    """Without what it calls."""
    p50_s: float
    """Of one call."""


def by_op(recording: Recording) -> list[Op]:
    """Operators by their own time, longest first: inside the steps, on the thread that ran the steps.

    The other threads' ranges are of the same primitives at the same time: adding them up would count twice.
    """
    steps = recording.steps
    # Operator -> step -> its ranges there.
    found: dict[str, dict[int, list[Range]]] = {}
    index = 0
    for one in sorted((r for r in recording.ranges if steps and r.tid == steps[0].tid), key=lambda r: r.start_ns):
        while index < len(steps) and one.start_ns > steps[index].end_ns:
            index += 1
        if index < len(steps) and steps[index].start_ns < one.start_ns and one.end_ns <= steps[index].end_ns:
            found.setdefault(shown_name(one), {}).setdefault(index, []).append(one)
    ops = [
        Op(
            name,
            sum(map(len, by_step.values())) / len(steps),
            median_over([sum(r.seconds for r in ranges) for ranges in by_step.values()], len(steps)),
            median_over([sum(r.self_s for r in ranges) for ranges in by_step.values()], len(steps)),
            median(r.seconds for ranges in by_step.values() for r in ranges),
        )
        for name, by_step in found.items()
    ]
    return sorted(ops, key=lambda op: -op.self_s)


def timeline(recording: Recording, title: str) -> dict[str, Any]:
    """The steps as Chrome's trace events, which Perfetto opens: complete events ("X"), in microseconds from the first.

    Format: "Trace Event Format" of the Chromium project. What was recorded before the first step is left out.
    """
    steps = recording.steps
    if not steps:
        return {"traceEvents": [], "displayTimeUnit": "ms", "otherData": {"title": title}}
    zero, main = steps[0].start_ns, steps[0].tid
    events: list[dict[str, Any]] = [{"ph": "M", "pid": 1, "name": "process_name", "args": {"name": title}}]
    for number, (tid, name) in enumerate(sorted(recording.threads.items(), key=lambda item: item[0] != main)):
        label = "steps and operators" if tid == main else f"OpenMP or other thread {number} ({name})"
        events.append({"ph": "M", "pid": 1, "tid": tid, "name": "thread_name", "args": {"name": label}})
        events.append({"ph": "M", "pid": 1, "tid": tid, "name": "thread_sort_index", "args": {"sort_index": number}})
    for one in sorted(recording.ranges, key=lambda r: (r.start_ns, r.depth)):
        if one.start_ns >= zero:
            events.append(
                {
                    "ph": "X",
                    "pid": 1,
                    "tid": one.tid,
                    "ts": round((one.start_ns - zero) / 1e3, 3),
                    "dur": round((one.end_ns - one.start_ns) / 1e3, 3),
                    "name": shown_name(one),
                    "cat": one.domain,
                }
            )
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"title": title}}
