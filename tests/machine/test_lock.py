"""The host's measurement lock: one at a time, freed by any death, refused or waited for as asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner.machine.lock import holder, measuring
from runner.protocol.errors import RunnerError
from tests.conftest import ROOT, TINY

HOLD = """
import sys, time
from pathlib import Path
from runner.machine.lock import measuring
with measuring(sys.argv[1], Path("there"), True, lambda text: print(text, flush=True)):
    print("mine", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "lock"
    monkeypatch.setenv("RUNNER_LOCK", str(path))
    return path


def hold(name: str, seconds: float) -> subprocess.Popen[str]:
    """Another process that asks for the lock and keeps it."""
    return subprocess.Popen([sys.executable, "-c", HOLD, name, str(seconds)], stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_the_lock_says_who_has_it_and_refuses_who_will_not_wait() -> None:
    first = hold("first", 60)
    try:
        assert line(first) == "mine"
        assert holder().startswith(f"sweep first (pid {first.pid}, in {Path('there').resolve()}, since 20")
        with (
            pytest.raises(RunnerError, match=r"^wait=false: sweep first \(pid"),
            measuring("me", Path("here"), False, print),
        ):
            pass
    finally:
        first.kill()
        first.wait()


def test_who_waits_reads_when_the_holder_expects_to_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.machine.lock.time.time", lambda: 0.0)
    with measuring("me", Path("here"), False, print) as expect:
        assert "until" not in holder()
        expect(3600.0)
        assert holder().endswith(f", until about {time.strftime('%H:%M', time.localtime(3600))})")
        expect(None)
        assert "until" not in holder()


def test_who_waits_for_so_many_seconds_gets_it_within_them_or_is_refused() -> None:
    first = hold("first", 60)
    said: list[str] = []
    try:
        assert line(first) == "mine"
        with (
            pytest.raises(RunnerError, match=r"^wait=0\.3: sweep first \(pid.* is still measuring .* after 0\.3 s"),
            measuring("me", Path("here"), 0.3, said.append),
        ):
            pass
        assert said[0].startswith("waiting for sweep first (pid")
    finally:
        first.kill()
        first.wait()
    with measuring("me", Path("here"), 0.3, said.append):
        assert holder().startswith("sweep me ")


def test_who_waits_is_told_for_whom_and_goes_on_when_the_holder_is_killed() -> None:
    first = hold("first", 60)
    assert line(first) == "mine"
    second = hold("second", 0)
    try:
        assert line(second).startswith("waiting for sweep first (pid")
        time.sleep(0.3)
        assert second.poll() is None
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert line(second) == "mine"
        assert second.wait(10) == 0
    finally:
        for process in (first, second):
            process.kill()
            process.wait()


def test_the_lock_is_free_again_afterwards_and_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), measuring("a", Path(), False, print):
        _ = 1 / 0
    with measuring("b", Path(), False, print):
        assert holder().startswith("sweep b ")


def test_a_child_that_outlives_its_parent_does_not_keep_the_lock() -> None:
    with measuring("a", Path(), False, print):
        child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        with measuring("b", Path(), False, print):
            pass
    finally:
        child.kill()
        child.wait()


def test_a_lock_that_holds_no_sense_names_nobody(lock: Path) -> None:
    for text in ("", "[]", '{"sweep": 1}', "\0"):
        lock.write_text(text)
        assert holder() == "another process"


def test_a_lock_that_cannot_be_opened_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RUNNER_LOCK", str(tmp_path))
    with pytest.raises(RunnerError, match=r"RUNNER_LOCK=.*can't be opened"), measuring("a", Path(), True, print):
        pass


@pytest.mark.slow
def test_a_sweep_waits_for_another_and_says_so_or_refuses(mlruns: Path) -> None:
    first = hold("first", 60)
    words = [sys.executable, "-m", "runner", *TINY, "capture=[]", f"mlruns={mlruns}"]
    try:
        assert line(first) == "mine"
        refused = subprocess.run([*words, "--no-wait"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert refused.returncode == 2
        assert refused.stderr.startswith("runner: wait=false: sweep first (pid")
        second = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert any(
            line(second).startswith("waiting for sweep first (pid") for _ in range(3)
        )  # it plans before it waits
        first.kill()
        first.wait()
        out, _ = second.communicate(timeout=120)
        assert second.returncode == 0, out
        assert "p50" in out
    finally:
        first.kill()
        first.wait()
