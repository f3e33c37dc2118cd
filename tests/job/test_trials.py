"""Trials of models: in one process for all, kept on this host by content, and handed to the sweep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.job import references
from runner.job.trials import Candidate, Trials, in_words
from runner.machine import execute
from runner.protocol.cell import Model
from runner.protocol.stored import write_json
from runner.protocol.trial import JOB_FILE, REFERENCE_FILE, TRIAL_FILE, Trial
from tests.conftest import CELL

IDENTITY = {"torch": "2.8.0", "model's code": "abc", "placement": "cores 0"}


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Trial | None]:
    """What the process of the trials answers, one per model; None where it ends without an answer."""
    given: list[Trial | None] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(argv: list[str], *_: Any, **__: Any) -> execute.Ended:
        folder = Path(argv[-1])
        (folder / "stderr.log").write_text("Fatal: out of luck\n")
        for number, trial in enumerate(given):
            assert (folder / JOB_FILE.format(number)).exists()
            if trial is not None:
                write_json(folder / TRIAL_FILE.format(number), trial)
                (folder / REFERENCE_FILE.format(number)).write_text(f"reference {number}")
        given.clear()
        return execute.Ended(0, False, 1.0, 0.0)

    monkeypatch.setattr(execute, "run", run)
    return given


def candidate(name: str, **change: Any) -> Candidate:
    return Candidate(replace(CELL, model=Model(name, f"a.{name}"), **change), IDENTITY)


def tried(folder: Path, *candidates: Candidate) -> tuple[dict[str, Trial], str]:
    """The trials of those that have to be tried, and what is said of them."""
    folder.mkdir(exist_ok=True)
    waiting = Trials(folder).waiting(candidates)
    return Trials(folder).run(waiting, 60.0) if waiting else {}, in_words(waiting)


def test_each_model_is_tried_once_and_one_that_passed_is_not_tried_again(
    tmp_path: Path, answers: list[Trial | None]
) -> None:
    one, other = candidate("one"), candidate("other")
    same = candidate("one", ipex="on")
    answers += [Trial(has_images=False), Trial()]
    trials, said = tried(tmp_path / "first", one, same, other)
    assert said == "trying one, other: built and called before the sweep begins"
    assert trials[same.key] == Trial(has_images=False)
    assert Trials(tmp_path).waiting([one, other]) == {}
    assert Trials(tmp_path).known([one, other]) == trials


def test_another_batch_and_changed_code_are_tried_again_and_another_place_is_not(
    tmp_path: Path, answers: list[Trial | None]
) -> None:
    one = candidate("one")
    answers.append(Trial())
    tried(tmp_path / "first", one)
    elsewhere = Candidate(one.cell, {**IDENTITY, "placement": "cores 1"})
    assert Trials(tmp_path).known([elsewhere]) == {one.key: Trial()}
    for unknown in (candidate("one", batch_size=99), Candidate(one.cell, {**IDENTITY, "model's code": "new"})):
        assert Trials(tmp_path).known([unknown]) == {}


def test_a_model_that_has_failed_is_tried_again(tmp_path: Path, answers: list[Trial | None]) -> None:
    answers += [Trial("it can't be built: OSError"), None]
    trials, _ = tried(tmp_path / "first", candidate("one"), candidate("two"))
    assert trials[candidate("two").key].problem == "its process ended when it was built or called: Fatal: out of luck"
    assert Trials(tmp_path).known([candidate("one"), candidate("two")]) == {}


def test_weights_that_builds_make_differently_are_handed_over_by_the_first(
    tmp_path: Path, answers: list[Trial | None]
) -> None:
    first, other = candidate("one"), Candidate(candidate("one").cell, {**IDENTITY, "torch": "2.14.1"})
    same = {first.key: Trial(weights="a"), other.key: Trial(weights="a")}
    assert Trials(tmp_path).hand_over_weights([first, other], same, tmp_path, 60.0) == []
    differing = {first.key: Trial(weights="a"), other.key: Trial(weights="b")}
    answers.append(Trial("its weights can't be handed over: RuntimeError"))
    said = Trials(tmp_path).hand_over_weights([first, other], differing, tmp_path, 60.0)
    assert said == ["model=one: its weights can't be handed over: RuntimeError"]
    weights = references.weights_file(tmp_path, first.cell)
    weights.write_text("made by the trial")
    [sentence] = Trials(tmp_path).hand_over_weights([first, other], differing, tmp_path, 60.0)
    assert sentence.endswith("make different weights from one seed, so all get those of torch=bundled")


def test_the_reference_of_a_trial_is_where_the_jobs_of_the_sweep_look_for_it(
    tmp_path: Path, answers: list[Trial | None]
) -> None:
    text = candidate("text")
    answers.append(Trial(sequence_length=128))
    tried(tmp_path / "first", text)
    planned = replace(text, cell=replace(text.cell, sequence_length=128))
    Trials(tmp_path / "first").hand_over(planned, tmp_path)
    kept = references.kept_file(tmp_path, planned.cell, IDENTITY, planned.cell.inputs)
    assert kept.read_text() == "reference 0"
