"""Hosts set against each other: prices, ratios with their intervals, and what follows from a host."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runner.analysis import hosts
from runner.analysis.hosts import Host
from runner.analysis.price import usd_per_million
from runner.commands import compare
from runner.protocol.errors import RunnerError
from runner.results.cells import CellRow, Cells, Origin
from runner.stats.independent import ratio
from tests.builders import compared_cell, store_compared

OLD = Origin(
    "", "old-1", {"kernel": "5.10", "governor": "powersave"}, {"torch": "2.8.0", "libc": "glibc-2.31"}, usd_per_hour=1.8
)
NEW = Origin(
    "",
    "new-1",
    {"kernel": "6.1", "governor": "performance"},
    {"torch": "2.8.0", "libc": "glibc-2.36"},
    usd_per_hour=3.6,
)


def rows(host: str, seconds: float, seed: int = 0) -> list[CellRow]:
    """Two allocators on a host; tcmalloc takes four fifths."""
    both = (("ptmalloc", 1.0), ("tcmalloc", 0.8))
    return [
        compared_cell(number, seconds * factor, seed=seed, allocator=allocator, host=host)
        for number, (allocator, factor) in enumerate(both)
    ]


@pytest.fixture
def show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    store_compared(tmp_path, "a", rows("old", 0.1), OLD)
    store_compared(tmp_path, "b", rows("new", 0.04, seed=1), NEW)

    def shown(*words: str) -> str:
        assert compare.main(["all", *words, "--mlruns", str(tmp_path)]) == 0
        return capsys.readouterr().out

    return shown


def test_a_million_samples_cost_what_the_machine_costs_while_it_computes_them() -> None:
    assert usd_per_million(3.6, 1000.0) == pytest.approx(1.0)
    assert usd_per_million(None, 1000.0) is usd_per_million(3.6, None) is None


def test_the_same_cell_is_compared_on_each_host_with_its_price(show: Callable[..., str]) -> None:
    across = json.loads(show("--format", "json"))["across_hosts"]
    assert [host["host"] for host in across["hosts"]] == ["old", "new"]
    by_place: dict[tuple[str, str], dict[str, Any]] = {
        (one["labels"]["allocator"], one["host"]): one for one in across["cells"]
    }
    assert len(by_place) == 4
    new, old = by_place["tcmalloc", "new"], by_place["tcmalloc", "old"]
    assert new["speedup"] == pytest.approx(2.5, rel=0.02)
    assert 2.4 < new["speedup_low"] < new["speedup"] < new["speedup_high"] < 2.6
    assert old["speedup"] is None
    # Twice the price, 2.5 times as fast.
    assert old["usd_per_million_samples"] / new["usd_per_million_samples"] == pytest.approx(1.25, rel=0.02)


def test_what_follows_from_a_host_stands_once_and_takes_part_in_no_effect(show: Callable[..., str]) -> None:
    said = json.loads(show("--format", "json"))
    assert {effect["axis"] for effect in said["effects"]} == {"allocator", "host"}
    [effect] = [effect for effect in said["effects"] if effect["axis"] == "host"]
    assert effect["ratio"] == pytest.approx(2.5, rel=0.02) or effect["ratio"] == pytest.approx(0.4, rel=0.02)
    text = show()
    assert "Fastest: new, tcmalloc, " in text
    assert "Cheapest: new, tcmalloc, " in text
    assert "old: " in text
    assert "1.8 USD per hour" in text
    assert "stands for no other of its kind" in " ".join(text.split())


def test_each_host_has_a_ranking_and_a_baseline_of_its_own(show: Callable[..., str]) -> None:
    groups = json.loads(show("--format", "json"))["groups"]
    assert [group["work"] for group in groups] == [{"host": "old"}, {"host": "new"}]
    for group in groups:
        assert [cell["labels"]["allocator"] for cell in group["cells"]] == ["tcmalloc", "ptmalloc"]
        assert group["cells"][0]["speedup"] == pytest.approx(1.25, rel=0.02)
        assert group["cells"][0]["usd_per_million_samples"] > 0


def test_a_table_in_markdown_and_one_for_programs_have_the_prices(show: Callable[..., str]) -> None:
    markdown = show("--format", "md")
    assert "## The same cell on each host" in markdown
    assert "USD per million" in markdown
    head, *lines = show("--format", "csv").splitlines()
    assert "usd_per_million_samples" in head
    assert len(lines) == 4


def test_the_cheapest_cell_is_found_that_keeps_a_latency(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def with_p99(found: list[CellRow]) -> list[CellRow]:
        return [
            replace(row, metrics={**row.metrics, "latency/p99_ms": 1.5 * row.metrics["latency/p50_ms"]})
            for row in found
        ]

    store_compared(tmp_path, "a", with_p99(rows("old", 0.1)), replace(OLD, usd_per_hour=0.1))
    store_compared(tmp_path, "b", with_p99(rows("new", 0.04, seed=1)), NEW)
    assert compare.main(["all", "--p99-under", "100", "--mlruns", str(tmp_path)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Cheapest: old, tcmalloc" in text
    assert "With a p99 of at most 100 ms the cheapest is new, tcmalloc" in text
    assert compare.main(["all", "--p99-under", "1", "--mlruns", str(tmp_path)]) == 0
    assert "No cell keeps its p99 within 1 ms on any host." in " ".join(capsys.readouterr().out.split())


def test_another_torch_is_refused_as_ever(tmp_path: Path) -> None:
    store_compared(tmp_path, "a", rows("old", 0.1), OLD)
    store_compared(tmp_path, "b", rows("new", 0.04), replace(NEW, versions={**NEW.versions, "torch": "2.9.0"}))
    with pytest.raises(RunnerError, match=r"torch 2\.8\.0"):
        compare.main(["all", "--mlruns", str(tmp_path)])


def test_hosts_without_a_name_are_refused_as_ever(tmp_path: Path) -> None:
    for name, origin in (("a", OLD), ("b", NEW)):
        store_compared(tmp_path, name, rows("-", 0.1), origin)
    with pytest.raises(RunnerError, match="--allow host"):
        compare.main(["all", "--mlruns", str(tmp_path)])


def test_with_several_machines_of_a_kind_the_machine_is_the_unit() -> None:
    first = [replace(compared_cell(0, 0.1, seed=seed, host="old"), sweep=f"a{seed}") for seed in range(3)]
    # Machines of the new kind differ by far more than the processes of one.
    second = [
        replace(compared_cell(0, seconds, seed=seed, host="new"), sweep=f"b{seed}")
        for seed, seconds in enumerate((0.045, 0.05, 0.055))
    ]
    origins = [replace(OLD, sweep=row.sweep, host_id=row.sweep) for row in [*first, *second]]
    of_machines = [Host("old", ["a0", "a1", "a2"]), Host("new", ["b0", "b1", "b2"])]
    cells = Cells([*first, *second], origins)
    assert hosts.names_of(cells) == {"old": ["a0", "a1", "a2"], "new": ["b0", "b1", "b2"]}
    [across] = hosts.compare(cells, of_machines, ("host",)).cells
    wide = across.hosts[1].interval
    [across] = hosts.compare(
        Cells([first[0], second[1]], [origins[0], origins[4]]), [Host("old", ["a0"]), Host("new", ["b1"])], ("host",)
    ).cells
    narrow = across.hosts[1].interval
    assert wide is not None
    assert narrow is not None
    assert wide.low < 1.8 < 2.2 < wide.high
    assert narrow.high - narrow.low < (wide.high - wide.low) / 5


def test_the_ratio_of_independent_figures_covers_the_true_one_as_often_as_it_says() -> None:
    noise, covered = np.random.default_rng(0), 0
    for _ in range(2000):
        first, second = np.exp(noise.normal(0, 0.02, 4)), 0.5 * np.exp(noise.normal(0, 0.05, 6))
        _, found = ratio(first.tolist(), second.tolist())
        assert found is not None
        covered += found.low <= 2 <= found.high
    assert 0.93 < covered / 2000 < 0.975
    assert ratio([1.0], [2.0, 2.0]) == (0.5, None)
