"""From a request to a plan: compose every combination, apply the rules, and sort out what this machine can't run.

Planning launches nothing and writes nothing. It knows nothing of Hydra: a callable composes each configuration.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil, prod
from pathlib import Path

from runner.analysis.ranking import pick_baseline
from runner.config import override_text
from runner.config.schema import Config
from runner.job import passes
from runner.job.trials import Candidate
from runner.launch.placement import UnplaceableError
from runner.machine import torch_builds
from runner.machine.installation import search_options
from runner.matrix.rules import check_rule, combinations, distinguishing_axes, matches
from runner.matrix.support import why_not_in_its_memory_format, why_not_in_its_precision
from runner.protocol.cell import MAIN_AXES, Cell
from runner.protocol.errors import RunnerError
from runner.protocol.trial import Trial
from runner.results.ledger import CellEntry
from runner.sweep import identity
from runner.sweep.rounds import level_of

# Planning this many takes half a minute, and MLflow's pages show no more cells than this.
MOST_CELLS = 10_000

# A matrix of this many combinations is announced before it is planned; nothing is said more often than that.
_MANY, _SILENCE_S = 100, 5.0

# Overrides -> the configuration that they compose.
Compose = Callable[[Sequence[str]], Config]
# A combination of override key -> value, and whether an include rule made it.
_Selected = tuple[Mapping[str, str], bool]
# Prints one line.
Say = Callable[[str], None]
# Cells -> what is known of their models, by the key of the candidate; a model of which nothing is known may lack.
TryModels = Callable[[Sequence["PlannedCell"]], Mapping[str, Trial]]


def _silent(_: str) -> None:
    """Say nothing."""


def _nothing_known(_: Sequence[PlannedCell]) -> Mapping[str, Trial]:
    """Try no model."""
    return {}


@dataclass(frozen=True)
class SweepRequest:
    """What the sweeper was asked for, before anything is composed."""

    choices: Mapping[str, Sequence[str]]
    """Override key -> values, in the order written; the product of all is the matrix."""
    exclude: Sequence[object]
    include: Sequence[object]
    directory: Path
    sweep_id: str
    experiment: str
    resolved: str
    """The composed configuration with hydra.sweeper, as YAML: it becomes experiment.yaml of the parent run."""
    notes: Sequence[str] = ()
    """What to say at the start about how the request was understood, one sentence each."""
    shard: tuple[int, int] = (1, 1)
    """Which part of the matrix is measured, counted from 1, and of how many parts."""


@dataclass(frozen=True)
class PlannedCell:
    """One cell of the matrix, with the overrides that compose it."""

    config: Config
    overrides: tuple[str, ...]
    identity: Mapping[str, str] = field(default_factory=dict)
    """What its result depends on besides the cell: see runner.sweep.identity. Empty if something is not installed."""

    @property
    def cell(self) -> Cell:
        """The cell itself."""
        return self.config.cell

    @cached_property
    def cell_id(self) -> str:
        """The id under which its results are filed."""
        return identity.cell_id(self.cell, self.identity)

    @property
    def candidate(self) -> Candidate:
        """Its model, as one that is to be tried."""
        return Candidate(self.cell, self.identity)

    @property
    def entry(self) -> CellEntry:
        """The content of its cell.json."""
        cell = self.cell
        return CellEntry(self.cell_id, cell.key, cell.axes, cell.settings, self.command, dict(self.identity))

    @property
    def command(self) -> str:
        """The line that runs this cell alone, without the rules of the matrix it came from."""
        alone = ["hydra.sweeper.exclude=[]", "hydra.sweeper.include=[]"]
        # A sweep that went on, or only showed itself, was told so, and this line begins one.
        overrides = [word for word in self.overrides if not word.startswith(("resume=", "dry_run="))]
        return shlex.join(["python", "-m", "runner", *search_options(), "-m", *overrides, *alone])


@dataclass
class Matrix:
    """The cells of a request, sorted by what will become of them."""

    runnable: list[PlannedCell] = field(default_factory=list)
    excluded: list[tuple[Mapping[str, str], str]] = field(default_factory=list)
    """(axes, reason) of combinations that make no sense or can't run on this machine; they are not failures."""
    refused: list[tuple[PlannedCell, str]] = field(default_factory=list)
    """(cell, reason) of cells for which something is not installed, or whose model has failed its trial; they are
    recorded as FAILED without a launch."""
    used_rules: list[Mapping[str, Sequence[str]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What to say about the places of its cells, one sentence each."""
    idle_rules: list[Mapping[str, Sequence[str]]] = field(default_factory=list)
    """Exclude rules that matched no cell of this matrix; they may be misspelt, so the user is told."""


@dataclass(frozen=True)
class SweepPlan:
    """All that is known about a sweep before its first job."""

    request: SweepRequest
    matrix: Matrix
    baseline: PlannedCell
    distinguishing: Sequence[str]
    """The distinguishing axes, or MAIN_AXES if there are none."""

    @cached_property
    def cells(self) -> list[PlannedCell]:
        """The cells that count: those that run, then those for which something is not installed."""
        return _counting(self.matrix)

    @property
    def settings(self) -> Config:
        """A configuration for the settings of the sweep as a whole, which are equal in every cell."""
        return self.cells[0].config

    @property
    def level(self) -> float:
        """The level of each comparison: see runner.sweep.rounds.level_of()."""
        return level_of(self.settings.rounds)


def plan_sweep(
    request: SweepRequest, compose: Compose, say: Say = _silent, try_models: TryModels = _nothing_known
) -> SweepPlan:
    """Expand the matrix and choose its baseline and its distinguishing axes.

    Args:
        try_models: finds out what is known of the models of these cells.
        say: prints one line; called when planning takes long enough to make a person wonder.

    Raises:
        RunnerError: an option, value or rule can't be understood, or no cell is left to run.
    """
    matrix = expand_matrix(request, compose, say)
    if matrix.runnable:
        # Before the trials, so that nothing is started for a baseline that is refused.
        pick_baseline([planned.cell.axes for planned in _counting(matrix)], matrix.runnable[0].config.baseline)
        _apply_trials(matrix, try_models(matrix.runnable))
    cells = _counting(matrix)
    if not cells:
        reasons = "; ".join(dict.fromkeys(reason for _, reason in matrix.excluded))
        raise RunnerError(f"no cell of the matrix is left to run: {reasons or 'it is empty'}")
    baseline = cells[pick_baseline([planned.cell.axes for planned in cells], cells[0].config.baseline)]
    labels = [planned.cell.labels for planned in cells] + [labels for labels, _ in matrix.excluded]
    return SweepPlan(request, matrix, baseline, distinguishing_axes(labels) or MAIN_AXES)


def _counting(matrix: Matrix) -> list[PlannedCell]:
    return [*matrix.runnable, *(planned for planned, _ in matrix.refused)]


def _apply_trials(matrix: Matrix, trials: Mapping[str, Trial]) -> None:
    """Sort out the cells whose models can't be measured, or not in this memory format, and fill in their sequences.

    Raises:
        RunnerError: no model of the matrix can be measured.
    """
    cells, matrix.runnable = matrix.runnable, []
    problems: dict[str, None] = {}
    is_dry = cells[0].config.dry_run
    untried = {p.cell.model.name: None for p in cells if is_dry and p.candidate.key not in trials}
    if untried:
        names = ", ".join(untried)
        matrix.notes.append(f"not tried on this host: {names}; the sweep tries them, and may then leave cells out")
    for planned in cells:
        trial, cell = trials.get(planned.candidate.key, Trial()), planned.cell
        # What depends on a model that a dry run has not tried is left open, as its note says.
        reason = None if cell.model.name in untried else why_not_in_its_memory_format(cell, trial.has_images)
        if reason is None and trial.linear_inputs is not None:
            reason = why_not_in_its_precision(cell, trial.linear_inputs)
        if trial.problem is not None:
            problem = f"model={cell.model.name}: {trial.problem}"
            problems[problem] = None
            matrix.refused.append((planned, problem))
        elif reason is not None:
            matrix.excluded.append((cell.labels, reason))
        else:
            matrix.runnable.append(_with_sequences(planned, trial.sequence_length))
            matrix.notes += [note for note in trial.notes if note not in matrix.notes]
    if problems and not matrix.runnable:
        raise RunnerError("; ".join(problems))


def _with_sequences(planned: PlannedCell, length: int | None) -> PlannedCell:
    """The cell with the length of sequences that its model takes by default, as if it had been asked for."""
    if length is None or planned.cell.sequence_length is not None:
        return planned
    config = replace(planned.config, cell=replace(planned.cell, sequence_length=length))
    return replace(planned, config=config, overrides=(*planned.overrides, f"sequence_length={length}"))


def expand_matrix(request: SweepRequest, compose: Compose, say: Say = _silent) -> Matrix:
    """Compose every combination, apply the rules, and see what this machine can run.

    Args:
        say: see `plan_sweep`.

    Raises:
        RunnerError: an option, value or rule can't be understood; nothing has been launched.
    """
    excludes = [check_rule(rule, "hydra.sweeper.exclude") for rule in request.exclude]
    includes = [check_rule(rule, "hydra.sweeper.include") for rule in request.include]
    part, parts = request.shard
    _check_size([request.choices, *includes], parts)
    selection: list[_Selected] = [(combination, False) for combination in combinations(request.choices)]
    for rule in includes:
        defaults = {key: values[0] for key, values in request.choices.items()}
        words = {axis: [override_text.as_word(value) for value in values] for axis, values in rule.items()}
        selection += [({**defaults, **combination}, True) for combination in combinations(words)]
    if parts > 1:
        selection = _part_of(selection, part, parts, lambda one: _is_baseline(one, compose, excludes))
    matrix = Matrix()
    cell_keys: set[str] = set()
    progress = _Progress(len(selection), say)
    for combination, is_included in selection:
        progress.step()
        overrides = _overrides(combination)
        config = compose(overrides)
        cell = config.cell
        if cell.key in cell_keys:
            continue
        matching_rule = next((rule for rule in excludes if matches(rule, cell.axes)), None)
        if matching_rule is not None and not is_included:
            matrix.used_rules.append(matching_rule)
            matrix.excluded.append((cell.labels, f"excluded by the rule {rule_in_words(matching_rule)}"))
            continue
        cell_keys.add(cell.key)
        _sort_in(matrix, PlannedCell(config, overrides), say)
    matrix.idle_rules = [rule for rule in excludes if rule not in matrix.used_rules]
    return matrix


def _overrides(combination: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{key}={value}" for key, value in combination.items())


def _part_of(
    selection: Sequence[_Selected], part: int, parts: int, is_baseline: Callable[[_Selected], bool]
) -> list[_Selected]:
    """One of several parts of a matrix, every n-th combination of it, with the baseline before them.

    The rest is not composed: a part of a large matrix begins as soon as a small matrix does.
    """
    baseline = next((index for index, one in enumerate(selection) if is_baseline(one)), None)
    others = [index for index in range(len(selection)) if index != baseline][part - 1 :: parts]
    return [selection[index] for index in ([] if baseline is None else [baseline]) + others]


def _is_baseline(selected: _Selected, compose: Compose, excludes: Sequence[Mapping[str, Sequence[str]]]) -> bool:
    """Whether a combination is a cell that the whole matrix may have as its baseline."""
    combination, is_included = selected
    planned = PlannedCell(compose(_overrides(combination)), _overrides(combination))
    axes, wanted = planned.cell.axes, planned.config.baseline
    if not is_included and any(matches(rule, axes) for rule in excludes):
        return False
    if wanted and not matches(check_rule(wanted, "baseline"), axes):
        return False
    alone = Matrix()
    _sort_in(alone, planned, _silent)
    return not alone.excluded


class _Progress:
    """Says how far planning is: when it begins if there are many combinations, and every few seconds."""

    def __init__(self, combinations: int, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self._combinations, self._say, self._clock = combinations, say, clock
        self._done = 0
        self._spoke = clock()
        if combinations >= _MANY:
            say(f"planning {combinations} combinations: composing each, and seeing what this machine can run")

    def step(self) -> None:
        """Note that the next combination is begun."""
        if self._clock() - self._spoke > _SILENCE_S:
            self._say(f"planned {self._done} of {self._combinations} combinations")
            self._spoke = self._clock()
        self._done += 1


def _check_size(spans: Sequence[Mapping[str, Sequence[str]]], parts: int) -> None:
    """Refuse a matrix of which a part has more than MOST_CELLS cells, before its cells are composed.

    Raises:
        RunnerError: it has more cells.
    """
    if sum(prod(map(len, span.values())) for span in spans) > MOST_CELLS * parts:
        longest = max(spans, key=lambda span: prod(map(len, span.values())))
        sizes = ", ".join(f"{key}: {len(values)}" for key, values in longest.items() if len(values) > 1)
        raise RunnerError(
            f"the matrix has more than {MOST_CELLS} cells ({sizes}); leave values out, or measure it in parts: "
            f"shard=1/{ceil(sum(prod(map(len, span.values())) for span in spans) / MOST_CELLS)}"
        )


def _sort_in(matrix: Matrix, planned: PlannedCell, say: Say) -> None:
    """Add a cell to the matrix, by whether this machine can run it; its torch build is made if need be."""
    try:
        if not planned.config.dry_run:
            torch_builds.require(planned.cell.torch, say)
        placed = passes.place_here(planned.cell)
        planned = replace(planned, identity=identity.cell_identity(placed))
    except UnplaceableError as error:
        matrix.excluded.append((planned.cell.labels, str(error)))
    except RunnerError as error:
        matrix.refused.append((planned, str(error)))
    else:
        matrix.runnable.append(planned)
        matrix.notes += [note for note in placed.notes if note not in matrix.notes]


def rule_in_words(rule: Mapping[str, Sequence[str]]) -> str:
    """A rule as a person would write it: ``allocator=jemalloc|tcmalloc, ipex=on``."""
    return ", ".join(f"{axis}={'|'.join(values)}" for axis, values in rule.items())
