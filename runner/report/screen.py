"""How a sweep gets on, on a terminal: below the lines of the jobs that ended, a ranking that is drawn again in place.

The ranking, a bar and the phase of the job are drawn when something happens: a phase begins, a job ends. There is no
thread and no timer, so that nothing is drawn while a job measures.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleDimensions, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.segment import Segments
from rich.table import Table
from rich.text import Text

from runner.analysis.ranking import Ranking
from runner.report import fitting, tables
from runner.report.columns import Place
from runner.report.progress import Progress
from runner.report.terminal import duration, label

# Phase of a worker -> what the screen says of it. ``{}`` stands for what the timed loop will be.
PHASES: Mapping[str, str] = {
    "import": "importing torch",
    "reference": "computing the fp32 reference",
    "build": "building the model",
    "transform": "preparing the model as the cell asks",
    "warmup": "warming up",
    "measure": "measuring, {}",
    "measure_again": "measuring again, because others were at work",
    "quality": "comparing the output with fp32",
    "evidence": "collecting evidence",
    "onednn": "logging oneDNN",
    "captures": "capturing",
    "server": "starting the server",
    "load_model": "loading the model into the server",
    "warmup_requests": "warming up with requests",
    "search": "searching the highest rate",
    "load": "under load, {}",
}
# Lines of the screen that are kept free of the ranking: what stands around it, and a few finished jobs.
_OTHER_LINES = 11
_BAR_WIDTH = 24


def progress(
    console: Console, rounds: int | str, distinguishing: Sequence[str], has_captures: bool, is_wide: bool
) -> Progress:
    """The progress of a sweep as this console can show it: in place on a terminal, in lines elsewhere."""
    is_live = console.is_terminal and not console.is_dumb_terminal
    kind = LiveProgress if is_live else Progress
    return kind(console, rounds, distinguishing, has_captures, is_wide)


class LiveProgress(Progress):
    """The progress of a sweep, drawn in place."""

    _live: Live | None = None
    _heading = _job = _phase = _measuring = ""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._drawn: tuple[str, ConsoleDimensions, Segments] | None = None
        self._names: dict[str, str] = {}
        """What each job that runs is called, by its cell."""

    def start(self) -> None:
        """Begin to draw."""
        self._live = Live(console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop")
        self._live.start()
        # A cursor that stays hidden after a kill is worse than one that is seen.
        self._console.show_cursor(True)

    def stop(self) -> None:
        """Take what was drawn away; the closing table takes its place."""
        if self._live is not None:
            self._live.update(Text(""), refresh=True)
            self._live.stop()
            self._live = None

    def begin(self, number: int, cell_id: str, labels: Mapping[str, str], measuring: str) -> None:
        """Draw what starts now."""
        self._note_begin()
        self._job = f"{self._count()} {label(labels, self._distinguishing)}  {self._which(number)}".rstrip(", ")
        self._names[cell_id] = self._job
        self._phase, self._measuring = "starting", measuring
        self._draw()

    def phase(self, name: str) -> None:
        """Draw the phase of the job."""
        words = PHASES.get(name, "").format(self._measuring)
        if words and words != self._phase:  # a model's code may announce anything
            self._phase = words
            self._draw()

    def _spent_s(self) -> float:
        return time.monotonic() - self._began if self._names else 0.0

    def look(self, ranking: Ranking, heading: str) -> None:
        """Draw the ranking in place of the last one."""
        self._ranking, self._heading, self._drawn = ranking, heading, None
        self._draw()

    def _print_end(self, cell_id: str, indent: str, result: str, took_s: float) -> None:
        name = self._names.pop(cell_id, indent)
        self._console.print(f"[dim]{escape(name)}[/dim]  {result}  [dim]{duration(took_s)}[/dim]")
        self._draw()

    def _draw(self) -> None:
        if self._live is not None:
            self._live.update(self._screen(), refresh=True)

    def _screen(self) -> RenderableType:
        job = Text(f"{self._job}: {self._phase}", no_wrap=True, overflow="ellipsis")
        return Group(Text(""), *self._table(), self._bar(), job)

    def _table(self) -> list[RenderableType]:
        """The ranking as it was drawn last, unless it or the terminal has changed since: drawing it takes most time."""
        if self._ranking is None:
            return []
        size = self._console.size
        if self._drawn is None or self._drawn[:2] != (self._heading, size):
            room = max(size.height - _OTHER_LINES, 3)
            section = fitting.fitted(self._ranking.rows, self._distinguishing, Place.SWEEP, size.width, room)
            parts: list[RenderableType] = [Text(self._heading, "bold"), tables.drawn(section, is_tight=True)]
            parts += [Text(note, "dim") for note in section.notes] + [Text("")]
            self._drawn = self._heading, size, Segments(self._console.render(Group(*parts)))
        return [self._drawn[2]]

    def _bar(self) -> RenderableType:
        line = Table.grid(padding=(0, 1))
        line.add_column(width=_BAR_WIDTH)
        line.add_column(no_wrap=True)
        bar = ProgressBar(total=max(self._jobs, 1), completed=self.done, width=_BAR_WIDTH)
        line.add_row(bar, f"{self._kind}{self.done} of {self._jobs}{self._rest()}")
        return line
