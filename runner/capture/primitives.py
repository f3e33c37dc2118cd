"""What a verbose log says of one execution, and all executions of a log: those that are alike are kept once.

A model repeats its primitives in every iteration, so that a log of a million lines has some hundred different ones. An
execution is three numbers: which of them it was, how long it took, and when.
"""

from __future__ import annotations

import bisect
import math
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import overload

_DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "f64": "float64", "u8": "int8", "s8": "int8"}


@dataclass(frozen=True)
class Tensor:
    """A memory descriptor, ``src:f32::blocked:abcd::f0`` or, before 3.6, ``src_f32::blocked:abcd:f0``."""

    dtype: str
    """The element type as oneDNN spells it: f32, bf16, s8; ``undef`` if there is no such tensor, as without a bias."""
    tag: str
    """The layout: ``abcd`` is NCHW, ``acdb`` NHWC, ``aBcd16b`` blocked by 16 channels; empty if none was printed."""


@dataclass(frozen=True)
class Primitive:
    """An executed primitive."""

    step: int
    """The number in the last ``#### step`` marker; 0 before the first one."""
    copy: str
    """The copy of oneDNN in the last marker, such as ``torch``; empty before the first one."""
    engine: str
    kind: str
    implementation: str
    prop_kind: str
    tensors: Mapping[str, Tensor]
    """Name that oneDNN prints (src, wei, bia, dst) -> tensor; repeated names, as a sum's sources, are src_1, src_2."""
    attributes: str
    """The attributes as printed, without surrounding blanks."""
    post_ops: tuple[str, ...]
    """What is computed on the result, in order: eltwise_relu, sum, binary_add; without their arguments."""
    auxiliary: str
    shape: str
    """oneDNN's problem descriptor, like a convolution's ``mb2_ic16oc32_ih12...`` or a matmul's ``512x768:768x768``."""
    seconds: float
    timestamp_s: float | None
    """The start in seconds since the epoch; None if the log has no timestamps."""

    @property
    def dtype(self) -> str:
        """The element type of the source, as torch calls it (``float32``, ``int8``) or else as oneDNN spells it."""
        source = next((tensor for name, tensor in self.tensors.items() if name.startswith("src")), None)
        return _DTYPES.get(source.dtype, source.dtype) if source else ""

    @property
    def fpmath(self) -> str:
        """The least precision that float32 arithmetic in it may have (``bf16``); empty where it must be float32's."""
        # attr-fpmath:bf16, or attr-fpmath:bf16:true where that holds for integers too; strict is not printed.
        mode = re.search(r"attr-fpmath:(\w+)", self.attributes)
        return mode[1] if mode and mode[1] != "strict" else ""

    @property
    def family(self) -> str:
        """The instruction family of the implementation: see isa_family()."""
        return isa_family(self.implementation)


@dataclass(frozen=True)
class GraphPartition:
    """An executed partition of oneDNN's graph API; the primitives in it are logged on their own as well."""

    step: int
    copy: str
    engine: str
    kind: str
    """The pattern that the partition matched, such as ``matmul_post_ops``."""
    operations: tuple[str, ...]
    implementation: str
    """The implementation; empty before oneDNN 3.6, which was the first to print it."""
    backend: str
    seconds: float
    timestamp_s: float | None


@dataclass(frozen=True)
class Run:
    """The executions between two ``#### step`` markers."""

    step: int
    copy: str
    which: memoryview[int]
    """The index of each execution in `Executions.distinct`."""
    seconds: memoryview[float]
    timestamps_s: memoryview[float]
    """The time at which each execution began, in seconds since the epoch; nan where the log has none."""


class Executions(Sequence[Primitive]):
    """The executed primitives of a log, in its order."""

    def __init__(self) -> None:
        self.distinct: list[Primitive] = []
        """The different ones, outside of any iteration, with the times of their first execution."""
        self._which = array("I")
        self._seconds, self._timestamps_s = array("d"), array("d")
        self._markers = [(0, 0, "")]  # (executions before it, step, copy)

    def begin(self, step: int, copy: str) -> None:
        """Note a marker: what follows belongs to this iteration and to this copy of oneDNN."""
        if self._markers[-1][0] == len(self):
            self._markers.pop()
        self._markers.append((len(self), step, copy))

    def add(self, which: int, seconds: float, timestamp_s: float | None) -> None:
        """Note an execution of one of ``distinct``."""
        self._which.append(which)
        self._seconds.append(seconds)
        self._timestamps_s.append(math.nan if timestamp_s is None else timestamp_s)

    def runs(self) -> Iterator[Run]:
        """The executions, marker by marker; none may be added while this is used."""
        which: memoryview[int] = memoryview(self._which)
        seconds: memoryview[float] = memoryview(self._seconds)
        stamps: memoryview[float] = memoryview(self._timestamps_s)
        for (first, step, copy), (end, _, _) in pairwise([*self._markers, (len(self), 0, "")]):
            if first < end:
                yield Run(step, copy, which[first:end], seconds[first:end], stamps[first:end])

    def __len__(self) -> int:
        return len(self._which)

    @overload
    def __getitem__(self, index: int) -> Primitive: ...
    @overload
    def __getitem__(self, index: slice) -> list[Primitive]: ...
    def __getitem__(self, index: int | slice) -> Primitive | list[Primitive]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        _, step, copy = self._markers[bisect.bisect(self._markers, number, key=lambda marker: marker[0]) - 1]
        timestamp_s = self._timestamps_s[number]
        return replace(
            self.distinct[self._which[number]],
            step=step,
            copy=copy,
            seconds=self._seconds[number],
            timestamp_s=None if math.isnan(timestamp_s) else timestamp_s,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it grows


def isa_family(implementation: str) -> str:
    """The instruction family of an implementation, by its name.

    The families are amx, avx512_core_fp16, avx512_core_bf16, avx512_core_vnni, avx512, avx2, sse41, gemm, ref and
    other. It is the first family in the implementation's name, such as ``brg_conv_fwd:avx512_core_bf16``; a name
    without one, such as ``jit:uni``, is ``other``.
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
