"""The captures that need a separate launch: toplev and VTune wrap the whole process tree, and the kernels of a package
are generated otherwise where they record themselves.

The timing has ended and its outcomes are written. Whatever happens here becomes a tag and can't harm the timing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from runner import launch
from runner.capture import collect, probe, topdown, toplev, vtune
from runner.capture.collect import Findings, guarded, overhead_pct
from runner.checks import likeness
from runner.config.captures import InductorCaptureConf, IttCaptureConf, ToplevCaptureConf
from runner.config.schema import Config
from runner.job import passes
from runner.protocol import stored
from runner.protocol.captures import Captures, InductorCapture
from runner.protocol.cell import WORKED_ON
from runner.protocol.errors import RunnerError
from runner.protocol.jobfile import JobSpec
from runner.protocol.resultfile import INDUCTOR_FOLDER, WorkerResult
from runner.protocol.verdicts import OK


def take(placed: launch.PlacedCell, config: Config, folder: Path, clean: WorkerResult) -> Findings:
    """Launch a finished cell again under each program that was asked for and can be used here.

    Args:
        folder: where the captures leave their files.
        clean: a result with timed iterations that no capture touched.
    """
    findings = Findings()
    capture, unavailable = config.capture, probe.unavailable(config.capture)

    def add(name: str, program: str, tag: str, launch_under: Callable[[WorkerResult], Findings]) -> None:
        """Add the findings of one program, or the tag that says why it can't be used."""
        if name in unavailable:
            findings.tags[tag] = f"unavailable: {unavailable[name]}"
        elif placed.cell.instances > 1:
            findings.tags[tag] = f"unavailable: several instances can't share one {program}; use instances=1"
        elif name == "inductor" and not placed.cell.graph.is_inductor:
            findings.tags[tag] = f"unavailable: inductor generates no code for graph={placed.cell.graph.name}"
        else:
            findings.update(guarded(tag, lambda: launch_under(clean)))

    levels, itt, kernels = capture.toplev, capture.itt, capture.inductor
    if levels is not None:
        add("toplev", "toplev", "tma", lambda clean: _toplev(placed, config, levels, folder / "tma", clean))
    if kernels is not None and (placed.cell.graph.is_package or not placed.cell.graph.is_inductor):
        add("inductor", "launch", "capture.inductor", lambda clean: _inductor(placed, config, kernels, folder, clean))
    if itt is not None and itt.vtune:
        add("itt", "vtune", "capture.itt", lambda clean: _vtune(placed, config, itt, folder / "vtune", clean))
    return findings


def _toplev(
    placed: launch.PlacedCell, config: Config, settings: ToplevCaptureConf, folder: Path, clean: WorkerResult
) -> Findings:
    """Run toplev around the launcher, counting over the timed loop.

    Its nodes become figures, in percent of their unit, and the node that it marks as the bottleneck becomes a tag.
    """
    runs: list[topdown.Run] = []

    def wrap(argv: Sequence[str], spec: JobSpec, private: Path) -> tuple[Sequence[str], JobSpec]:
        runs.append(topdown.Run(private=private, results=folder))
        return runs[0].wrap(argv, settings.level), replace(spec, region=runs[0].region)

    try:
        ended, result, failure = passes.run_separately(placed, config, folder, settings.min_time_s, wrap)
        table = runs[0].read(stored.log_text(folder / "stderr.log"), ended.returncode)
    except (toplev.Rejected, RunnerError) as error:
        return Findings({}, {"tma": f"failed: {error}"})
    # perf and toplev exit with 0 even if the job under them was killed: only the worker's result says that it ran.
    if result is None:
        return Findings({}, {"tma": f"failed: {failure}"})
    figures = {f"tma/{node.path}": node.value for node in table.nodes}
    figures |= {
        "tma/mux_pct": table.mux_pct,
        "overhead/toplev_pct": overhead_pct(result.latencies_s, clean.latencies_s),
        "cost/toplev_s": ended.wall_s,
    }
    tags = {"tma": OK, "tma.source": f"toplev, {table.model}", "tma.bottleneck": table.bottleneck or "none"}
    return Findings(figures, tags)


def _inductor(
    placed: launch.PlacedCell, config: Config, settings: InductorCaptureConf, folder: Path, clean: WorkerResult
) -> Findings:
    """Launch the cell with kernels that record themselves, and read what they recorded."""
    into = folder / INDUCTOR_FOLDER

    def wrap(argv: Sequence[str], spec: JobSpec, private: Path) -> tuple[Sequence[str], JobSpec]:
        captures = Captures(inductor=InductorCapture(settings.iterations, settings.max_s))
        return argv, replace(spec, captures=captures)

    try:
        ended, result, failure = passes.run_separately(placed, config, into, settings.max_s, wrap)
        if result is None:
            return Findings({}, {"capture.inductor": f"failed: {failure}"})
        work = {axis: config.cell.axes[axis] for axis in WORKED_ON}
        findings = collect.of_kernels(folder, clean.latencies_s, work)
    except RunnerError as error:
        return Findings({}, {"capture.inductor": f"failed: {error}"})
    findings.figures["cost/inductor_s"] = ended.wall_s
    return replace(findings, tags=likeness.marked(findings.tags, findings.recorded, clean))


def _vtune(
    placed: launch.PlacedCell, config: Config, settings: IttCaptureConf, folder: Path, clean: WorkerResult
) -> Findings:
    """Run VTune around the launcher, with every timed iteration and operator as an ITT range."""
    program, collected = probe.vtune() or "vtune", folder / "collected"

    def wrap(argv: Sequence[str], spec: JobSpec, private: Path) -> tuple[Sequence[str], JobSpec]:
        shutil.rmtree(collected, ignore_errors=True)  # vtune refuses a folder that exists
        return vtune.command(program, collected, argv), replace(spec, marked=True)

    try:
        ended, result, failure = passes.run_separately(placed, config, folder, settings.max_s, wrap)
    except RunnerError as error:
        return Findings({}, {"capture.itt": f"failed: {error}"})
    if result is None:
        return Findings({}, {"capture.itt": f"failed: {failure}"})
    if ended.returncode or not collected.is_dir():
        problem = f"vtune ended with status {ended.returncode} and {'a' if collected.is_dir() else 'no'} result"
        return Findings({}, {"capture.itt": f"failed: {problem}; see {folder / 'stderr.log'}"})
    figures = {"overhead/itt_pct": overhead_pct(result.latencies_s, clean.latencies_s), "cost/itt_s": ended.wall_s}
    return Findings(figures, {"capture.itt": f"VTune: open {collected} with vtune-gui"})
