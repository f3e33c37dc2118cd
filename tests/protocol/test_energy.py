"""Energy counters: several packages, the begin of a new round, and why there are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runner.protocol import energy
from runner.results.metric_names import Metric
from runner.results.metrics import cell_metrics
from tests.builders import record_of_medians


def zone(powercap: Path, name: str, kind: str, energy_uj: int, range_uj: int = 1000) -> None:
    folder = powercap / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, value in {"name": kind, "energy_uj": energy_uj, "max_energy_range_uj": range_uj}.items():
        (folder / file).write_text(f"{value}\n")


def test_packages_are_added_up_and_a_counter_may_begin_again(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 900)
    zone(tmp_path, "intel-rapl:0:0", "core", 5)
    zone(tmp_path, "intel-rapl:1", "package-1", 100, 2000)
    counters, reason = energy.counters(tmp_path)
    assert reason == ""
    assert [counter.range_uj for counter in counters] == [1000, 2000]
    before = energy.read(counters)
    zone(tmp_path, "intel-rapl:0", "package-0", 50)
    zone(tmp_path, "intel-rapl:1", "package-1", 300, 2000)
    assert energy.joules_between(counters, before, energy.read(counters)) == pytest.approx(350e-6)


def test_without_counters_there_is_a_reason_and_no_figure(tmp_path: Path) -> None:
    counters, reason = energy.counters(tmp_path)
    assert counters == []
    assert reason.startswith("this machine shows no energy counters")
    assert energy.read(counters) is None
    assert energy.joules_between(counters, None, None) is None
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    (tmp_path / "intel-rapl:0/energy_uj").unlink()
    assert energy.counters(tmp_path)[0] == []


def test_a_sample_costs_the_power_over_the_throughput() -> None:
    record = record_of_medians("a", 0.1, 0.1)
    assert not any(name.startswith("energy/") for name in cell_metrics(record))
    results = {
        key: replace(result, window=replace(result.window, energy_j=60 * result.window.wall_s))
        for key, result in record.results.items()
        if result.window
    }
    figures = cell_metrics(replace(record, results=results))
    assert figures["energy/watts"] == pytest.approx(60)
    assert figures[Metric.ENERGY] == pytest.approx(60 / figures[Metric.SAMPLES_PER_S])
