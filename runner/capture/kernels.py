"""What oneDNN's kernels did a step: times, instruction sets, dtypes, reorders, layouts; the log as tables.

Apart from runner.capture.onednn, which reads the log's lines and judges nothing. Each copy of oneDNN (torch's, IPEX's)
logged steps of its own, so whatever is counted is divided by the steps of the copy that printed it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from statistics import mean
from typing import Any, TypeVar

from runner.capture.onednn import COMPUTE, MOSTLY, Log, Primitive
from runner.capture.steps import median_over
from runner.protocol.verdicts import UNOBSERVED

Step = TypeVar("Step", int, str)

# Of a tensor; twelve is as many as oneDNN has.
_DIMENSIONS = re.compile(r"\d{1,9}(x\d{1,9}){0,11}")
_BYTES = {"f64": 8, "f32": 4, "s32": 4, "bf16": 2, "f16": 2, "s8": 1, "u8": 1}


@dataclass(frozen=True)
class Summary:
    """What one step spent where: times in seconds, and shares of its primitives' time."""

    seconds: float
    """In primitives."""
    coverage: float
    """Primitives' time over the logged step's wall time, printing included; can pass 1 when primitives nest."""
    by_kind: Mapping[str, tuple[float, float]]
    """Kind (``convolution``, ``reorder``) -> (calls, seconds)."""
    isa: Mapping[str, float]
    """Family -> share of the time of the primitives that compute."""
    dtypes: Mapping[str, float]
    """Source dtype -> share of the time of the primitives that compute."""
    kernel: str
    """The implementation that computed longest; empty when none did."""
    calls: float
    reorders: float
    weight_reorders: float
    """Those of them that lay weights out anew: work that prepacking would do once."""
    reorder_share: float
    reorder_bytes: float
    """Read and written by reorders, without the padding of blocked layouts."""
    fused: float
    """Primitives with a post-op (relu, sum, ...) computed along."""
    cache_hits: float
    cache_misses: float
    """Primitives that had to be made anew."""
    layouts: Mapping[str, int]
    """channels_first or channels_last -> number of convolutions that were given it (through a reorder, or as is)."""
    unparsed: int

    @property
    def main_isa(self) -> str:
        """The family with the largest share; ``unobserved`` when oneDNN did less than half of the step's work."""
        return max(self.isa, key=lambda f: self.isa[f]) if self.isa and self.coverage >= MOSTLY else UNOBSERVED

    @property
    def main_kernel(self) -> str:
        """The implementation that computed longest; empty when oneDNN did less than half of the step's work."""
        return self.kernel if self.coverage >= MOSTLY else ""

    def seconds_in(self, *kinds: str) -> float:
        """Time in primitives of these kinds."""
        return sum(seconds for kind, (_, seconds) in self.by_kind.items() if kind in kinds)


def summarize(log: Log, step_s: Mapping[str, Sequence[float]]) -> Summary:
    """One step, from several: counts are means over all steps, times those of the step of median length.

    Args:
        step_s: copy of oneDNN -> wall time of each step that it logged.
    """
    chosen = {copy: _middle(seconds) for copy, seconds in step_s.items() if seconds}
    # Lines of a copy that no step is known of (a marker was lost) count as of one step.
    timed = [p for p in log.primitives if p.step == chosen.get(p.copy, p.step)]
    compute = [p for p in timed if p.kind in COMPUTE]
    total, compute_s = _seconds(timed), _seconds(compute)
    wall_s = mean(step_s[copy][step] for copy, step in chosen.items()) if chosen else 0.0

    def a_step(primitives: Iterable[Primitive]) -> float:
        return round(sum(1 / max(len(step_s.get(p.copy, ())), 1) for p in primitives), 6)

    kinds: dict[str, list[Primitive]] = {}
    for p in log.primitives:
        kinds.setdefault(p.kind, []).append(p)
    seconds = _sums((p.kind, p.seconds) for p in timed)
    reorders = [p for p in log.primitives if p.kind == "reorder"]
    reorder_s = _seconds(p for p in timed if p.kind == "reorder")
    weights = _weights(log.primitives)
    implementations = _sums((p.implementation, p.seconds) for p in compute)
    steps = max(map(len, step_s.values()), default=0) or 1
    return Summary(
        seconds=total,
        coverage=total / wall_s if wall_s else 0.0,
        by_kind={kind: (a_step(kinds[kind]), seconds.get(kind, 0.0)) for kind in sorted(kinds)},
        isa=_shares(_sums((p.family, p.seconds) for p in compute), compute_s),
        dtypes=_shares(_sums((p.dtype, p.seconds) for p in compute), compute_s),
        kernel=max(implementations, key=lambda name: implementations[name], default=""),
        calls=a_step(log.primitives),
        reorders=a_step(reorders),
        weight_reorders=a_step(p for p in reorders if _lays_out_weights(p, weights)),
        reorder_share=reorder_s / total if total else 0.0,
        reorder_bytes=sum(_reorder_bytes(p) for p in timed if p.kind == "reorder"),
        fused=a_step(p for p in log.primitives if p.post_ops),
        cache_hits=log.created.get("cache_hit", 0) / steps,
        cache_misses=log.created.get("cache_miss", 0) / steps,
        layouts=_layouts(log.primitives),
        unparsed=len(log.unparsed),
    )


def _middle(values: Sequence[float]) -> int:
    """Index of the median; of an even number, the shorter of the two in the middle."""
    return sorted(range(len(values)), key=lambda i: values[i])[(len(values) - 1) // 2]


def _by_step(times: Iterable[tuple[str, Step, float]]) -> dict[str, dict[Step, float]]:
    """Copy of oneDNN -> step -> seconds, of (copy, step, seconds)."""
    found: dict[str, dict[Step, float]] = {}
    for copy, step, seconds in times:
        steps = found.setdefault(copy, {})
        steps[step] = steps.get(step, 0.0) + seconds
    return found


def _seconds(primitives: Iterable[Primitive]) -> float:
    return sum(p.seconds for p in primitives)


def _sums(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, seconds in pairs:
        found[name] = found.get(name, 0.0) + seconds
    return dict(sorted(found.items()))


def _shares(sums: Mapping[str, float], whole: float) -> dict[str, float]:
    return {name: seconds / whole for name, seconds in sums.items()} if whole else {}


def _weights(primitives: Iterable[Primitive]) -> set[tuple[str, str]]:
    """(dimensions, layout) of the weights that primitives computed with."""
    found = set()
    for primitive in primitives:
        weights = primitive.tensors.get("wei")
        dimensions = _weight_shape(primitive.shape)
        # A product of more than two dimensions has two activations, as in attention.
        if weights and dimensions and (primitive.kind != "matmul" or dimensions.count("x") == 1):
            found.add((dimensions, weights.tag))
    return found


def _weight_shape(shape: str) -> str | None:
    """Dimensions of the weights in a problem: of a convolution (``g32mb2_ic64oc64_..kh3..kw3..``), a product
    (``512x768:768x3072``), or an inner product (``mb4ic512oc1000``)."""
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
    # A capital A: blocked by the first dimension, which is the batch of activations and is never blocked in them.
    return "A" in target.tag or (reorder.shape, target.tag) in weights


def _reorder_bytes(reorder: Primitive) -> int:
    if not _DIMENSIONS.fullmatch(reorder.shape):
        return 0
    elements = prod(int(size) for size in reorder.shape.split("x"))
    return elements * sum(_BYTES.get(tensor.dtype, 0) for tensor in reorder.tensors.values())


def by_primitive(log: Log, step_s: Mapping[str, Sequence[float]]) -> dict[str, list[Any]]:
    """A row for each kind and implementation of primitive, longest first; columns as a table's.

    ``ms a step`` is the median over the steps.
    """
    found: dict[tuple[str, str], list[Primitive]] = {}
    for p in log.primitives:
        found.setdefault((p.kind, p.implementation), []).append(p)
    rows = []
    for (kind, implementation), group in found.items():
        copies = sorted({p.copy for p in group})
        steps = {copy: max(len(step_s.get(copy, ())), 1) for copy in copies}
        times = _by_step((p.copy, p.step, p.seconds) for p in group if p.step < steps[p.copy])
        seconds = sum(median_over(times.get(copy, {}).values(), steps[copy]) for copy in copies)
        rows.append(
            (
                f"{kind} {implementation}",
                seconds * 1e3,
                round(sum(1 / steps[p.copy] for p in group), 6),
                "+".join(copies),
                "+".join(sorted({p.dtype for p in group})),
                group[0].family,
                "+".join(sorted({name for p in group for name in p.post_ops})),
            )
        )
    rows.sort(key=lambda row: -row[1])
    names = ("primitive", "ms a step", "calls a step", "copies", "dtypes", "isa", "post-ops")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


TRACE = (
    "step", "copy", "operation", "engine", "primitive", "implementation", "propagation",
    "src_dtype", "src_layout", "wei_dtype", "wei_layout", "bia_dtype", "bia_layout", "dst_dtype", "dst_layout",
    "attributes", "post_ops", "auxiliary", "problem", "seconds", "timestamp_s",
)  # fmt: skip


# What `by_shape` reads of them.
OF_SHAPES = frozenset({"step", "copy", "operation", "primitive", "implementation", "post_ops", "problem", "seconds"})


def trace(log: Log) -> str:
    """The log as CSV, a row for each primitive executed and each graph partition, in the order of the log."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(TRACE)
    for p in log.primitives:
        tensors = [p.tensors.get(name) or p.tensors.get(f"{name}_0") or p.tensors.get(f"{name}0") for name in _TENSORS]
        cells = [text for tensor in tensors for text in ((tensor.dtype, tensor.tag) if tensor else ("", ""))]
        writer.writerow(
            (p.step, p.copy, "exec", p.engine, p.kind, p.implementation, p.prop_kind, *cells, p.attributes,
             " ".join(p.post_ops), p.auxiliary, p.shape, f"{p.seconds:.9g}", _date(p.timestamp_s))
        )  # fmt: skip
    for g in log.graphs:
        # Their time repeats that of the primitives inside.
        empty = [""] * (2 * len(_TENSORS))
        writer.writerow(
            (g.step, g.copy, "graph", g.engine, g.kind, g.implementation, "", *empty, "",
             " ".join(g.operations), g.backend, "", f"{g.seconds:.9g}", _date(g.timestamp_s))
        )  # fmt: skip
    return out.getvalue()


_TENSORS = ("src", "wei", "bia", "dst")


@dataclass(frozen=True)
class Problem:
    """All that oneDNN did in a step for one kind of primitive on one shape."""

    name: str
    """Kind and shape as oneDNN prints it (``convolution mb32_ic3oc64_ih224...``)."""
    ms: float
    """A step: median over the steps, summed over the copies."""
    calls: float
    """A step."""
    by: str
    """Implementations with their post-ops in brackets, joined by +: ``jit:avx512_core (eltwise_relu)``."""


def by_shape(rows: Iterable[Mapping[str, str]]) -> list[Problem]:
    """The primitives of a `trace`, read back, by kind and shape, longest first; without graphs."""
    found: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    steps: dict[str, set[str]] = {}
    for row in rows:
        steps.setdefault(row["copy"], set()).add(row["step"])
        if row["operation"] == "exec":
            found.setdefault((row["primitive"], row["problem"]), []).append(row)
    problems = []
    for (kind, shape), group in found.items():
        times = _by_step((row["copy"], row["step"], float(row["seconds"])) for row in group)
        problems.append(
            Problem(
                f"{kind} {shape}",
                1e3 * sum(median_over(of.values(), len(steps[copy])) for copy, of in times.items()),
                sum(1 / len(steps[row["copy"]]) for row in group),
                "+".join(sorted({_computed_by(row) for row in group})),
            )
        )
    return sorted(problems, key=lambda problem: -problem.ms)


def _computed_by(row: Mapping[str, str]) -> str:
    after = ", ".join(row["post_ops"].split())
    return f"{row['implementation']} ({after})" if after else row["implementation"]


def _date(timestamp_s: float | None) -> str:
    return "" if timestamp_s is None else f"{timestamp_s:.6f}"


def _layouts(primitives: Iterable[Primitive]) -> dict[str, int]:
    names = {"abcd": "channels_first", "acdb": "channels_last"}
    found: dict[str, int] = {}
    # Reorders since the last convolution, by (shape, layout made): one of them may have made this one's input.
    made: dict[tuple[str, str], str] = {}
    for primitive in primitives:
        source, target = primitive.tensors.get("src"), primitive.tensors.get("dst")
        if primitive.kind == "reorder" and source and target:
            made[_image_shape(primitive.shape), target.tag] = source.tag
        elif primitive.kind == "convolution" and source:
            name = names.get(made.get((_image_shape(primitive.shape), source.tag), source.tag), "blocked")
            found[name] = found.get(name, 0) + 1
            made = {}
    return found


def _image_shape(shape: str) -> str:
    """Batch, channels, height and width of a reorder (``20x16x50x100``) or of a convolution's source
    (``mb20_ic16oc33_ih50oh24kh3..._iw100ow49...``; with groups ``g16mb20_...``)."""
    convolution = re.match(r"(?:g\d+)?mb(\d+)_ic(\d+)oc\d+_ih(\d+)oh.*_iw(\d+)ow", shape)
    return "x".join(convolution.groups()) if convolution else shape
