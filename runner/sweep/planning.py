"""From a request to the matrix: every combination composed, the rules applied, what this machine can run told apart.

Launches nothing and writes nothing. Knows nothing of Hydra: composing a configuration comes in as a callable.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from pathlib import Path

from runner.config.schema import Config, cell_of
from runner.job import passes
from runner.launch.placement import UnplaceableError
from runner.machine.installation import search_options
from runner.matrix.cell import Cell
from runner.matrix.rules import check_rule, combinations, matches
from runner.protocol.errors import RunnerError
from runner.results.ledger import CellEntry
from runner.sweep import identity

# Planning takes a tenth of a second a cell, and MLflow's pages show no more.
MOST_CELLS = 10_000


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
    """The composed configuration with hydra.sweeper, as YAML: experiment.yaml of the parent run."""
    batch: int
    """Jobs handed to the Hydra launcher at a time: 1 where the launcher runs them here, one by one."""
    runs_here: bool
    """Whether the jobs run in this process, one after another."""
    notes: Sequence[str] = ()
    """What to say at the start about how the request was understood, one sentence each."""


@dataclass(frozen=True)
class Planned:
    """One cell of the matrix with the overrides that compose it."""

    cell: Cell
    config: Config
    overrides: tuple[str, ...]
    identity: Mapping[str, str] = field(default_factory=dict)
    """What its result depends on beside: see runner.sweep.identity. Empty of a cell that lacks something."""

    @cached_property
    def cell_id(self) -> str:
        """What its results are filed under."""
        return identity.cell_id(self.cell, self.identity)

    @property
    def entry(self) -> CellEntry:
        """What the sweep writes down about it."""
        cell = self.cell
        return CellEntry(self.cell_id, cell.key, cell.axes, cell.settings, self.command, dict(self.identity))

    @property
    def command(self) -> str:
        """The line that runs this cell alone, without the rules of the matrix it came from."""
        alone = ["hydra.sweeper.exclude=[]", "hydra.sweeper.include=[]"]
        # A sweep that went on was told so, and this line begins one.
        overrides = [word for word in self.overrides if not word.startswith("resume=")]
        return shlex.join(["python", "-m", "runner", *search_options(), "-m", *overrides, *alone])


@dataclass
class Matrix:
    """Cells sorted by what will become of them."""

    runnable: list[Planned] = field(default_factory=list)
    excluded: list[tuple[Mapping[str, str], str]] = field(default_factory=list)
    """(axes, reason): makes no sense or can't run on this machine; not a failure."""
    not_installed: list[tuple[Planned, str]] = field(default_factory=list)
    """(cell, reason): something is not installed; recorded as FAILED without a launch."""
    used_rules: list[Mapping[str, Sequence[str]]] = field(default_factory=list)
    idle_rules: list[Mapping[str, Sequence[str]]] = field(default_factory=list)
    """Exclude rules that no cell of this matrix matched: perhaps misspelt, so they are named."""


Compose = Callable[[Sequence[str]], Config]


def plan(request: SweepRequest, compose: Compose) -> Matrix:
    """Compose every combination, apply the rules, and see what this machine can run.

    Raises:
        RunnerError: an option, value or rule can't be understood; nothing has been launched.
    """
    excludes = [check_rule(rule, "hydra.sweeper.exclude") for rule in request.exclude]
    includes = [check_rule(rule, "hydra.sweeper.include") for rule in request.include]
    spans = [request.choices, *includes]
    if sum(prod(map(len, span.values())) for span in spans) > MOST_CELLS:
        longest = max((span for span in spans), key=lambda span: prod(map(len, span.values())))
        sizes = ", ".join(f"{key}: {len(values)}" for key, values in longest.items() if len(values) > 1)
        raise RunnerError(
            f"the matrix has more than {MOST_CELLS} cells ({sizes}); leave values out, or run it in parts"
        )
    wanted = [(combination, False) for combination in combinations(request.choices)]
    for rule in includes:
        fixed = {key: values[0] for key, values in request.choices.items()}
        wanted += [({**fixed, **extra}, True) for extra in combinations(rule)]
    matrix = Matrix()
    seen: set[str] = set()
    for combination, included in wanted:
        overrides = tuple(f"{key}={value}" for key, value in combination.items())
        config = compose(overrides)
        cell = cell_of(config)
        if cell.key in seen:
            continue
        planned = Planned(cell, config, overrides)
        rule_hit = next((rule for rule in excludes if matches(rule, cell.axes)), None)
        if rule_hit is not None and not included:
            matrix.used_rules.append(rule_hit)
            matrix.excluded.append((cell.labels, f"excluded by the rule {rule_in_words(rule_hit)}"))
            continue
        seen.add(cell.key)
        try:
            planned = replace(planned, identity=identity.of(passes.place_here(cell)))
        except UnplaceableError as error:
            matrix.excluded.append((cell.labels, str(error)))
        except RunnerError as error:
            matrix.not_installed.append((planned, str(error)))
        else:
            matrix.runnable.append(planned)
    matrix.idle_rules = [rule for rule in excludes if rule not in matrix.used_rules]
    return matrix


def quoted(value: object) -> str:
    """A value that Hydra's override grammar reads back as it is."""
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def rule_in_words(rule: Mapping[str, Sequence[str]]) -> str:
    """``allocator=jemalloc|tcmalloc, ipex=on``."""
    return ", ".join(f"{axis}={'|'.join(values)}" for axis, values in rule.items())
