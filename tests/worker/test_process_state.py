"""What a model's code changes in its process is told by name, and what is as usual is not mentioned."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from runner.protocol import inherited
from runner.worker import process_state
from runner.worker.call import Call
from tests.conftest import ROOT


def in_a_process_of_its_own(code: str) -> str:
    """What the code prints, after process_state was imported there."""
    lines = f"import os, sys, torch\nfrom runner.worker import process_state\n{code}"
    ran = subprocess.run([sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def test_an_untouched_process_has_nothing_to_tell() -> None:
    code = "print(process_state.observe(process_state.Children()), process_state.settings(), process_state.variables())"
    assert in_a_process_of_its_own(code) == "{} [] []"


def test_what_holds_for_all_that_follows_is_told() -> None:
    code = """
torch.set_flush_denormal(True)
torch.backends.mkldnn.set_flags(False)
torch.use_deterministic_algorithms(True)
torch.set_default_device("cpu")
os.environ.update(OMP_NUM_THREADS="7", HARMLESS="1")
print(*process_state.settings(), *process_state.variables(), sep="; ")
"""
    assert in_a_process_of_its_own(code) == (
        "the model's code flushes denormal numbers to zero, which are slow and part of float32; "
        "the model's code turned oneDNN off (torch.backends.mkldnn); "
        "the model's code asks for deterministic algorithms, which fill new memory; "
        "the model's code left a mode on through which every operator goes (DeviceContext); "
        "the model's code set variables that tune libraries: OMP_NUM_THREADS=7"
    )


def test_what_was_inherited_and_is_no_more_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_state, "_INHERITED", {"nice": "5", "limit of stack": "unlimited"})
    monkeypatch.setattr(inherited, "read", lambda: {"nice": "9", "CPU quota": "1.5 CPUs"})
    assert process_state.observe(process_state.Children()) == {
        "nice": "5 at first, now 9",
        "limit of stack": "unlimited at first, now as usual",
        "CPU quota": "as usual at first, now 1.5 CPUs",
    }


def profiler(frame: Any, event: str, argument: Any) -> None: ...


@pytest.fixture
def undone() -> Iterator[None]:
    trace, profile = sys.gettrace(), sys.getprofile()
    yield
    sys.settrace(trace)
    sys.setprofile(profile)
    tracemalloc.stop()
    torch.autograd.set_detect_anomaly(False)


@pytest.mark.usefixtures("undone")
@pytest.mark.parametrize(
    ("start", "name", "value"),
    [
        (lambda: sys.setprofile(profiler), "sys.setprofile", f"{__name__}.profiler"),
        (tracemalloc.start, "tracemalloc", "on"),
        (lambda: torch.autograd.set_detect_anomaly(True), "torch.autograd.set_detect_anomaly", "on"),
    ],
)
def test_tools_that_look_at_every_step_are_told(start: Callable[[], object], name: str, value: str) -> None:
    start()
    assert process_state.observe(process_state.Children()).get(name) == value


@pytest.mark.parametrize(("work", "works"), [("while True: pass", True), ("input()", False)])
def test_a_process_of_its_own_is_told_if_it_computes(work: str, works: bool) -> None:
    code = f"""
import subprocess, time
child = subprocess.Popen([sys.executable, "-c", {f"print(flush=True){chr(10)}{work}"!r}], stdin=-1, stdout=-1)
child.stdout.readline()
time.sleep(0.2)

def iterate():
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    return "output"

children = process_state.Children()
print(children.watched(iterate), children.work)
child.kill()
"""
    output, _, said = in_a_process_of_its_own(code).partition(" ")
    assert output == "output"
    assert (said.startswith("1, which took ") and said.endswith(" % of the CPU time of an iteration")) is works


ONES, TWOS = torch.ones(2), torch.full((2,), 2.0)


@pytest.mark.parametrize(
    ("inputs", "outputs", "beginning"),
    [
        ([ONES, TWOS], [ONES, TWOS], ""),
        ([ONES], [ONES], ""),
        ([ONES, ONES.clone()], [ONES, ONES], "all 2 input sets are the same"),
        ([ONES, TWOS], [ONES, ONES.clone()], "the model's output is the same for all input sets"),
        ([ONES, TWOS], [ONES, torch.ones(3)], ""),
    ],
)
def test_inputs_and_outputs_that_are_all_the_same_are_told(
    inputs: list[torch.Tensor], outputs: list[torch.Tensor], beginning: str
) -> None:
    sentences = process_state.sameness([Call((tensor,)) for tensor in inputs], [[output] for output in outputs])
    assert [sentence[: len(beginning)] for sentence in sentences] == [beginning] * bool(beginning)


def test_the_descendants_of_a_process_include_those_of_its_children() -> None:
    with subprocess.Popen(["sh", "-c", "(sleep 30; true) & wait"], process_group=0) as child:
        end = time.monotonic() + 10
        while len(found := process_state._descendants(child.pid)) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        os.killpg(child.pid, 9)
        assert len(found) == 2
