"""Verdicts on pairs of cells: their laws, their false alarms, and what they can detect."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner import stats
from runner.stats import Answer, Interval, Processes, Verdict, by_round, false_alarms, fit, holm
from runner.stats.distributions import noncentrality
from runner.stats.estimates import process_medians

LATENCY = st.floats(min_value=1e-6, max_value=100)
CELL = st.lists(st.lists(LATENCY, min_size=1, max_size=10), min_size=1, max_size=6)
REPEATED = st.lists(st.lists(LATENCY, min_size=1, max_size=10), min_size=2, max_size=6)

SWAPPED = {
    Answer.FASTER: Answer.SLOWER,
    Answer.SLOWER: Answer.FASTER,
    Answer.UNDECIDED: Answer.UNDECIDED,
    Answer.UNKNOWN: Answer.UNKNOWN,
}


def cell(rng: np.random.Generator, latency_s: float = 0.01, rounds: int = 5) -> list[list[float]]:
    """Processes differ by 1 %, iterations by 5 %."""
    logs = rng.normal(0, 0.01, (rounds, 1)) + rng.normal(0, 0.05, (rounds, 200))
    return [list(map(float, row)) for row in latency_s * np.exp(logs)]


def equal_pairs(seed: int, pairs: int = 40, rounds: int = 5) -> list[tuple[Processes, Processes]]:
    rng = np.random.default_rng(seed)
    return [(cell(rng, rounds=rounds), cell(rng, rounds=rounds)) for _ in range(pairs)]


def compare(baseline: Processes, others: Sequence[Processes]) -> list[Verdict]:
    """The verdicts on cells of one sweep whose processes are in the order of the rounds."""
    return stats.compare(fit([by_round(one) for one in (baseline, *others)]), 0, range(1, len(others) + 1))


def ratio_interval(baseline: Processes, other: Processes) -> Interval | None:
    return stats.ratio_interval(fit([by_round(baseline), by_round(other)]), 0, 1)


def beside(baseline: Processes, other: Processes) -> Verdict:
    return compare(baseline, [other])[0]


@given(CELL, CELL)
@settings(deadline=None, max_examples=60)
def test_swapping_two_cells_inverts_the_answer(one: list[list[float]], two: list[list[float]]) -> None:
    there, back = beside(one, two), beside(two, one)
    assert there.ratio == pytest.approx(1 / back.ratio)
    assert back.answer is SWAPPED[there.answer]
    assert there.p == pytest.approx(back.p)


@given(CELL)
@settings(deadline=None, max_examples=60)
def test_identical_data_are_never_different(one: list[list[float]]) -> None:
    verdict = beside(one, one[::-1])
    assert verdict.ratio == pytest.approx(1)
    assert verdict.answer is (Answer.UNDECIDED if len(one) > 1 else Answer.UNKNOWN)


@given(LATENCY, st.integers(2, 7), st.integers(2, 7))
def test_equal_medians_without_any_noise_are_not_different(latency: float, one: int, two: int) -> None:
    assert beside([[latency]] * one, [[latency]] * two).answer is Answer.UNDECIDED


@given(REPEATED, REPEATED, st.floats(min_value=0.1, max_value=10))
@settings(deadline=None, max_examples=40)
def test_the_unit_of_time_does_not_matter(one: list[list[float]], two: list[list[float]], factor: float) -> None:
    plain = beside(one, two)
    scaled = beside(*([[s * factor for s in samples] for samples in side] for side in (one, two)))
    assert scaled.ratio == pytest.approx(plain.ratio)
    assert scaled.p == pytest.approx(plain.p, rel=1e-4, abs=1e-12)


@given(REPEATED, REPEATED)
@settings(deadline=None, max_examples=40)
def test_the_interval_holds_the_ratio_and_excludes_1_exactly_when_p_is_small(
    one: list[list[float]], two: list[list[float]]
) -> None:
    verdict = beside(one, two)
    assert verdict.interval is not None
    assert verdict.p is not None
    assert verdict.interval == ratio_interval(one, two)
    assert verdict.interval.low <= verdict.ratio <= verdict.interval.high
    if abs(verdict.p - 0.05) > 1e-6:
        assert (1.0 in verdict.interval) is (verdict.p > 0.05)


@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=30))
def test_holm_keeps_the_order_and_lies_between_plain_and_bonferroni(p: list[float]) -> None:
    corrected = holm(np.array(p, dtype=float))
    known = sorted((a, float(b)) for a, b in zip(p, corrected, strict=True) if a == a)
    assert all(a <= b <= min(1, a * len(known)) + 1e-12 for a, b in known)
    assert all(low[1] <= high[1] for low, high in pairwise(known))
    assert np.isnan(corrected).sum() == len(p) - len(known)


def test_holm_corrects_as_in_its_paper() -> None:
    # Holm 1979, section 2: 0.01 x 4, 0.015 x 3, 0.03 x 2, 0.04 raised to the one before.
    assert holm(np.array([0.04, 0.01, 0.03, 0.015])) == pytest.approx([0.06, 0.04, 0.06, 0.045])


def test_one_process_is_unknown_and_not_counted_among_the_comparisons() -> None:
    rng = np.random.default_rng(0)
    baseline, slower = cell(rng), cell(rng, 0.0115)
    alone = beside(baseline, slower)
    single, other = compare(baseline, [slower[:1], slower])
    assert single == Verdict(Answer.UNKNOWN, single.ratio, None, None, None, None)
    assert other.p_holm == other.p
    assert alone.answer is other.answer is Answer.SLOWER
    assert beside(baseline[:1], slower).answer is Answer.UNKNOWN


def test_the_answer_is_about_the_cell_and_not_the_baseline() -> None:
    rng = np.random.default_rng(0)
    baseline = cell(rng)
    slower, faster, same = compare(baseline, [cell(rng, 0.011), cell(rng, 0.009), baseline])
    assert (slower.answer, faster.answer, same.answer) == (Answer.SLOWER, Answer.FASTER, Answer.UNDECIDED)
    assert slower.ratio < 1 < faster.ratio
    assert faster.ratio == pytest.approx(1 / 0.9, rel=0.02)


def test_a_slow_down_of_3_percent_is_found_with_5_rounds() -> None:
    rng = np.random.default_rng(7)
    answers = [beside(cell(rng), cell(rng, 0.0103)).answer for _ in range(400)]
    assert np.mean([answer is Answer.SLOWER for answer in answers]) >= 0.95


def test_equal_cells_are_flagged_at_most_as_often_as_the_level_says() -> None:
    seeds = [equal_pairs(seed) for seed in range(10)]
    assert np.mean([false_alarms(pairs, corrected=False) for pairs in seeds]) <= 0.05
    assert max(false_alarms(pairs) for pairs in seeds) <= 0.05


@pytest.mark.parametrize("family", [1, 10])
def test_a_difference_called_detectable_is_detected_four_times_in_five(family: int) -> None:
    # One real difference of just that size among equal cells, tested at the level that Holm leaves.
    rng = np.random.default_rng(family)
    error = np.sqrt(2 / 5) * np.sqrt(0.01**2 + 1.2533**2 * 0.05**2 / 200)
    seen = [
        v.detectable for _ in range(100) for v in compare(cell(rng), [cell(rng) for _ in range(family)]) if v.detectable
    ]
    claimed = float(np.median(seen))
    assert claimed > 2.5 * error
    hits = [
        compare(cell(rng), [cell(rng, 0.01 * (1 + claimed)), *(cell(rng) for _ in range(family - 1))])[0].answer
        for _ in range(300)
    ]
    assert 0.7 <= np.mean([answer is Answer.SLOWER for answer in hits]) <= 0.88


@pytest.mark.parametrize(
    ("df", "critical", "exact"),
    [
        (1, 12.706, 16.334),
        (2, 4.303, 5.653),
        (4, 2.776, 3.761),
        (4, 33.047, 40.473),
        (8, 2.306, 3.201),
        (8, 10.731, 12.755),
    ],
)
def test_the_power_is_that_of_the_noncentral_t(df: float, critical: float, exact: float) -> None:
    # Exact: scipy.special.nctdtrinc(df, 0.2, critical), where it returns.
    found = float(noncentrality(0.8, np.array(critical), np.array(df)))
    assert 0.99 <= found / exact <= (1.015 if df >= 4 else 1.055)


def test_more_comparisons_and_fewer_rounds_can_show_less() -> None:
    rng = np.random.default_rng(0)
    baseline, other = cell(rng), cell(rng)
    alone, among = beside(baseline, other), compare(baseline, [other] * 20)[0]
    few = np.median([beside(cell(rng, rounds=2), cell(rng, rounds=2)).detectable or 0 for _ in range(40)])
    assert alone.detectable is not None
    assert among.detectable is not None
    assert alone.detectable < among.detectable
    assert alone.detectable < few


def test_nothing_to_compare_is_no_verdict() -> None:
    assert compare([[1.0], [1.0]], []) == []


@pytest.mark.parametrize("broken", [[], [[]], [[1.0], []], [[float("nan")]], [[0.0]], [[-1.0]], [[float("inf")]]])
def test_samples_that_are_no_latencies_are_not_compared(broken: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"must be|needs"):
        compare([[1.0], [1.1]], [broken])


@given(st.lists(st.lists(LATENCY, min_size=1, max_size=6), min_size=1, max_size=12))
def test_each_process_keeps_its_own_median_whatever_the_lengths(processes: list[list[float]]) -> None:
    assert process_medians(processes).tolist() == [float(np.median(samples)) for samples in processes]


def test_the_winners_interval_covers_its_true_speed_up_although_it_was_chosen() -> None:
    rng = np.random.default_rng(0)
    sweeps, cells, rounds = 300, 24, 5
    plain = corrected = 0
    for _ in range(sweeps):
        logs = rng.normal(0, 0.02, (cells, rounds))
        table = fit([dict(enumerate(np.exp(of_cell))) for of_cell in logs])
        winner = 1 + int(np.argmin(logs[1:].mean(1)))
        named = stats.ratio_interval(table, 0, winner)
        chosen = stats.winners_interval(table, 0, winner, cells - 1, is_decided=False)
        assert named is not None
        assert chosen is not None
        plain += named.low <= 1 <= named.high
        corrected += chosen.low <= 1 <= chosen.high
    assert plain < 0.9 * sweeps  # what the correction is for
    assert corrected >= 0.93 * sweeps


def test_the_interval_of_a_winner_that_was_decided_ends_at_one() -> None:
    table = fit([{0: 1.0, 1: 1.01, 2: 0.99}, {0: 0.98, 1: 0.985, 2: 0.97}, {0: 1.0, 1: 1.0, 2: 1.0}])
    undecided = stats.winners_interval(table, 0, 1, 20, is_decided=False)
    decided = stats.winners_interval(table, 0, 1, 20, is_decided=True)
    assert undecided is not None
    assert decided is not None
    assert undecided.low < 1 == decided.low
