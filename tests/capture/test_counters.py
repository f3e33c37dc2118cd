"""perf stat's CSV, as a real perf printed it."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.capture import counters, probe
from runner.machine.execute import NOT_STARTED
from tests.conftest import ROOT

DATA = ROOT / "tests/data/perf-stat"


def test_software_counters_are_read_with_their_units() -> None:
    counts = counters.parse((DATA / "software.csv").read_text())
    assert set(counts.values) == set(counters.SOFTWARE)
    assert counts.values["minor-faults"] == 234
    assert counts.values["task-clock"] == 0.22838
    assert counts.running_pct == 100
    assert counts.missing == {}


def test_what_was_not_counted_is_never_a_number() -> None:
    counts = counters.parse((DATA / "no-pmu.csv").read_text())
    assert counts.values == {}
    assert counts.missing == {"cycles": "not supported", "instructions": "not supported"}


# As perf 6.x lays metric groups out: a metric beside one of its events, further ones on lines without an event.
GROUP = "100;;ex_ret_ops;1;{0};12.5;%  {1}frontend_bound\n;;;;;40.0;%  {1}backend_bound\n;;;;;30.0;%  {1}retiring\n"


@pytest.mark.parametrize("prefix", ["", "tma_"])
def test_level_1_of_a_group_has_toplevs_names_and_must_make_100_percent(prefix: str) -> None:
    text = GROUP.format("100.00", prefix)
    assert counters.parse(text).level1() == {}  # one of four is missing
    counts = counters.parse(text + f";;;;;17.5;%  {prefix}bad_speculation\n")
    assert counts.level1() == {
        "Frontend_Bound": 12.5, "Bad_Speculation": 17.5, "Backend_Bound": 40.0, "Retiring": 30.0,
    }  # fmt: skip
    assert counters.parse(text + f";;;;;27.5;%  {prefix}bad_speculation\n").level1() == {}


def test_amds_share_of_the_other_thread_is_part_of_the_whole() -> None:
    text = GROUP.format("100.00", "") + ";;;;;7.5;%  bad_speculation\n"
    assert counters.parse(text).level1() == {}
    assert counters.parse(text + ";;;;;10.0;%  smt_contention\n").level1() == {
        "Frontend_Bound": 12.5, "Bad_Speculation": 7.5, "Backend_Bound": 40.0, "Retiring": 30.0,
    }  # fmt: skip


def test_what_was_on_a_counter_for_less_than_half_of_the_time_has_no_figure() -> None:
    counts = counters.parse(GROUP.format("25.00", ""))
    assert counts.values == {}
    assert counts.missing["ex_ret_ops"] == "counted 25 % of the time"
    assert "frontend_bound" not in counts.metrics


@pytest.mark.parametrize("odd", ["nan", "-nan", "inf", "", "many"])
def test_what_is_not_a_finite_number_is_missing(odd: str) -> None:
    counts = counters.parse(f"{odd};;cycles;1;100.00;;\n;;;;;{odd};%  backend_bound\n")
    assert counts.values == {}
    assert counts.metrics == {}
    assert set(counts.missing) == {"cycles", "backend_bound"}


def test_in_user_mode_only_what_happens_in_the_kernel_is_missing_and_not_zero() -> None:
    text = "5.0;msec;task-clock:u;1;100.00;;\n7;;minor-faults:u;1;100.00;;\n0;;context-switches:u;1;100.00;;\n"
    counts = counters.parse(text)
    assert counts.user_only
    assert counts.values == {"task-clock": 0.005, "minor-faults": 7}
    assert counts.missing == {"context-switches": "not counted in user mode"}


def test_the_command_names_events_and_group_and_has_no_target_yet() -> None:
    assert counters.command("perf", ("page-faults",), None) == ("perf", "stat", "-x;", "-e", "page-faults")
    assert counters.command("perf", ("a", "b"), "PipelineL1")[-2:] == ("-M", "PipelineL1")


# -- hybrid CPUs: P-cores and E-cores have a PMU each -------------------------------------------------


def hybrid(core: str, core_pct: float, atom: str, atom_pct: float) -> counters.Counts:
    return counters.parse(f"{core};;cpu_core/cycles/;1;{core_pct};;\n{atom};;cpu_atom/cycles/;1;{atom_pct};;\n")


def test_on_a_hybrid_cpu_the_cores_that_did_not_run_are_no_missing_count() -> None:
    counts = counters.parse((DATA / "hybrid.csv").read_text())
    assert counts.missing == {}
    assert (counts.values["cycles"], counts.values["instructions"]) == (1203450, 1400321)
    assert counts.values["page-faults"] == 50
    assert counts.running_pct == 100


@pytest.mark.parametrize(
    ("core", "core_pct", "atom", "atom_pct", "cycles"),
    [
        ("<not counted>", 0, "500", 100, 500),
        ("233066666", 0.43, "604097080", 99.57, 602501849),  # the example of perf's intel-hybrid.txt
        ("1000", 50, "<not counted>", 0, 1000),  # the counter was shared, and perf extrapolated
    ],
)
def test_perf_extrapolates_each_kind_of_cores_and_the_count_is_one(
    core: str, core_pct: float, atom: str, atom_pct: float, cycles: float
) -> None:
    assert hybrid(core, core_pct, atom, atom_pct).values["cycles"] == pytest.approx(cycles, rel=1e-6)


def test_where_neither_kind_of_cores_counted_there_is_no_figure() -> None:
    assert hybrid("<not counted>", 0, "<not counted>", 0).missing == {"cycles": "not counted"}
    assert hybrid("5", 20, "5", 20).missing == {"cycles": "counted 40 % of the time"}


def test_in_user_mode_events_of_a_hybrid_cpu_have_the_same_names() -> None:
    counts = counters.parse("5;;cpu_core/cycles/u;1;100.00;;\n<not counted>;;cpu_atom/cycles/u;0;0.00;;\n")
    assert counts.user_only
    assert counts.values == {"cycles": 5}


def test_level_1_of_a_hybrid_cpu_is_of_the_cores_that_ran() -> None:
    text = GROUP.format("100.00", "tma_") + ";;;;;17.5;%  tma_bad_speculation\n"
    text = text.replace("ex_ret_ops", "cpu_core/ex_ret_ops/")
    counts = counters.parse(text + "<not counted>;;cpu_atom/ex_ret_ops/;0;0.00;nan;%  tma_frontend_bound\n")
    assert counts.level1()["Frontend_Bound"] == 12.5
    assert counts.missing == {}


# -- why there are no counters ------------------------------------------------------------------------

DENIED = "Error:\nAccess to performance monitoring is limited.\nperf_event_paranoid setting is 4"


@pytest.mark.parametrize(
    ("out", "status", "err", "reason"),
    [
        ("<not supported>;;cycles;0;100.00;;\n", 0, "", "no hardware counters (a virtual machine without a PMU?)"),
        ("", 255, "Error:\nThe cycles event is not supported.\n", "no hardware counters (a virtual machine without"),
        ("", 255, DENIED, "sudo sysctl kernel.perf_event_paranoid=1"),
        ("<not counted>;;cycles;0;0.00;;\n", 0, "", "no figure for cycles (not counted)"),
        ("0,55;msec;task-clock;1;100,00;;\n", 0, "", "no figure for task-clock (unreadable: 0,55"),
        ("", 2, "WARNING: perf not found for kernel 6.8\n", "exit status 2: WARNING: perf not found for kernel 6.8"),
        ("", NOT_STARTED, "[Errno 13] Permission denied: 'perf'", "exit status 127: [Errno 13] Permission denied"),
        ("", 0, "", "exit status 0: nothing on stderr"),
    ],
)
def test_the_reason_for_no_counters_is_what_perf_said(out: str, status: int, err: str, reason: str) -> None:
    assert reason in str(counters.why_no_figures(counters.parse(out), status, err))


def test_where_every_event_has_a_figure_there_is_no_reason() -> None:
    assert counters.why_no_figures(counters.parse((DATA / "hybrid.csv").read_text()), 0, DENIED) is None


# -- stand-ins for perf, as PATH would find them ------------------------------------------------------


@pytest.fixture
def perf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A perf of its own, whose script a test writes; what was asked of perf before is forgotten."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(probe, "why_no_toplev", lambda: "not asked")
    file = tmp_path / "perf"
    file.touch(0o755)
    return file


def test_perf_is_asked_in_a_locale_without_decimal_commas(perf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    german, english = DATA / "german.csv", DATA / "software.csv"
    perf.write_text(f'#!/bin/sh\n[ "$LC_ALL" = C ] && cat {english} || cat {german}\n')
    assert probe.perf_counters.__wrapped__().source.startswith("perf, ")
    assert "task-clock" not in counters.parse(german.read_text()).values  # and a figure is never guessed


def test_a_hybrid_cpu_has_hardware_counters(perf: Path) -> None:
    perf.write_text(f"#!/bin/sh\ncat {DATA / 'hybrid.csv'}\n")
    assert probe.perf_counters.__wrapped__().source == "perf, hardware counters"


def test_the_source_of_counts_says_why_it_is_no_better_one(perf: Path) -> None:
    perf.write_text(
        f"#!/bin/sh\ncase $* in *cycles*) cat {DATA / 'no-pmu.csv'};; *) cat {DATA / 'software.csv'};; esac\n"
    )
    assert "a virtual machine without a PMU?" in probe.perf_counters.__wrapped__().source
    perf.write_text("#!/bin/sh\necho 'setting perf_event_paranoid is 4' >&2; exit 255\n")
    assert "kernel.perf_event_paranoid=1" in probe.perf_counters.__wrapped__().source
