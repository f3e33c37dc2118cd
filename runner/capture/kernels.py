"""What oneDNN's kernels did per iteration: times, instruction sets, dtypes, reorders, layouts. Pure.

runner.capture.onednn reads the log's lines and judges nothing; runner.capture.kernel_tables makes tables of them. No
single iteration decides: each copy of oneDNN (torch's, IPEX's) logged iterations of its own, `groups` takes the medians
over them, and every figure and table is a sum of these medians, so that a figure is the same wherever it is shown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

import numpy as np

from runner.capture import flop
from runner.capture.onednn import COMPUTE, MOSTLY, Log
from runner.capture.primitives import Executions, Primitive, Run, isa_family
from runner.capture.steps import median_over
from runner.protocol.verdicts import UNOBSERVED

# A tensor's dimensions; oneDNN has at most twelve.
_DIMENSIONS = re.compile(r"\d{1,9}(x\d{1,9}){0,11}")
# An element type whose name gives its width in bits: f32, bf16, s8, u4, f8_e5m2, f4_e2m1.
_WIDTH = re.compile(r"(?:bf|[fsu])(\d{1,3})(?:_e\dm\d)?")
_OTHER_WIDTHS = {"e8m0": 8, "boolean": 8, "undef": 0}


@dataclass(frozen=True)
class Summary:
    """What oneDNN did in one iteration, by medians: times are in seconds, shares are of its primitives' time."""

    seconds: float
    """The time in all primitives."""
    coverage: float
    """The primitives' time over a logged iteration's wall time, printing included; above 1 if primitives nest."""
    by_kind: Mapping[str, tuple[float, float]]
    """Kind (``convolution``, ``reorder``) -> (calls, seconds)."""
    flop: Mapping[str, float | None]
    """Kind that computes -> floating-point operations; None where those of one primitive can't be counted."""
    isa: Mapping[str, float]
    """Instruction family -> share of the time of the primitives that compute."""
    dtypes: Mapping[str, float]
    """Source dtype -> share of the time of the primitives that compute."""
    fpmath: Mapping[str, float]
    """Precision below float32 that primitives were allowed -> share of the time of the primitives that compute."""
    kernel: str
    """The implementation that computed longest; empty if none computed."""
    calls: float
    """The number of primitives executed."""
    reorders: float
    """The number of reorders executed."""
    weight_reorders: float
    """The number of reorders that lay weights out again, which prepacking would do once."""
    reorder_share: float
    """The share of the primitives' time that reorders took."""
    reorder_bytes: float | None
    """The bytes that reorders read and wrote, without the padding of blocked layouts; None if the size of one is not
    known."""
    fused: float
    """The number of primitives that computed a post-op (relu, sum, ...) as well."""
    cache_hits: float
    """The number of primitives that oneDNN took from its cache."""
    cache_misses: float
    """The number of primitives that oneDNN had to create."""
    layouts: Mapping[str, int]
    """channels_first, channels_last, blocked -> number of convolutions with such an input, before any reorder of it."""
    unparsed: int
    """The number of oneDNN's lines that could not be read."""

    @property
    def main_isa(self) -> str:
        """The family with the largest share; ``unobserved`` when oneDNN did less than half of the iteration's work."""
        return max(self.isa, key=lambda f: self.isa[f]) if self.isa and self.coverage >= MOSTLY else UNOBSERVED

    @property
    def main_kernel(self) -> str:
        """The implementation that computed longest; empty if oneDNN did less than half of the iteration's work."""
        return self.kernel if self.coverage >= MOSTLY else ""

    def seconds_in(self, *kinds: str) -> float:
        """The time in primitives of these kinds."""
        return sum(seconds for kind, (_, seconds) in self.by_kind.items() if kind in kinds)


@dataclass(frozen=True)
class Group:
    """The primitives of one copy of oneDNN that are alike, with an iteration's medians."""

    copy: str
    kind: str
    implementation: str
    dtype: str
    fpmath: str
    """The precision below float32 that they were allowed; empty if none."""
    is_fused: bool
    """Whether they computed a post-op as well."""
    lays_out_weights: bool
    """Whether they are reorders that lay weights out again."""
    seconds: float
    calls: float


def groups(log: Log, step_s: Mapping[str, Sequence[float]], streams: int = 1) -> list[Group]:
    """The primitives of a log, grouped; in the order of their first lines.

    Args:
        log: the log of several iterations.
        step_s: copy of oneDNN -> wall time of each iteration that it logged.
        streams: the calls of the model that ran at the same time. Seconds are those of one of them on average, so that
            they add up to no more than the iteration took; calls are those of all.
    """
    distinct = log.primitives.distinct
    if not distinct:
        return []
    weights = _weights(distinct)
    numbers: dict[_Alike, int] = {}
    alike = np.array([numbers.setdefault(_alike(p, weights), len(numbers)) for p in distinct])
    keys = list(numbers)
    # (copy, number of what is alike) -> iteration -> (seconds, calls)
    sums: dict[tuple[str, int], dict[int, tuple[float, int]]] = {}
    for run, step in _within(log.primitives, step_s):
        of_run = alike[np.asarray(run.which)]
        seconds = np.bincount(of_run, np.asarray(run.seconds))
        calls = np.bincount(of_run)
        present, first = np.unique(of_run, return_index=True)
        for number in present[np.argsort(first)].tolist():
            by_step = sums.setdefault((run.copy, number), {})
            before_s, before = by_step.get(step, (0.0, 0))
            by_step[step] = before_s + float(seconds[number]), before + int(calls[number])
    return [
        Group(
            copy,
            *keys[number],
            seconds=median_over([seconds for seconds, _ in by_step.values()], _iterations(copy, step_s)) / streams,
            calls=median_over([float(calls) for _, calls in by_step.values()], _iterations(copy, step_s)),
        )
        for (copy, number), by_step in sums.items()
    ]


# (kind, implementation, dtype, fpmath, is_fused, lays_out_weights): see `Group`.
_Alike = tuple[str, str, str, str, bool, bool]


def _alike(p: Primitive, weights: set[tuple[str, str]]) -> _Alike:
    """What is equal in all primitives of a group."""
    lays_out_weights = p.kind == "reorder" and _lays_out_weights(p, weights)
    return p.kind, p.implementation, p.dtype, p.fpmath, bool(p.post_ops), lays_out_weights


def _iterations(copy: str, step_s: Mapping[str, Sequence[float]]) -> int:
    """The number of iterations that a copy logged; the lines of one without any (a marker was lost) count as one's."""
    return max(len(step_s.get(copy, ())), 1)


def _within(executions: Executions, step_s: Mapping[str, Sequence[float]]) -> Iterator[tuple[Run, int]]:
    """The executions of iterations that are known to have run, with the number of the iteration."""
    for run in executions.runs():
        step = run.step if step_s.get(run.copy) else 0
        if step < _iterations(run.copy, step_s):
            yield run, step


def summarize(log: Log, step_s: Mapping[str, Sequence[float]], streams: int = 1) -> Summary:
    """Summarize several iterations as one.

    Args:
        log: the log of several iterations.
        step_s: copy of oneDNN -> wall time of each iteration that it logged.
        streams: see `groups`.
    """
    alike = groups(log, step_s, streams)
    compute = [group for group in alike if group.kind in COMPUTE]
    reorders = [group for group in alike if group.kind == "reorder"]
    total, compute_s = _seconds(alike), _seconds(compute)
    logged = [seconds for seconds in step_s.values() if seconds]
    wall_s = mean(map(median, logged)) if logged else 0.0
    implementations = _sums((group.implementation, group.seconds) for group in compute)
    calls, seconds = _sums((g.kind, g.calls) for g in alike), _sums((g.kind, g.seconds) for g in alike)
    steps = max(map(len, logged), default=1)
    return Summary(
        seconds=total,
        coverage=total / wall_s if wall_s else 0.0,
        by_kind={kind: (calls[kind], seconds[kind]) for kind in sorted(calls)},
        flop=_flop(log, step_s, (group.kind for group in compute)),
        isa=_shares(_sums((isa_family(group.implementation), group.seconds) for group in compute), compute_s),
        dtypes=_shares(_sums((group.dtype, group.seconds) for group in compute), compute_s),
        fpmath=_shares(_sums((group.fpmath, group.seconds) for group in compute if group.fpmath), compute_s),
        kernel=max(implementations, key=lambda name: implementations[name], default=""),
        calls=_calls(alike),
        reorders=_calls(reorders),
        weight_reorders=_calls(group for group in reorders if group.lays_out_weights),
        reorder_share=_seconds(reorders) / total if total else 0.0,
        reorder_bytes=_reorder_bytes(log, step_s),
        fused=_calls(group for group in alike if group.is_fused),
        cache_hits=log.created.get("cache_hit", 0) / steps,
        cache_misses=log.created.get("cache_miss", 0) / steps,
        layouts=_layouts(log.primitives),
        unparsed=len(log.unparsed),
    )


def _flop(log: Log, step_s: Mapping[str, Sequence[float]], kinds: Iterable[str]) -> dict[str, float | None]:
    """Kind that computes -> an iteration's floating-point operations; None if those of one primitive aren't known."""
    of_each = {
        kind: [flop.of_primitive(p.kind, p.shape) if p.kind == kind else 0.0 for p in log.primitives.distinct]
        for kind in sorted(set(kinds))
    }
    return {kind: _per_iteration(log, step_s, figures) for kind, figures in of_each.items()}


def _per_iteration(log: Log, step_s: Mapping[str, Sequence[float]], of_each: Sequence[float | None]) -> float | None:
    """What a figure of single primitives adds up to in an iteration, by the median of each copy's iterations.

    Args:
        of_each: the figure of each of the log's distinct primitives.

    Returns:
        The sum over the copies; None if the figure of one that was executed is not known.
    """
    sums: dict[str, dict[int, float]] = {}
    for run, step in _within(log.primitives, step_s):
        calls = np.bincount(np.asarray(run.which))
        for number in np.flatnonzero(calls).tolist():
            of_one = of_each[number]
            if of_one is None:
                return None
            if of_one:
                by_step = sums.setdefault(run.copy, {})
                by_step[step] = by_step.get(step, 0.0) + int(calls[number]) * of_one
    return float(sum(median_over(by_step.values(), _iterations(copy, step_s)) for copy, by_step in sums.items()))


def _seconds(alike: Iterable[Group]) -> float:
    return math.fsum(group.seconds for group in alike)


def _calls(alike: Iterable[Group]) -> float:
    return math.fsum(group.calls for group in alike)


def _sums(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, seconds in pairs:
        sums[name] = sums.get(name, 0.0) + seconds
    return dict(sorted(sums.items()))


def _shares(sums: Mapping[str, float], whole: float) -> dict[str, float]:
    return {name: seconds / whole for name, seconds in sums.items()} if whole else {}


def _weights(primitives: Iterable[Primitive]) -> set[tuple[str, str]]:
    """The (dimensions, layout) of the weights that primitives computed with."""
    pairs = set()
    for primitive in primitives:
        weights = primitive.tensors.get("wei")
        dimensions = _weight_shape(primitive.shape)
        # A product of more than two dimensions has two activations, as in attention.
        if weights and dimensions and (primitive.kind != "matmul" or dimensions.count("x") == 1):
            pairs.add((dimensions, weights.tag))
    return pairs


def _weight_shape(shape: str) -> str | None:
    """The dimensions of the weights in the problem of a convolution (``g32mb2_ic64oc64_..kh3..kw3..``), of a product
    (``512x768:768x3072``) or of an inner product (``mb4ic512oc1000``)."""
    if ":" in shape:
        return shape.split(":")[1]
    image = re.match(r"(?:g(\d{1,9}))?mb\d+_?ic(\d{1,9})oc(\d{1,9})(.*)", shape)
    if not image:
        return None
    groups, ic, oc = (int(text or 1) for text in image.groups()[:3])
    kernel = re.findall(r"k[dhw](\d+)", image[4])
    grouped = [groups, oc // groups, ic // groups] if image[1] and groups > 1 else [oc, ic]
    return "x".join(map(str, [*grouped, *kernel]))


def _lays_out_weights(reorder: Primitive, weights: set[tuple[str, str]]) -> bool:
    target = reorder.tensors.get("dst")
    if target is None:
        return False
    # A capital A means blocked by the first dimension; in activations that is the batch, which is never blocked.
    return "A" in target.tag or (reorder.shape, target.tag) in weights


def _reorder_bytes(log: Log, step_s: Mapping[str, Sequence[float]]) -> float | None:
    """The bytes that an iteration's reorders read and wrote; None if the size of one is not known."""
    return _per_iteration(log, step_s, [_size(p) if p.kind == "reorder" else 0 for p in log.primitives.distinct])


def _size(reorder: Primitive) -> int | None:
    """The bytes of a reorder's tensors; None if their shape or their element type is not known."""
    bits = [_bits(tensor.dtype) for tensor in reorder.tensors.values()]
    if not _DIMENSIONS.fullmatch(reorder.shape) or any(width is None for width in bits):
        return None
    elements = math.prod(int(size) for size in reorder.shape.split("x"))
    return sum(-(-elements * (width or 0) // 8) for width in bits)


def _bits(dtype: str) -> int | None:
    """The width of an element, of which two may share a byte; None if the type is not known."""
    width = _WIDTH.fullmatch(dtype)
    return int(width[1]) if width else _OTHER_WIDTHS.get(dtype)


def _layouts(executions: Executions) -> dict[str, int]:
    names = {"abcd": "channels_first", "acdb": "channels_last"}
    counts: dict[str, int] = {}
    # Of each primitive that matters: (image with its layout, layout before a reorder, or None of a convolution).
    told = [_told_of_layouts(p) for p in executions.distinct]
    # Reorders since the last convolution, by (shape, new layout): one of them may have made the next one's input.
    origins: dict[tuple[str, str], str] = {}
    for run in executions.runs():
        for which in run.which:
            telling = told[which]
            if telling is None:
                continue
            image, before = telling
            if before is not None:
                origins[image] = before
            else:
                name = names.get(origins.get(image, image[1]), "blocked")
                counts[name] = counts.get(name, 0) + 1
                origins = {}
    return counts


def _told_of_layouts(p: Primitive) -> tuple[tuple[str, str], str | None] | None:
    """((shape, layout) of its result, layout of its source) of a reorder, ((shape, layout) of its source, None) of a
    convolution; None of others."""
    source, target = p.tensors.get("src"), p.tensors.get("dst")
    if p.kind == "reorder" and source and target:
        return (_image_shape(p.shape), target.tag), source.tag
    if p.kind == "convolution" and source:
        return (_image_shape(p.shape), source.tag), None
    return None


def _image_shape(shape: str) -> str:
    """The batch, channels, height and width of a reorder (``20x16x50x100``) or of a convolution's source
    (``mb20_ic16oc33_ih50oh24kh3..._iw100ow49...``; with groups ``g16mb20_...``)."""
    convolution = re.match(r"(?:g\d+)?mb(\d+)_ic(\d+)oc\d+_ih(\d+)oh.*_iw(\d+)ow", shape)
    return "x".join(convolution.groups()) if convolution else shape
