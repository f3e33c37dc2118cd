"""One measurement behind a server: start it, wait for it, warm up, load it, prove what ran, stop it.

Whatever happens, nothing keeps running. The server and the load generator are processes of the runner. The server
starts the worker, which is measured and proves itself as in scenario=inference (runner.worker.serve).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from runner import launch
from runner.capture import probe
from runner.config.schema import Config
from runner.job import listener, passes
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

# Seconds between two questions whether the server is up; nothing is measured yet.
_POLL_S = 0.1


def measure(placed: launch.PlacedCell, config: Config, folder: Path, spec: JobSpec) -> passes.PassResult:
    """Run the timing pass of a cell behind its server.

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
            python=placed.build.python,
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
    return passes.PassResult(ended, [(result, failure)], session.figures, session.cost_s)


def _free_ports(first: int | None) -> tuple[int, ...]:
    """The ports of a server, on which nobody listens: ``first`` and the next ones, or any if it is None.

    Raises:
        RunnerError: one of them is taken.
    """
    with ExitStack() as stack:
        ports = []
        for wanted in range(first, first + PORTS) if first is not None else [0] * PORTS:
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", wanted))
                listener.listen()
            except OSError as error:
                raise RunnerError(
                    f"scenario.port={first}: port {wanted} can't be used ({error.strerror}); choose another first "
                    "port, or null for free ones"
                ) from error
            ports.append(listener.getsockname()[1])
        return tuple(ports)


@dataclass
class _Session:
    """One server's life around one measurement."""

    placed: launch.PlacedCell
    config: Config
    folder: Path
    site: Site
    server: Server
    figures: dict[str, float] = field(default_factory=dict)
    cost_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        listener.phase(name)
        start = time.monotonic()
        yield
        self.cost_s[name] = time.monotonic() - start

    @cached_property
    def _other_cores(self) -> tuple[int, ...]:
        """The physical cores that the caller may use and the cell does not: the load generator runs on them."""
        machine = this_machine().topology
        usable = {core for node in machine.nodes() for core in machine.physical_cores(node)}
        return tuple(sorted(usable - set(self.placed.placement.cores)))

    def run(self) -> WorkerResult:
        """Start the server, measure, and end it; returns the worker's result with the requests' latencies.

        Raises:
            ServingError: the cell could not be measured; the message says why.
            RunnerError: the server can't be started.
        """
        site, server, folder = self.site, self.server, self.folder
        site.logs.mkdir()
        collector = None if site.job.captures.itt is None else probe.collector()
        marker = passes.marker_of(self.config)
        command = launch.command(self.placed, folder / "job.json", site.private, os.environ, marker, collector)
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
                raise RunnerError(
                    f"scenario={site.cell.scenario.name}: the server can't be started ({error})"
                ) from error
            return self._measure(process)

    def _measure(self, process: processes.Process) -> WorkerResult:
        """Put a started server under load and read its worker's result.

        Raises:
            ServingError: the cell could not be measured; the message says why.
        """
        site, server, cell = self.site, self.server, self.site.cell
        with self._phase("server"):
            self._wait_until_up(process)
        with self._phase("load_model"):
            worker = server.start_worker(site)
        server_pids = process.pid, worker
        concurrency = cell.scenario.concurrency or 1
        with self._phase("warmup_requests"):
            requests = max(cell.warmup * cell.batch_size, concurrency)
            warmup, _ = self._load("warmup", requests, None, server_pids)
        rate = cell.load.rate_per_s
        if cell.load.p99_limit_ms is not None:
            with self._phase("search"):
                rate = self._highest_rate(warmup.per_s, cell.load.p99_limit_ms, server_pids)
        listener.phase("load")
        server.order(site, BEGIN)
        loaded, generator_s = self._load("load", cell.scenario.requests or 0, rate, server_pids)
        refusal = "it did not say why"
        try:
            server.order(site, END)
        except ServingError as error:
            if not (self.folder / RESULT_FILE).exists():
                raise
            # The worker has measured. If it ended during a capture, which captures.json names, its result is complete.
            refusal = server.failure_reason(site) or str(error)
        return self._read_result(loaded, generator_s, refusal)

    def _read_result(self, loaded: load.LoadResult, generator_s: float, refusal: str) -> WorkerResult:
        """Read the worker's result, give it the requests' latencies, and note the figures of the server and the load.

        The latencies are written first: they stay, whatever the worker could not prove.

        Args:
            refusal: why the worker did not do what it was ordered to, if it did not.

        Raises:
            ServingError: the worker failed, or its result can't be read.
        """
        try:
            result = read_result(self.folder / RESULT_FILE)
        except FormatError as error:
            raise ServingError(f"the worker's result is unusable: {error}") from error
        if result.window is not None:
            window = replace(result.window, generator_cpu_s=0.0 if self._other_cores else generator_s)
            result = replace(result, latencies_s=list(loaded.latencies_s), window=window)
            write_json(self.folder / RESULT_FILE, result)
        if result.error is not None or result.window is None:
            raise ServingError(f"the worker failed: {result.error}")
        if result.evidence is None or result.evidence.serving is None:
            raise ServingError(passes.unproved(RESULT_FILE, refusal))
        counts = result.evidence.serving
        self.figures |= {
            **self.server.figures(self.site, counts.requests, counts.batches),
            **load.load_figures(loaded),
            **_batch_figures(counts),
            "load/generator_cpu_pct": 100 * generator_s / loaded.wall_s,
        }
        return result

    def _wait_until_up(self, process: processes.Process) -> None:
        while not self.server.is_up(self.site):
            self._check_time()
            if not process.is_alive:
                raise ServingError(f"the server ended before it was ready: {self._reason()}")
            time.sleep(_POLL_S)

    def _reason(self) -> str:
        """Why the server ended, by its logs; if they don't say, the last line that it printed."""
        lines = [
            line.strip()
            for name in ("stdout.log", "stderr.log")
            for line in stored.log_text(self.folder / name).splitlines()
        ]
        return self.server.failure_reason(self.site) or next(filter(None, reversed(lines)), "nothing was printed")[:300]

    def _check_time(self) -> None:
        """Stop when the job's time is over.

        Raises:
            ServingError: it is over; failure() turns this into a sentence for the user.
        """
        if time.monotonic() >= self.site.job.deadline_s:
            raise ServingError("its time was over")

    def failure(self, error: ServingError) -> str:
        """Why the cell could not be measured.

        The worker's own error comes first if there is one, because the server only knows that its worker is gone.
        """
        try:
            worker_error = read_result(self.folder / RESULT_FILE).error
        except FormatError:
            worker_error = None
        if worker_error is not None:
            return f"the worker failed: {worker_error}"
        if time.monotonic() < self.site.job.deadline_s:
            return str(error)
        # Whatever broke off after the deadline did so because the time was over.
        done = ", ".join(self.cost_s) or "nothing"
        what_happened = f"timeout_s={self.config.timeout_s:g}: the job was still running (done: {done})"
        return f"{what_happened} and was stopped; raise timeout_s or do less work"

    def _highest_rate(self, capacity_per_s: float, limit_ms: float, server_pids: tuple[int, ...]) -> float:
        """Search the highest rate at which p99 stays under the limit.

        Raises:
            ServingError: p99 was over the limit at every rate tried.
        """
        requests, trials = self.site.cell.scenario.requests or 0, 0

        def is_good(rate: float) -> bool:
            nonlocal trials
            trials += 1
            trial, _ = self._load(f"search-{trials}", requests, rate, server_pids)
            return 1e3 * load.percentile(trial.latencies_s, 99) <= limit_ms

        rate = load.highest_rate(capacity_per_s, is_good)
        if rate is None:
            raise ServingError(
                f"load.p99_limit_ms={limit_ms:g}: p99 was over it at every rate tried; raise it, or lower batch_size"
            )
        self.figures["load/rate_at_p99_limit_per_s"] = 1000 / load.period_ms(rate)
        return rate

    def _load(
        self, name: str, requests: int, rate_per_s: float | None, server_pids: tuple[int, ...]
    ) -> tuple[load.LoadResult, float]:
        """Send requests with a load generator.

        Args:
            name: the folder for the generator's files, below the job's.
            requests: how many.
            rate_per_s: requests per second; None for a closed loop.
            server_pids: the processes of the server and its worker; the load ends if one of them does.

        Returns:
            What the generator saw, and its CPU seconds.

        Raises:
            ServingError: a request failed, or a process of the server ended meanwhile.
        """
        site, folder = self.site, self.folder / name
        folder.mkdir()
        target = load.Target(self.server.url(site), Path(site.job.request), folder, site.remaining_s)
        # The generator has a marker of its own, because the server outlives it.
        marker = f"{passes.marker_of(self.config)}/{name}"
        env = {**os.environ, **execute.LOCALE, "RUNNER_JOB": marker}
        out, err = folder / "stdout.log", folder / "stderr.log"
        argv = self._generator_command(target, requests, rate_per_s)
        ended = execute.run(argv, env, out, err, site.remaining_s, marker, companions=server_pids)
        if ended.lost_companion is not None:
            process = "the server" if ended.lost_companion == server_pids[0] else "the worker"
            reason = self._reason_of_loss(ended)
            raise ServingError(f"{process} (pid {ended.lost_companion}) ended during the {name} requests: {reason}")
        self._check_time()
        printed = "\n".join(map(stored.log_text, (out, err)))
        try:
            if rate_per_s is None:
                result = load.read_ab(printed, _text(folder / load.AB_REQUESTS), requests)
            else:
                result = load.read_h2load(_text(folder / load.H2LOAD_REQUESTS), requests, rate_per_s)
            load.check_clock(result, ended.wall_s)
        except load.LoadError as error:
            raise ServingError(f"{name} requests: {error}; see {name}/ and {site.logs.name}/ of the job") from error
        return result, ended.cpu_s

    def _generator_command(self, target: load.Target, requests: int, rate_per_s: float | None) -> list[str]:
        """The command line of the load generator, on cores that the cell does not use if there are any."""
        if rate_per_s is None:
            argv = load.ab_command(target, requests, self.site.cell.scenario.concurrency or 1)
        else:
            argv = load.h2load_command(target, requests, rate_per_s)
        cores = self._other_cores
        return [*(["taskset", "-c", format_cpu_list(cores)] if cores else []), *argv]

    def _reason_of_loss(self, load_ended: execute.Ended) -> str:
        """Why a process of the server ended during a load.

        The logs say so, a moment later; the process is not a child of the runner, so there is no exit status to ask.
        """
        for _ in range(10):
            if reason := self.server.failure_reason(self.site):
                return reason
            time.sleep(0.1)
        if load_ended.oom_kills:
            return f"the kernel's out-of-memory killer ended {load_ended.oom_kills} process(es) meanwhile"
        return "it left no message, as a process that is killed by SIGKILL"


def _text(file: Path) -> str:
    return stored.read_text(file, errors="replace") if file.exists() else ""


def _batch_figures(counts: ServingEvidence) -> dict[str, float]:
    """How the worker was used, by its own count."""
    figures = {"serving/batches": float(counts.batches)}
    if counts.batches:
        figures["serving/batch_size"] = counts.requests / counts.batches
    if counts.inference_s is not None:
        figures["serving/inference_ms"] = 1e3 * counts.inference_s
    return figures
