"""A fleet on a real Ray of one node: killed, submitted again, complete. RUNNER_RAY names a folder with ``ray``."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.fleet import fleetfile
from runner.results.cells import read
from tests.conftest import ask
from tests.fleet import ROUNDS, WORDS

RAY = shutil.which("ray", path=f"{os.environ.get('RUNNER_RAY', '')}:{os.environ['PATH']}")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.integration,
    pytest.mark.skipif(
        RAY is None, reason="ray is not installed: its environment is a job of its own, see CONTRIBUTING.md"
    ),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The job server of a cluster of this machine."""
    assert RAY is not None
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, dashboard = one.getsockname()[1], other.getsockname()[1]
    env = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    with (tmp_path_factory.mktemp("ray") / "log").open("w") as log:
        head = subprocess.Popen(
            [
                RAY, "start", "--head", "--port", str(port), "--num-cpus", "2", "--resources", '{"icelake": 1}',
                "--include-dashboard=true", "--dashboard-port", str(dashboard), "--node-ip-address", "127.0.0.1",
                "--disable-usage-stats", "--block",
            ],
            env=env, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    found = f"http://127.0.0.1:{dashboard}"
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{found}/api/version", timeout=2).close()  # noqa: S310
                break
            except OSError:
                time.sleep(0.5)
        yield found
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        try:
            head.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
            head.wait()


def test_a_sweep_that_was_killed_is_submitted_again_and_complete(address: str, tmp_path: Path) -> None:
    (tmp_path / "own" / "fleet").mkdir(parents=True)
    (tmp_path / "own" / "fleet" / "one.yaml").write_text(
        f"engine: ray\naddress: {address}\nhosts:\n  icelake: {{ray: {{icelake: 1}}, usd_per_hour: 1.7}}\n"
    )
    env, mlruns = {"RUNNER_EXPERIMENTS": str(tmp_path / "own")}, tmp_path / "mlruns"
    watcher = subprocess.Popen(
        [sys.executable, "-m", "runner", "fleet", "-m", "fleet=one", *WORDS, f"mlruns={mlruns}"],
        env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 180
    while not list(mlruns.glob("sweeps/*/cells/*/round-*/outcome.json")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    [sweep] = mlruns.glob("sweeps/*")
    runner = int(json.loads((sweep / "sweep.json").read_text())["runner"].split(".")[0])
    os.kill(runner, signal.SIGKILL)
    said, _ = watcher.communicate(timeout=120)
    assert watcher.returncode == 1, said
    assert "icelake stopped before its end" in said
    resumed = ask("fleet", "resume", f"--mlruns={mlruns}", env=env)
    assert resumed.status == 0, resumed.out + resumed.err
    rows = read([sweep]).rows
    assert {len(row.medians_s) for row in rows} == {ROUNDS}
    assert fleetfile.find(None, mlruns).sweeps[0].submissions == 2
