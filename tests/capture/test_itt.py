"""The ITT collector under torch's real ITT, and the reader of what it records."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from runner.capture import itt, probe
from runner.config.captures import CaptureConf, IttCaptureConf
from runner.protocol.stored import FormatError
from runner.report import timeline
from tests.conftest import ROOT

# -- the reader, on recordings written here by the format in itt_collector.c ---------------------------


def recording(*threads: tuple[int, list[tuple[int, int, int, int]]], lost: int = 0, dropped: int = 0) -> bytes:
    """A file of (tid, [(ns, name, kind, domain)]) threads; names 0 step_0, 1 step_1, 2 aten::conv2d, 3 convolution."""

    def texts(*values: str) -> bytes:
        parts = [struct.pack("<I", len(value)) + value.encode() for value in values]
        return struct.pack("<I", len(parts)) + b"".join(parts)

    data = struct.pack("<4sIQ", b"ITTC", 1, lost) + texts("PyTorch", "dnnl::primitive::execute")
    data += texts("step_0", "step_1", "aten::conv2d", "convolution") + struct.pack("<I", len(threads))
    for tid, events in threads:
        data += struct.pack("<i32sQQ", tid, b"python", dropped, len(events))
        data += b"".join(struct.pack("<QIBBH", ns, name, kind, domain, 0) for ns, name, kind, domain in events)
    return data


B, E = 1, 2
STEPS = [
    (100, 0, B, 0), (200, 2, B, 0), (300, 3, B, 1), (700, 0, E, 1), (800, 0, E, 0), (1000, 0, E, 0),
    (1100, 1, B, 0), (1200, 2, B, 0), (1500, 0, E, 0), (2100, 0, E, 0),
]  # fmt: skip


def test_ranges_nest_and_their_own_time_is_without_what_they_call() -> None:
    found = itt.read(recording((7, STEPS)))
    conv = next(one for one in found.ranges if one.name == "aten::conv2d")
    assert (conv.depth, conv.seconds) == (1, 600e-9)
    assert conv.self_s == pytest.approx(200e-9)
    assert [step.seconds for step in found.steps] == [900e-9, 1000e-9]
    assert found.unmatched == found.dropped == 0


def test_operators_are_counted_a_step_on_the_thread_of_the_steps_only() -> None:
    worker = (8, [(310, 3, B, 1), (690, 0, E, 1)])
    ops = {op.name: op for op in itt.by_op(itt.read(recording((7, STEPS), worker)))}
    assert set(ops) == {"aten::conv2d", "dnnl::convolution"}
    assert ops["dnnl::convolution"].calls_per_iteration == 0.5
    assert ops["aten::conv2d"].total_s == pytest.approx(450e-9)
    assert ops["aten::conv2d"].p50_s == pytest.approx(450e-9)


def test_ranges_open_at_the_start_or_the_stop_are_counted_not_invented() -> None:
    found = itt.read(recording((7, [(50, 0, E, 0), *STEPS, (3000, 2, B, 0)]), lost=2, dropped=3))
    assert found.unmatched == 2
    assert found.dropped == 5
    assert len(found.ranges) == 5


def test_a_torn_or_foreign_file_is_refused_at_every_length() -> None:
    whole = recording((7, STEPS))
    for size in range(len(whole)):
        with pytest.raises(FormatError, match="ITT recording"):
            itt.read(whole[:size])
    with pytest.raises(FormatError, match="not an ITT recording"):
        itt.read(b"GIF8" + whole[4:])


def test_the_timeline_is_trace_events_from_the_first_step_on() -> None:
    worker = (8, [(10, 3, B, 1), (20, 0, E, 1), (310, 3, B, 1), (690, 0, E, 1)])
    events = itt.timeline(itt.read(recording((7, STEPS), worker)), "cell")["traceEvents"]
    complete = [event for event in events if event["ph"] == "X"]
    assert complete[0] == {
        "ph": "X", "pid": 1, "tid": 7, "ts": 0.0, "dur": 0.9, "name": "step_0", "cat": "PyTorch",
    }  # fmt: skip
    assert all(event["ts"] >= 0 for event in complete)  # a worker thread's range before the first step is left out
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert names[7] == "iterations and operators"
    # The picture takes the step of median length, of two the shorter one, with its threads and depths.
    step, conv, *inner = timeline.middle_step([event for event in events if event.get("tid") == 7])
    assert (step[0], step[1], step[4]) == (0, 0, "step_0")
    assert (conv[0], conv[1], conv[4]) == (0, 1, "aten::conv2d")
    assert conv[2:4] == pytest.approx((1e-4, 6e-4))
    assert [(depth, name) for _, depth, _, _, name in inner] == [(2, "dnnl::convolution")]


def test_without_steps_there_is_no_operator_and_an_empty_timeline() -> None:
    found = itt.read(recording((7, [(200, 2, B, 0), (300, 0, E, 0)])))
    assert itt.by_op(found) == []
    assert itt.timeline(found, "cell")["traceEvents"] == []


# -- the collector ---------------------------------------------------------------------------------------


def test_the_collector_calls_nothing_that_allocates_or_that_could_be_replaced() -> None:
    collector = probe.collector()
    assert collector is not None, "make .venv/.ready builds it; it needs a C compiler"
    nm = shutil.which("nm")
    assert nm, "part of binutils, which g++ brings"
    listed = subprocess.run([nm, "-D", str(collector)], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    needed = {row[-1].partition("@")[0] for row in rows if row[-2] == "U"}
    assert needed <= {
        "clock_gettime", "close", "memcpy", "memset", "mmap", "munmap", "open", "pthread_getname_np",
        "pthread_mutex_lock", "pthread_mutex_unlock", "pthread_self", "strcmp", "strlen", "syscall", "write",
        "__stack_chk_fail", "__errno_location",
    }  # fmt: skip
    exported = {row[-1].partition("@")[0] for row in rows if row[-2] == "T"}
    assert exported - {"_init", "_fini"} == {
        "__itt_api_init", "runner_itt_start", "runner_itt_stop", "runner_itt_connected", "runner_itt_write",
    }  # fmt: skip


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("itt")
    script = ROOT / "tests/itt_workload.py"
    command = [sys.executable, str(script), str(probe.collector()), str(folder)]
    # In the environment from the start, as a job has it: torch's static part looks for it while it is imported.
    env = {**os.environ, "INTEL_LIBITTNOTIFY64": str(probe.collector())}
    # Memory is kept and reused: whether a step faults its pages in anew is else a matter of luck, and triples a relu.
    env |= {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
    # One thread: two that wait for each other lose more to a busy machine in one of the two recordings by chance.
    env["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_million_ranges_are_recorded_without_a_drop(ran: tuple[Path, dict[str, Any]]) -> None:
    found = itt.read((ran[0] / "million.bin").read_bytes())
    assert sum(one.name == "one of a million" for one in found.ranges) == 1_000_000
    assert found.dropped == 0
    assert found.unmatched == 0
    assert not any(one.name == "unseen" for one in found.ranges)


@pytest.mark.slow
def test_torch_and_its_onednn_are_connected_before_the_start_and_nothing_is_recorded_then(
    ran: tuple[Path, dict[str, Any]],
) -> None:
    assert ran[1]["connected"] >= 1
    found = itt.read((ran[0] / "steps.bin").read_bytes())
    first = found.steps[0].start_ns
    # The five steps before the start ran the same primitives.
    assert not [one for one in found.ranges if one.start_ns < first - 1e9]
    assert {one.domain for one in found.ranges} == {"PyTorch", "dnnl::primitive::execute"}


@pytest.mark.slow
def test_step_ranges_agree_with_the_workers_own_clock_within_2_percent(ran: tuple[Path, dict[str, Any]]) -> None:
    steps = itt.read((ran[0] / "steps.bin").read_bytes()).steps
    assert len(steps) == len(ran[1]["seconds"])
    off = [abs(step.seconds / seconds - 1) for step, seconds in zip(steps, ran[1]["seconds"], strict=True)]
    # The machine may stop a process between the two clocks, once in a while: that is no step of theirs.
    assert sorted(off)[-3] < 0.02


@pytest.mark.slow
def test_operators_are_those_of_pytorchs_profiler_as_often_and_as_long_within_a_fifth(
    ran: tuple[Path, dict[str, Any]],
) -> None:
    """Operators that are a tenth of the step or more, by the fastest of 40 steps taken in turns.

    The fastest, and not the median: on a busy machine whole turns meet other work, and an operator waits in them.
    """
    found = itt.read((ran[0] / "steps.bin").read_bytes())
    calls = {op.name: op.calls_per_iteration for op in itt.by_op(found)}
    compared = 0
    for name, row in ran[1]["profiler"].items():
        if not name.startswith("aten::"):
            continue
        assert calls[name] == median(row["calls"]), name
        if min(row["total_s"]) > 0.1 * min(ran[1]["profiled"]):
            own = [one for one in found.ranges if one.name == name]
            totals = [
                sum(one.seconds for one in own if step.start_ns <= one.start_ns < step.end_ns) for step in found.steps
            ]
            assert min(totals) == pytest.approx(min(row["total_s"]), rel=0.2), name
            compared += 1
    assert compared >= 4


def test_without_a_collector_itt_is_unavailable_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "collector", lambda: None)
    reasons = probe.unavailable(CaptureConf(itt=IttCaptureConf()))
    assert "apt-get install gcc" in reasons["itt"]
    assert probe.unavailable(CaptureConf()) == {}


def test_without_vtune_on_path_itt_by_vtune_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    reasons = probe.unavailable(CaptureConf(itt=IttCaptureConf(vtune=True)))
    assert "no vtune on PATH" in reasons["itt"]


def test_an_end_of_another_domain_closes_nothing() -> None:
    events = [(100, 0, B, 0), (200, 0, E, 1), (300, 0, E, 0)]
    found = itt.read(recording((7, events)))
    assert [one.seconds for one in found.steps] == [200e-9]
    assert found.unmatched == 1
