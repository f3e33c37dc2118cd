"""How long jobs took before: by the very cell, else by cells with the same work, on the same host only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from runner.results.cells import CellRow, Origin
from runner.results.costs import METRIC, PastCosts, expected_s, past_costs
from tests.builders import compared_cell, store_compared


def cell(number: int, seconds: float | None, **change: str) -> CellRow:
    made = compared_cell(number, 0.1)
    made = replace(made, axes={**made.axes, **change})
    return made if seconds is None else replace(made, metrics={**made.metrics, METRIC: seconds})


def labels(**change: str) -> Mapping[str, str]:
    made = compared_cell(0, 0.1)
    return {**made.axes, **made.settings, **change}


@pytest.fixture
def known(tmp_path: Path) -> PastCosts:
    here, elsewhere = Origin("", "here", {}, {}), Origin("", "elsewhere", {}, {})
    store_compared(tmp_path, "20260101-000000-aaaa", [cell(0, 50.0, allocator="ptmalloc")], here)
    store_compared(
        tmp_path,
        "20260102-000000-aaaa",
        [cell(0, 8.0, allocator="ptmalloc"), cell(1, 20.0, allocator="jemalloc"), cell(2, None, batch_size="3")],
        here,
    )
    store_compared(tmp_path, "20260103-000000-aaaa", [cell(0, 99.0, allocator="ptmalloc")], elsewhere)
    (tmp_path / "sweeps" / "20260104-000000-aaaa").mkdir()
    (tmp_path / "sweeps" / "20260104-000000-aaaa" / "cells.parquet").write_bytes(b"torn")
    return past_costs(tmp_path, "here")


def test_a_cell_costs_what_it_cost_the_last_time_on_this_host(known: PastCosts) -> None:
    assert known.job_s(labels(allocator="ptmalloc")) == (8.0, True)


def test_a_new_cell_costs_what_cells_with_the_same_work_did(known: PastCosts) -> None:
    assert known.job_s(labels(allocator="tcmalloc")) == (20.0, False)


@pytest.mark.parametrize("change", [{"batch_size": "64"}, {"model": "other"}, {"batch_size": "3"}])
def test_nothing_is_known_of_other_work_or_of_cells_without_a_cost(known: PastCosts, change: dict[str, str]) -> None:
    assert known.job_s(labels(**change)) is None


def test_cells_of_which_nothing_is_known_count_as_the_longest(known: PastCosts) -> None:
    cells = [labels(allocator="ptmalloc"), labels(allocator="tcmalloc"), labels(batch_size="64")]
    assert expected_s(known, cells) == (8.0 + 20.0 + 20.0, 1, 1)
    assert expected_s(known, [labels(batch_size="64")]) == (0.0, 0, 1)


def test_a_setting_that_an_older_sweep_did_not_have_yet_had_its_default(tmp_path: Path) -> None:
    old = cell(0, 8.0)
    old = replace(old, settings={key: value for key, value in old.settings.items() if key != "inputs"})
    store_compared(tmp_path, "20260101-000000-aaaa", [old], Origin("", "here", {}, {}))
    known = past_costs(tmp_path, "here")
    assert known.job_s(labels()) == (8.0, True)
    assert known.job_s({**labels(), "inputs": "7"}) is None


def test_an_empty_store_knows_nothing(tmp_path: Path) -> None:
    assert past_costs(tmp_path, "here").job_s(labels()) is None
