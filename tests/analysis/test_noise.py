"""The noise floor of a host: planted twins through the code of a sweep, noise.json, and the sentences about it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient
from scipy.signal import lfilter  # type: ignore[import-untyped]

from runner.analysis import noise
from runner.analysis.verdict import verdict
from runner.commands import compare
from runner.protocol.cell import ABSENT, ENTRIES
from runner.protocol.resultfile import WorkerResult
from runner.protocol.stored import write_json
from runner.protocol.verdicts import EvidenceVerdict, Status
from runner.report import html, sweep_end
from runner.results.cells import Origin
from runner.results.outcome import CellRecord, Outcome
from runner.stats import floor_at
from runner.tracking.store import Store
from tests.builders import axes, compared_cell, noisy_record, ranked, store_compared
from tests.conftest import Runner, ask
from tests.report.test_html import BASE, SHOWN

ROUNDS = noise.USUAL_ROUNDS
HERE = Origin("", "here", {}, {})
LATENCY_S = 0.02
# As many as the default settings time: iterations as noisy as these never reach target_ci_pct before max_time_s.
ITERATIONS = round(ENTRIES["max_time_s"].default / LATENCY_S)
NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


def measured(
    rng: np.random.Generator,
    twin: str,
    slower: float = 0.0,
    rounds: int = ROUNDS,
    iterations: int = ITERATIONS,
) -> CellRecord:
    """A cell as a sweep reads it: processes differ by 1 %, iterations by 5 %, each half like the one before it.

    One iteration in a hundred is late, by half of its time on average.
    """
    shocks = np.sqrt(0.75) * rng.standard_normal((rounds, iterations))
    steps, _ = lfilter([1.0], [1.0, -0.5], shocks, zi=0.5 * rng.standard_normal((rounds, 1)))
    late = (rng.random(steps.shape) < 0.01) * rng.exponential(0.5, steps.shape)
    logs = 0.01 * rng.standard_normal((rounds, 1)) + 0.05 * steps + late
    samples = ((1 + slower) * LATENCY_S * np.exp(logs)).tolist()
    values = axes(twin=twin)
    outcomes = [Outcome(twin, n, values, Status.FINISHED, None, EvidenceVerdict.OK, "ok") for n in range(rounds)]
    return CellRecord(twin, values, outcomes, {(n, 0): WorkerResult(twin, n, samples[n]) for n in range(rounds)})


def answers(pairs: Sequence[tuple[CellRecord, CellRecord]]) -> list[str]:
    """What a sweep of each pair alone says of its second cell."""
    found = []
    for one, other in pairs:
        rows = {row.cell.cell_id: row for row in ranked([one, other], one.cell_id).rows}
        found.append(rows[other.cell_id].answer)
    return found


def kept(**change: object) -> noise.Noise:
    """Floors of 4 % with 2 rounds, 2.1 % with 5, 1.5 % with 10; not known with 12."""
    floors = {2: 4.0, 5: 2.1, 10: 1.5, 12: None}
    by_rounds = [noise.OfRounds(rounds, floor, 3.0 if floor else 9.0, 4.4) for rounds, floor in floors.items()]
    value = noise.Noise(
        "s", "here", NOW.isoformat(), axes(model="resnet50"), 12, 5, 0, 0.0, 0.0, 0.522, 0.05, by_rounds
    )
    return replace(value, **change)  # type: ignore[arg-type]


def leave(mlruns: Path, sweep: str, **change: object) -> noise.Noise:
    folder = mlruns / "sweeps" / sweep
    folder.mkdir(parents=True, exist_ok=True)
    value = kept(sweep=sweep, **change)
    write_json(folder / noise.FILE, value)
    return value


# -- planted twins ------------------------------------------------------------------------------------


def test_of_40_pairs_of_equal_cells_at_most_2_are_called_different(tmp_path: Path) -> None:
    rng = np.random.default_rng(40)
    records = [measured(rng, f"{pair}{side}", iterations=200) for pair in range(40) for side in "ab"]
    alone = answers(list(zip(records[::2], records[1::2], strict=True)))
    different = [answer for answer in alone if not answer.startswith("undecided")]
    assert len(different) <= 2
    together = ranked(records, records[0].cell_id).rows
    assert sum(row.answer in ("faster", "slower") for row in together) <= 2
    told = noise.report(records, tmp_path, tmp_path, "here")
    assert told.figures["noise/pairs"] == 40
    # Here the rounds are seen in all 80 cells: other pairs may be flagged than of those that were alone.
    assert told.figures["noise/pairs_flagged"] <= 5
    assert told.figures["noise/false_alarm_pct"] <= 6


@pytest.mark.slow
def test_equal_cells_are_called_different_in_at_most_5_percent_of_sweeps() -> None:
    rng = np.random.default_rng(5)
    pairs = [(measured(rng, "a", iterations=200), measured(rng, "b", iterations=200)) for _ in range(400)]
    # Two standard errors of 400 pairs beside the level.
    assert np.mean([not answer.startswith("undecided") for answer in answers(pairs)]) <= 0.05 + 2 * 0.011


@pytest.mark.slow
def test_a_slow_down_of_3_percent_is_found_in_93_percent_of_sweeps_of_two_cells_with_five_rounds() -> None:
    rng = np.random.default_rng(7)
    pairs = ((measured(rng, "a"), measured(rng, "b", slower=0.03)) for _ in range(600))
    assert np.mean([answer == "slower" for pair in pairs for answer in answers([pair])]) >= 0.93


def test_the_floor_of_planted_twins_is_what_their_noise_makes_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    told = noise.report([measured(rng, name) for name in "abcdefghij"], tmp_path, tmp_path, "here")
    # 1.96 standard errors of a difference of two means of 5; a process is off by 1 % and by its iterations' median.
    assert told.figures["noise/floor_pct"] == pytest.approx(100 * 1.96 * 0.0105 * np.sqrt(2 / 5), rel=0.25)
    assert told.floors == {}
    first, second = told.lines
    assert first.startswith("A/A: ")
    assert "of 5 pairs called different (95 % interval of the rate: " in first
    assert second.startswith(f"differences under {told.figures['noise/floor_pct']:.2g} % can't be seen on this host")
    read = noise.read(tmp_path / noise.FILE)
    assert (read.pairs, read.rounds, read.host_id, read.sweep) == (5, ROUNDS, "here", tmp_path.name)
    assert "twin" not in read.axes


def test_twins_of_several_configurations_are_pairs_within_each_and_other_cells_are_none() -> None:
    rng = np.random.default_rng(1)

    def of(model: str, twin: str) -> CellRecord:
        one = measured(rng, twin, rounds=3, iterations=5)
        return replace(one, cell_id=model + twin, axes={**one.axes, "model": model})

    records = [of(model, twin) for twin in "ab" for model in ("x", "y")]
    failed = of("x", "c")
    failed = replace(failed, outcomes=[replace(failed.outcomes[0], failure="killed"), *failed.outcomes[1:]])
    families = noise.twins([*records, of("z", ABSENT), failed])
    assert [[one.cell_id for one in family] for family in families] == [["xa", "xb"], ["ya", "yb"]]
    found = noise.measure(families, "s", "here", NOW)
    assert found is not None
    assert (found.pairs, found.axes["model"]) == (2, "x|y")


def test_twins_of_one_round_leave_no_floor_and_say_what_would(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    told = noise.report([measured(rng, name, rounds=1) for name in "ab"], tmp_path, tmp_path, "here")
    assert told.lines == (
        "A/A: one round can't show how much equal cells differ: python -m runner -m experiment=aa rounds=5",
    )
    assert not (tmp_path / noise.FILE).exists()


def test_too_few_processes_for_a_floor_keep_what_they_can_tell_and_are_not_gone_by(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    folder = tmp_path / "sweeps" / "few"
    folder.mkdir(parents=True)
    told = noise.report([measured(rng, name, rounds=3) for name in "ab"], folder, tmp_path, "here")
    assert "name more twins" in told.lines[1]
    assert "noise/floor_pct" not in told.figures
    assert noise.read(folder / noise.FILE).floors == {}
    assert noise.newest(tmp_path, "here") == (None, [])


# -- what is known of a host --------------------------------------------------------------------------


@given(st.dictionaries(st.integers(2, 20), st.none() | st.floats(0, 50), max_size=5), st.integers(1, 25))
def test_the_floor_for_some_rounds_is_that_of_as_many_or_the_nearest_fewer(
    floors: dict[int, float | None], rounds: int
) -> None:
    value = kept(by_rounds=[noise.OfRounds(n, floors[n], 1.0, 1.0) for n in sorted(floors)])
    known = [n for n in sorted(floors) if floors[n] is not None]
    fewer = [n for n in known if n <= rounds]
    found = value.at(rounds)
    assert (found.rounds if found else None) == (max(fewer) if fewer else min(known, default=None))
    assert floor_at(value.floors, rounds) == (value.floors[max(fewer)] if fewer else None)


def test_what_is_written_is_read_under_the_name_of_its_folder(tmp_path: Path) -> None:
    value = leave(tmp_path, "a")
    assert noise.read(tmp_path / "sweeps/a" / noise.FILE) == value
    (tmp_path / "sweeps/a").rename(tmp_path / "sweeps/b")
    assert noise.read(tmp_path / "sweeps/b" / noise.FILE) == replace(value, sweep="b")


def test_the_newest_of_the_same_host_is_gone_by_and_what_can_not_be_read_is_named(tmp_path: Path) -> None:
    assert noise.newest(tmp_path, "here") == (None, [])
    leave(tmp_path, "z", date=(NOW - timedelta(days=2)).isoformat())
    # Later by the hour although it sorts before: another time zone.
    latest = leave(tmp_path, "a", date="2026-11-22T20:00:00-08:00")
    leave(tmp_path, "b", date="2026-11-22T23:00:00+00:00")
    leave(tmp_path, "other", host_id="there", date=(NOW + timedelta(days=1)).isoformat())
    leave(tmp_path, "new", format=2)
    leave(tmp_path, "undated", date="yesterday")
    (tmp_path / "sweeps/z2").mkdir()
    (tmp_path / "sweeps/z2" / noise.FILE).write_text("[1")
    found, notes = noise.newest(tmp_path, "here")
    assert found == latest
    assert [note.partition("/")[0] for note in notes] == ["new", "undated", "z2"]
    file = tmp_path / "sweeps/new/noise.json"
    assert f"new/noise.json is passed over: {file} has format 2; this version reads format 1" in notes


def test_the_sentence_names_the_floor_its_origin_and_its_age() -> None:
    said = noise.in_words(kept(), 7, NOW + timedelta(days=6))
    here = kept().when.date()  # in this machine's time zone
    assert said == f"differences under 2.1 % can't be seen on this host (A/A of resnet50, {here}, sweep s, 5 rounds)"
    assert "under 4 % can't be seen" in noise.in_words(kept(), 1, NOW)
    old = noise.in_words(kept(), 5, NOW + timedelta(days=12))
    assert old.startswith(said)
    assert old.endswith("; that is 12 days old: python -m runner -m experiment=aa measures it again")
    unknown = noise.in_words(None, 5, NOW)
    assert unknown.startswith("tip: how much equal cells differ on this host is not known yet")
    assert unknown.endswith(": python -m runner -m experiment=aa measures it")


def test_a_sweep_that_compares_says_what_is_known_and_one_that_does_not_says_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cells = [measured(rng, ABSENT, iterations=5), replace(measured(rng, ABSENT, iterations=5), cell_id="b")]
    cells[1] = replace(cells[1], axes={**cells[1].axes, "ipex": "on"})
    assert noise.report(cells[:1], tmp_path, tmp_path, "here") == noise.NoiseReport()
    (said,) = noise.report(cells, tmp_path, tmp_path, "here").lines
    assert said.startswith("tip: how much equal cells differ")
    leave(tmp_path, "a", date=datetime.now(timezone.utc).isoformat())
    told = noise.report(cells, tmp_path, tmp_path, "here")
    assert told.lines[0].startswith("differences under 2.1 % can't be seen on this host (A/A of resnet50, ")
    assert told.floors == {2: 0.04, 5: 0.021, 10: 0.015}
    assert told.figures == {}


# -- a difference under the floor ---------------------------------------------------------------------

SLIGHTLY = noisy_record("tcmalloc", 19.0, 19.01, 18.99)
QUIETER = [noisy_record("ptmalloc", 20.0, 20.01, 19.99), SLIGHTLY, noisy_record("jemalloc", 10.0, 10.1, 9.9)]


def test_a_difference_under_the_floor_is_named_so_and_not_called_real() -> None:
    plain = ranked(QUIETER[:2], BASE.cell_id).rows
    assert plain[0].answer == "faster"
    assert "The difference is real" in verdict(plain, SHOWN).sentence
    rows = ranked(QUIETER, BASE.cell_id, floors={2: 0.08, 5: 0.001}).rows
    assert [row.answer for row in rows[:2]] == ["faster", "faster, under the noise floor"]
    said = verdict(ranked(QUIETER[:2], BASE.cell_id, floors={3: 0.08}).rows, SHOWN).sentence
    assert "real" not in said
    assert said.startswith("No clear difference: ")
    assert said.endswith("Equal cells differ by as much on this host (up to 8 %).")
    # The other way round, and beside a slower baseline.
    assert ranked(QUIETER[:2], QUIETER[1].cell_id, floors={3: 0.08}).rows[1].answer == "slower, under the noise floor"


def test_a_floor_of_more_rounds_than_a_cell_has_does_not_hold_for_it() -> None:
    assert ranked(QUIETER[:2], BASE.cell_id, floors={5: 0.5}).rows[0].answer == "faster"


def test_a_difference_under_the_floor_has_no_cause_and_no_lead_over_the_next() -> None:
    records = [BASE, noisy_record("tcmalloc", 10.0, 10.01, 9.99), noisy_record("jemalloc", 10.5, 10.51, 10.49)]
    rows = ranked(records, BASE.cell_id).rows
    assert "as fast as it." in verdict(rows, SHOWN).remarks[0]
    floored = ranked(records, BASE.cell_id, floors={3: 0.08}).rows
    assert verdict(floored, SHOWN).remarks[0].endswith("which equal cells are as well on this host (up to 8 %).")
    assert all(
        row.is_undecided for row in ranked(QUIETER[:2], BASE.cell_id, floors={3: 0.08}).rows if not row.is_baseline
    )


def test_the_files_of_a_sweep_have_the_floor_and_what_is_said_of_it(tmp_path: Path) -> None:
    ranking = ranked(QUIETER, BASE.cell_id, SHOWN, floors={3: 0.08})
    sweep_end.leave(ranking, tmp_path, "t", html.Origin("", "", (), ("differences under 8 % can't be seen",)))
    with (tmp_path / "comparison.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["noise_floor_pct"] for row in table] == ["8.0", "8.0", ""]
    assert table[1]["difference"] == "faster, under the noise floor"
    for name, words in (("report.html", "faster, under the noise floor"), ("report.md", "| under noise floor |")):
        text = (tmp_path / name).read_text()
        assert words in text
        assert "differences under 8 % can&#39;t be seen" in text or "differences under 8 % can't be seen" in text


def test_compare_goes_by_the_floor_in_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slightly, clearly = compared_cell(1, 0.099, 20, ipex="on"), compared_cell(2, 0.05, 20, graph="jit")
    store_compared(tmp_path, "20260101", [compared_cell(0, 0.1, 20), slightly, clearly], HERE)
    leave(tmp_path, "20260102", by_rounds=[noise.OfRounds(5, 2.1, 3.0, 4.0)], date="2026-01-02T00:00:00+00:00")

    def show(*words: str) -> str:
        assert compare.main([*words, "--mlruns", str(tmp_path)]) == 0
        return capsys.readouterr().out

    sentence = (
        "differences under 2.1 % can't be seen on this host (A/A of resnet50, 2026-01-02, sweep 20260102, 5 rounds)"
    )
    assert show().count("under noise floor") == 1
    for text in (show("--wide"), show("--format", "md")):
        assert text.count(sentence) == 1
        assert "days old" in text
        assert text.count("faster, under the noise floor") == 1
    rows = {row["cell_id"]: row for row in csv.DictReader(io.StringIO(show("--format", "csv")))}
    assert [rows[f"{n:012x}"]["difference"] for n in (1, 2)] == ["faster, under the noise floor", "faster"]
    assert [rows[f"{n:012x}"]["noise_floor_pct"] for n in (0, 1)] == ["", "2.1"]
    data = json.loads(show("--format", "json"))
    assert data["noise"]["by_rounds"] == [
        {"rounds": 5, "floor_pct": 2.1, "detectable_pct": 3.0, "false_alarm_pct": 4.0}
    ]


def test_compare_without_a_floor_says_how_to_measure_one_and_of_several_hosts_that_none_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, host in (("a", "here"), ("b", "there")):
        store_compared(
            tmp_path, name, [compared_cell(0, 0.1), compared_cell(1, 0.05, ipex="on")], replace(HERE, host_id=host)
        )
    leave(tmp_path, "c", host_id="there")
    compare.main(["a", "--mlruns", str(tmp_path)])
    assert "not known yet: python -m runner -m experiment=aa" in capsys.readouterr().out
    compare.main(["all", "--allow", "host", "--mlruns", str(tmp_path)])
    assert "several hosts: no noise floor holds" in capsys.readouterr().out
    compare.main(["b", "--mlruns", str(tmp_path), "--format", "json"])
    assert json.loads(capsys.readouterr().out)["noise"]["sweep"] == "c"


# -- through the real launcher ------------------------------------------------------------------------


@pytest.mark.slow
def test_the_experiment_aa_leaves_the_floor_that_compare_goes_by(run_cli: Runner, mlruns: Path) -> None:
    small = ("model=tiny", "batch_size=2", "warmup=2", "iterations=20", "twin=a,b,c,d", "rounds=2")
    ran = run_cli("-m", "+experiment=aa", *small)
    assert ran.status == 0, ran.out + ran.err
    left = noise.read(ran.sweep / noise.FILE)
    assert (left.pairs, left.rounds, [by.rounds for by in left.by_rounds]) == (2, 2, [2])
    assert left.host_id == json.loads((ran.sweep / "host.json").read_text())["host_id"]
    client = MlflowClient(tracking_uri=Store(mlruns).uri)
    every = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(every, f"tags.sweep_id = '{ran.sweep.name}'")
    (parent,) = (run for run in runs if run.data.tags["kind"] == "sweep")
    assert parent.data.metrics["noise/floor_pct"] == pytest.approx(left.by_rounds[0].floor_pct)
    assert {"noise/false_alarm_pct", "noise/detectable_pct", "noise/pairs"} <= set(parent.data.metrics)
    assert noise.FILE in {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {run.data.params["twin"] for run in runs if run.data.tags["kind"] == "cell"} == set("abcd")
    assert "A/A: " in ran.out
    sentence = f"% can't be seen on this host (A/A of tiny, {left.when.date()}, sweep {ran.sweep.name}, 2 rounds)"
    assert sentence in ask("compare", ran.sweep.name, "--mlruns", str(mlruns)).out
