"""The terminal: a line before and after each job (never while one measures), and the table at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from runner import stats
from runner.analysis.cause import count, main_causes
from runner.analysis.ranking import Row, warning
from runner.config import names
from runner.protocol.verdicts import Status
from runner.results.metrics import RUNNER_CPU_LIMIT_PCT
from runner.results.outcome import Outcome

# What the widest table needs: a terminal that is narrower wraps its lines, and nothing is cut off.
_WIDTH = 280


class _Plain(Console):
    """A console whose texts can't move its cursor, change its title or reverse its lines, whoever wrote them."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(names.visible(text), **options)


def make_console() -> Console:
    """The console on standard output."""
    return _Plain(highlight=False, soft_wrap=True, width=max(Console().width, _WIDTH))


def label(axes: Mapping[str, str], distinguishing: Sequence[str]) -> str:
    """A cell in words: its values on the keys shown."""
    return "  ".join(f"{axis}={axes[axis]}" for axis in distinguishing)


def duration(seconds: float) -> str:
    """ "45 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def plural(number: int, word: str) -> str:
    """ "1 job", "4 jobs"."""
    return f"{number} {word}" + ("" if number == 1 else "s")


def exclusions(excluded: Sequence[tuple[Mapping[str, str], str]], distinguishing: Sequence[str]) -> list[str]:
    """A line a reason, with the cell it keeps out, or their number; all of them are in plan.json."""
    cells: dict[str, list[Mapping[str, str]]] = {}
    for axes, reason in excluded:
        cells.setdefault(reason, []).append(axes)
    return [
        f"{plural(len(found), 'cell')}: {reason}" if len(found) > 1 else f"{label(found[0], distinguishing)}: {reason}"
        for reason, found in cells.items()
    ]


class Progress:
    """Lines between jobs. Draws nothing by itself: no thread, no timer."""

    def __init__(self, console: Console, rounds: int | str, distinguishing: Sequence[str], timeout_s: float) -> None:
        self._console, self._rounds, self._distinguishing, self._timeout_s = console, rounds, distinguishing, timeout_s
        self.done = self._jobs = 0
        self._start = time.monotonic()
        self._began = self._start

    def add(self, stage: Sequence[tuple[int, object]]) -> None:
        """So many jobs, (round, cell) each, are to come; why, when it is not the first time."""
        if self._jobs:
            cells = plural(len({id(cell) for _, cell in stage}), "cell")
            first, last = min(number for number, _ in stage) + 1, max(number for number, _ in stage) + 1
            which = f"round {first}" if first == last else f"rounds {first} to {last}"
            self._console.print(f"[bold]undecided[/bold]: {which} for {cells}")
        self._jobs += len(stage)

    def out_of_budget(self, minutes: float) -> None:
        """Say why no more jobs are started."""
        self._console.print(
            f"[yellow]budget_min={minutes:g}[/yellow]: the next job would end after it; "
            f"{plural(self._jobs - self.done, 'planned job')} left out"
        )

    def begin(self, number: int, axes: Mapping[str, str]) -> None:
        """Say what starts now, and when it will be stopped at the latest."""
        self._began = time.monotonic()
        since = time.strftime("%H:%M:%S")
        of = f" of {self._rounds}" if isinstance(self._rounds, int) else ""
        which = f"round {number + 1}{of}, " if self._rounds != 1 else ""
        self._console.print(
            f"[dim]\\[{self.done + 1}/{self._jobs}][/dim] {escape(label(axes, self._distinguishing))}"
            f"  [dim]{which}since {since}, at most {duration(self._timeout_s)}[/dim]"
        )

    def end(self, outcome: Outcome, figures: Mapping[str, float]) -> float:
        """Say how it went, and how long the rest will take; returns the seconds that it took."""
        self.done += 1
        elapsed = time.monotonic() - self._start
        left = self._jobs - self.done
        rest = f", about {duration(elapsed / self.done * left)} left" if left else ""
        took_s = time.monotonic() - self._began
        took = f"[dim]{duration(took_s)}{rest}[/dim]"
        indent = " " * (len(f"[{self.done}/{self._jobs}]") + 1)
        if outcome.status == Status.FINISHED:
            p50 = figures.get("latency/p50_ms")
            faults = figures.get("faults/minor_per_iteration")
            measured = f"p50 {p50:.4g} ms" if p50 is not None else "not measured"
            if faults is not None:
                measured += f", {count(faults)} faults/step"
            if outcome.contamination:
                measured += f", [red]contaminated[/red] ({escape('; '.join(outcome.contamination))})"
            if outcome.attempts > 1:
                measured += f", attempt {outcome.attempts}"
            self._console.print(f"{indent}[green]{escape(outcome.evidence)}[/green] {measured}  {took}")
        else:
            self._console.print(f"{indent}[red]{outcome.status}[/red] {escape(outcome.failure or '')}  {took}")
        return took_s


def table(rows: Sequence[Row], distinguishing: Sequence[str], rounds: int) -> Table:
    """The ranking, fastest first."""
    result = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for axis in distinguishing:
        result.add_column(escape(axis), no_wrap=True)
    words = ("isa", "output", "evidence")
    for name in ("p50 ms", "cv %", "speed-up", "samples/s", "faults/step", "rel. error", *words):
        result.add_column(name, justify="left" if name in words else "right", no_wrap=True)
    if rounds > 1:
        result.add_column("95 % interval", no_wrap=True)
    if has_difference := rounds > 1 or bool(warning(rows)):
        result.add_column("difference", no_wrap=True)
    result.add_column("main cause", no_wrap=True)
    for row, cause in main_causes(rows):
        figures = row.metrics
        speedup = "-" if row.speedup is None else f"{row.speedup:.2f}x" + (" (baseline)" if row.is_baseline else "")
        verdict = row.record.evidence if not row.record.failure else f"{row.record.outcomes[-1].status}"
        cells = [
            *(escape(row.axes[axis]) for axis in distinguishing),
            figure(figures, "latency/p50_ms", ".4g"),
            figure(figures, "latency/cv_pct", ".1f"),
            speedup,
            figure(figures, "throughput/samples_per_s", ".4g"),
            count(figures["faults/minor_per_iteration"]) if "faults/minor_per_iteration" in figures else "-",
            figure(figures, "quality/rel_l2", ".1e"),
            escape(row.record.isa) if row.p50_ms is not None else "-",
            "-" if row.p50_ms is None else "[green]ok[/green]" if row.is_right else "[red]WRONG[/red]",
            f"[green]{verdict}[/green]" if verdict == "ok" else f"[red]{escape(verdict)}[/red]",
        ]
        if rounds > 1:
            interval = row.verdict.interval if row.verdict else None
            cells.append("-" if interval is None else f"{interval.low:.2f}x to {interval.high:.2f}x")
        if has_difference:
            cells.append(row.answer)
        result.add_row(*cells, escape(cause))
    return result


def figure(figures: Mapping[str, float], name: str, form: str) -> str:
    """A figure in that format; ``-`` where there is none."""
    return format(figures[name], form) if name in figures else "-"


def p99(figures: Mapping[str, float]) -> str:
    """p99 in ms; what it needs where a process has too few samples for it; ``-`` where nothing was measured."""
    absent = "latency/p50_ms" in figures and "latency/p99_ms" not in figures
    return stats.needs(0.99) if absent else figure(figures, "latency/p99_ms", ".4g")


def notes(rows: Sequence[Row], distinguishing: Sequence[str], rounds: int) -> list[str]:
    """What a reader of the table must know: failures, disturbance, and what one round can't tell."""
    said = []
    for row in rows:
        if row.record.failure:
            said.append(f"{row.record.outcomes[-1].status} {label(row.axes, distinguishing)}: {row.record.failure}")
        if row.p50_ms is not None and not row.is_right:
            said.append(
                f"WRONG output of {label(row.axes, distinguishing)}: {row.record.quality}; it is out of the ranking"
            )
        busy = row.metrics.get("selfaudit/runner_cpu_pct", 0.0)
        if busy > RUNNER_CPU_LIMIT_PCT:
            said.append(f"the runner used {busy:.1f} % of a core while {label(row.axes, distinguishing)} measured")
    said += _contaminations(rows, distinguishing)
    said += _shapes(rows, distinguishing)
    said += _short(rows, distinguishing)
    if any(row.answer.startswith("undecided") for row in rows):
        said.append("undecided: no difference shown; one smaller than the figure in brackets could not have shown here")
    if rounds == 1 and sum(row.p50_ms is not None for row in rows) > 1:
        said.append(
            "one round: how much processes differ is not known; rounds=5 shows it before a small difference is believed"
        )
    return said


def _short(rows: Sequence[Row], distinguishing: Sequence[str]) -> list[str]:
    """Cells that max_time_s ended before the median of a process was known as well as asked."""
    short = []
    for row in rows:
        target, width = row.axes.get("target_ci_pct", "null"), row.metrics.get("latency/process_ci95_pct")
        if row.axes.get("iterations") == "null" and target != "null" and width is not None and width > float(target):
            short.append((width, row))
    if not short:
        return []
    width, widest = max(short, key=lambda found: found[0])
    settings = widest.axes
    return [
        f"{plural(len(short), 'cell')} reached max_time_s={settings['max_time_s']} before the median of a process was "
        f"known to target_ci_pct={settings['target_ci_pct']}; {label(settings, distinguishing)}: to {width:.2g} %"
    ]


# Cells that are described one by one: of the others, their samples and tags say it.
_DESCRIBED = 5


def _contaminations(rows: Sequence[Row], distinguishing: Sequence[str]) -> list[str]:
    """The rounds of each cell that somebody else took part in, and how many attempts were made in vain."""
    said = []
    for row in rows:
        found = row.record.contamination
        if found:
            which = ", ".join(str(number + 1) for number in found)
            said.append(f"contaminated {label(row.axes, distinguishing)}, round {which}: {next(iter(found.values()))}")
    more = len(said) - _DESCRIBED
    said = said[:_DESCRIBED] + ([f"{plural(more, 'further cell')} contaminated"] if more > 0 else [])
    again = sum(row.record.reruns for row in rows)
    if again:
        said.append(f"{plural(again, 'contaminated attempt')} run again, and kept in the jobs' folders as attempt-N")
    return said


def _shapes(rows: Sequence[Row], distinguishing: Sequence[str]) -> list[str]:
    """What stands out in the samples of a process (drift, several speeds), of the first process that has it."""
    said = []
    for row in rows:
        for number, samples in enumerate(row.record.rounds):
            notes = stats.describe(samples).notes
            if notes:
                said.append(f"{label(row.axes, distinguishing)}, round {number + 1}: {'; '.join(notes)}")
                break
    more = len(said) - _DESCRIBED
    return said[:_DESCRIBED] + ([f"{plural(more, 'further cell')} with samples like these"] if more > 0 else [])
