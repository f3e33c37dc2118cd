"""Which operator called which of oneDNN's primitives: the log's time stamps within the profiler's ranges. Pure.

oneDNN stamps the start of a primitive with gettimeofday(2) (``get_msec()`` in its src/common/utils.cpp); the profiler's
ranges are in nanoseconds of the same clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from runner.capture.onednn import Log
from runner.capture.primitives import Primitive
from runner.capture.steps import seconds_per_iteration


@dataclass(frozen=True)
class Range:
    """A range of the profiler's, as the worker leaves it: in nanoseconds since the epoch."""

    name: str
    thread: int
    start_ns: int
    duration_ns: int


UNKNOWN = "no operator"


@dataclass(frozen=True)
class Caller:
    """All that an operator let oneDNN do in an iteration, over all copies of oneDNN."""

    name: str
    """The innermost operator around the primitives (``aten::mkldnn_convolution``), or `UNKNOWN`."""
    seconds: float
    """The primitives' time per iteration: the median over a copy's iterations, summed over the copies."""
    calls: float
    """Primitives per iteration."""
    primitives: tuple[str, ...]
    """The kinds and implementations of its primitives, longest first: ``convolution brg_conv_fwd:avx512_core``."""


def by_operator(log: Log, ranges: Iterable[Range]) -> list[Caller]:
    """The operators that called oneDNN in the iterations of a log, longest first.

    Args:
        log: the log of iterations that were profiled meanwhile.
        ranges: the profiler's ranges of all threads.
    """
    of_operators: dict[str, list[Primitive]] = {}
    steps: dict[str, set[int]] = {}
    for primitive, name in _called(log.primitives, ranges):
        of_operators.setdefault(name, []).append(primitive)
        steps.setdefault(primitive.copy, set()).add(primitive.step)
    iterations = {copy: len(numbers) for copy, numbers in steps.items()}
    callers = [_caller(name, primitives, iterations) for name, primitives in of_operators.items()]
    return sorted(callers, key=lambda caller: -caller.seconds)


def _caller(name: str, primitives: Sequence[Primitive], iterations: Mapping[str, int]) -> Caller:
    of_kinds: dict[str, float] = {}
    for p in primitives:
        kind = f"{p.kind} {p.implementation}"
        of_kinds[kind] = of_kinds.get(kind, 0.0) + p.seconds
    return Caller(
        name,
        seconds_per_iteration(((p.copy, p.step, p.seconds) for p in primitives), iterations),
        len(primitives) / max(iterations.values()),
        tuple(sorted(of_kinds, key=lambda kind: -of_kinds[kind])),
    )


def attributed_pct(callers: Sequence[Caller]) -> float:
    """How much of the primitives' time has an operator, in percent; 100 where there are no primitives."""
    total = sum(caller.seconds for caller in callers)
    named = sum(caller.seconds for caller in callers if caller.name != UNKNOWN)
    return 100 * named / total if total else 100.0


def _called(primitives: Iterable[Primitive], ranges: Iterable[Range]) -> Iterator[tuple[Primitive, str]]:
    """Each primitive with a time stamp, and the innermost range around its middle."""
    stamped = sorted(
        ((1e9 * (p.timestamp_s + p.seconds / 2), number, p) for number, p in enumerate(primitives) if p.timestamp_s),
        key=lambda entry: entry[:2],
    )
    operators = [one for one in ranges if "::" in one.name]
    # The thread that calls operators; ranges of OpenMP's threads would not nest with its own.
    main = Counter(one.thread for one in operators).most_common(1)
    waiting = iter(sorted((r.start_ns, -r.duration_ns, r.name) for r in operators if r.thread == main[0][0]))
    following = next(waiting, None)
    around: list[tuple[int, str]] = []  # (end, name): what is open, the innermost last
    for middle_ns, _, primitive in stamped:
        while following is not None and following[0] <= middle_ns:
            start, minus_duration, name = following
            while around and around[-1][0] <= start:
                around.pop()
            around.append((start - minus_duration, name))
            following = next(waiting, None)
        while around and around[-1][0] < middle_ns:
            around.pop()
        yield primitive, around[-1][1] if around else UNKNOWN
