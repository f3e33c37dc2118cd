"""One measurement behind a server: start, ready, warm up, load, prove, stop. Whatever happens, nothing is left running.

The server and the load generator are two processes of ours; the worker, which the server starts, is measured and proves
itself as in scenario=inference (runner.worker.serve).
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from runner import launch
from runner.capture import probe
from runner.config.schema import Config
from runner.job import passes
from runner.job.serving import load
from runner.job.serving.server import PORTS, Server, ServingError, Site
from runner.job.serving.torchserve import TorchServe
from runner.launch import xeon
from runner.machine import execute, processes
from runner.machine.capabilities import this_machine
from runner.machine.host import format_cpu_list
from runner.protocol import stored
from runner.protocol.errors import RunnerError
from runner.protocol.evidence import ServingEvidence
from runner.protocol.jobfile import BEGIN, END, JobSpec
from runner.protocol.resultfile import WorkerResult, read_result
from runner.protocol.stored import FormatError, write_json
from runner.results.outcome import RESULT_FILE

SERVERS: Mapping[str, Server] = {"torchserve": TorchServe()}

# Between two questions whether the server is up: nothing is measured yet.
_ASK_EVERY_S = 0.1


def measure(placed: launch.PlacedCell, config: Config, folder: Path, spec: JobSpec) -> passes.Measured:
    """The timing pass of a cell behind its server.

    Raises:
        RunnerError: the server can't be started, or a port is taken.
    """
    cell = placed.cell
    started_s = time.monotonic()
    ports = _free_ports(config.server_port)
    deadline_s = started_s + config.timeout_s
    failure = result = None
    with passes.private_folder() as private:
        site = Site(
            cell=cell,
            job=replace(spec, private=str(private), request=str(private / "request"), deadline_s=deadline_s),
            private=private,
            logs=folder / cell.scenario.name,
            ports=ports,
            python=sys.executable,
            launcher_args=xeon.options(cell, placed.placement),
            timeout_s=config.timeout_s,
        )
        session = _Session(placed, config, folder, site, SERVERS[cell.scenario.name])
        try:
            result = session.run()
        except ServingError as error:
            failure = session.failure(error)
    now_s = time.monotonic()
    ended = execute.Ended(0, now_s >= deadline_s, now_s - started_s, started_s)
    return passes.Measured(ended, [(result, failure)], session.figures, session.cost_s)


def _free_ports(first: int | None) -> tuple[int, ...]:
    """Ports that nobody listens on: from ``first`` on, or any.

    Raises:
        RunnerError: one is taken.
    """
    with ExitStack() as stack:
        found = []
        for wanted in range(first, first + PORTS) if first is not None else [0] * PORTS:
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", wanted))
                listener.listen()
            except OSError as error:
                raise RunnerError(
                    f"scenario.port={first}: port {wanted} can't be had ({error.strerror}); choose another first port, "
                    "or null for free ones"
                ) from error
            found.append(listener.getsockname()[1])
        return tuple(found)


@dataclass
class _Session:
    """One server's life."""

    placed: launch.PlacedCell
    config: Config
    folder: Path
    site: Site
    server: Server
    figures: dict[str, float] = field(default_factory=dict)
    cost_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.cost_s[name] = time.monotonic() - start

    @cached_property
    def _other_cores(self) -> tuple[int, ...]:
        """Where the generator runs: physical cores that the cell has not, if the caller may use any."""
        machine = this_machine().topology
        every = {core for node in machine.nodes() for core in machine.physical_cores(node)}
        return tuple(sorted(every - set(self.placed.placement.cores)))

    def run(self) -> WorkerResult:
        """From the start of the server to its end; the worker's result with the requests' latencies.

        Raises:
            ServingError: what kept it from being measured.
            RunnerError: the server can't be started.
        """
        site, server, folder = self.site, self.server, self.folder
        site.logs.mkdir()
        collector = probe.collector() if site.job.captures.itt is not None else None
        marker = passes.marker_of(self.config)
        command = launch.command(
            self.placed, folder / "job.json", site.private, os.environ, sys.executable, marker, collector
        )
        command = replace(
            command,
            argv=tuple(server.command(site)),
            env={**command.env, **server.environment(site)},
        )
        write_json(folder / "job.json", site.job)
        passes.write_launch(folder, command.argv, command, self.placed.placement, None)
        server.write(site)
        logs = folder / "stdout.log", folder / "stderr.log"
        with ExitStack() as stack:
            try:
                process = stack.enter_context(
                    execute.background(command.argv, command.env, *logs, marker, command.links)
                )
            except OSError as error:
                raise RunnerError(f"scenario={site.cell.scenario.name}: it can't be started ({error})") from error
            return self._measured(process)

    def _measured(self, process: processes.Process) -> WorkerResult:
        site, server, cell = self.site, self.server, self.site.cell
        with self._phase("server"):
            self._wait_until_up(process)
        with self._phase("load_model"):
            worker = server.start_worker(site)
        beside = process.pid, worker
        closed = cell.scenario.concurrency or 1
        with self._phase("warmup_requests"):
            warmed = self._load("warmup", max(cell.warmup * cell.batch_size, closed), None, beside)[0]
        rate = cell.load.rate_per_s
        if cell.load.p99_limit_ms is not None:
            with self._phase("search"):
                rate = self._searched(warmed.per_s, cell.load.p99_limit_ms, beside)
        server.order(site, BEGIN)
        measured, generator_s = self._load("load", cell.scenario.requests or 0, rate, beside)
        try:
            server.order(site, END)
        except ServingError:
            if not (self.folder / RESULT_FILE).exists():
                raise
            # It ended in a capture: what was measured stays measured, and captures.json says which.
        try:
            result = read_result(self.folder / RESULT_FILE)
        except FormatError as error:
            raise ServingError(f"the worker's result is unusable: {error}") from error
        if result.error is not None or result.window is None:
            raise ServingError(f"the worker failed: {result.error}")
        if result.evidence is None or result.evidence.serving is None:
            raise ServingError("the worker left no evidence of the requests it answered")
        served = result.evidence.serving
        self.figures |= {
            **server.figures(site, served.requests, served.batches),
            **load.own_figures(measured),
            **_of_batches(served),
        }
        self.figures["load/generator_cpu_pct"] = 100 * generator_s / measured.wall_s
        window = replace(result.window, generator_cpu_s=0.0 if self._other_cores else generator_s)
        result = replace(result, latencies_s=list(measured.latencies_s), window=window)
        write_json(self.folder / RESULT_FILE, result)
        return result

    def _wait_until_up(self, process: processes.Process) -> None:
        while not self.server.is_up(self.site):
            self._check_time()
            if not process.is_alive:
                raise ServingError(f"the server ended before it was ready: {self._why()}")
            time.sleep(_ASK_EVERY_S)

    def _why(self) -> str:
        """What the server's logs say, else the last line it printed."""
        lines = [
            line.strip()
            for name in ("stdout.log", "stderr.log")
            for line in stored.log_text(self.folder / name).splitlines()
        ]
        return self.server.why(self.site) or next(filter(None, reversed(lines)), "nothing was printed")[:300]

    def _check_time(self) -> None:
        """Raise ServingError when the job's time is over; failure() says how."""
        if time.monotonic() >= self.site.job.deadline_s:
            raise ServingError("its time was over")

    def failure(self, error: ServingError) -> str:
        """What went wrong: by the worker's own word where it left one, since the server only knows that it has none."""
        try:
            own = read_result(self.folder / RESULT_FILE).error
        except FormatError:
            own = None
        if own is not None:
            return f"the worker failed: {own}"
        if time.monotonic() < self.site.job.deadline_s:
            return str(error)
        # Whatever broke off then did so because its time was over.
        done = ", ".join(self.cost_s) or "nothing"
        running = f"timeout_s={self.config.timeout_s:g}: the job was still running (done: {done})"
        return f"{running} and was stopped; raise timeout_s or do less work"

    def _searched(self, capacity_per_s: float, limit_ms: float, beside: tuple[int, ...]) -> float:
        """The highest rate whose p99 stays under the limit.

        Raises:
            ServingError: no rate's does.
        """
        requests, tried = self.site.cell.scenario.requests or 0, 0

        def is_good(rate: float) -> bool:
            nonlocal tried
            tried += 1
            measured, _ = self._load(f"search-{tried}", requests, rate, beside)
            return 1e3 * load.percentile(measured.latencies_s, 99) <= limit_ms

        found = load.highest_rate(capacity_per_s, is_good)
        if found is None:
            raise ServingError(
                f"load.p99_limit_ms={limit_ms:g}: no rate tried keeps p99 under it; raise it, or lower batch_size"
            )
        self.figures["load/rate_at_p99_limit_per_s"] = 1000 / load.period_ms(found)
        return found

    def _load(
        self, name: str, requests: int, rate_per_s: float | None, beside: tuple[int, ...]
    ) -> tuple[load.Measured, float]:
        """Send requests, at a rate or (None) in a closed loop; what the generator saw, and its CPU seconds.

        Raises:
            ServingError: a request failed, or a process of the server ended meanwhile.
        """
        site, into = self.site, self.folder / name
        into.mkdir()
        target = load.Target(self.server.url(site), Path(site.job.request), into, site.left_s)
        if rate_per_s is None:
            argv = load.ab_command(target, requests, site.cell.scenario.concurrency or 1)
        else:
            argv = load.h2load_command(target, requests, rate_per_s)
        others = self._other_cores
        pinned = ["taskset", "-c", format_cpu_list(others)] if others else []
        # A marker of its own: its end is not the server's.
        marker = f"{passes.marker_of(self.config)}/{name}"
        env = {**os.environ, "RUNNER_JOB": marker}
        out, err = into / "stdout.log", into / "stderr.log"
        ended = execute.run([*pinned, *argv], env, out, err, site.left_s, marker, companions=beside)
        if ended.lost_companion is not None:
            who = "the server" if ended.lost_companion == beside[0] else "the worker"
            raise ServingError(
                f"{who} (pid {ended.lost_companion}) ended during the {name} requests: {self._ended_by(ended)}"
            )
        self._check_time()
        printed = "\n".join(map(stored.log_text, (out, err)))
        try:
            if rate_per_s is None:
                measured = load.read_ab(printed, _text(into / load.AB_REQUESTS), requests)
            else:
                measured = load.read_h2load(_text(into / load.H2LOAD_REQUESTS), requests, rate_per_s)
        except load.LoadError as error:
            raise ServingError(f"{name} requests: {error}; see {name}/ and {site.logs.name}/ of the job") from error
        return measured, ended.cpu_s

    def _ended_by(self, load_ended: execute.Ended) -> str:
        """What the logs say of the process that ended, which are a moment behind it; it is not our child to ask."""
        for _ in range(10):
            if found := self.server.why(self.site):
                return found
            time.sleep(0.1)
        if load_ended.oom_kills:
            return f"the kernel's out-of-memory killer ended {load_ended.oom_kills} process(es) meanwhile"
        return "it left no word, as one that is killed by SIGKILL"


def _text(file: Path) -> str:
    return stored.read_text(file, errors="replace") if file.exists() else ""


def _of_batches(served: ServingEvidence) -> dict[str, float]:
    """How the worker was used, by its own count."""
    figures = {"serving/batches": float(served.batches)}
    if served.batches:
        figures["serving/batch_size"] = served.requests / served.batches
    if served.inference_s is not None:
        figures["serving/inference_ms"] = 1e3 * served.inference_s
    return figures
