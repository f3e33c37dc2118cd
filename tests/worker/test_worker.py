from __future__ import annotations

import concurrent.futures
import functools
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from runner.protocol.resultfile import Surroundings, Window
from runner.protocol.stopping import MIN_ITERATIONS, Rule
from runner.worker import call, captures, evidence, look, measure, models, symbols


def test_the_timed_loop_runs_exactly_the_iterations_asked_for() -> None:
    calls: list[int] = []
    samples = measure.timed_loop((lambda: calls.append(1),), Rule(7, min_time_s=99, max_time_s=99))[0]
    assert len(calls) == len(samples) == 7


def test_a_pass_whose_median_stays_uncertain_ends_at_its_longest_time() -> None:
    naps = itertools.cycle([0.004, 0.02])
    start = time.perf_counter()
    samples = measure.timed_loop((lambda: time.sleep(next(naps)),), Rule(None, 0.1, 0.4, target_ci_pct=1))[0]
    assert 0.4 <= time.perf_counter() - start < 3
    assert len(samples) <= 40


def test_a_pass_whose_median_is_known_ends_before_its_longest_time_but_not_before_its_shortest() -> None:
    start = time.perf_counter()
    measure.timed_loop((lambda: time.sleep(0.002),), Rule(None, 0.3, 60, target_ci_pct=50))
    assert 0.3 <= time.perf_counter() - start < 30


def test_without_a_target_a_pass_lasts_its_longest_time() -> None:
    start = time.perf_counter()
    measure.timed_loop((lambda: time.sleep(0.002),), Rule(None, 0.1, 0.5))
    assert time.perf_counter() - start >= 0.5


def test_the_timed_loop_never_stops_before_its_floor() -> None:
    short = Rule(None, 0.001, 0.001, target_ci_pct=99)
    assert len(measure.timed_loop((lambda: time.sleep(0.02),), short)[0]) == MIN_ITERATIONS


def test_a_sample_is_the_latency_of_its_own_call() -> None:
    naps = iter([0.01, 0.05, 0.01])
    samples = measure.timed_loop((lambda: time.sleep(next(naps)),), Rule(3))[0]
    assert samples[1] > 0.05e9
    assert samples[0] < samples[1] > samples[2]


@pytest.mark.parametrize("rule", [Rule(8), Rule(None, 0.001, 0.001)])
def test_iterations_take_the_ring_in_turn_and_the_last_output_is_kept(rule: Rule) -> None:
    calls: list[str] = []

    def call_of(name: str) -> int:
        calls.append(name)
        return len(calls)

    ring = [functools.partial(call_of, name) for name in "abc"]
    measured = measure.measure_ring(ring, rule, os.getpid(), keep=lambda output: ("kept", output))
    assert calls == [name for name, _ in zip(itertools.cycle("abc"), calls, strict=False)]
    assert measured.output == ("kept", len(measured.latencies_s))


def test_what_is_kept_of_the_last_output_is_not_counted_in_the_window() -> None:
    size = 64 << 20
    measured = measure.measure_ring(
        (lambda: None,), Rule(10), os.getpid(), keep=lambda _: len(bytes(bytearray(b"x") * size))
    )
    assert measured.output == size
    assert measured.window.minor_faults < 1000


@pytest.mark.parametrize(
    ("promise", "name"),
    [
        (concurrent.futures.Future(), "Future"),
        ({"later": (torch.ones(1), torch.futures.Future())}, "Future"),
        ((torch.ones(1) for _ in range(2)), "generator"),
        (map(abs, [torch.ones(1)]), "map"),
    ],
)
def test_a_promise_of_an_output_is_refused_by_name(promise: object, name: str) -> None:
    with pytest.raises(TypeError, match=f"returned a {name}"):
        call.copied(promise)


def test_a_coroutine_is_refused_by_name() -> None:
    async def forward() -> None: ...

    coroutine = forward()
    with pytest.raises(TypeError, match="returned a coroutine"):
        call.copied([coroutine])
    coroutine.close()


def test_a_copy_stays_as_it_was_and_shows_whether_the_output_did() -> None:
    output: dict[str, Any] = {"a": torch.tensor([1.0, float("nan")]), "b": [torch.zeros(2).long()], "c": None}
    copy = call.copied(output)
    assert call.is_same(output, copy)
    output["b"][0][1] = 7
    assert not call.is_same(output, copy)
    assert copy["b"][0][1] == 0
    assert call.places(output) == ["output['a']", "output['b'][0]"]


def test_a_disturbed_loop_is_run_again_in_the_same_process_and_the_last_one_counts() -> None:
    calm = Window(2.0, 0, 0, 0, 0, 3.9, 0.1, None, 0.0, 0.0)
    stolen = Surroundings([0, 1], 0.02, 4.0, 1.0, {}, None, None, None, None, None, None, 0)
    disturbed = replace(calm, surroundings=stolen)

    def loops(*windows: Window) -> Callable[[], measure.Measured]:
        left = iter(windows)
        return lambda: measure.Measured([1.0], next(left), None)

    measured, before = measure.measure_again(loops(disturbed, calm, calm), times=2)
    assert (measured.window, before) == (calm, [disturbed])
    said: list[str] = []
    measured, before = measure.measure_again(
        loops(disturbed, disturbed, disturbed, calm), 2, lambda: said.append("again")
    )
    assert (measured.window, before) == (disturbed, [disturbed, disturbed])
    assert said == ["again", "again"]
    assert measure.measure_again(loops(disturbed), times=0)[1] == []


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
    found = symbols.owner("malloc")
    assert found is not None
    assert os.path.exists(found)  # noqa: PTH110 - a string from dladdr
    assert symbols.owner("no_such_symbol_anywhere") is None


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


def test_a_profiler_that_fails_leaves_the_operators_unobserved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(step: object, on_all_threads: bool) -> None:
        raise RuntimeError("no profiler here")

    monkeypatch.setattr(look, "operators", fails)
    assert evidence._operators(lambda: None, has_streams=False) is None
    assert "no profiler here" in capsys.readouterr().err


def test_slow_iterations_are_still_as_many_as_a_median_needs() -> None:
    assert len(measure.time_iterations(lambda _: time.sleep(0.01), 5, max_s=0.001)) == 1
    assert len(measure.time_iterations(lambda _: time.sleep(0.01), 5, max_s=0.001, least=3)) == 3


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
