"""A/A: the verdicts on equal cells, and that it follows from the noise alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.stats import Processes, RoundsFloor, false_alarms, noise_floor
from tests.stats.test_decision import cell, equal_pairs

SD = 0.01


def twins(rng: np.random.Generator, names: int = 10, rounds: int = 5, of_round: float = 0.0) -> list[Processes]:
    """Processes of one sample that differ by SD, and by ``of_round`` between rounds, in which all twins are alike."""
    logs = rng.normal(0, of_round, rounds) + rng.normal(0, SD, (names, rounds))
    return [[[float(s)] for s in row] for row in 0.01 * np.exp(logs)]


def at(families: list[list[Processes]], rounds: int) -> RoundsFloor:
    return next(by for by in noise_floor(families).by_rounds if by.rounds == rounds)


FAMILY = st.integers(2, 5).flatmap(
    lambda rounds: st.lists(
        st.lists(st.lists(st.floats(0.001, 10), min_size=1, max_size=3), min_size=rounds, max_size=rounds),
        min_size=2,
        max_size=5,
    )
)


@given(FAMILY, st.floats(0.1, 10))
@settings(deadline=None, max_examples=30)
def test_the_floor_has_no_unit_and_a_figure_for_every_number_of_rounds(
    family: list[list[list[float]]], factor: float
) -> None:
    floor, scaled = (
        noise_floor([[[[s * by for s in samples] for samples in one] for one in family]]) for by in (1, factor)
    )
    assert [by.rounds for by in floor.by_rounds] == list(range(2, len(family[0]) + 1))
    assert floor.pairs == len(family) // 2
    medians = [[np.median(samples) for samples in one] for one in family]
    largest = max(max(column) / min(column) for column in zip(*medians, strict=True)) - 1
    for one, other in zip(floor.by_rounds, scaled.by_rounds, strict=True):
        assert one.difference is None or -1e-12 <= one.difference <= largest * (1 + 1e-9) + 1e-12
        assert (one.difference is None) is (other.difference is None)
        assert other.difference == pytest.approx(one.difference, abs=1e-9)


@given(st.floats(0.001, 10), st.integers(2, 6), st.integers(2, 6))
@settings(deadline=None, max_examples=20)
def test_twins_without_noise_have_a_floor_of_nothing_and_no_alarm(latency: float, names: int, rounds: int) -> None:
    floor = noise_floor([[[[latency]] * rounds] * names])
    assert floor.flagged == 0
    assert {by.flagged for by in floor.by_rounds} == {0}
    assert {by.difference for by in floor.by_rounds} <= {0.0, None}


@pytest.mark.parametrize("shape", [(10, 5), (2, 10)])
def test_the_floor_is_the_95th_percentile_of_the_difference_of_two_means(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    found = [at([twins(rng, *shape)], 5) for _ in range(20)]
    # Of two means of 5 normal logs: 1.96 standard errors.
    assert np.mean([by.difference for by in found]) == pytest.approx(1.96 * SD * np.sqrt(2 / 5), rel=0.08)
    assert 0.02 <= np.mean([by.flagged for by in found]) <= 0.06


def test_the_floor_falls_with_the_root_of_the_rounds() -> None:
    floor = noise_floor([twins(np.random.default_rng(seed), rounds=8) for seed in range(5)])
    by = {one.rounds: one for one in floor.by_rounds}
    assert by[2].difference is not None
    assert by[8].difference is not None
    assert by[2].difference / by[8].difference == pytest.approx(2, rel=0.15)
    assert by[2].detectable > by[5].detectable > by[8].detectable


def test_what_a_round_does_to_all_twins_alike_is_no_part_of_the_floor() -> None:
    quiet, shaken = (at([twins(np.random.default_rng(3), of_round=spread)], 5) for spread in (0.0, 0.05))
    assert shaken.difference == pytest.approx(quiet.difference)


def test_the_floor_of_realistic_cells_lies_between_their_noise_and_what_one_comparison_shows() -> None:
    floor = noise_floor(equal_pairs(3, pairs=40))
    assert [by.rounds for by in floor.by_rounds] == [2, 3, 4, 5]
    assert floor.rate == floor.flagged / 40
    assert floor.rate in floor.rate_interval
    assert 0.05 in floor.rate_interval
    last = floor.by_rounds[-1]
    assert last.difference is not None
    assert 0.01 < last.difference < last.detectable < 0.03


def test_clopper_and_pearsons_interval_is_the_published_one() -> None:
    # Their example, 1934: 3 of 10 at 95 % lies between 0.067 and 0.652.
    pairs = equal_pairs(0, 7) + [(cell(rng), cell(rng, 0.02)) for rng in map(np.random.default_rng, range(3))]
    floor = noise_floor(pairs, level=0.001)
    assert floor.flagged == 3
    assert (floor.rate_interval.low, floor.rate_interval.high) == pytest.approx((0.0667, 0.6525), abs=1e-4)
    assert noise_floor(equal_pairs(0, 10), level=1e-9).rate_interval.low == 0.0


@pytest.mark.parametrize(("names", "rounds", "known"), [(2, 5, False), (2, 6, True), (3, 3, True), (4, 2, True)])
def test_fewer_than_40_ways_to_exchange_names_give_no_95th_percentile(names: int, rounds: int, known: bool) -> None:
    # Of 2 twins, 5 rounds can be exchanged in 2^5 / 2 ways that differ; of 6 rounds, 5 in 6 times as many.
    found = at([twins(np.random.default_rng(0), names, rounds)], min(rounds, 5))
    assert (found.difference is not None) is known


def test_an_odd_twin_is_in_no_pair_and_a_missing_round_shortens_all() -> None:
    family = twins(np.random.default_rng(0), names=5, rounds=4)
    floor = noise_floor([[*family[:4], family[4][:3]]])
    assert floor.pairs == 2
    assert [by.rounds for by in floor.by_rounds] == [2, 3]


def test_without_two_twins_of_two_rounds_there_is_no_noise_floor() -> None:
    with pytest.raises(ValueError, match="raise rounds"):
        noise_floor([[[[1.0]], [[1.0]]]])
    with pytest.raises(ValueError, match="at least two twins"):
        noise_floor([[[[1.0], [1.0]]]])
    with pytest.raises(ValueError, match="at least two twins"):
        noise_floor([])
    with pytest.raises(ValueError, match="raise rounds"):
        false_alarms([])
