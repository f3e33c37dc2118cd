"""How many cells a second does an MLflow server take, at what cost? How long does comparing 100 hosts take?

A small sweep with captures is measured once. Copies of its folder, each a sweep of its own, are then recorded in a real
MLflow server on PostgreSQL by 1, 4 and 8 processes at once, without and with authentication, by the product's own
recorder. Claims: a cell of one round takes at most 20 requests and 5 uploads; with authentication a request costs at
most three times the CPU that it costs without; and `compare` sets 100 hosts of 100 cells and 5 rounds against each
other in at most 10 s (their folders are made here and not measured).

Run it with `python -m benchmarks.store_scale [--quick] [--hosts-only]`. It needs PostgreSQL (Debian: postgresql), and
`pip install 'runner[server]'` for the part with authentication. The exit status is 1 if a claim fails.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import multiprocessing
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.compare import make_cells
from benchmarks.harness import sweep_argv, sweep_folder, timed
from benchmarks.servers import ADMIN, Server, free_port, postgres
from runner.commands import compare
from runner.results.cells import Origin, save

MOST_REQUESTS, MOST_UPLOADS, MOST_AUTH, MOST_COMPARE_S = 20.0, 5.0, 3.0, 10.0


@dataclass(frozen=True)
class Rate:
    """What some writers at once came to."""

    writers: int
    cells_per_s: float
    requests_per_cell: float
    uploads_per_cell: float
    kb_per_cell: float
    server_cpu_ms_per_cell: float
    server_cpu_ms_per_request: float


def main() -> int:
    """Measure, print the tables and the verdicts, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one writer without authentication, and 10 hosts")
    parser.add_argument("--hosts-only", action="store_true", help="only compare hosts")
    options = parser.parse_args()
    failed = []
    with TemporaryDirectory(prefix="runner-scale-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        if not options.hosts_only:
            failed += rates(folder, options.quick)
        hosts = 10 if options.quick else 100
        took_s = compare_hosts(folder, hosts)
    print(f"compare across {hosts} hosts of 100 cells: {took_s:.1f} s")
    failed += [f"{took_s:.1f} s to compare"] if took_s > MOST_COMPARE_S else []
    print(f"FAILS: {'; '.join(failed)}" if failed else "holds")
    return 1 if failed else 0


def rates(folder: Path, is_quick: bool) -> list[str]:
    """Print what a server takes; returns the claims that fail."""
    template = sweep_folder(
        timed(
            sweep_argv(
                ["model=conv_relu", "batch_size=8", "allocator=ptmalloc,tcmalloc", "rounds=1", "iterations=20",
                 "capture=[onednn,itt,profiler,counters]"], folder / "template",
            )
        ).out
    )  # fmt: skip
    has_auth = importlib.util.find_spec("flask_wtf") is not None
    if not has_auth and not is_quick:
        print("without the part on authentication: pip install 'runner[server]'")
    failed: list[str] = []
    print(
        f"{'':<9}{'writers':>8}{'cells/s':>9}{'requests':>10}{'uploads':>9}{'kB':>7}"
        f"{'CPU ms/cell':>13}{'CPU ms/request':>16}"
    )
    plain: Rate | None = None
    for with_auth in (False,) if is_quick or not has_auth else (False, True):
        with server(folder / ("auth" if with_auth else "open"), with_auth) as (uri, pid):
            for writers in (1,) if is_quick else (1, 4, 8):
                rate = record(
                    uri, pid, template, folder / f"copies-{with_auth}-{writers}", writers, 1 if is_quick else 4
                )
                print(
                    f"{'password' if with_auth else 'open':<9}{writers:8d}{rate.cells_per_s:9.2f}"
                    f"{rate.requests_per_cell:10.1f}{rate.uploads_per_cell:9.1f}{rate.kb_per_cell:7.0f}"
                    f"{rate.server_cpu_ms_per_cell:13.0f}{rate.server_cpu_ms_per_request:16.1f}",
                    flush=True,
                )
                if rate.requests_per_cell > MOST_REQUESTS or rate.uploads_per_cell > MOST_UPLOADS:
                    failed.append(
                        f"{rate.requests_per_cell:.1f} requests and {rate.uploads_per_cell:.1f} uploads a cell"
                    )
                plain = plain or rate
                if with_auth and rate.server_cpu_ms_per_request > MOST_AUTH * plain.server_cpu_ms_per_request:
                    failed.append(f"{rate.server_cpu_ms_per_request:.1f} ms of CPU a request with authentication")
    return list(dict.fromkeys(failed))


# -- the server ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def server(folder: Path, with_auth: bool) -> Iterator[tuple[str, int]]:
    """An MLflow server with two workers on a PostgreSQL where there is one: its address, and its process."""
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    has_driver = importlib.util.find_spec("psycopg") is not None
    with postgres(folder / "postgres") if has_driver else contextlib.nullcontext("") as database:
        if with_auth:
            os.environ |= ADMIN
        one = Server(folder, free_port(), database, with_auth, workers=2)
        try:
            yield one.uri, one.process.pid
        finally:
            one.end()


def cpu_s(group: int) -> float:
    """The CPU seconds of a process, of its session, and of those that they waited for."""
    total = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == group:
                    total += sum(map(int, fields[11:15]))
    return total / float(os.sysconf("SC_CLK_TCK"))


# -- the writers --------------------------------------------------------------------------------------------


def record(uri: str, server_pid: int, template: Path, mlruns: Path, writers: int, each: int) -> Rate:
    """Let some processes record copies of a sweep at once."""
    context = multiprocessing.get_context("spawn")
    folders = [[copied(template, mlruns) for _ in range(each)] for _ in range(writers)]
    barrier, found = context.Barrier(writers + 1), context.Queue()
    processes = [context.Process(target=write, args=(uri, mlruns, own, barrier, found)) for own in folders]
    for process in processes:
        process.start()
    barrier.wait(120)
    begun_s, used_s = time.monotonic(), cpu_s(server_pid)
    answers = [found.get(timeout=600) for _ in processes]
    wall_s, used_s = time.monotonic() - begun_s, cpu_s(server_pid) - used_s
    for process in processes:
        process.join()
    cells = writers * each * len(list(template.glob("cells/*/cell.json")))
    requests = sum(len(answer["requests"]) for answer in answers)
    uploads = sum(kind == "PUT" for answer in answers for kind in answer["requests"])
    # What a sweep sends for itself, whatever its size, is not a cell's.
    own = sum(answer["of_sweeps"] for answer in answers)
    own_uploads = sum(answer["uploads_of_sweeps"] for answer in answers)
    return Rate(
        writers,
        cells / wall_s,
        (requests - own) / cells,
        (uploads - own_uploads) / cells,
        sum(answer["bytes"] for answer in answers) / cells / 1e3,
        1e3 * used_s / cells,
        1e3 * used_s / requests,
    )


def copied(template: Path, mlruns: Path) -> Path:
    """A copy of a sweep's folder that is a sweep of its own, of which nothing is recorded."""
    to = mlruns / "sweeps" / f"20260101-000000-{uuid.uuid4().hex[:6]}"
    shutil.copytree(template, to)
    for logged in to.rglob(".logged"):
        logged.unlink()
    entry = json.loads((to / "sweep.json").read_text())
    (to / "sweep.json").write_text(json.dumps({**entry, "sweep_id": to.name}))
    return to


def write(uri: str, mlruns: Path, folders: list[Path], barrier: Any, found: Any) -> None:
    """Record sweeps, and count every request."""
    import requests

    from runner.tracking import recorder

    seen, sent = list[str](), [0]
    send = requests.Session.send

    def counted(self: Any, request: Any, **options: Any) -> Any:
        seen.append(request.method)
        sent[0] += int(request.headers.get("Content-Length") or 0)
        return send(self, request, **options)

    requests.Session.send = counted  # type: ignore[method-assign]
    record = recorder.recorder_for(mlruns, uri)
    record.store.prepare()
    barrier.wait(120)
    seen.clear()
    sent[0] = 0
    of_sweeps = uploads_of_sweeps = 0
    for folder in folders:
        record.catch_up(folder)
        # Its own files are sent at the beginning and at the end.
        files = sum(path.is_file() and not path.name.startswith(".") for path in folder.iterdir())
        uploads_of_sweeps += 2 * files
        of_sweeps += 2 * files + OF_A_SWEEP
    found.put({"requests": seen, "bytes": sent[0], "of_sweeps": of_sweeps, "uploads_of_sweeps": uploads_of_sweeps})


# Requests of a sweep besides its files: its run found, made, ended and described, its experiment, its saved views.
OF_A_SWEEP = 20


# -- hosts --------------------------------------------------------------------------------------------------


def compare_hosts(folder: Path, hosts: int) -> float:
    """The seconds that comparing sweeps of so many hosts takes; their folders are made, not measured."""
    mlruns, rng = folder / "hosts", np.random.default_rng(0)
    for number in range(hosts):
        name = f"host{number:03d}"
        sweep = mlruns / "sweeps" / f"20260101-000000-{name}"
        sweep.mkdir(parents=True)
        rows = [type(row)(**{**row.__dict__, "axes": {**row.axes, "host": name}}) for row in make_cells(100, rng)]
        save(
            rows,
            Origin(sweep.name, name, {"kernel": str(number)}, {"torch": "2.8.0"}, usd_per_hour=1 + number / 10),
            sweep,
        )
        (sweep / "host.json").write_text(json.dumps({"host_id": name, "cpu_model": f"CPU {number}", "kernel": "6.1"}))
    took = []
    for _ in range(1 if hosts < 100 else 2):
        begun = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            compare.main(["all", "--mlruns", str(mlruns)])
        took.append(time.perf_counter() - begun)
    return median(took)


if __name__ == "__main__":
    sys.exit(main())
