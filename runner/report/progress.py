"""How a sweep gets on, in lines: one before and one after each job, and the ranking after each round.

It is what a file and a pipe get. On a terminal the same is drawn in place: runner.report.screen. Nothing here has a
thread or a timer, so that nothing is printed while a job measures.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import fmean

from rich.console import Console
from rich.markup import escape

from runner.analysis.cause import count
from runner.analysis.ranking import Ranking
from runner.protocol.verdicts import Status
from runner.report import look, sweep_end
from runner.report.terminal import duration, label, plural
from runner.results.metric_names import Metric
from runner.results.outcome import CaptureOutcome, Outcome


class Costs:
    """The seconds that jobs took, by which those of the others are expected."""

    def __init__(self) -> None:
        self._took_s: dict[str, float] = {}

    def record(self, cell_id: str, seconds: float) -> None:
        """Note how long a job of a cell took."""
        self._took_s[cell_id] = seconds

    def expected_s(self, cell_ids: Sequence[str]) -> float | None:
        """The seconds that jobs of these cells will take: as long as the last of each, or as the mean of the others.

        None if no job has ended yet.
        """
        if not self._took_s:
            return None
        usual = fmean(self._took_s.values())
        return sum(self._took_s.get(cell_id, usual) for cell_id in cell_ids)


class Progress:
    """The lines of a sweep.

    Args:
        console: where they are printed.
        rounds: the rounds that were asked for, or a word.
        distinguishing: the axes and settings that distinguish the cells.
        has_captures: whether captures will follow the timing.
        is_wide: whether tables have every column.
    """

    def __init__(
        self,
        console: Console,
        rounds: int | str,
        distinguishing: Sequence[str],
        has_captures: bool = False,
        is_wide: bool = False,
    ) -> None:
        self._console, self._rounds, self._distinguishing = console, rounds, distinguishing
        self._has_captures, self._is_wide = has_captures, is_wide
        self._costs, self._waiting = Costs(), list[str]()
        self.done = self._jobs = 0
        self._kind = ""
        """What the jobs are, where they are not rounds."""
        self._began = time.monotonic()
        self._ranking: Ranking | None = None

    def start(self) -> None:
        """Begin to draw, where drawing is in place."""

    def stop(self) -> None:
        """Leave the terminal to others; nothing happens if that was done before."""

    def add(self, jobs: Sequence[tuple[int, str]]) -> None:
        """Announce jobs, (round, cell_id) each; for any but the first ones, print why they are run."""
        if self._jobs:
            cells = plural(len({cell_id for _, cell_id in jobs}), "cell")
            first, last = min(number for number, _ in jobs) + 1, max(number for number, _ in jobs) + 1
            which = f"round {first}" if first == last else f"rounds {first} to {last}"
            self._console.print(f"[bold]undecided[/bold]: {which} for {cells}")
        self._jobs += len(jobs)
        self._waiting += [cell_id for _, cell_id in jobs]

    def add_captures(self, cell_ids: Sequence[str], budget_min: float) -> None:
        """Say that the timing is over and that captures of these cells follow, which have counts of their own."""
        cells = plural(len(cell_ids), "cell")
        self._console.print(
            f"timing is over: the captures of {cells} follow, each in a process of its own, for at most "
            f"{duration(60 * budget_min)}"
        )
        self._kind, self._costs = "captures ", Costs()
        self.done, self._jobs, self._waiting = 0, len(cell_ids), list(cell_ids)

    def out_of_budget(self, option: str, minutes: float) -> None:
        """Say why no more jobs are started."""
        left = plural(self._jobs - self.done, "planned job") if not self._kind else "captures of "
        left += plural(self._jobs - self.done, "cell") if self._kind else ""
        self._console.print(f"[yellow]{option}={minutes:g}[/yellow]: the next job would end after it; {left} left out")

    def begin(self, number: int, cell_id: str, labels: Mapping[str, str], measuring: str) -> None:
        """Say what starts now.

        Args:
            number: the round, from 0.
            labels: the cell's axes and settings.
            measuring: what its timed loop will be, in words.
        """
        self._note_begin()
        which = self._which(number)
        usual_s = self._costs.expected_s([cell_id]) if self.done else None
        usual = "" if usual_s is None else f", usually {duration(usual_s)}"
        self._console.print(
            f"[dim]{escape(self._count())}[/dim] {escape(label(labels, self._distinguishing))}"
            f"  [dim]{which}since {time.strftime('%H:%M:%S')}{usual}[/dim]"
        )

    def _note_begin(self) -> None:
        self._began = time.monotonic()

    def _which(self, number: int) -> str:
        of = f" of {self._rounds}" if isinstance(self._rounds, int) else ""
        return "" if self._kind or self._rounds == 1 else f"round {number + 1}{of}, "

    def _count(self) -> str:
        return f"[{self._kind}{self.done + 1}/{self._jobs}]"

    def phase(self, name: str) -> None:
        """A worker says that a phase of it begins; lines are not for that."""

    def say(self, text: str) -> None:
        """Print a line about the job that runs."""
        self._console.print(f"      {text}", markup=False)

    def end(self, outcome: Outcome | CaptureOutcome, figures: Mapping[str, float]) -> float:
        """Say how a job went, and how long the rest will take; returns the seconds that it took."""
        indent = " " * (len(self._count()) + 1)
        took_s = self._note_end(outcome.cell_id)
        self._print_end(outcome.cell_id, indent, _result(outcome, figures), took_s)
        return took_s

    def _print_end(self, cell_id: str, indent: str, result: str, took_s: float) -> None:
        self._console.print(f"{indent}{result}  [dim]{duration(took_s)}{self._rest()}[/dim]")

    def _note_end(self, cell_id: str) -> float:
        """Count a job that has ended; returns the seconds that it took."""
        self.done += 1
        took_s = time.monotonic() - self._began
        self._costs.record(cell_id, took_s)
        if cell_id in self._waiting:
            self._waiting.remove(cell_id)
        return took_s

    @property
    def left_s(self) -> float | None:
        """The seconds that the jobs which were announced will still take; None if nothing is known of them."""
        rest_s = self._costs.expected_s(self._waiting)
        return None if rest_s is None else max(rest_s - self._spent_s(), 0.0)

    def _rest(self) -> str:
        """How long the rest will take, in words; empty if nothing is left, or nothing is known."""
        rest_s = self.left_s
        if rest_s is None or not self._waiting:
            return ""
        more = ", then captures" if self._has_captures and not self._kind else ""
        return f", about {duration(rest_s)} left{more}"

    def _spent_s(self) -> float:
        """The seconds that the job which runs has taken so far."""
        return 0.0

    def look(self, ranking: Ranking, heading: str) -> None:
        """Show the ranking after a round: whole the first time, then only what changed.

        Args:
            ranking: as far as it is known.
            heading: how sure it is.
        """
        before, self._ranking = self._ranking, ranking
        if before is None:
            self._console.print(f"\n[bold]{escape(heading)}[/bold]")
            sweep_end.print_table(self._console, ranking.rows, self._distinguishing, self._is_wide)
            self._console.print()
            return
        changed = look.changes(before.rows, ranking.rows, self._distinguishing)
        if changed:
            self._console.print(f"[bold]{escape(heading)}[/bold]")
        for line in changed:
            self._console.print(f"  {line}", markup=False)


def _result(outcome: Outcome | CaptureOutcome, figures: Mapping[str, float]) -> str:
    """How a job went, as rich's markup."""
    if isinstance(outcome, CaptureOutcome):
        return _captured(outcome)
    if outcome.status != Status.FINISHED:
        return f"[red]{outcome.status}[/red] {escape(outcome.failure or '')}"
    p50 = figures.get(Metric.P50)
    faults = figures.get(Metric.MINOR_FAULTS)
    measured = f"p50 {p50:.4g} ms" if p50 is not None else "not measured"
    if faults is not None:
        measured += f", {count(faults)} faults/iteration"
    if outcome.contamination:
        # What was watched, and how, is in the notes below the closing table.
        reasons = "; ".join(reason.partition(";")[0] for reason in outcome.contamination)
        measured += f", [red]disturbed[/red] ({escape(reasons)})"
    if outcome.attempts > 1:
        measured += f", attempt {outcome.attempts}"
    if outcome.repeats:
        measured += f", measured {outcome.repeats + 1} times because others disturbed it"
    return f"[green]{escape(outcome.evidence)}[/green] {measured}"


def _captured(outcome: CaptureOutcome) -> str:
    """What became of captures: those that can't be taken here were named before the sweep began."""
    named = {name: tag for name, tag in outcome.captures.items() if name == "tma" or name.startswith("capture.")}
    tags = {name.removeprefix("capture."): tag for name, tag in named.items()}
    failed = dict.fromkeys(tag for tag in tags.values() if tag.startswith("failed"))
    taken = [name for name, tag in tags.items() if not tag.startswith(("failed", "unavailable"))]
    parts = [f"[green]{escape(', '.join(taken))}[/green]"] if taken else []
    return "; ".join([*parts, *(f"[red]{escape(tag)}[/red]" for tag in failed)]) or "nothing to capture"
