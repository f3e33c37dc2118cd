"""Two looks at untimed iterations after the timed loop: which operators ran, and which kernels of oneDNN.

An operator's inputs show the dtype and the memory format in whatever way the model runs (eager, TorchScript, the calls
of torch.compile); oneDNN's own log shows the instructions for which its kernels were made.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from runner.protocol.captures import Steps
from runner.protocol.evidence import ComputeOperator, OperatorEvidence
from runner.worker import chrome_trace, flop
from runner.worker.measure import time_iterations

# Operators that do the arithmetic of a model; the others move data, allocate or add up.
_COMPUTE = re.compile(
    r"conv|linear|addmm|baddbmm|matmul|::mm\b|_mm\b|_mm_for_cpu\b|::bmm\b|attention|MKLSGEMM|gemm|lstm|::gru|rnn_", re.I
)
# Operators on images: their inputs have the memory format of the activations.
_IMAGE = re.compile(r"conv|pool|batch_norm|relu|upsample", re.I)
# Preparations have names like those of operators that compute.
_NOT_COMPUTE = re.compile(r"(?<!ipex)_prepack\b|pack_weight|weight_pack|unpack|::convert", re.I)

_DTYPES = {
    "float": "float32",
    "c10::BFloat16": "bfloat16",
    "c10::Half": "float16",
    "double": "float64",
    "c10::quint8": "int8",
    "c10::qint8": "int8",
    "unsigned char": "int8",
    "signed char": "int8",
}


def is_compute(name: str) -> bool:
    """Whether an operator of this name does arithmetic of a model."""
    return bool(_COMPUTE.search(name)) and not _NOT_COMPUTE.search(name)


def is_on_images(name: str) -> bool:
    """Whether an operator of this name works on images, whose memory format is that of the activations."""
    return bool(_IMAGE.search(name)) and not _NOT_COMPUTE.search(name)


# Operators that compute in int8, whatever they are given: partitions of IPEX's int8 graph, with the names of what they
# replace (dequantizing both operands, then the operator), and linears that quantize a float32 activation themselves.
_INT8 = ("dequantize+dequantize+", "quantized::linear_dynamic", "quantized::linear_relu_dynamic")


def layout(dims: Sequence[int], strides: Sequence[int]) -> str:
    """The memory format of a tensor with these dimensions and strides.

    It is ``channels_first`` or ``channels_last`` if the strides fit only one of them, ``either`` if they fit both (one
    channel, or one pixel), ``strided`` if they fit neither, and ``""`` for a rank other than 4.
    """
    if len(dims) != 4 or len(strides) != 4:
        return ""

    def dense(order: tuple[int, ...]) -> bool:
        expected = 1
        for axis in reversed(order):
            if dims[axis] != 1 and strides[axis] != expected:
                return False
            expected *= dims[axis]
        return True

    first, last = dense((0, 1, 2, 3)), dense((0, 2, 3, 1))
    if first and last:
        return "either"
    return "channels_first" if first else "channels_last" if last else "strided"


def _innermost(events: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The operators that contain no other: aten::conv2d calls aten::convolution, which calls the one that computes."""
    stack: list[tuple[dict[str, Any], bool]] = []
    for event in sorted(events, key=lambda e: (e["tid"], e["ts"], -e["dur"])):
        while stack and (
            stack[-1][0]["tid"] != event["tid"] or event["ts"] >= stack[-1][0]["ts"] + stack[-1][0]["dur"]
        ):
            outer, has_inner = stack.pop()
            if not has_inner:
                yield outer
        stack = [(outer, True) for outer, _ in stack]
        # IPEX's kernels don't record their inputs; the operator around them does.
        inherits = stack and not _first_tensor(event.get("args", {}))[0]
        stack.append(({**event, "args": stack[-1][0].get("args", {})} if inherits else event, False))
    yield from (outer for outer, has_inner in stack if not has_inner)


def _first_tensor(args: dict[str, Any]) -> tuple[str, str]:
    """The (dtype, layout) of the operator's first floating or quantized tensor, which is its activation."""
    dims, strides = args.get("Input Dims", []), args.get("Input Strides", [])
    for index, kind in enumerate(args.get("Input type", [])):
        if kind in _DTYPES and index < len(dims) and dims[index]:
            return _DTYPES[kind], layout(dims[index], strides[index] if index < len(strides) else [])
    return "", ""


@dataclass
class _Calls:
    """Calls that are alike, added up."""

    count: int = 0
    time_s: float = 0.0
    flop: float | None = 0.0

    def add(self, event: dict[str, Any]) -> None:
        self.count += 1
        self.time_s += event["dur"] * 1e-6
        shapes = [dims if all(isinstance(size, int) for size in dims) else () for dims in _dims(event)]
        of_call = flop.of_operator(event["name"], shapes)
        self.flop = None if self.flop is None or of_call is None else self.flop + of_call


def _dims(event: dict[str, Any]) -> list[list[Any]]:
    """The shape of each argument; a list of tensors has a list of shapes."""
    dims: list[list[Any]] = event.get("args", {}).get("Input Dims", [])
    return dims


# In a name of our own, because torch's stubs don't have all of its settings.
_kineto: Any = torch._C._profiler


def all_threads() -> Any:
    """The setting by which torch's profiler records the operators of every thread, and not only of the caller's."""
    return _kineto._ExperimentalConfig(profile_all_threads=True)


def operators(step: Callable[[], object], on_all_threads: bool = False) -> OperatorEvidence:
    """The operators of one iteration: runs ``step`` once under torch's profiler.

    Args:
        on_all_threads: whether to look at other threads than the caller's too, where streams compute.

    Raises:
        ValueError: the profiler left nothing that can be read.
    """
    config = all_threads() if on_all_threads else None
    # Not torch.profiler.profile: the first use of that imports 869 modules of inductor, which takes most of a second.
    with torch.autograd.profiler.profile(use_kineto=True, record_shapes=True, experimental_config=config) as profiler:
        step()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events, left_out = chrome_trace.read(trace.read_bytes())
    complete = [event for event in events if event.get("ph") == "X" and event.keys() >= {"name", "tid", "ts", "dur"}]
    called = [event for event in complete if event.get("cat") == "cpu_op"]
    layouts: dict[str, int] = {}
    for event in called:
        if is_on_images(event["name"]):
            form = _first_tensor(event.get("args", {}))[1]
            if form:
                layouts[form] = layouts.get(form, 0) + 1
    rows: dict[tuple[str, str, str], _Calls] = {}
    for event in _innermost([event for event in called if is_compute(event["name"])]):
        dtype, form = _first_tensor(event.get("args", {}))
        if not dtype and "sgemm" in event["name"].lower():
            dtype = "float32"  # the s in MKL's sgemm
        key = (event["name"], "int8" if event["name"].startswith(_INT8) else dtype, form)
        rows.setdefault(key, _Calls()).add(event)
    return OperatorEvidence(
        compute=[
            ComputeOperator(name, dtype or None, form or None, calls.count, calls.time_s, calls.flop)
            for (name, dtype, form), calls in sorted(rows.items(), key=lambda item: -item[1].time_s)
        ],
        left_out=left_out,
        image_layouts=dict(sorted(layouts.items())),
        compiled_regions=sum(event["name"].startswith("Torch-Compiled Region") for event in complete),
    )


@contextmanager
def _c_stdout_to(file: Path) -> Iterator[None]:
    """Redirect file descriptor 1 to ``file``: oneDNN prints through the C library, and not through sys.stdout."""
    libc = ctypes.CDLL(None)
    libc.fflush(None)
    original = os.dup(1)
    target = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.dup2(target, 1)
        yield
    finally:
        libc.fflush(None)
        os.dup2(original, 1)
        os.close(original)
        os.close(target)


def _copies() -> dict[str, Callable[[int], int]]:
    """Copy of oneDNN in this process (torch's, and IPEX's own) -> the function that sets its verbose level."""
    copies: dict[str, Callable[[int], int]] = {"torch": torch._C._verbose.mkldnn_set_verbose}
    ipex = sys.modules.get("intel_extension_for_pytorch")
    if ipex is not None:
        copies["ipex"] = ipex._C.mkldnn_set_verbose
    return copies


def onednn(step: Callable[[], object], file: Path, steps: Steps) -> dict[str, list[float]]:
    """Run iterations with oneDNN's verbose log (executions, creations) going to ``file``, one copy of oneDNN at a time.

    Their lines do not say which copy printed them, so a marker line ``#### step 0 torch`` goes before each
    iteration. Returns copy -> wall time of each of its iterations in seconds.
    """
    libc = ctypes.CDLL(None)
    seconds = {}
    # oneDNN reads this when it logs its first line.
    os.environ["ONEDNN_VERBOSE_TIMESTAMP"] = "1"
    with _c_stdout_to(file):
        for copy, set_level in _copies().items():

            def logged(i: int, copy: str = copy) -> None:
                libc.fflush(None)
                os.write(1, f"#### step {i} {copy}\n".encode())
                step()

            set_level(torch.backends.mkldnn.VERBOSE_ON_CREATION)
            try:
                seconds[copy] = time_iterations(logged, steps.iterations, steps.max_s, steps.least)
            finally:
                set_level(torch.backends.mkldnn.VERBOSE_OFF)
    del os.environ["ONEDNN_VERBOSE_TIMESTAMP"]
    return seconds
