"""A fleet of this machine alone, from the command line to the comparison."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner.fleet import fleetfile
from runner.machine.processes import Process
from runner.results import ledger
from tests.conftest import ROOT, ask

pytestmark = pytest.mark.slow

SMALL = ("model=tiny", "batch_size=2", "warmup=2", "iterations=20", "capture=[]", "reruns=0", "try_models=false")


def test_a_fleet_of_this_machine_runs_to_its_end_and_names_its_host(tmp_path: Path) -> None:
    ran = ask("fleet", "-m", "fleet=local", "allocator=ptmalloc,jemalloc", *SMALL, "rounds=2", f"mlruns={tmp_path}")
    assert ran.status == 0, ran.out + ran.err
    [sweep] = (tmp_path / "sweeps").iterdir()
    assert {cell.axes["host"] for cell in ledger.read_cells(sweep)} == {"here"}
    assert "here: ended, 4 of 4 jobs" in ran.out
    assert "Ranking" in ran.out
    again = ask("fleet", "resume", f"--mlruns={tmp_path}")
    assert again.status == 2
    assert "no sweep of it stopped before its end" in again.err


def test_a_fleet_goes_on_when_its_watcher_leaves_and_its_sweep_where_it_was_cancelled(tmp_path: Path) -> None:
    words = ["fleet", "-m", "fleet=local", "allocator=ptmalloc,jemalloc", *SMALL, "rounds=4", f"mlruns={tmp_path}"]
    # Also where the tests run in the background, and ignore Ctrl-C.
    line = ["env", "--default-signal=INT", sys.executable, "-m", "runner", *words]
    watcher = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(tmp_path.glob("sweeps/*/cells/*/round-*/outcome.json")):
        time.sleep(0.2)
    watcher.send_signal(signal.SIGINT)
    said, _ = watcher.communicate(timeout=60)
    assert watcher.returncode == 130, said
    assert "The sweeps go on." in said
    fleet = fleetfile.find(None, tmp_path)
    assert Process.of(fleet.sweeps[0].job).is_alive
    stopped = ask("fleet", "cancel", fleet.fleet_id, f"--mlruns={tmp_path}")
    assert "1 sweep told to stop" in stopped.out
    while Process.of(fleet.sweeps[0].job).is_alive:
        time.sleep(0.1)
    status = ask("fleet", "status", f"--mlruns={tmp_path}")
    assert "stopped" in status.out
    resumed = ask("fleet", "resume", f"--mlruns={tmp_path}")
    assert resumed.status == 0, resumed.out + resumed.err
    [sweep] = (tmp_path / "sweeps").iterdir()
    outcomes = [json.loads(file.read_text()) for file in sweep.glob("cells/*/round-*/outcome.json")]
    assert sorted((one["axes"]["allocator"], one["round"]) for one in outcomes if one["status"] == "FINISHED") == [
        (allocator, number) for allocator in ("jemalloc", "ptmalloc") for number in range(4)
    ]


def test_a_slip_in_a_sweeps_words_is_told_before_anything_is_submitted(tmp_path: Path) -> None:
    ran = ask("fleet", "-m", "fleet=local", "ipex=maybe", f"mlruns={tmp_path}")
    assert ran.status == 2
    assert "ipex" in ran.err
    assert not list(tmp_path.glob("fleets/*"))
