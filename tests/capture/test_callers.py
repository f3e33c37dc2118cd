"""Which operator called oneDNN: the log's time stamps within the profiler's ranges."""

from __future__ import annotations

import pytest

from runner.capture import callers, onednn
from runner.capture.callers import UNKNOWN, Range

MAIN, OTHER = 11, 12
INFO = (
    "onednn_verbose,v1,info,oneDNN v3.7.1 (commit abc)\n"
    "onednn_verbose,v1,primitive,info,template:timestamp,operation,engine,primitive,implementation,prop_kind,"
    "memory_descriptors,attributes,auxiliary,problem_desc,exec_time\n"
)


def log(*lines: tuple[int, str, float, str, float]) -> onednn.Log:
    """A log of (iteration, copy, start in ms since the epoch, primitive and implementation, ms)."""
    text = [INFO]
    for step, copy, start_ms, what, ms in lines:
        kind, implementation = what.split()
        text.append(f"#### step {step} {copy}\n")
        text.append(
            f"onednn_verbose,v1,{start_ms:.3f},primitive,exec,cpu,{kind},{implementation},forward_inference,"
            f"src:f32::blocked:ab::f0 dst:f32::blocked:ab::f0,,,4x4,{ms}\n"
        )
    return onednn.parse("".join(text).splitlines(keepends=True))


def ms(name: str, start: float, end: float, thread: int = MAIN) -> Range:
    return Range(name, thread, int(start * 1e6), int((end - start) * 1e6))


def test_a_primitive_belongs_to_the_innermost_operator_around_its_middle() -> None:
    found = callers.by_operator(
        log((0, "torch", 1010.0, "convolution brg:avx2", 5.0), (0, "torch", 1020.0, "matmul brg:avx2", 2.0)),
        [ms("aten::conv2d", 1005, 1018), ms("aten::mkldnn_convolution", 1008, 1017), ms("aten::linear", 1019, 1030)],
    )
    assert [(one.name, one.primitives) for one in found] == [
        ("aten::mkldnn_convolution", ("convolution brg:avx2",)),
        ("aten::linear", ("matmul brg:avx2",)),
    ]
    assert [one.seconds for one in found] == pytest.approx([0.005, 0.002])
    assert callers.attributed_pct(found) == pytest.approx(100)


def test_time_outside_of_every_operator_has_no_operator() -> None:
    found = callers.by_operator(
        log((0, "torch", 1010.0, "reorder jit:uni", 3.0), (0, "torch", 1020.0, "matmul brg:avx2", 1.0)),
        [ms("aten::linear", 1019, 1030), ms("step_0", 1000, 1040), ms("Torch-Compiled Region: 0/0", 1000, 1040)],
    )
    assert [one.name for one in found] == [UNKNOWN, "aten::linear"]
    assert callers.attributed_pct(found) == pytest.approx(25)


def test_ranges_of_other_threads_call_nothing() -> None:
    found = callers.by_operator(
        log((0, "torch", 1010.0, "matmul brg:avx2", 1.0)),
        [ms("aten::linear", 1009, 1012), ms("aten::add", 1001, 1002), ms("aten::copy_", 1010, 1011.5, OTHER)],
    )
    assert [one.name for one in found] == ["aten::linear"]


def test_times_are_medians_over_the_iterations_and_sums_over_the_copies() -> None:
    lines = [(step, "torch", 1000.0 + 10 * step, "matmul brg:avx2", took) for step, took in enumerate((1.0, 5.0, 2.0))]
    lines += [(step, "ipex", 2000.0 + 10 * step, "matmul brg:avx2", 3.0) for step in range(3)]
    found = callers.by_operator(log(*lines), [ms("aten::linear", 990, 3000)])
    assert found[0].seconds == pytest.approx(0.002 + 0.003)
    assert found[0].calls == 2


def test_nothing_was_called_where_oneDNN_printed_nothing() -> None:  # noqa: N802 - the library's own name
    assert callers.by_operator(onednn.parse([]), [ms("aten::linear", 990, 3000)]) == []
    assert callers.attributed_pct([]) == 100
