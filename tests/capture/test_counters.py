"""perf stat's CSV, as a real perf printed it."""

from __future__ import annotations

import pytest

from runner.capture import counters
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
