"""From the files that a job's captures left to tables, figures and verdicts. The only reader of those files.

What a table's file looks like is runner.capture.tables' to know.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median

from runner.capture import callers, counters, inductor, itt, kernel_tables, onednn, probe
from runner.capture.tables import write_table
from runner.config.captures import CaptureConf
from runner.protocol import stored
from runner.protocol.errors import RunnerError
from runner.protocol.resultfile import (
    CALLERS_FILE,
    CALLERS_LOG,
    CAPTURES_FILE,
    COUNTERS_FILE,
    INDUCTOR_FOLDER,
    ITT_FILE,
    KERNELS_FILE,
    NOT_SURVIVED,
    PROFILER_FOLDER,
    Captured,
    WorkerResult,
    onednn_log,
    read_captures,
)
from runner.protocol.stored import FormatError, write_json
from runner.protocol.verdicts import OK

# How many calls of the model ran at the same time; without it there was one.
STREAMS = "onednn/streams"


@dataclass
class Findings:
    """What the captures of one job come to."""

    figures: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    """``capture.<name>`` or ``tma`` -> ``ok``, where its figures are from, ``unavailable: why`` or ``failed: why``."""
    recorded: dict[str, Captured] = field(default_factory=dict)
    """Capture -> its iterations."""

    def update(self, other: Findings) -> None:
        """Add what another capture found."""
        self.figures.update(other.figures)
        self.tags.update(other.tags)


def overhead_pct(step_s: Sequence[float], clean_s: Sequence[float]) -> float:
    """How much longer a captured iteration took than a clean one (medians)."""
    return 100 * (median(step_s) / median(clean_s) - 1)


def guarded(tag: str, take: Callable[[], Findings]) -> Findings:
    """What ``take`` finds; what goes wrong in it becomes the tag, and costs nothing else."""
    try:
        findings = take()
    except RunnerError as error:  # what was recorded is damaged, and the error says how
        return Findings({}, {tag: f"failed: {error}"})
    except Exception as error:
        traceback.print_exc()
        return Findings({}, {tag: f"failed: {type(error).__name__}: {error}"})
    odd = sorted(name for name, value in findings.figures.items() if not math.isfinite(value))
    for name in odd:
        del findings.figures[name]
    if odd:
        findings.tags[tag] = f"failed: no finite figure for {', '.join(odd)}"
    return findings


def collect(
    folder: Path,
    conf: CaptureConf,
    clean: WorkerResult,
    log: onednn.Log,
    kernel: str,
    work: Mapping[str, str],
    stopped: str | None = None,
) -> Findings:
    """Read the captures of a timing pass, and leave their tables in the job's folder.

    Args:
        clean: the pass's own result, whose timed iterations no capture touched.
        log: oneDNN's log, parsed.
        kernel: the implementation that oneDNN spent most of the arithmetic in; empty when that is not known.
        work: axis -> value, for the axes that say what was worked on; every table has them as its last columns.
        stopped: why the worker was stopped during its captures; None when it was not.
    """
    findings = Findings()
    if not conf.names:
        return findings
    try:
        recorded = read_captures(folder / CAPTURES_FILE)
    except FormatError as error:
        recorded = {name: Captured(name, failure=str(error)) for name in _READERS}
    findings.recorded.update(recorded)
    # Iterations at the same moment and with the same heap as the captured ones; the timed ones if there are none.
    steps = recorded["clean"].step_s if "clean" in recorded else []
    if steps and not clean.is_served:
        findings.figures["captures/drift_pct"] = overhead_pct(steps, clean.latencies_s)
    near = steps or clean.latencies_s
    if conf.onednn is not None:
        findings.update(guarded("capture.onednn", lambda: _onednn(folder, clean, near, log, kernel, work)))
    unavailable = probe.unavailable(conf)
    asked = (*conf.names, *(["callers"] if conf.onednn is not None else []))
    if clean.streams > 1:
        unavailable["callers"] = "streams run several operators at the same time"
    for name in _READERS:
        if name not in asked or (name == "itt" and conf.itt is not None and conf.itt.vtune):
            continue
        if name in unavailable:
            findings.tags[f"capture.{name}"] = f"unavailable: {unavailable[name]}"
            continue
        captured = recorded.get(name, Captured(name, failure="the worker ended before it"))
        # What was under way when the worker was stopped, and what came after, was stopped with it.
        if stopped is not None and (captured.failure == NOT_SURVIVED or name not in recorded):
            captured = replace(captured, failure=stopped)
        findings.update(_read(folder, captured, near, work))
    return findings


def _read(folder: Path, captured: Captured, near: Sequence[float], work: Mapping[str, str]) -> Findings:
    """What one capture comes to, with what it cost and how much it slowed its iterations down."""
    name, tag = captured.name, f"capture.{captured.name}"
    if captured.failure is not None:
        return Findings({}, {tag: f"failed: {captured.failure}"})
    findings = guarded(tag, lambda: _READERS[name](folder, captured, work))
    if captured.step_s:
        findings.figures[f"overhead/{name}_pct"] = overhead_pct(captured.step_s, near)
    findings.figures[f"cost/{name}_s"] = captured.wall_s
    return findings


def _onednn(
    folder: Path, clean: WorkerResult, near: Sequence[float], log: onednn.Log, kernel: str, work: Mapping[str, str]
) -> Findings:
    into = folder / "onednn"
    into.mkdir(exist_ok=True)
    with (into / "trace.csv").open("w", encoding="utf-8") as file:
        file.writelines(kernel_tables.trace_lines(log, work))
    table = kernel_tables.by_primitive(log, clean.onednn_step_s, clean.streams)
    write_table(into / "by_primitive.json", table, work)
    if not clean.logged_s:
        raise FormatError("no iteration was logged")
    tags = {"capture.onednn": OK if not log.unparsed else f"{len(log.unparsed)} lines could not be read"}
    if kernel:
        tags["onednn.kernel"] = kernel
    figures = {"overhead/onednn_pct": overhead_pct(clean.logged_s, near)}
    if clean.streams > 1:
        figures[STREAMS] = float(clean.streams)
    return Findings(figures, tags)


def _callers(folder: Path, _captured: Captured, work: Mapping[str, str]) -> Findings:
    """Which operators called oneDNN: it comes with the capture onednn, and its iterations are others."""
    file, log_file = folder / CALLERS_FILE, folder / CALLERS_LOG
    ranges = stored.typed(list[callers.Range], stored.read_json(file), file)
    # oneDNN names its columns once in a process, in the log before.
    before = stored.read_text(folder / onednn_log(0), errors="replace").splitlines(keepends=True)
    columns = [line for line in before if "template:" in line]
    log = onednn.parse(columns + stored.read_text(log_file, errors="replace").splitlines(keepends=True))
    if log.unparsed:
        raise FormatError(f"{log_file.name}: {len(log.unparsed)} lines could not be read")
    found = callers.by_operator(log, ranges)
    write_table(
        folder / "onednn" / "by_operator.json",
        {
            "operator": [caller.name for caller in found],
            "ms per iteration": [caller.seconds * 1e3 for caller in found],
            "calls per iteration": [caller.calls for caller in found],
            "primitives": [", ".join(caller.primitives) for caller in found],
        },
        work,
    )
    for used in (file, log_file):  # all of it is in the table
        used.unlink()
    return Findings({"onednn/attributed_pct": callers.attributed_pct(found)}, {"capture.callers": OK})


def _itt(folder: Path, captured: Captured, work: Mapping[str, str]) -> Findings:
    recording = itt.read(stored.read_bytes(folder / ITT_FILE))
    steps = recording.steps
    if len(steps) != len(captured.step_s) or not steps:
        raise FormatError(f"{len(captured.step_s)} iterations were run, {len(steps)} were recorded")
    if recording.dropped:
        raise FormatError(f"{recording.dropped} ranges were dropped, for want of memory")
    ops = itt.by_op(recording)
    write_table(
        folder / "itt" / "by_op.json",
        {
            "operator": [op.name for op in ops],
            "self ms per iteration": [op.self_s * 1e3 for op in ops],
            "total ms per iteration": [op.total_s * 1e3 for op in ops],
            "calls per iteration": [op.calls_per_iteration for op in ops],
            "p50 ms per call": [op.p50_s * 1e3 for op in ops],
        },
        work,
    )
    write_json(folder / "itt" / "timeline.json", itt.timeline(recording, folder.parent.name, work))
    clocks = [abs(step.seconds / seconds - 1) for step, seconds in zip(steps, captured.step_s, strict=True)]
    figures = {
        "itt/last_step_ms": steps[-1].seconds * 1e3,
        "itt/step_p50_ms": median(step.seconds for step in steps) * 1e3,
        "itt/ranges_per_iteration": sum(op.calls_per_iteration for op in ops),
        "itt/dropped": float(recording.dropped),
        "itt/unmatched": float(recording.unmatched),
        "itt/clock_difference_pct": 100 * max(clocks),
        "itt/named_pct": 100 * sum(op.self_s for op in ops if op.is_named) / median(step.seconds for step in steps),
    }
    return Findings(figures, {"capture.itt": OK})


def _steps(captured: Captured) -> int:
    """The number of iterations that were captured.

    Raises:
        FormatError: none was captured.
    """
    if not captured.step_s:
        raise FormatError("no iteration was captured")
    return len(captured.step_s)


def _profiler(folder: Path, captured: Captured, work: Mapping[str, str]) -> Findings:
    profiler_folder = folder / PROFILER_FOLDER
    steps = _steps(captured)
    file = profiler_folder / "ops.json"
    rows = _profiled(file)
    rows.sort(key=lambda row: -row.self_s)
    write_table(
        profiler_folder / "by_op.json",
        {
            "operator": [row.name for row in rows],
            "self ms per iteration": [row.self_s * 1e3 / steps for row in rows],
            "total ms per iteration": [row.total_s * 1e3 / steps for row in rows],
            "calls per iteration": [row.calls / steps for row in rows],
        },
        work,
    )
    text = profiler_folder / "table.txt"
    if text.exists():
        heading = ", ".join(f"{axis}={value}" for axis, value in work.items())
        text.write_text(f"{heading}\n{stored.read_text(text)}", encoding="utf-8")
    file.unlink()  # all of it is in the table
    figures = {
        "profiler/self_ms_per_iteration": sum(r.self_s for r in rows) * 1e3 / steps,
        "profiler/named_pct": inductor.named_pct(inductor.kernels(rows, steps, {}), mean(captured.step_s)),
    }
    return Findings(figures, {"capture.profiler": captured.note or OK})


def _profiled(file: Path) -> list[inductor.ProfilerRow]:
    """The profiler's rows without those of the iterations themselves."""
    rows = stored.typed(list[inductor.ProfilerRow], stored.read_json(file), file)
    return [row for row in rows if not row.name.startswith(("step_", "[memory]"))]


def of_kernels(folder: Path, timed_s: Sequence[float], work: Mapping[str, str]) -> Findings:
    """Read what the kernels of a package recorded of themselves in a launch of their own, and leave their table.

    Args:
        folder: that of the cell's captures, in which the launch has its own.
        timed_s: the latencies that were timed, which the iterations are set against.

    Raises:
        FormatError: a file can't be read.
    """
    recorded = read_captures(folder / INDUCTOR_FOLDER / CAPTURES_FILE)
    captured = recorded.get("inductor", Captured("inductor", failure=NOT_SURVIVED))
    findings = _read(folder, captured, timed_s, work)
    return replace(findings, recorded={"inductor": captured})


def _inductor(folder: Path, captured: Captured, work: Mapping[str, str]) -> Findings:
    into, steps = folder / INDUCTOR_FOLDER, _steps(captured)
    file, names = into / "ops.json", into / KERNELS_FILE
    rows, step_s = _profiled(file), mean(captured.step_s)
    comments = stored.typed(dict[str, list[str]], stored.read_json(names), names)
    found = inductor.kernels(rows, steps, inductor.operators_of(comments))
    write_table(
        into / "by_kernel.json",
        {
            "kernel": [kernel.name for kernel in found],
            "self ms per iteration": [kernel.self_s * 1e3 for kernel in found],
            "calls per iteration": [kernel.calls for kernel in found],
            "kind": [kernel.kind for kernel in found],
            "operators": [", ".join(kernel.operators) for kernel in found],
        },
        work,
    )
    for used in (file, names):  # all of it is in the table
        used.unlink()
    figures = {
        "inductor/kernels": float(sum(kernel.kind == "generated" for kernel in found)),
        "inductor/generated_pct": 100 * sum(k.self_s for k in found if k.kind == "generated") / step_s,
        "inductor/named_pct": inductor.named_pct(found, step_s),
    }
    return Findings(figures, {"capture.inductor": captured.note or OK})


def _counters(folder: Path, captured: Captured, _work: Mapping[str, str]) -> Findings:
    window, steps = captured.window, _steps(captured)
    if window is None:
        raise FormatError("the worker left no getrusage figures")
    usage = {
        "task-clock": window.user_s + window.system_s,
        "minor-faults": float(window.minor_faults),
        "major-faults": float(window.major_faults),
        "context-switches": float(window.voluntary_switches + window.involuntary_switches),
    }
    perf = probe.perf_counters()
    if not perf.command or captured.note:
        counts, source = counters.Counts(usage), "getrusage" if captured.note else perf.source
    else:
        text = stored.read_text(folder / COUNTERS_FILE, errors="replace")
        if not text.endswith("\n"):  # what is left of a count is another number
            raise FormatError(f"perf's counts are torn: {COUNTERS_FILE} ends in the middle of a line")
        counts = counters.parse(text)
        source = perf.source
        if counts.user_only:
            source += "; in user mode only, context switches by getrusage"
            counts.values["context-switches"] = usage["context-switches"]
    notes = [source, *([captured.note] if captured.note else [])]
    notes += [f"no {event} ({why})" for event, why in sorted(counts.missing.items()) if event not in counts.values]
    figures = {f"counters/{name}_per_iteration": value / steps for name, value in counts.values.items()}
    if "task-clock" in counts.values:
        figures["counters/task-clock_ms_per_iteration"] = 1e3 * figures.pop("counters/task-clock_per_iteration")
    if counts.values.get("cycles"):
        figures["counters/instructions_per_cycle"] = counts.values.get("instructions", 0.0) / counts.values["cycles"]
    if perf.command and not captured.note:
        figures["counters/running_pct"] = counts.running_pct
    tags = {"capture.counters": "; ".join(notes)}
    figures |= {f"counters/{name}_pct": value for name, value in counts.metrics.items()}
    if level1 := counts.level1():
        figures |= {f"tma/{name}": value for name, value in level1.items()}
        tags["tma.source"] = f"perf stat -M {perf.group}"
    return Findings(figures, tags)


_READERS: Mapping[str, Callable[[Path, Captured, Mapping[str, str]], Findings]] = {
    "callers": _callers,
    "counters": _counters,
    "itt": _itt,
    "profiler": _profiler,
    "inductor": _inductor,
}
