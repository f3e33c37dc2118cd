"""Somebody else at work while a pass measures: what is read, how it is judged, what a sweep makes of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient

from runner.protocol import contamination
from runner.protocol.resultfile import Surroundings, Window
from runner.protocol.stopping import Rule
from runner.results.outcome import attempt_folders, job_folder
from runner.tracking.store import Store
from runner.worker import measure, surroundings
from tests.conftest import MODELS, Runner, ask, records_of

# Recorded on a virtual machine of two CPUs, Linux 6.18, by `cat`; the long line of interrupts is cut.
STAT = """cpu  90456 405 11085 604103 1253 0 186 38 7 0
cpu0 37468 79 4217 311184 622 0 21 17 7 0
cpu1 52987 325 6868 292918 630 0 164 21 0 0
intr 643829 0 0 0 0
ctxt 1234567
"""
PRESSURE = """some avg10=0.18 avg60=0.04 avg300=0.13 total=7995802
full avg10=0.18 avg60=0.04 avg300=0.12 total=6986008
"""
VMSTAT = """nr_free_pages 1
pswpin 3
pswpout 4
allocstall_dma32 1
allocstall_normal 5
oom_kill 2
"""


# -- readings -----------------------------------------------------------------------------------------


def test_the_columns_of_a_cpu_add_up_without_its_guests() -> None:
    found = surroundings.cpu_times(STAT, {1, 0})
    assert found[0] == surroundings.CpuTimes(311184 + 622, 17, 37468 + 79 + 4217 + 311184 + 622 + 21 + 17)
    assert list(surroundings.cpu_times(STAT, {1, 64})) == [1]


def test_pressure_is_in_seconds_since_boot() -> None:
    assert surroundings.stalls_s("io", PRESSURE) == {"io_some": 7.995802, "io_full": 6.986008}


def test_memory_events_are_summed_over_their_kinds() -> None:
    assert surroundings.memory_events(VMSTAT) == {"swapped": 7, "stalls": 6, "oom_kill": 2}


def test_a_quotas_time_is_in_seconds_in_both_versions_of_cgroups() -> None:
    assert surroundings.throttled_s("usage_usec 9\nnr_throttled 2\nthrottled_usec 1500000\n") == 1.5
    assert surroundings.throttled_s("nr_periods 0\nnr_throttled 2\nthrottled_time 2500000000\n") == 2.5
    assert surroundings.throttled_s("usage_usec 9\n") is None


@pytest.mark.parametrize(
    ("membership", "root"), [("0::/a/b\n", ""), ("4:memory:/x\n1:cpu,cpuacct:/a/b\n0::/\n", "cpu")]
)
def test_the_quotas_of_the_cgroups_around_count_as_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, membership: str, root: str
) -> None:
    monkeypatch.setattr(surroundings, "_CGROUPS", tmp_path)
    (tmp_path / root / "a/b").mkdir(parents=True)
    (tmp_path / root / "a/cpu.stat").write_text("throttled_usec 1\n")
    assert tmp_path / root / "a/cpu.stat" in surroundings.quota_files(membership)
    assert tmp_path / root / "cpu.stat" in surroundings.quota_files(membership)


@given(st.sets(st.integers(0, 300), min_size=1))
def test_a_list_of_cpus_reads_back(cpus: set[int]) -> None:
    assert surroundings.cpu_list(",".join(map(str, sorted(cpus))) + "\n") == cpus
    assert surroundings.cpu_list(f"{min(cpus)}-{max(cpus)}") == set(range(min(cpus), max(cpus) + 1))


def test_hyper_threads_of_our_cores_are_watched_unless_another_instance_has_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(surroundings, "_CPUS", tmp_path)
    for cpu in range(8):
        (tmp_path / f"cpu{cpu}/topology").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}/topology/thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    assert surroundings.cpus_to_watch([0, 1], [[0, 1]]) == (0, 1, 4, 5)
    assert surroundings.cpus_to_watch([0, 1], [[0, 1], [4, 2]]) == (0, 1, 5)


def reading(at_s: float, *cpus: tuple[int, int, int]) -> surroundings.Reading:
    times = {number: surroundings.CpuTimes(*ticks) for number, ticks in enumerate(cpus)}
    return surroundings.Reading(at_s, times)


def test_a_cpu_is_at_work_when_it_is_neither_idle_nor_stolen() -> None:
    seen = surroundings.difference(
        reading(1, (0, 0, 0), (5, 5, 5)), reading(2, (40, 10, 100), (5, 5, 105)), (0, 1), 0.01
    )
    assert seen.busy_s == pytest.approx(0.5 + 1.0)
    assert seen.steal_s == pytest.approx(0.1)
    assert seen.resolution_s == 0.02


@pytest.mark.parametrize("after", [(0, 0, 0), (0, 0, 200)], ids=["stand still", "run ahead of the clock"])
def test_times_that_no_clock_has_are_unobserved(after: tuple[int, int, int]) -> None:
    seen = surroundings.difference(reading(1, (0, 0, 0)), reading(2, after), (0,), 0.01)
    assert (seen.busy_s, seen.steal_s) == (None, None)


def test_a_cpu_that_is_not_told_of_is_unobserved() -> None:
    seen = surroundings.difference(reading(1, (0, 0, 0)), reading(2, (0, 0, 100)), (0, 1), 0.01)
    assert seen.busy_s is None


def test_a_reading_takes_less_than_five_milliseconds() -> None:
    cpus = surroundings.cpus_to_watch(sorted(os.sched_getaffinity(0)), [])
    taken = []
    for _ in range(21):
        start = time.perf_counter()
        surroundings.read(cpus)
        taken.append(time.perf_counter() - start)
    assert sorted(taken)[10] < 0.005


def test_the_readings_are_outside_the_timed_window(monkeypatch: pytest.MonkeyPatch) -> None:
    read = surroundings.read

    def slow(cpus: tuple[int, ...]) -> surroundings.Reading:
        time.sleep(0.5)
        return read(cpus)

    monkeypatch.setattr(surroundings, "read", slow)
    _, window = measure.measure(lambda: None, Rule(5), os.getpid(), cpus=(0,))
    assert window.surroundings is not None
    assert window.wall_s < 0.5


# -- judging ------------------------------------------------------------------------------------------

CALM = Surroundings([0, 1], 0.02, 4.0, 0.0, dict.fromkeys(("cpu_some", "memory_some", "io_some"), 0.0),
                    0.0, 3e9, 3e9, 0, 0, 0, 0)  # fmt: skip
WINDOW = Window(2.0, 2, 0, 4, 5, 3.9, 0.1, None, 0.0, 0.0, CALM)


def seen(**changes: object) -> Window:
    """Two seconds in which the job had both CPUs to itself, and a change."""
    of_window = {name: changes.pop(name) for name in list(changes) if name in Window.__dataclass_fields__}
    return replace(WINDOW, surroundings=replace(CALM, **changes), **of_window)  # type: ignore[arg-type]


def test_a_job_alone_on_its_cores_is_clean() -> None:
    assert contamination.judge(WINDOW) == ()
    assert contamination.judge(None) == ()
    assert contamination.judge(replace(WINDOW, surroundings=None)) == ()


@given(
    user=st.floats(0, 4), system=st.floats(0, 0.5), runner=st.floats(0, 0.1), launcher=st.floats(0, 0.1),
    idle=st.floats(0, 1),
)  # fmt: skip
def test_cpu_time_of_the_jobs_own_processes_is_never_others(
    user: float, system: float, runner: float, launcher: float, idle: float
) -> None:
    own = user + system + runner + launcher
    window = replace(seen(busy_s=own + 0.02 * idle), user_s=user, system_s=system, runner_cpu_s=runner)
    assert contamination.judge(replace(window, launcher_cpu_s=launcher)) == ()
    assert contamination.judge(replace(window, generator_cpu_s=launcher)) == ()


@given(foreign=st.floats(0, 4), wall=st.floats(0.04, 100), cpus=st.integers(1, 128))
def test_others_count_from_a_twentieth_of_a_core_beyond_the_clocks_ticks(
    foreign: float, wall: float, cpus: int
) -> None:
    around = replace(CALM, cpus=list(range(cpus)), resolution_s=0.01 * cpus, busy_s=4.0 + foreign)
    found = contamination.judge(replace(WINDOW, wall_s=wall, surroundings=around))
    limit = 0.05 * wall + 0.01 * cpus
    if foreign > 1.001 * limit and 0.01 * cpus <= 0.5 * wall:
        assert found
    elif foreign < 0.999 * limit:
        assert found == ()


def test_a_busy_loop_on_one_core_is_named_with_its_share() -> None:
    [reason] = contamination.judge(seen(user_s=2.9, involuntary_switches=431))
    assert reason == "other processes took 50 % of a core; 2 CPUs watched, 431 involuntary switches"


def test_a_window_of_a_few_ticks_is_unobserved_and_not_clean() -> None:
    short = seen(wall_s=0.03, busy_s=0.06, user_s=0.0)
    assert contamination.judge(short) == ()
    assert "foreign_cpu_pct" not in contamination.figures(short)
    assert "foreign_cpu_pct" in contamination.figures(seen())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steal_s": 0.2}, "the hypervisor took 10 % of a core"),
        ({"quota_s": 0.5}, "quota stopped it for 25 % of the time"),
        ({"pressure_s": {"memory_some": 0.1}}, "waited for memory for 5 % of the time"),
        ({"pressure_s": {"io_some": 0.4}, "major_faults": 7}, "7 page faults waited for the disk up to 4 %"),
        ({"oom_kills": 1}, "lack of memory"),
        ({"throttle_events": 2}, "heat"),
    ],
)
def test_what_is_never_the_jobs_own_choice_is_a_reason(change: dict[str, object], words: str) -> None:
    [reason] = contamination.judge(seen(**change))
    assert words in reason


@pytest.mark.parametrize(
    "change",
    [
        {"pressure_s": {"cpu_some": 2.0}},
        {"pressure_s": {"io_some": 2.0}},
        {"pressure_s": {"io_some": 2.0}, "major_faults": 1},
        {"pressure_s": {"io_some": 0.01}, "major_faults": 1000},
        {"involuntary_switches": 100_000},
        {"frequency_after_hz": 2e9},
        {"busy_s": None, "steal_s": None, "quota_s": None, "throttle_events": None, "oom_kills": None},
        {"swapped_pages": 10, "allocation_stalls": 3},
    ],
)
def test_what_the_job_may_do_itself_is_no_reason_alone(change: dict[str, object]) -> None:
    assert contamination.judge(seen(**change)) == ()


def test_reasons_of_several_instances_name_the_instance() -> None:
    assert contamination.judge_all([WINDOW, seen(oom_kills=1)])[0].startswith("instance 1: ")


@pytest.fixture
def one_cpu() -> Iterator[int]:
    before = os.sched_getaffinity(0)
    cpu = max(before)
    os.sched_setaffinity(0, {cpu})
    yield cpu
    os.sched_setaffinity(0, before)


def test_a_real_busy_loop_on_the_same_cpu_is_seen(one_cpu: int) -> None:
    def spin() -> None:
        end = time.perf_counter() + 0.01
        while time.perf_counter() < end:
            pass

    hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.1)
        # No process is the runner here: this one's time would be taken off twice.
        _, window = measure.measure(spin, Rule(50), runner_pid=2**22 - 1, cpus=(one_cpu,))
    finally:
        hog.kill()
        hog.wait()
    # 50 of a core that two share.
    assert contamination.figures(window)["foreign_cpu_pct"] > 25
    assert any("other processes took" in reason for reason in contamination.judge(window))


# -- whole sweeps -------------------------------------------------------------------------------------

HOGGED = (
    "model=tiny", "model._target_=disturbed.hogged", "batch_size=2", "warmup=2", "iterations=100", "rounds=1",
    "capture=[]", "launcher=none",
)  # fmt: skip


def adhoc(client: MlflowClient) -> str:
    """Id of the experiment of sweeps without a file."""
    return next(str(one.experiment_id) for one in client.search_experiments() if one.name == "adhoc")


@pytest.mark.slow
def test_a_loop_disturbed_by_a_busy_loop_is_run_again_in_the_same_process(run_cli: Runner, mlruns: Path) -> None:
    ran = run_cli(*HOGGED, "+model.kwargs.for_s=1.5", "reruns=3", env=MODELS)
    assert ran.status == 0, ran.out + ran.err
    [record] = records_of(ran)
    [outcome] = record.outcomes
    result = record.results[0, 0]
    # The machine of the test may disturb further loops as well.
    assert outcome.attempts == 1
    assert outcome.repeats == len(result.disturbed) >= 1
    assert f"measured {outcome.repeats + 1} times because others disturbed it" in " ".join(ran.out.split())
    assert len(record.rounds[0]) == 100
    kept = json.loads((job_folder(ran.sweep, record.cell_id, 0) / "contamination.json").read_text())
    assert "other processes took" in kept["disturbed_before"][0][0]
    assert outcome.cost_s["reruns"] == pytest.approx(sum(window.wall_s for window in result.disturbed))
    client = MlflowClient(tracking_uri=Store(mlruns).uri)
    [run] = client.search_runs([adhoc(client)], f"tags.sweep_id = '{ran.sweep.name}' and tags.kind = 'cell'")
    assert run.data.metrics["contamination/reruns"] == outcome.repeats


@pytest.mark.slow
def test_a_pass_of_several_instances_that_was_disturbed_is_kept_and_launched_again(
    run_cli: Runner, mlruns: Path, tmp_path: Path
) -> None:
    words = (f"+model.kwargs.mark={tmp_path / 'hogged-once'}", "instances=2", "launcher=xeon", "reruns=2")
    ran = run_cli(*(word for word in HOGGED if word != "launcher=none"), *words, env=MODELS)
    assert ran.status == 0, ran.out + ran.err
    # A reason may have parentheses of its own, as in (steal).
    assert re.search(r"disturbed \(instance \d: other processes took .*\), run again 1 of 2$", ran.out, re.M)
    [record] = records_of(ran)
    [outcome] = record.outcomes
    folder = job_folder(ran.sweep, record.cell_id, 0)
    aside = attempt_folders(folder)
    # The machine of the test may disturb the second attempt as well.
    assert outcome.attempts == 1 + len(aside) >= 2
    first = json.loads((aside[0] / "contamination.json").read_text())
    assert "other processes took" in first["reasons"][0]
    assert max(instance["foreign_cpu_pct"] for instance in first["instances"]) > 5
    assert {"result-0.json", "stderr.log", "launch.json"} <= {file.name for file in aside[0].iterdir()}
    assert bool(outcome.contamination) == bool(json.loads((folder / "contamination.json").read_text())["reasons"])
    assert outcome.cost_s["reruns"] > outcome.cost_s["measure"]
    client = MlflowClient(tracking_uri=Store(mlruns).uri)
    [run] = client.search_runs([adhoc(client)], f"tags.sweep_id = '{ran.sweep.name}' and tags.kind = 'cell'")
    assert run.data.metrics["contamination/reruns"] == len(aside)
    kept = {item.path for item in client.list_artifacts(run.info.run_id, "logs/round-0/attempt-1")}
    assert {"logs/round-0/attempt-1/result-0.json", "logs/round-0/attempt-1/contamination.json"} <= kept
    assert "attempt-1" not in {item.path for item in client.list_artifacts(run.info.run_id)}


@pytest.mark.slow
def test_a_comparison_under_a_busy_loop_throughout_says_that_it_can_not_be_trusted(
    run_cli: Runner, mlruns: Path
) -> None:
    ran = run_cli("-m", "allocator=ptmalloc,jemalloc", *HOGGED, "reruns=1", env=MODELS)
    assert ran.status == 0, ran.out + ran.err
    assert "This comparison can't be trusted: 2 of 2 rounds were disturbed (other processes took" in ran.out
    report = (ran.sweep / "report.md").read_text()
    assert report.index("can't be trusted") < report.index("Fastest: ")
    for record in ran.cells().values():
        assert [outcome.attempts for outcome in record.outcomes] == [1]
        assert list(record.contamination) == [0]
        rows = f"tags.sweep_id = '{ran.sweep.name}' and tags.cell_id = '{record.cell_id}'"
        client = MlflowClient(tracking_uri=Store(mlruns).uri)
        tags = client.search_runs([adhoc(client)], rows)[0].data.tags
        assert tags["contaminated"].startswith("1 of 1 rounds: other processes took")
    assert "can't be trusted" in (ran.sweep / "report.html").read_text().replace("&#39;", "'")
    # The first job measured again; whether the second did depends on how much of the sweep that took.
    assert sum(record.reruns for record in records_of(ran)) >= 1
    said = ask("compare", ran.sweep.name, "--mlruns", str(mlruns))
    assert said.out.splitlines()[1].startswith("This comparison can't be trusted: 2 of 2 rounds were disturbed")
    table = json.loads(ask("compare", ran.sweep.name, "--format", "json", "--mlruns", str(mlruns)).out)
    assert {cell["difference"] for cell in table["groups"][0]["cells"]} == {"can't be trusted"}
    said = ask("explain", "slowest", "fastest", "--sweep", ran.sweep.name, "--mlruns", str(mlruns))
    assert said.out.startswith("This comparison can't be trusted")


def test_a_window_reads_back_with_its_surroundings() -> None:
    assert json.loads(json.dumps(asdict(WINDOW)))["surroundings"]["cpus"] == [0, 1]
