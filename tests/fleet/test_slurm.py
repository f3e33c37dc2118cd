"""A fleet on a real Slurm with two hosts: requeued, cancelled, resumed, compared with prices; with a shared folder, and
with an MLflow server alone."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from benchmarks.servers import Server, free_port
from runner.fleet import fleetfile
from runner.fleet.fleetfile import Fleet
from runner.results import ledger, planfile
from runner.results.cells import read
from tests.conftest import ROOT, Ran, ask
from tests.fleet import ROUNDS, WORDS

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "munged", "unshare")
MISSING = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.integration,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (see make test)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a second host in namespaces needs root"),
]

SLURM = Path(__file__).parent / "slurm"
OTHER_CPU = "AMD EPYC 9999 96-Core Processor"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """The folder of a Slurm that runs: not below /tmp, of which the second host has one of its own."""
    folder = Path(tempfile.mkdtemp(prefix="runner-slurm-", dir="/var/tmp"))
    env = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin", "PROJECT": str(ROOT)}
    up = subprocess.run([SLURM / "up.sh", folder], env=env, capture_output=True, text=True, timeout=120, check=False)
    try:
        if up.returncode:  # in a container without namespaces, say: this is no fault of ours
            logs = "".join(file.read_text(errors="replace")[-500:] for file in (folder / "log").glob("*"))
            pytest.skip(f"Slurm does not start here: {up.stdout}{up.stderr}{logs}")
        yield folder
    finally:
        subprocess.run([SLURM / "down.sh", folder], check=False, timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def fleet_of(cluster: Path) -> Callable[..., Ran]:
    """Runs ``python -m runner fleet`` in the cluster, with a fleet named ``two``."""
    (cluster / "own" / "fleet").mkdir(parents=True, exist_ok=True)

    def run(*words: str, more: str = "") -> Ran:
        (cluster / "own" / "fleet" / "two.yaml").write_text(
            f"engine: slurm\n{more}hosts:\n"
            "  icelake: {sbatch: [--constraint=icelake], usd_per_hour: 1.7}\n"
            "  genoa: {sbatch: [--constraint=genoa], usd_per_hour: 2.4}\n"
        )
        return ask("fleet", *words, env=environment(cluster))

    return run


def environment(cluster: Path) -> dict[str, str]:
    return {"SLURM_CONF": str(cluster / "slurm.conf"), "RUNNER_EXPERIMENTS": str(cluster / "own")}


def until(happened: Callable[[], object], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def slurm(cluster: Path, *words: str) -> str:
    done = subprocess.run(
        words, env={**os.environ, **environment(cluster)}, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout


def ended_jobs(mlruns: Path, host: str) -> int:
    return len(list(mlruns.glob(f"sweeps/*-{host}/cells/*/round-*/outcome.json")))


def test_two_hosts_are_requeued_cancelled_resumed_and_compared(cluster: Path, fleet_of: Callable[..., Ran]) -> None:
    mlruns = cluster / "shared"
    words = [sys.executable, "-m", "runner", "fleet", "-m", "fleet=two", *WORDS, f"mlruns={mlruns}"]
    fleet_of("status", f"--mlruns={mlruns}")  # leaves the fleet's file
    with (cluster / "watcher.log").open("w") as log:
        watcher = subprocess.Popen(
            words, cwd=ROOT, env={**os.environ, **environment(cluster)}, stdout=log, stderr=subprocess.STDOUT
        )
    until(lambda: ended_jobs(mlruns, "genoa"))
    fleet: Fleet = fleetfile.find(None, mlruns)
    jobs = {placed.host: placed.job for placed in fleet.sweeps}
    slurm(cluster, "scancel", jobs["genoa"])
    until(lambda: ended_jobs(mlruns, "icelake"))
    before = ended_jobs(mlruns, "icelake")
    slurm(cluster, "scontrol", "requeue", jobs["icelake"])
    until(lambda: "PENDING" in slurm(cluster, "squeue", "-h", "-o", "%T", "-j", jobs["icelake"]))
    # Slurm would start it after two minutes.
    slurm(cluster, "scontrol", "update", f"jobid={jobs['icelake']}", "StartTime=now")
    status, said = watcher.wait(timeout=300), (cluster / "watcher.log").read_text()
    assert status == 1, said
    assert "genoa stopped before its end" in said
    assert f"To go on: python -m runner fleet resume {fleet.fleet_id}" in said
    resumed = fleet_of("resume", f"--mlruns={mlruns}")
    assert resumed.status == 0, resumed.out + resumed.err
    text = " ".join(resumed.out.split())
    assert "The same cell on each host" in text
    assert "USD per million" in text
    assert "Cheapest: " in text
    assert before >= 1
    of_hosts = {placed.host: mlruns / "sweeps" / placed.sweep_id for placed in fleet.sweeps}
    check_records(of_hosts)


def check_records(of_hosts: dict[str, Path]) -> None:
    """Each record is of the host that measured it, and every cell has all of its rounds."""
    models = {host: planfile.read_host(sweep).cpu_model for host, sweep in of_hosts.items()}
    assert models["genoa"] == OTHER_CPU
    assert models["icelake"] != OTHER_CPU
    assert ledger.read_sweep(of_hosts["genoa"]).hostname == "fakenb"
    assert ledger.read_sweep(of_hosts["icelake"]).hostname == socket.gethostname()
    for host, sweep in of_hosts.items():
        rows = read([sweep]).rows
        assert rows
        assert {row.axes["host"] for row in rows} == {host}
        assert {len(row.medians_s) for row in rows} == {ROUNDS}
        assert all(row.evidence == "ok" for row in rows)
        identity = [json.loads(file.read_text())["identity"] for file in sweep.glob("cells/*/cell.json")]
        assert all((OTHER_CPU in json.dumps(one)) == (host == "genoa") for one in identity)


def test_what_slurm_does_to_a_node_costs_no_round(cluster: Path) -> None:
    """Preempted by a more urgent job, drained, and down: the sweep goes on where it was, and nobody has to ask."""
    mlruns = cluster / "taken"
    (cluster / "own" / "fleet").mkdir(parents=True, exist_ok=True)
    (cluster / "own" / "fleet" / "one.yaml").write_text(
        "engine: slurm\nhosts:\n  genoa: {sbatch: [--constraint=genoa, --partition=all]}\n"
    )
    words = [sys.executable, "-m", "runner", "fleet", "-m", "fleet=one", *WORDS, f"mlruns={mlruns}"]
    with (cluster / "taken.log").open("w") as log:
        watcher = subprocess.Popen(
            words, cwd=ROOT, env={**os.environ, **environment(cluster)}, stdout=log, stderr=subprocess.STDOUT
        )
    until(lambda: ended_jobs(mlruns, "genoa"))
    [placed] = fleetfile.find(None, mlruns).sweeps
    state = partial(slurm, cluster, "squeue", "-h", "-o", "%T", "-j", placed.job)

    def go_on() -> None:
        until(lambda: "PENDING" in state())
        before = ended_jobs(mlruns, "genoa")

        def has_measured() -> bool:
            if "PENDING" in state():
                # Slurm would start a requeued job after two minutes. And a node that comes back before all processes
                # of its job have ended is drained, and its job held: what an administrator does then is done here.
                slurm(cluster, "scontrol", "update", "nodename=nb", "state=resume")
                slurm(cluster, "scontrol", "release", placed.job)
                slurm(cluster, "scontrol", "update", f"jobid={placed.job}", "StartTime=now")
                time.sleep(1)
            return ended_jobs(mlruns, "genoa") > before

        until(has_measured)

    urgent = ["--partition=urgent", "--constraint=genoa", "--exclusive", "--output=/dev/null"]
    slurm(cluster, "sbatch", *urgent, f"--chdir={cluster}", "--wrap=sleep 2")
    go_on()
    slurm(cluster, "scontrol", "update", "nodename=nb", "state=drain", "reason=test")
    before = ended_jobs(mlruns, "genoa")
    until(lambda: ended_jobs(mlruns, "genoa") > before)  # what runs there may end
    slurm(cluster, "scontrol", "update", "nodename=nb", "state=down", "reason=test")
    go_on()
    assert watcher.wait(timeout=300) == 0, (cluster / "taken.log").read_text()
    rows = read([mlruns / "sweeps" / placed.sweep_id]).rows
    assert {len(row.medians_s) for row in rows} == {ROUNDS}
    assert all(row.evidence == "ok" for row in rows)
    assert fleetfile.find(None, mlruns).sweeps[0].submissions == 1


def test_the_wrong_host_does_not_go_on_with_a_sweep(cluster: Path) -> None:
    mlruns = cluster / "shared"
    [sweep] = mlruns.glob("sweeps/*-genoa")
    before = {file: file.read_bytes() for file in sweep.rglob("*.json")}
    refused = ask("resume", sweep.name, f"--mlruns={mlruns}")
    assert refused.status == 2
    assert "host fakenb measured it" in refused.err
    assert {file: file.read_bytes() for file in sweep.rglob("*.json")} == before


def test_results_come_home_through_the_server_alone(cluster: Path, fleet_of: Callable[..., Ran]) -> None:
    server = Server(cluster, free_port())
    try:
        mlruns = cluster / "home"
        ran = fleet_of(
            "-m", "fleet=two", *WORDS, f"mlruns={mlruns}", f"tracking_uri={server.uri}",
            more=f"mlruns: {cluster}/there\n",
        )  # fmt: skip
        assert ran.status == 0, ran.out + ran.err
        assert "The same cell on each host" in ran.out
        check_records({host: next(mlruns.glob(f"sweeps/*-{host}")) for host in ("icelake", "genoa")})
    finally:
        server.end()
