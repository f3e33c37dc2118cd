"""Whatever a stored file, an experiment or a command line holds: a value, or one sentence. No traceback, no hang.

A few examples of each parser run here every time. All of them, 10 000 of each parser and 2 000 command lines:

    RUNNER_FUZZ=full python -m pytest -q -s tests/test_fuzz.py
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import importlib
import io
import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runner import __main__ as command_line
from runner.analysis import noise
from runner.capture import counters, itt, kernel_tables, kernels, onednn, toplev
from runner.capture.tables import read_table, read_trace, write_table
from runner.checks import gate
from runner.checks.quality import judge as judge_quality
from runner.commands import compare, explain, refusal
from runner.config.names import visible
from runner.job import passes
from runner.launch import PlacedCell
from runner.launch.placement import Placement
from runner.machine import lock
from runner.machine.capabilities import this_machine
from runner.machine.host import parse_cpu_list
from runner.protocol import stored
from runner.protocol.contamination import figures, judge
from runner.protocol.errors import RunnerError
from runner.protocol.jobfile import read_spec
from runner.protocol.resultfile import (
    CAPTURES_FILE,
    Captured,
    Surroundings,
    Window,
    WorkerResult,
    read_captures,
    read_result,
)
from runner.protocol.stored import write_json
from runner.protocol.verdicts import EvidenceVerdict, Status
from runner.report import html, sweep_end, timeline
from runner.results import cells, ledger, peaks, planfile
from runner.results.metrics import evidence_figures
from runner.results.outcome import OUTCOME_FILE, RESULT_FILE, Outcome, job_folder, read_cell, read_outcome
from runner.results.sweeps import CELLS_FILE
from runner.sweep import planning
from runner.tracking import pages, recorder
from tests import mutations
from tests.analysis.test_noise import kept
from tests.builders import PEAKS, axes, ranked
from tests.capture.test_itt import STEPS, recording
from tests.checks.recorded import data_of, proof_of, recorded_build
from tests.conftest import CELL, ROOT
from tests.mutations import Damage
from tests.protocol.test_job import SPEC

FULL = os.environ.get("RUNNER_FUZZ") == "full"
# What one example may take at most; the slowest took a tenth of it.
DEADLINE_S = 10


# What became of the examples of one test.
SEEN: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _said(request: pytest.FixtureRequest) -> Iterator[None]:
    """With -s: how many examples there were, and how they ended."""
    SEEN.clear()
    yield
    print(f"\n{request.node.name}: {', '.join(f'{number} {what}' for what, number in SEEN.most_common())}")


def examples(full: int, few: int) -> Callable[[Any], Any]:
    """How many examples run; always the same few in the fast loop, new ones in a full run."""
    return settings(
        max_examples=full if FULL else few,
        derandomize=not FULL,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """A pattern that backtracks for ever is interrupted, and fails."""

    def hangs(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"still at it after {DEADLINE_S} s")

    # Of CPU time: the machine may be busy with something else.
    before = signal.signal(signal.SIGPROF, hangs)
    signal.setitimer(signal.ITIMER_PROF, DEADLINE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextlib.contextmanager
def refusals(quotes: bool = False) -> Iterator[None]:
    """What the user may see instead of an answer: one sentence that fits on a screen.

    Args:
        quotes: names of a stored file may be in it, which the command line makes visible.
    """
    said = ""
    try:
        yield
    except RunnerError as error:
        SEEN["refused"] += 1
        said = refusal.line(str(error)) if quotes else str(error)
    else:
        SEEN["read"] += 1
    assert said.isprintable()
    assert len(said) < 3000


randoms = st.randoms(use_true_random=True)
noise_bytes = st.binary(max_size=400) | st.text(max_size=300).map(lambda text: text.encode(errors="replace"))


# -- one parser, one file ---------------------------------------------------------------------------------

SURROUNDINGS = Surroundings([0, 1], 0.02, 2.0, 0.1, {"cpu_some": 0.1, "io_some": 0.1}, 0.0, 2e9, 2e9, 0, 0, 0, 0)
WINDOW = Window(1.0, 50, 1, 3, 1, 0.9, 0.02, 5_000_000, 0.001, 0.0, SURROUNDINGS)
PROOF = proof_of(data_of("ptmalloc_off"))
RESULT = WorkerResult(
    "id", 0, [0.1] * 10, WINDOW, {"import": 1.0}, PROOF.evidence, None, 5.0, PROOF.quality, {"torch": [0.1, 0.1]}
)  # fmt: skip
OUTCOME = Outcome(
    "id", 0, axes(), Status.FINISHED, None, EvidenceVerdict.OK, "ok", "avx512", {"itt/x": 1.0}, {"itt": "ok"},
    {"seed": "0"},
)  # fmt: skip
END = ledger.End(Status.FINISHED, {"a": 1.0}, {"id": ledger.CellEnd("-")}, "Fastest: **a**", {"id": "-"})
PLAN = {
    "sweep_id": "s", "seed": 0, "rounds": 2, "level": 0.05, "pid": 1, "lacking": [],
    "cells": [{"cell_id": "id", "axes": axes(), "command": "python -m runner"}],
    "order": [{"round": 0, "cell_id": "id"}], "excluded": [{"axes": axes(), "reason": "no AMX"}],
}  # fmt: skip
HOST = {
    "host_id": "here", "hostname": "h", "cpu_model": "CPU", "cpus": [{"cpu": 0}], "cpus_allowed": "0-1", "isa": ["a"],
    "memory_gib": 8, "hypervisor": True, "governor": None, "transparent_hugepages": "madvise", "kernel": "6.1",
    "numa_balancing": "0", "libc": "glibc-2.36", "python": "3.11.7", "versions": {"torch": "2.8.0", "x": None},
    "inherited": {"nice": "5"},
}  # fmt: skip
SWEEP = ledger.SweepEntry("s", "adhoc", "python -m runner", "here", "c0ffee", False, ["ipex"], ["-m"], "/", "", "1.2")
ENTRY = ledger.CellEntry("id", "key", axes(), {"seed": "0"}, "python -m runner", {"torch": "2.8.0"})
TABLE = {"columns": ["operator", "ms"], "data": [["aten::conv2d", 1.5], ["aten::add", 0.5]]}
EVENTS = {
    "traceEvents": [
        {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": "x"}},
        {"ph": "X", "pid": 1, "tid": 7, "ts": 0.0, "dur": 100.0, "name": "step_0", "cat": "PyTorch"},
        {"ph": "X", "pid": 1, "tid": 7, "ts": 10.0, "dur": 50.0, "name": "aten::conv2d", "cat": "PyTorch"},
    ]
}
VERBOSE = [file.read_text() for file in sorted((ROOT / "tests/data/onednn-verbose/versions").glob("*.log"))]
TOPLEV = [file.read_text() for file in sorted((ROOT / "tests/data/toplev/csv").glob("*.csv"))]
STDERR = [file.read_text(errors="replace") for file in sorted((ROOT / "tests/data/toplev/errors").glob("*.stderr"))]
PERF = [file.read_text() for file in sorted((ROOT / "tests/data/perf-stat").glob("*.csv"))]
PLANNED = PlacedCell(
    CELL, Placement((0, 1), 2, 0, "taskset", False), {"jemalloc": Path("/usr/lib/libjemalloc.so.2")}, recorded_build()
)
YAML = [file.read_text() for file in sorted(ROOT.glob("*/experiment/*.yaml")) + sorted(ROOT.glob("conf/*/*.yaml"))]


def as_json(value: Any) -> Damage:
    data = asdict(value) if hasattr(value, "__dataclass_fields__") else value
    return functools.partial(mutations.of_json_file, json.loads(json.dumps(data)))


def as_text(*texts: str) -> Damage:
    return lambda source: mutations.of_text_file(source.choice(texts)[-20_000:], source)


def as_gzip(source: random.Random) -> bytes:
    inside = gzip.compress(mutations.of_json_file(EVENTS, source), 1)
    return inside if source.random() < 0.7 else mutations.of_bytes(inside, source)


def as_captures(source: random.Random) -> bytes:
    rows = [asdict(Captured("clean", [0.1])), asdict(Captured("counters", [0.1], window=WINDOW))]
    return mutations.of_json_file({"format": SPEC.format, "captures": rows}, source)


def as_recording(source: random.Random) -> bytes:
    return mutations.of_bytes(recording((7, STEPS), (8, STEPS)), source)


@functools.cache
def _parquet() -> bytes:
    import tempfile

    row = cells.CellRow(
        "s", "id", "FINISHED", "", "ok", "ok", "avx2", True, axes(), {"seed": "0"}, {"latency/p50_ms": 1.0}, (0.1,)
    )
    with tempfile.TemporaryDirectory() as folder:
        known = cells.Origin("s", "here", {"governor": "-"}, {"torch": "1"})
        cells.save([row, replace(row, cell_id="b", is_baseline=False)], known, Path(folder))
        return (Path(folder) / CELLS_FILE).read_bytes()


def as_parquet(source: random.Random) -> bytes:
    return mutations.of_bytes(_parquet(), source)


def take_result(file: Path) -> None:
    result = read_result(file)
    judge(result.window)
    if result.window:
        figures(result.window)
    quality = judge_quality(result.quality, {"rel_l2": 1e-4, "cosine": 0.9})
    assert isinstance(quality, str)
    summary = kernels.summarize(onednn.parse(VERBOSE[0].splitlines()[:50]), result.onednn_step_s)
    proof = gate.Proof(result.evidence, summary, result.quality, result.window) if result.evidence else None
    write_json(file.with_name("evidence.json"), proof and asdict(proof))
    gate.check(PLANNED, proof)
    evidence_figures(summary, result.quality)


def take_verbose(file: Path) -> None:
    lines = stored.read_text(file, errors="replace").splitlines()
    log = onednn.parse(lines)
    assert log.lines == len(lines)
    step_s = {"torch": [0.1, 0.1]}
    summary = kernels.summarize(log, step_s)
    write_json(file.with_name("evidence.json"), asdict(summary))
    assert all(abs(value) < 1e100 for value in evidence_figures(summary, PROOF.quality).values())
    write_table(file.parent / "onednn" / "by_primitive.json", kernel_tables.by_primitive(log, step_s))
    read_table(file.parent / "onednn" / "by_primitive.json")
    trace = file.with_name("trace.csv")
    trace.write_text(kernel_tables.trace(log), encoding="utf-8")
    kernel_tables.by_shape(read_trace(trace))


def take_counters(file: Path) -> None:
    found = counters.parse(stored.read_text(file, errors="replace"))
    assert all(0 <= value < 1e100 for value in found.values.values())
    found.level1()


def take_toplev(file: Path) -> None:
    with contextlib.suppress(toplev.Rejected):
        text = stored.read_text(file, errors="replace")
        table = toplev.read(text, "raw", "", 0)
        assert 98 <= sum(table.level1.values()) <= 102


def take_stderr(file: Path) -> None:
    text = stored.log_text(file)
    with contextlib.suppress(toplev.Rejected):
        toplev.read(TOPLEV[0], "raw", text, 0)
    shutil.copy(file, file.with_name("stderr.log"))
    assert len(passes._hang_location(file.parent)) < 1000


def take_recording(file: Path) -> None:
    found = itt.read(stored.read_bytes(file))
    assert all(op.total_s >= 0 for op in itt.by_op(found))
    write_json(file.with_name("timeline.json"), itt.timeline(found, "x"))
    timeline.middle_step(timeline.read(file.with_name("timeline.json")))


def take_trace(file: Path) -> None:
    for problem in kernel_tables.by_shape(read_trace(file)):
        assert 0 <= problem.ms < 1e13


def take_noise(file: Path) -> None:
    (file.parent / "sweeps/a").mkdir(parents=True, exist_ok=True)
    shutil.copy(file, file.parent / "sweeps/a" / noise.FILE)
    found, notes = noise.newest(file.parent, "here")
    assert (found is None) or not notes
    noise.in_words(found, 5, kept().when)


def take_peaks(file: Path) -> None:
    (file.parent / peaks.FOLDER).mkdir(exist_ok=True)
    shutil.copy(file, file.parent / peaks.FOLDER / "a.json")
    of_host = peaks.HostPeaks(file.parent, PEAKS.host_id)
    found = of_host.of(PEAKS.torch, 2, [0, 1])
    assert found is None or not of_host.notes


@functools.cache
def plugin() -> Any:
    """Hydra's view of the runner; Hydra finds it by the path."""
    sys.path.insert(0, str(ROOT / "runner/plugins"))
    try:
        return importlib.import_module("hydra_plugins.runner_files")
    finally:
        sys.path.pop(0)


def take_yaml(file: Path) -> None:
    plugin().Yaml12Source("test", f"yaml12://{file.parent}").load_config(file.name)


def take_lists(file: Path) -> None:
    with contextlib.suppress(ValueError):
        parse_cpu_list(file.read_text(errors="replace"))


def take_sweep(file: Path) -> None:
    ledger.read_sweep(file.parent)


def take_cell(file: Path) -> None:
    folder = file.parent / "cells/id"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, folder / ledger.CELL_FILE)
    ledger.read_cells(file.parent)
    ledger.read_cell(file.parent, "id")


def take_end(file: Path) -> None:
    ledger.read_end(file.parent)


@dataclass(frozen=True)
class Parser:
    """A file's name, how it is damaged, and what reads it."""

    name: str
    damage: Damage
    take: Callable[[Path], object]


def in_parent(take: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda file: take(file.parent)


PARSERS = {
    "result": Parser("result.json", as_json(RESULT), take_result),
    "captures": Parser(CAPTURES_FILE, as_captures, read_captures),
    "job": Parser("job.json", as_json(SPEC), read_spec),
    "outcome": Parser("round-0/outcome.json", as_json(OUTCOME), read_outcome),
    "sweep": Parser(ledger.SWEEP_FILE, as_json(SWEEP), take_sweep),
    "cell": Parser("of-cell.json", as_json(ENTRY), take_cell),
    "end": Parser(ledger.END_FILE, as_json(END), take_end),
    "plan": Parser(planfile.PLAN_FILE, as_json(PLAN), in_parent(planfile.read_plan)),
    "host": Parser(planfile.HOST_FILE, as_json(HOST), in_parent(planfile.read_host)),
    "noise": Parser("of-noise.json", as_json(kept()), take_noise),
    "peaks": Parser("of-peaks.json", as_json(PEAKS), take_peaks),
    "lock": Parser("lock", as_json({"sweep": "s", "pid": 1, "mlruns": "/x", "since": "2026"}), lock.holder),
    "table": Parser("by_op.json", as_json(TABLE), read_table),
    "timeline": Parser("timeline.json", as_json(EVENTS), lambda file: timeline.middle_step(timeline.read(file))),
    "trace.gz": Parser("trace.json.gz", as_gzip, lambda file: timeline.middle_step(timeline.read(file))),
    "parquet": Parser("s/cells.parquet", as_parquet, lambda file: cells.read([file.parent])),
    "trace.csv": Parser(
        "trace.csv", as_text(kernel_tables.trace(onednn.parse(VERBOSE[3].splitlines()[:60]))), take_trace
    ),
    "onednn": Parser("onednn-0.log", as_text(*VERBOSE), take_verbose),
    "counters": Parser("counters.csv", as_text(*PERF), take_counters),
    "toplev": Parser("toplev.csv", as_text(*TOPLEV), take_toplev),
    "stderr": Parser("of-stderr.log", as_text(*STDERR), take_stderr),
    "itt": Parser("itt.bin", as_recording, take_recording),
    "cpu list": Parser("list", as_text("0-3,8", "0"), take_lists),
    "yaml": Parser("x.yaml", as_text(*YAML), take_yaml),
}


@pytest.mark.parametrize("name", PARSERS)
def test_a_damaged_file_is_read_or_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    parser = PARSERS[name]
    file = tmp_path / parser.name
    file.parent.mkdir(exist_ok=True)

    @examples(full=10_000, few=25)
    @given(randoms, st.none() | noise_bytes)
    def damaged(source: random.Random, content: bytes | None) -> None:
        file.write_bytes(parser.damage(source) if content is None or source.random() < 0.8 else content)
        with in_time(), refusals():
            parser.take(file)

    damaged()


# -- a whole store with one damaged file ------------------------------------------------------------------


def make_store(mlruns: Path) -> None:
    """Two sweeps of three cells in two rounds with all files that a sweep leaves; one has a cells.parquet."""
    for name in ("20260101-a", "20260102-b"):
        folder = mlruns / "sweeps" / name
        folder.mkdir(parents=True)
        records = []
        for allocator, ms in (("ptmalloc", 20.0), ("tcmalloc", 12.0), ("jemalloc", 15.0)):
            for number in range(2):
                job = job_folder(folder, allocator, number)
                job.mkdir(parents=True)
                samples = [ms / 1e3 * f for f in (1.0, 1.01, 0.99, 1.02 + number / 100)]
                outcome = replace(
                    OUTCOME,
                    cell_id=allocator,
                    round=number,
                    axes=axes(allocator=allocator),
                    figures={
                        "onednn/compute_ms_per_iteration": 0.5 * ms,
                        "onednn/reorder_ms_per_iteration": 0.1 * ms,
                        "onednn/other_ms_per_iteration": 0.0,
                        "onednn/reorders_per_iteration": ms,
                    },
                )
                write_json(job / OUTCOME_FILE, outcome)
                result = replace(RESULT, cell_id=allocator, round=number, latencies_s=samples, evidence=None)
                write_json(job / RESULT_FILE, result)
            first = job_folder(folder, allocator, 0)
            write_json(folder / "cells" / allocator / ledger.CELL_FILE, replace(ENTRY, cell_id=allocator))
            write_table(first / "itt/by_op.json", {"operator": ["a", "b"], "self ms per iteration": [ms, 1.0]})
            write_json(first / "itt/timeline.json", EVENTS)
            write_table(first / "onednn/by_primitive.json", {"primitive": ["conv x"], "ms per iteration": [ms]})
            (first / "onednn/trace.csv").write_text(kernel_tables.trace(onednn.parse(VERBOSE[3].splitlines()[:60])))
            records.append(read_cell(folder, allocator))
        write_json(folder / planfile.PLAN_FILE, PLAN)
        write_json(folder / planfile.HOST_FILE, HOST)
        write_json(folder / noise.FILE, kept())
        write_json(folder / ledger.SWEEP_FILE, replace(SWEEP, sweep_id=name))
        if name.endswith("a"):
            rows = ranked([record for record in records if record], "ptmalloc").rows
            cells.write([row.cell for row in rows], {}, folder)


def damage_one(mlruns: Path, source: random.Random) -> tuple[Path, bytes]:
    """Change one file of the store; which, and what was in it."""
    file = source.choice(sorted(path for path in mlruns.rglob("*") if path.is_file()))
    content = file.read_bytes()
    if file.suffix == ".json":
        changed = mutations.of_json_file(json.loads(content), source)
    elif file.suffix == ".parquet":
        changed = mutations.of_bytes(content, source)
    else:
        changed = mutations.of_text_file(content.decode(), source)
    file.write_bytes(changed)
    return file, content


COMMANDS: Sequence[tuple[Callable[[list[str]], int], list[str]]] = (
    (compare.main, ["all", "--format", "json"]),
    (compare.main, ["20260102"]),
    (compare.main, ["20260102", "--format", "md"]),
    (compare.main, ["all", "--allow", "host,versions,settings", "--format", "csv"]),
    (explain.main, ["ptmalloc", "fastest"]),
    (explain.main, ["20260101:ptmalloc", "20260102:slowest", "--allow", "host,versions,settings"]),
    (explain.main, ["allocator=ptmalloc", "tcmalloc", "--format", "json"]),
)


def test_a_command_on_a_store_with_a_damaged_file_answers_or_refuses_in_a_sentence(tmp_path: Path) -> None:
    make_store(tmp_path)

    @examples(full=10_000, few=25)
    @given(randoms)
    def damaged(source: random.Random) -> None:
        file, content = damage_one(tmp_path, source)
        command, words = source.choice(COMMANDS)
        out = io.StringIO()
        try:
            with in_time(), refusals(quotes=True), contextlib.redirect_stdout(out):
                command([*words, "--mlruns", str(tmp_path)])
        finally:
            file.write_bytes(content)
        if out.getvalue() and "json" in words:
            json.loads(out.getvalue(), parse_constant=pytest.fail)
        assert "--format" in words or visible(out.getvalue()) == out.getvalue()

    damaged()


def test_the_report_of_a_sweep_with_a_damaged_file_is_written_or_says_what_it_lacks(tmp_path: Path) -> None:
    make_store(tmp_path)
    folder = tmp_path / "sweeps/20260102-b"

    @examples(full=300, few=1)
    @given(randoms)
    def damaged(source: random.Random) -> None:
        file, content = damage_one(folder, source)
        try:
            with in_time(), refusals(), contextlib.redirect_stderr(io.StringIO()) as shown:
                records = [read_cell(folder, name) for name in ("ptmalloc", "tcmalloc", "jemalloc")]
                ranking = ranked([record for record in records if record], "ptmalloc", ("allocator", "model"))
                said = sweep_end.leave(ranking, folder, "title", html.Origin("run", "c0ffee"))
                assert "Traceback" not in shown.getvalue()
                assert all("\n" not in line for line in said)
        finally:
            for left in folder.iterdir():
                if left.suffix in (".png", ".csv", ".html", ".md", ".parquet"):
                    left.unlink()
            file.write_bytes(content)

    damaged()


# -- command lines and configurations ---------------------------------------------------------------------


class Launchable(BaseException):
    """The input was accepted: the next thing would have been to make the store, and then to launch."""


def _would_launch(*arguments: object, **options: object) -> None:
    raise Launchable


OPTIONS = (
    "model", "allocator", "ipex", "memory_format", "precision", "graph", "launcher", "capture", "batch_size", "seed",
    "sequence_length", "twin", "warmup", "iterations", "target_ci_pct", "min_time_s", "max_time_s", "rounds", "reruns",
    "smallest_pct", "budget_min", "node", "cores", "instances", "cores_per_instance", "threads", "openmp", "wait",
    "timeout_s", "retries", "resume", "expect", "baseline", "mlruns", "tracking_uri", "model._target_", "model.name",
    "model.kwargs", "+model.kwargs.x", "allocator.env", "+allocator.env.MALLOC_CONF", "allocator.expect",
    "precision.tolerance.rel_l2", "graph.fullgraph", "launcher.task_manager", "try_models",
    "capture.itt.iterations", "capture.onednn.max_s", "capture.toplev.level", "capture.profiler.max_trace_mb",
    "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.output_subdir", "hydra.job.chdir", "hydra.sweeper.exclude",
    "hydra.sweeper.include", "hydra.sweeper.params", "hydra.sweeper.max_batch_size", "hydra.job.name", "hydra.verbose",
    "sweep.id", "sweep.directory", "sweep.round", "+experiment", "~model", "~twin", "+x", "++seed", "", "experiment",
    "hydra/launcher", "hydra.searchpath", "hydra.job.env_set", "hydra.run.dir",
)  # fmt: skip
SETTINGS = (
    "", "null", "true", "0", "1", "-1", "-0", "2", "1e400", "-1e400", "nan", "inf", "1_0", "0x10", "٣", "²",
    "1,2", "a,b", "9" * 18, "9" * 30, "9" * 4400, "0." + "0" * 400 + "1", "x" * 9000, "x" * 20_000,
    "off", "on", "off,on", "tiny", "auto", "../../etc/passwd", "/", "/etc", "~", ".", "..", "a/b",
    "/dev/null", "/proc/self/mem", "a b", "'a b'",
    "<script>alert(1)</script>", "[red]x[/red]", "'[red]x[/red]'", "$\\frac$", "'$x$'", "$(id)", "`id`", ";id", "a|b",
    "&", "${oc.env:HOME}", "${oc.env:NOPE}", "${oc.env:NOPE,x}", "${seed}", "${twin}", "${model.name}",
    "${hydra:job.name}", "${oc.decode:'1'}", "${oc.create:{a:1}}", "${runner.sweep_id:}", "${.x}", "${", "}", "${${a}}",
    "\\${a}", "{a:1}", "{a:{b:{c:1}}}", "{}", "[]", "[1,2]", "[[[]]]", "[" * 300 + "]" * 300, "[itt,itt]",
    "{a:" * 200 + "1" + "}" * 200,
    "range(0,3)", "range(0,10000000000)", "range(3,0)", "range(0,1,0.0000000001)", "range(0,1,0)", "choice(1,2)",
    "sort(3,1)", "shuffle(1,2)", "interval(0,1)", "glob(*)", "tag(a,1)", "int(3.5)", "str(1)", "json_str(1)",
    "extend_list(1)", "choice(range(0,4))", "glob([*,off],exclude=on)", "[{allocator: jemalloc}]", "[{nope: 1}]",
    "{allocator: ptmalloc}", "\x1b[31mred", "a\nb", "a\tb", "\u202egnp", "a\u200bb", "\udcff", "\x7f", "'", '"', "=",
    "a=b", ":", "#", "%", "?", "a?b", "os.system", "builtins.eval", "..x", "a..b", "tests.nope", "__main__.x", "fuzzed",
    "http://127.0.0.1:1", "file:///etc",
)  # fmt: skip
FLAGS = (
    "-m", "--cfg=job", "--cfg", "--multirun", "--nope", "-x", "--package=a.b", "--config-name=nope", "--no-wait", "=",
)  # fmt: skip
GRAMMAR = st.text(alphabet="${}[](),=\"'\\:~+*/ .-_aeox019é<>", max_size=60)

overrides = st.lists(
    st.one_of(
        st.builds(lambda key, value: f"{key}={value}", st.sampled_from(OPTIONS), st.sampled_from(SETTINGS)),
        st.builds(lambda key, value: f"{key}={value}", st.sampled_from(OPTIONS), st.sampled_from(SETTINGS)),
        st.builds(lambda key, value: f"{key}={value}", st.sampled_from(OPTIONS), GRAMMAR),
        st.sampled_from(FLAGS),
        GRAMMAR,
        st.text(max_size=30),
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture
def refusing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[str]], str]:
    """Run a command line in this process, as far as the store: what it said on stderr; "accepted" where it went on."""
    monkeypatch.setattr(recorder, "recorder_for", _would_launch)
    for name in ("fork", "forkpty", "posix_spawn", "execve", "execv", "system"):
        monkeypatch.setattr(os, name, _would_launch)
    monkeypatch.setattr(pages, "serve", _would_launch)
    machine = this_machine()  # asked with numactl, once
    monkeypatch.setattr(passes, "this_machine", lambda: machine)
    monkeypatch.setattr("subprocess.Popen", _would_launch)
    monkeypatch.setattr(planning, "MOST_CELLS", 12)  # a tenth of a second each
    monkeypatch.setenv("RUNNER_EXPERIMENTS", str(tmp_path / "experiments"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments/experiment").mkdir(parents=True)

    def run(words: Sequence[str]) -> str:
        monkeypatch.setattr(sys, "argv", ["runner", *words])
        before = dict(os.environ), list(sys.path)
        err = io.StringIO()
        try:
            with in_time(), contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
                status = command_line.main()
        except Launchable:
            SEEN["accepted"] += 1
            return "accepted"
        except SystemExit as ended:  # argparse, for a flag that there is not
            status = 2 if ended.code == 2 else 0
            err.write("runner: see the usage\n" if status else "")
        finally:
            os.environ.clear()
            os.environ.update(before[0])
            sys.path[:] = before[1]
        said = err.getvalue().rpartition("\nusage: ")[2]
        if said.startswith("usage: "):  # several lines, in argparse's own form
            said = said.splitlines(keepends=True)[-1]
        SEEN["refused" if status else "shown"] += 1
        if status == 0:  # --cfg and its like
            return "shown"
        assert status == 2
        assert "Traceback" not in said
        assert said.splitlines()[-1].startswith("runner: ")
        assert said.count("\n") == 1 + said.count("Error executing job")
        assert len(said) < 12_000
        return said

    return run


def nothing_left(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} <= {"experiments", "outputs"}


def test_a_hostile_command_line_is_planned_or_refused_in_a_sentence(
    refusing: Callable[[Sequence[str]], str], tmp_path: Path
) -> None:
    @examples(full=2_000, few=12)
    @example(["seed=range(0,10000000000)"])
    @example(["hydra.sweep.dir=/"])
    @example(["-m", "twin=<script>"])
    @example(["expect=${runner.sweep_id:}"])
    @example(["model.kwargs=${seed}"])
    @example(["model=range(0,1,0)"])
    @given(overrides)
    def hostile(words: list[str]) -> None:
        # argparse takes no flag after the first override.
        words = sorted(words, key=lambda word: not word.startswith("-"))
        flags = [word for word in words if word.startswith("-")]
        refusing([*flags, f"mlruns={tmp_path / 'mlruns'}", "model=tiny", *words[len(flags) :]])
        nothing_left(tmp_path)

    hostile()


def test_a_hostile_experiment_is_planned_or_refused_in_a_sentence(
    refusing: Callable[[Sequence[str]], str], tmp_path: Path
) -> None:
    file = tmp_path / "experiments/experiment/fuzzed.yaml"

    @examples(full=2_000, few=5)
    @given(randoms)
    def hostile(source: random.Random) -> None:
        file.write_bytes(mutations.of_text_file(source.choice(YAML), source))
        refusing([f"mlruns={tmp_path / 'mlruns'}", "model=tiny", "+experiment=fuzzed"])
        nothing_left(tmp_path)

    hostile()


ARGUMENTS: Mapping[str, Sequence[str]] = {
    "compare": ("--baseline", "--by", "--best-under", "--allow", "--format", "--top", "--mlruns", ""),
    "explain": ("--sweep", "--allow", "--format", "--top", "--mlruns", "", ""),
    "resume": ("--mlruns", "", "rounds=2"),
    "import": ("--mlruns", "--tracking-uri", ""),
    "ui": ("--mlruns", "--port", ""),
}


def test_a_hostile_argument_of_a_command_is_refused_or_answered(
    refusing: Callable[[Sequence[str]], str], tmp_path: Path
) -> None:
    store = tmp_path / "experiments/mlruns"
    make_store(store)

    @examples(full=2_000, few=12)
    @given(st.sampled_from(sorted(ARGUMENTS)), st.data())
    def hostile(command: str, data: st.DataObject) -> None:
        value = st.sampled_from(SETTINGS) | st.text(max_size=20) | st.sampled_from(("all", "20260101", "fastest", "pt"))
        words = []
        for option in data.draw(st.lists(st.sampled_from(ARGUMENTS[command]), max_size=3)):
            words += [*([option] if option else []), data.draw(value)]
        own = [] if command == "import" or "--mlruns" in words else ["--mlruns", str(store)]
        refusing([command, *words, *own])

    hostile()
