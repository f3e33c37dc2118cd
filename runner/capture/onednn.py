"""oneDNN's verbose log (oneDNN 3.3 and later, ``onednn_verbose,v1,...``), line by line.

Format: the library prints ``info`` lines, among them a ``template:`` that names the columns of the lines that
follow, then one ``exec`` line a primitive. Source: oneDNN Developer Guide, "Verbose Mode".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# Primitives that do the arithmetic of a model.
COMPUTE = frozenset({"convolution", "deconvolution", "inner_product", "matmul", "rnn"})

_DTYPES = {
    "f32": "float32",
    "bf16": "bfloat16",
    "f16": "float16",
    "f64": "float64",
    "u8": "int8",
    "s8": "int8",
}


@dataclass(frozen=True)
class Tensor:
    """One memory descriptor, ``src:f32::blocked:abcd::f0``."""

    dtype: str
    """As oneDNN spells it: f32, bf16, s8."""
    tag: str
    """Layout: ``abcd`` is NCHW, ``acdb`` NHWC, ``aBcd16b`` blocked by 16 channels."""


@dataclass(frozen=True)
class Primitive:
    """One executed primitive."""

    kind: str
    implementation: str
    tensors: Mapping[str, Tensor]
    attributes: str
    shape: str
    seconds: float

    @property
    def dtype(self) -> str:
        """Element type of the source, as torch calls it (``float32``, ``int8``), else as oneDNN spells it."""
        source = next((tensor for name, tensor in self.tensors.items() if name.startswith("src")), None)
        return _DTYPES.get(source.dtype, source.dtype) if source else ""

    @property
    def family(self) -> str:
        """Instruction family of the implementation: see isa_family()."""
        return isa_family(self.implementation)


@dataclass
class Log:
    """A parsed log."""

    primitives: list[Primitive] = field(default_factory=list)
    unparsed: list[str] = field(default_factory=list)
    """Lines that begin like oneDNN's and could not be read: kept, never dropped."""


def isa_family(implementation: str) -> str:
    """amx, avx512_core_fp16, avx512_core_bf16, avx512_core_vnni, avx512, avx2, sse41, gemm, ref, or other.

    The first that an implementation's name has, for example ``brg_conv_fwd:avx512_core_bf16``; ``jit:uni`` does
    not tell and is ``other``.
    """
    name = implementation.lower()
    for family, pattern in (
        ("amx", "amx"),
        ("avx512_core_fp16", "avx512_core_fp16"),
        ("avx512_core_bf16", "avx512_core_bf16"),
        ("avx512_core_vnni", "avx512_core_vnni"),
        ("avx512", "avx512|avx10"),
        ("avx2", "avx2"),
        ("sse41", "sse41"),
        ("gemm", r"^gemm|:gemm"),
        ("ref", r"^ref|^simple|:any$"),
    ):
        if re.search(pattern, name):
            return family
    return "other"


def parse(lines: Iterable[str]) -> Log:
    """Read a verbose log; lines that are not oneDNN's are skipped, its own that can't be read are kept."""
    log = Log()
    columns: list[str] = []
    for line in lines:
        words = line.rstrip("\n").split(",")
        if words[0] != "onednn_verbose":
            continue
        # A timestamp, when there is one, stands between the version and the component.
        if len(words) > 2 and re.fullmatch(r"[\d.]+", words[2]):
            del words[2]
        if words[1:4] == ["v1", "primitive", "info"] and len(words) > 4 and words[4].startswith("template:"):
            columns = [words[4].removeprefix("template:"), *words[5:]]
        elif words[1:4] == ["v1", "primitive", "exec"]:
            row = dict(zip(columns, words[3:], strict=False))
            try:
                if len(words) - 3 != len(columns):
                    raise ValueError("columns")
                log.primitives.append(_primitive(row))
            except (LookupError, ValueError):
                log.unparsed.append(line.rstrip("\n"))
        elif len(words) < 4 or words[1] != "v1" or words[2] not in ("info", "primitive", "graph"):
            log.unparsed.append(line.rstrip("\n"))
    return log


def _primitive(row: Mapping[str, str]) -> Primitive:
    tensors = {}
    for descriptor in row["memory_descriptors"].split():
        parts = descriptor.split(":")
        # name:dtype:flags:format kind:tag:strides:extra
        tensors[parts[0]] = Tensor(parts[1], parts[4] if len(parts) > 4 else "")
    return Primitive(
        kind=row["primitive"],
        implementation=row["implementation"],
        tensors=tensors,
        attributes=row["attributes"],
        shape=row["problem_desc"],
        seconds=float(row["exec_time"]) / 1e3,
    )


@dataclass(frozen=True)
class Summary:
    """What one step spent where, in shares of its primitives' time."""

    seconds: float
    coverage: float
    """Primitives' time over the step's wall time; can pass 1 when primitives nest."""
    isa: Mapping[str, float]
    """Family -> share of the time of the primitives that compute."""
    dtypes: Mapping[str, float]
    """Source dtype -> share of the time of the primitives that compute."""
    calls: int
    reorders: int
    reorder_share: float
    fused: int
    """Primitives with a post-op (relu, sum, ...) computed along."""
    layouts: Mapping[str, int]
    """channels_first or channels_last -> number of convolutions that were given it (through a reorder, or as is)."""
    unparsed: int

    @property
    def main_isa(self) -> str:
        """The family with the largest share; ``unobserved`` when oneDNN did less than half of the step's work."""
        return max(self.isa, key=lambda f: self.isa[f]) if self.isa and self.coverage >= MOSTLY else "unobserved"


# Below this share of a step's wall time, oneDNN's kernels say nothing of the step as a whole.
MOSTLY = 0.5


def summarize(log: Log, wall_s: float) -> Summary:
    """Shares over all primitives of one step that took ``wall_s``."""
    total = sum(p.seconds for p in log.primitives)
    compute = [p for p in log.primitives if p.kind in COMPUTE]
    reorders = [p for p in log.primitives if p.kind == "reorder"]
    compute_s = sum(p.seconds for p in compute)

    def shares(pairs: Iterable[tuple[str, float]], whole: float) -> dict[str, float]:
        sums: dict[str, float] = {}
        for name, seconds in pairs:
            sums[name] = sums.get(name, 0.0) + seconds
        return {name: seconds / whole for name, seconds in sorted(sums.items())} if whole else {}

    return Summary(
        seconds=total,
        coverage=total / wall_s if wall_s else 0.0,
        isa=shares(((p.family, p.seconds) for p in compute), compute_s),
        dtypes=shares(((p.dtype, p.seconds) for p in compute), compute_s),
        calls=len(log.primitives),
        reorders=len(reorders),
        reorder_share=sum(p.seconds for p in reorders) / total if total else 0.0,
        fused=sum("attr-post-ops" in p.attributes for p in log.primitives),
        layouts=_layouts(log.primitives),
        unparsed=len(log.unparsed),
    )


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
    convolution = re.search(r"mb(\d+)_ic(\d+)oc\d+_ih(\d+)oh.*_iw(\d+)ow", shape)
    return "x".join(convolution.groups()) if convolution else shape
