"""Cells: their keys, the product of choices, rules, the order of rounds, and the axes that distinguish them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.matrix.rules import check_rule, combinations, distinguishing_axes, matches, rounds_in_order
from runner.protocol.cell import AXES, Allocator, Graph, Launcher, Load, Model, Precision, Scenario
from runner.protocol.errors import RunnerError
from tests.conftest import CELL

CHANGES: list[dict[str, Any]] = [
    {"model": Model("tiny", "a.tiny", {"x": 1, "y": 3})},
    {"model": Model("tiny", "b.tiny", {"x": 1, "y": 2})},
    {"allocator": Allocator("jemalloc", "jemalloc", "jemalloc", {"MALLOC_CONF": "a:2"}, {})},
    {"ipex": "on"},
    {"memory_format": "channels_last"},
    {"precision": Precision("bf16", {"rel_l2": 1e-4})},
    {"precision": Precision("fp32", {"rel_l2": 1e-4}, 2)},
    {"graph": Graph("compile")},
    {"graph": Graph("eager", False)},
    {"sequence_length": 128},
    {"instances": 2},
    {"cores_per_instance": 1},
    {"launcher": Launcher("ipexrun", True, "auto")},
    {"batch_size": 3},
    {"cores": 1},
    {"threads": 1},
    {"node": 1},
    {"openmp": "intel"},
    {"warmup": 4},
    {"iterations": 11},
    {"min_time_s": 2.0},
    {"max_time_s": 3.0},
    {"target_ci_pct": 1.0},
    {"seed": 1},
    {"twin": "a"},
    {"twin": "b"},
]


def test_every_setting_that_changes_the_result_changes_the_key() -> None:
    ids = {CELL.key} | {replace(CELL, **change).key for change in CHANGES}
    assert len(ids) == len(CHANGES) + 1


def test_the_key_does_not_depend_on_the_order_of_keys() -> None:
    assert replace(CELL, model=Model("tiny", "a.tiny", {"y": 2, "x": 1})).key == CELL.key


def test_a_twin_is_the_same_cell_under_another_name() -> None:
    twin = replace(CELL, twin="a")
    assert {key for key in CELL.labels if CELL.labels[key] != twin.labels[key]} == {"twin"}
    assert distinguishing_axes([twin.labels, replace(CELL, twin="b").labels]) == ("twin",)


def test_axes_are_the_documented_ones() -> None:
    assert tuple(CELL.axes) == AXES


@given(st.dictionaries(st.text(min_size=1), st.lists(st.text(), min_size=1, max_size=3, unique=True), max_size=4))
def test_combinations_are_the_whole_product_without_repeats(choices: dict[str, list[str]]) -> None:
    found = combinations(choices)
    expected = 1
    for values in choices.values():
        expected *= len(values)
    assert len(found) == expected
    assert len({tuple(c.items()) for c in found}) == expected
    assert all(c[key] in choices[key] for c in found for key in choices)


def test_the_last_key_varies_fastest() -> None:
    assert [tuple(c.values()) for c in combinations({"a": ["1", "2"], "b": ["x", "y"]})] == [
        ("1", "x"), ("1", "y"), ("2", "x"), ("2", "y"),
    ]  # fmt: skip


def test_a_rule_matches_when_every_axis_has_one_of_its_values() -> None:
    rule = check_rule({"allocator": ["jemalloc", "tcmalloc"], "ipex": "off"}, "exclude")
    assert matches(rule, CELL.axes)
    assert not matches(rule, {**CELL.axes, "ipex": "on"})
    assert not matches(rule, {**CELL.axes, "allocator": "ptmalloc"})


@pytest.mark.parametrize("rule", [{"alocator": "x"}, {}, "allocator", None, ["allocator"]])
def test_a_rule_that_can_not_be_meant_is_refused(rule: object) -> None:
    with pytest.raises(RunnerError, match=r"hydra\.sweeper\.exclude"):
        check_rule(rule, "hydra.sweeper.exclude")


@given(cells=st.lists(st.integers(), unique=True, max_size=8), rounds=st.integers(1, 5), seed=st.integers(0, 99))
def test_every_round_visits_every_cell_once_before_the_next_begins(cells: list[int], rounds: int, seed: int) -> None:
    order = rounds_in_order(cells, rounds, seed)
    assert order == rounds_in_order(cells, rounds, seed)
    assert [number for number, _ in order] == [n for n in range(rounds) for _ in cells]
    for number in range(rounds):
        assert sorted(cell for n, cell in order if n == number) == sorted(cells)


def test_rounds_differ_in_their_order() -> None:
    order = rounds_in_order(range(20), 2, 0)
    assert [c for n, c in order if n == 0] != [c for n, c in order if n == 1]


def labels(**change: Any) -> dict[str, str]:
    cell = replace(CELL, **change)
    return {**cell.axes, **cell.settings}


def test_axes_with_several_values_tell_cells_apart() -> None:
    assert distinguishing_axes([labels(), labels(ipex="on"), labels(batch_size=8)]) == ("ipex", "batch_size")
    assert distinguishing_axes([labels()]) == distinguishing_axes([]) == ()


def test_a_setting_tells_cells_apart_only_where_their_axes_do_not() -> None:
    other = Allocator("tcmalloc", "tcmalloc", "tcmalloc", {}, {})
    assert distinguishing_axes([labels(), labels(allocator=other)]) == ("allocator",)
    assert distinguishing_axes([labels(), labels(warmup=9)]) == ("warmup",)
    assert distinguishing_axes([labels(), labels(model=Model("tiny", "b.tiny", {}))]) == (
        "model._target_",
        "model.kwargs",
    )
    seeded = labels(allocator=other, seed=7)
    assert distinguishing_axes([labels(), seeded]) == ("allocator", "seed")  # no axis explains it
    tuned = labels(ipex="on", allocator=replace(CELL.allocator, env={"MALLOC_CONF": "b:2"}))
    assert distinguishing_axes([labels(), tuned]) == ("ipex", "allocator.env")


def test_settings_of_the_timed_loop_follow_the_scenario() -> None:
    loop = {"iterations": None, "min_time_s": None, "max_time_s": None, "target_ci_pct": None}
    served = {"scenario": Scenario("torchserve", 40, 4, 10), "load": Load("ab"), **loop}
    assert distinguishing_axes([labels(), labels(**served)]) == ("scenario", "load")
    assert distinguishing_axes([labels(), labels(iterations=9), labels(**served)]) == ("scenario", "load", "iterations")


@given(st.lists(st.sampled_from(range(len(CHANGES))), min_size=2, max_size=5, unique=True))
def test_different_cells_never_look_alike(chosen: list[int]) -> None:
    cells = [labels()] + [labels(**CHANGES[i]) for i in chosen]
    keys = distinguishing_axes(cells)
    assert len({tuple(cell[key] for key in keys) for cell in cells}) == len(cells)
