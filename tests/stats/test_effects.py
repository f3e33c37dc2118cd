"""Main effects and interactions: what was planted is found, what was not is not, and what has no pair is left out."""

from __future__ import annotations

import itertools
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.stats.effects import design, interactions, main_effects

LEVELS = {
    "allocator": ("ptmalloc", "jemalloc", "tcmalloc"),
    "ipex": ("off", "on"),
    "graph": ("eager", "torchscript"),
    "threads": ("1", "2", "4"),
}
REFERENCE = {axis: values[0] for axis, values in LEVELS.items()}
PAIRS = list(itertools.combinations(LEVELS, 2))


def grid_of(levels: dict[str, tuple[str, ...]] = LEVELS) -> list[dict[str, str]]:
    return [dict(zip(levels, values, strict=True)) for values in itertools.product(*levels.values())]


def latencies(cells: list[dict[str, str]], noise: float = 0.0, seed: int = 0) -> list[float]:
    """tcmalloc twice as fast, IPEX 1.5 times, both together 1.25 times faster than that."""
    rng = np.random.default_rng(seed)
    found = []
    for cell in cells:
        fast, ipex = cell["allocator"] == "tcmalloc", cell["ipex"] == "on"
        speedup = (2 if fast else 1) * (1.5 if ipex else 1) * (1.25 if fast and ipex else 1)
        found.append(0.1 / speedup * float(np.exp(rng.normal(0, noise))))
    return found


def test_planted_main_effects_and_the_planted_interaction_are_found() -> None:
    cells = grid_of()
    grid = design(cells, latencies(cells, 0.005), REFERENCE)
    found = {(e.axis, e.value): e.mean for e in main_effects(grid, list(LEVELS))}
    # Half of the cells have IPEX on, so that half of the interaction is in either main effect.
    assert found["allocator", "tcmalloc"].ratio == pytest.approx(2 * 1.25**0.5, rel=0.01)
    assert found["ipex", "on"].ratio == pytest.approx(1.5 * 1.25 ** (1 / 3), rel=0.01)
    assert found["allocator", "tcmalloc"].is_shown
    assert found["ipex", "on"].is_shown
    first, *rest = interactions(grid, PAIRS)
    assert (first.axes, first.values) == (("allocator", "ipex"), ("tcmalloc", "on"))
    assert first.references == ("ptmalloc", "off")
    assert first.mean.ratio == pytest.approx(1.25, rel=0.01)
    assert first.mean.is_shown
    assert first.mean.interval is not None
    assert 1.25 in first.mean.interval
    assert first.mean.count == 6
    assert not any(other.mean.is_shown for other in rest)


def test_among_equal_cells_an_effect_is_claimed_no_oftener_than_the_level_says() -> None:
    cells, claimed = grid_of(), 0
    for seed in range(60):
        logs = np.random.default_rng(seed).normal(0, 0.05, len(cells))
        grid = design(cells, np.exp(logs).tolist(), REFERENCE)
        claimed += any(effect.mean.is_shown for effect in main_effects(grid, list(LEVELS)))
    # 3 are expected; 9 or more have a chance of 0.2 %.
    assert claimed < 9


def test_the_interval_holds_the_planted_ratio_about_as_often_as_it_says() -> None:
    cells, held = grid_of(), 0
    for seed in range(100):
        logs = np.random.default_rng(seed).normal(0, 0.05, len(cells))
        times = np.exp(logs) * [0.5 if cell["graph"] == "torchscript" else 1.0 for cell in cells]
        (effect,) = main_effects(design(cells, times.tolist(), REFERENCE), ["graph"])
        assert effect.mean.interval is not None
        held += 2.0 in effect.mean.interval
    assert 88 <= held <= 100


def test_cells_without_a_partner_are_left_out_and_a_single_pair_has_no_interval() -> None:
    cells = [
        {"allocator": "ptmalloc", "ipex": "off"},
        {"allocator": "tcmalloc", "ipex": "off"},
        {"allocator": "jemalloc", "ipex": "on"},  # differs from either of the others in two axes
    ]
    grid = design(cells, [2.0, 1.0, 1e-6], REFERENCE)
    (effect,) = main_effects(grid, ["allocator", "ipex"])
    assert (effect.value, effect.reference) == ("tcmalloc", "ptmalloc")
    assert effect.mean.ratio == pytest.approx(2)
    assert (effect.mean.count, effect.mean.interval, effect.mean.p_holm) == (1, None, None)
    assert not interactions(grid, [("allocator", "ipex")])


def test_a_block_with_a_corner_missing_makes_no_interaction() -> None:
    cells = grid_of({"allocator": ("ptmalloc", "tcmalloc"), "ipex": ("off", "on")})
    assert len(interactions(design(cells, latencies(cells), REFERENCE), [("allocator", "ipex")])) == 1
    for missing in range(4):
        rest = [cell for index, cell in enumerate(cells) if index != missing]
        assert not interactions(design(rest, latencies(rest), REFERENCE), [("allocator", "ipex")])


def test_a_cell_measured_in_two_sweeps_counts_once_at_its_geometric_mean() -> None:
    cells = [{"ipex": "off"}, {"ipex": "on"}, {"ipex": "on"}]
    (effect,) = main_effects(design(cells, [4.0, 1.0, 4.0], REFERENCE), ["ipex"])
    assert effect.mean.count == 1
    assert effect.mean.ratio == pytest.approx(2)


def test_exactly_equal_ratios_are_shown_and_exactly_equal_cells_are_not() -> None:
    cells = grid_of()
    found = {(e.axis, e.value): e.mean for e in main_effects(design(cells, latencies(cells), REFERENCE), ["graph"])}
    assert found["graph", "torchscript"].ratio == pytest.approx(1)
    assert not found["graph", "torchscript"].is_shown
    halved = [0.5 if cell["graph"] == "torchscript" else 1.0 for cell in cells]
    (effect,) = main_effects(design(cells, halved, REFERENCE), ["graph"])
    assert effect.mean.is_shown


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_main_effects_are_those_of_a_plain_search_for_pairs(data: st.DataObject) -> None:
    cells = data.draw(
        st.lists(st.sampled_from(grid_of()), min_size=1, max_size=30, unique_by=lambda c: tuple(c.values()))
    )
    times = data.draw(st.lists(st.floats(0.001, 10), min_size=len(cells), max_size=len(cells)))
    grid = design(cells, times, REFERENCE)
    found = {(e.axis, e.value): (e.mean.count, e.mean.ratio) for e in main_effects(grid, list(LEVELS))}
    timed = {tuple(cell.items()): time for cell, time in zip(cells, times, strict=True)}
    expected = {}
    for axis, values in LEVELS.items():
        reference = REFERENCE[axis] if any(c[axis] == REFERENCE[axis] for c in cells) else cells[0][axis]
        for value in set(values) - {reference}:
            logs = [
                np.log(timed[other] / timed[tuple(cell.items())])
                for cell in cells
                if cell[axis] == value and (other := tuple({**cell, axis: reference}.items())) in timed
            ]
            if logs:
                expected[axis, value] = (len(logs), float(np.exp(np.mean(logs))))
    assert {key: count for key, (count, _) in found.items()} == {key: count for key, (count, _) in expected.items()}
    assert [found[key][1] for key in expected] == pytest.approx([ratio for _, ratio in expected.values()])


def test_codes_too_large_for_64_bits_still_pair_right() -> None:
    # 40 settings of 3 values each are 3^40 points.
    base = {f"s{number}": "a" for number in range(40)}
    cells = [base, *({**base, f"s{number}": value} for number in range(40) for value in "bc")]
    times = [1.0, *(0.5 if value == "b" else 1.0 for _ in range(40) for value in "bc")]
    found = main_effects(design(cells, times, base), list(base))
    assert [effect.value for effect in found] == ["b", "c"] * 40
    assert [effect.mean.ratio for effect in found] == pytest.approx([2, 1] * 40)


def test_no_cells_have_no_effects() -> None:
    assert main_effects(design([], [], {}), []) == []
    assert interactions(design([], [], {}), []) == []


def test_ten_thousand_cells_of_six_axes_take_less_than_a_second() -> None:
    levels = {f"axis{number}": tuple("abcde"[: 4 + (number < 3)]) for number in range(6)}
    cells = grid_of(levels) + [{**cell, "axis0": "z"} for cell in grid_of(levels)[:2000]]
    times = np.exp(np.random.default_rng(0).normal(0, 0.05, len(cells))).tolist()
    assert len(cells) >= 10_000
    started = perf_counter()
    grid = design(cells, times, {})
    main_effects(grid, list(levels))
    interactions(grid, list(itertools.combinations(levels, 2)))
    assert perf_counter() - started < 1
