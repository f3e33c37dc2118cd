"""What oneDNN's kernels did per iteration: times, instruction sets, dtypes, reorders, layouts. Pure.

runner.capture.onednn reads the log's lines and judges nothing; runner.capture.kernel_tables makes tables of them. Each
copy of oneDNN (torch's, IPEX's) logged iterations of its own, so counts are divided by the iterations of the copy that
printed them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from statistics import mean

from runner.capture.onednn import COMPUTE, MOSTLY, Log, Primitive
from runner.protocol.verdicts import UNOBSERVED

# A tensor's dimensions; oneDNN has at most twelve.
_DIMENSIONS = re.compile(r"\d{1,9}(x\d{1,9}){0,11}")
_BYTES = {"f64": 8, "f32": 4, "s32": 4, "bf16": 2, "f16": 2, "s8": 1, "u8": 1}


@dataclass(frozen=True)
class Summary:
    """What oneDNN did in one iteration: times are in seconds, shares are of its primitives' time."""

    seconds: float
    """The time in all primitives."""
    coverage: float
    """The primitives' time over the logged iteration's wall time, printing included; above 1 if primitives nest."""
    by_kind: Mapping[str, tuple[float, float]]
    """Kind (``convolution``, ``reorder``) -> (calls, seconds)."""
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
    reorder_bytes: float
    """The bytes that reorders read and wrote, without the padding of blocked layouts."""
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


def summarize(log: Log, step_s: Mapping[str, Sequence[float]]) -> Summary:
    """Summarize several iterations as one: counts are means over all, times are those of the one of median length.

    Args:
        step_s: copy of oneDNN -> wall time of each iteration that it logged.
    """
    chosen = {copy: _middle(seconds) for copy, seconds in step_s.items() if seconds}
    # Lines of a copy without any known iteration (a marker was lost) count as those of one iteration.
    timed = [p for p in log.primitives if p.step == chosen.get(p.copy, p.step)]
    compute = [p for p in timed if p.kind in COMPUTE]
    total, compute_s = _seconds(timed), _seconds(compute)
    wall_s = mean(step_s[copy][step] for copy, step in chosen.items()) if chosen else 0.0

    def per_iteration(primitives: Iterable[Primitive]) -> float:
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
        by_kind={kind: (per_iteration(kinds[kind]), seconds.get(kind, 0.0)) for kind in sorted(kinds)},
        isa=_shares(_sums((p.family, p.seconds) for p in compute), compute_s),
        dtypes=_shares(_sums((p.dtype, p.seconds) for p in compute), compute_s),
        fpmath=_shares(_sums((p.fpmath, p.seconds) for p in compute if p.fpmath), compute_s),
        kernel=max(implementations, key=lambda name: implementations[name], default=""),
        calls=per_iteration(log.primitives),
        reorders=per_iteration(reorders),
        weight_reorders=per_iteration(p for p in reorders if _lays_out_weights(p, weights)),
        reorder_share=reorder_s / total if total else 0.0,
        reorder_bytes=sum(_reorder_bytes(p) for p in timed if p.kind == "reorder"),
        fused=per_iteration(p for p in log.primitives if p.post_ops),
        cache_hits=log.created.get("cache_hit", 0) / steps,
        cache_misses=log.created.get("cache_miss", 0) / steps,
        layouts=_layouts(log.primitives),
        unparsed=len(log.unparsed),
    )


def _middle(values: Sequence[float]) -> int:
    """The index of the median; for an even number of values, that of the smaller of the two in the middle."""
    return sorted(range(len(values)), key=lambda i: values[i])[(len(values) - 1) // 2]


def _seconds(primitives: Iterable[Primitive]) -> float:
    return sum(p.seconds for p in primitives)


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


def _reorder_bytes(reorder: Primitive) -> int:
    if not _DIMENSIONS.fullmatch(reorder.shape):
        return 0
    elements = prod(int(size) for size in reorder.shape.split("x"))
    return elements * sum(_BYTES.get(tensor.dtype, 0) for tensor in reorder.tensors.values())


def _layouts(primitives: Iterable[Primitive]) -> dict[str, int]:
    names = {"abcd": "channels_first", "acdb": "channels_last"}
    counts: dict[str, int] = {}
    # Reorders since the last convolution, by (shape, new layout): one of them may have made the next one's input.
    origins: dict[tuple[str, str], str] = {}
    for primitive in primitives:
        source, target = primitive.tensors.get("src"), primitive.tensors.get("dst")
        if primitive.kind == "reorder" and source and target:
            origins[_image_shape(primitive.shape), target.tag] = source.tag
        elif primitive.kind == "convolution" and source:
            name = names.get(origins.get((_image_shape(primitive.shape), source.tag), source.tag), "blocked")
            counts[name] = counts.get(name, 0) + 1
            origins = {}
    return counts


def _image_shape(shape: str) -> str:
    """The batch, channels, height and width of a reorder (``20x16x50x100``) or of a convolution's source
    (``mb20_ic16oc33_ih50oh24kh3..._iw100ow49...``; with groups ``g16mb20_...``)."""
    convolution = re.match(r"(?:g\d+)?mb(\d+)_ic(\d+)oc\d+_ih(\d+)oh.*_iw(\d+)ow", shape)
    return "x".join(convolution.groups()) if convolution else shape
