from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from runner.protocol.stopping import MIN_ITERATIONS, Rule
from runner.worker import captures, evidence, measure, models


def test_the_timed_loop_runs_exactly_the_iterations_asked_for() -> None:
    calls: list[int] = []
    samples = measure.timed_loop(lambda: calls.append(1), Rule(7, min_time_s=99, max_time_s=99))
    assert len(calls) == len(samples) == 7


def test_a_pass_whose_median_stays_uncertain_ends_at_its_longest_time() -> None:
    naps = itertools.cycle([0.004, 0.02])
    start = time.perf_counter()
    samples = measure.timed_loop(lambda: time.sleep(next(naps)), Rule(None, 0.1, 0.4, target_ci_pct=1))
    assert 0.4 <= time.perf_counter() - start < 3
    assert len(samples) <= 40


def test_a_pass_whose_median_is_known_ends_before_its_longest_time_but_not_before_its_shortest() -> None:
    start = time.perf_counter()
    measure.timed_loop(lambda: time.sleep(0.002), Rule(None, 0.3, 60, target_ci_pct=50))
    assert 0.3 <= time.perf_counter() - start < 30


def test_without_a_target_a_pass_lasts_its_longest_time() -> None:
    start = time.perf_counter()
    measure.timed_loop(lambda: time.sleep(0.002), Rule(None, 0.1, 0.5))
    assert time.perf_counter() - start >= 0.5


def test_the_timed_loop_never_stops_before_its_floor() -> None:
    short = Rule(None, 0.001, 0.001, target_ci_pct=99)
    assert len(measure.timed_loop(lambda: time.sleep(0.02), short)) == MIN_ITERATIONS


def test_a_sample_is_the_latency_of_its_own_call() -> None:
    naps = iter([0.01, 0.05, 0.01])
    samples = measure.timed_loop(lambda: time.sleep(next(naps)), Rule(3))
    assert samples[1] > 0.05e9
    assert samples[0] < samples[1] > samples[2]


def test_the_window_counts_page_faults_of_the_timed_region_only() -> None:
    size = 64 << 20
    _outside = bytearray(size)
    _, quiet = measure.measure(lambda: None, Rule(10), os.getpid())
    _, busy = measure.measure(lambda: bytearray(size), Rule(1), os.getpid())
    assert quiet.minor_faults < 1000
    # calloc'ed memory is not touched by bytearray(size), so only a lower bound that touching guarantees:
    _, touched = measure.measure(lambda: bytes(bytearray(b"x") * size), Rule(1), os.getpid())
    assert touched.minor_faults > busy.minor_faults


def test_the_runners_cpu_time_is_read_from_its_own_clock() -> None:
    def spin() -> None:
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass

    _, window = measure.measure(spin, Rule(1), os.getpid())
    assert window.runner_cpu_s is not None
    assert window.runner_cpu_s == pytest.approx(0.2, abs=0.05)


def test_a_runner_that_is_gone_leaves_its_cpu_time_unobserved() -> None:
    _, window = measure.measure(lambda: None, Rule(1), runner_pid=2**22 - 1)
    assert window.runner_cpu_s is None


def test_ancestors_below_the_runner_exclude_the_runner() -> None:
    assert measure.ancestors_below(os.getppid()) == []
    assert measure.ancestors_below(2**22 - 1) is None


def test_the_owner_of_malloc_is_a_file_that_exists() -> None:
    found = evidence.owner("malloc")
    assert found is not None
    assert os.path.exists(found)  # noqa: PTH110 - a string from dladdr
    assert evidence.owner("no_such_symbol_anywhere") is None


@pytest.mark.parametrize(
    ("tensor", "name"),
    [
        (torch.zeros(2, 3, 4, 5), "channels_first"),
        (torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last), "channels_last"),
        (torch.zeros(2, 1, 1, 1), "either"),
        (torch.zeros(2, 3, 4, 5).transpose(1, 3)[:, :, ::2], "strided"),
        (torch.zeros(4), "contiguous"),
        (torch.zeros(4, 4).t(), "strided"),
    ],
)
def test_memory_formats_are_named_by_strides_not_by_wishes(tensor: torch.Tensor, name: str) -> None:
    assert evidence.memory_format(tensor) == name


@pytest.mark.parametrize(("factory", "shape"), [(models.tiny, (2, 10)), (models.conv_relu, (2, 33, 24, 49))])
def test_the_shipped_models_run_on_their_own_inputs(factory: object, shape: tuple[int, ...]) -> None:
    assert callable(factory)
    module, inputs = factory(batch_size=2)
    assert isinstance(module, nn.Module)
    with torch.inference_mode():
        assert module(*inputs).shape == shape


def test_perf_beside_a_worker_runs_in_the_locale_c_and_with_the_systems_allocator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("LD_PRELOAD", "")
    script = f"cd {tmp_path} && echo $LC_ALL ${{LD_PRELOAD-unset}} > new && mv new env"
    (tmp_path / "perf").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "perf").chmod(0o755)
    with captures._attached_perf([str(tmp_path / "perf")], tmp_path, tmp_path / "counts"):
        end = time.monotonic() + 30
        while not (tmp_path / "env").exists() and time.monotonic() < end:
            time.sleep(0.01)
    assert (tmp_path / "env").read_text() == "C unset\n"
