"""A sweep's answer: what was measured, what came out of it in plain words, and how sure that is. Pure.

It stands above every ranking: in the terminal, in report.html and report.md, in pictures, and in MLflow's descriptions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from runner.analysis.ranking import Row
from runner.analysis.verdict import verdict
from runner.protocol.cell import ABSENT, BUNDLED, ENTRIES, INFERENCE, MAIN_AXES, WORKED_ON, worded
from runner.protocol.declaration import as_text
from runner.report import escaping
from runner.report.terminal import plural
from runner.results.circumstances import Circumstances

# How values are said aloud that do not stand for themselves.
_ALOUD = {"batch_size": "batch {}", "sequence_length": "sequence length {}"}
# The axes of the machine, which are said with it.
_OF_MACHINE = ("cores", "node")
# Names that tell cells apart and change nothing.
_NO_CHOICE = ("twin",)
_NOWHERE = Circumstances()


@dataclass(frozen=True)
class Answer:
    """What a reader must know of a ranking before its table."""

    measured: str
    """What was measured, on what, when: see `measured`."""
    warning: str
    """The sentence on disturbed rounds that comes before the conclusion; empty without one."""
    sentence: str
    """The conclusion in plain words, with its certainty and the main cause."""
    remarks: tuple[str, ...]
    """Further sentences: on the next cell, wrong outputs, failures."""

    @property
    def markdown(self) -> str:
        """The answer as Markdown: what was measured, the conclusion in bold, the remarks; a paragraph each."""
        conclusion = " ".join(filter(None, (self.warning, self.sentence)))
        lines = [escaping.markdown(self.measured), f"**{escaping.markdown(conclusion)}**"]
        return "\n\n".join([line for line in lines if line] + [escaping.markdown(" ".join(self.remarks))]).strip()


def answer(rows: Sequence[Row], distinguishing: Sequence[str], circumstances: Circumstances = _NOWHERE) -> Answer:
    """The answer that ranked rows give.

    Args:
        rows: see `runner.analysis.ranking`.
        distinguishing: the axes and settings that distinguish the cells.
        circumstances: where and when they were measured, see `runner.results.circumstances.read`.
    """
    conclusion = verdict(rows, distinguishing)
    return Answer(measured(rows, circumstances), conclusion.warning, conclusion.sentence, conclusion.remarks)


def measured(rows: Sequence[Row], circumstances: Circumstances = _NOWHERE) -> str:
    """What was measured, where and when, as far as all cells have it in common; what they differ in is in the table.

    Like ``resnet50, batch 32, fp32, eager, channels_first · AMD EPYC, 2 cores · torch 2.8.0 · 2026-11-25 · 8 min``.
    """
    cores = _common(rows, "cores")
    number = int(cores) if cores.isdigit() else circumstances.cores if cores == "all" else 0
    machine = ", ".join(filter(None, (circumstances.cpu, plural(number, "core") if number else "")))
    is_bundled = _common(rows, "torch") in (BUNDLED, ABSENT)
    torch = f"torch {circumstances.torch}" if circumstances.torch and (is_bundled or not rows) else ""
    took = _briefly(circumstances.took_s)
    return " · ".join(filter(None, (work(rows), machine, torch, circumstances.date, took)))


def work(rows: Sequence[Row]) -> str:
    """The model, its inputs and how it is run, as far as all cells have that in common."""
    first = (*WORKED_ON, "graph", "memory_format", "allocator", "ipex")
    said = []
    for key in dict.fromkeys((*first, *ENTRIES)):
        value = _common(rows, key)
        if value not in ("", ABSENT, "none") and _is_said(key, value):
            said.append(_ALOUD[key].format(value) if key in _ALOUD else worded(key, value))
    return ", ".join(said)


def _is_said(key: str, value: str) -> bool:
    """Whether a value that all cells have is worth a word: it names the work, or is not the usual one."""
    entry = ENTRIES[key]
    if key in (*_OF_MACHINE, *_NO_CHOICE) or entry.owner or entry.declaration.is_measuring:
        return False
    if key in WORKED_ON or key in MAIN_AXES:
        return True
    if key == "scenario":
        return value != INFERENCE
    if entry.default is dataclasses.MISSING or dataclasses.is_dataclass(entry.default):
        return False
    return value != as_text(entry.default, entry.declaration, entry.hint)


def _common(rows: Sequence[Row], key: str) -> str:
    """The value that all rows have; empty if they differ, or if there are none."""
    values = {row.labels.get(key, ABSENT) for row in rows}
    return next(iter(values)) if len(values) == 1 else ""


def _briefly(seconds: float) -> str:
    """A duration as briefly as it is said: ``45 s``, ``8 min``, ``2 h 5 min``; empty if it is not known."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 0.5 else ""
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
