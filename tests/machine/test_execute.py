"""Starting a process, waiting for it without work, and ending all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from runner.machine import announcements, checkout, execute, processes
from tests.conftest import alive


def run(tmp_path: Path, script: str, timeout_s: float = 30, marker: str = "test/execute") -> execute.Ended:
    argv = [sys.executable, "-c", script]
    env = {**os.environ, "RUNNER_JOB": marker}
    return execute.run(argv, env, tmp_path / "out", tmp_path / "err", timeout_s, marker)


def test_output_goes_to_files_and_the_exit_status_is_kept(tmp_path: Path) -> None:
    ended = run(tmp_path, "import sys; print('o'); print('e', file=sys.stderr); sys.exit(3)")
    assert (ended.returncode, ended.timed_out) == (3, False)
    assert (tmp_path / "out").read_text() == "o\n"
    assert (tmp_path / "err").read_text() == "e\n"


def test_a_job_past_its_timeout_is_stopped(tmp_path: Path) -> None:
    ended = run(tmp_path, "import time; time.sleep(60)", timeout_s=0.5)
    assert ended.timed_out
    assert ended.returncode == -signal.SIGTERM
    assert ended.wall_s < 20


def test_a_job_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "GRACE_S", 0.3)
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    assert run(tmp_path, script, timeout_s=1.0).returncode == -signal.SIGKILL


def test_a_companion_whose_death_the_process_felt_first_is_named(tmp_path: Path) -> None:
    companion = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.4)"])
    env = {**os.environ, "RUNNER_JOB": "test/companion"}
    argv = [sys.executable, "-S", "-c", "import sys; sys.exit(104)"]
    ended = execute.run(argv, env, tmp_path / "out", tmp_path / "err", 30, "test/companion", companions=[companion.pid])
    companion.wait()
    assert (ended.returncode, ended.lost_companion) == (104, companion.pid)


def test_nothing_is_left_running_even_in_a_session_of_its_own(tmp_path: Path) -> None:
    child = "[sys.executable, '-c', 'import time; time.sleep(60)']"
    script = f"import subprocess, sys; print(subprocess.Popen({child}, start_new_session=True).pid)"
    run(tmp_path, script, marker="test/orphan")
    pid = int((tmp_path / "out").read_text())
    assert processes.processes_with_marker("test/orphan") == []
    assert not alive(pid)


def test_the_runner_sleeps_while_a_job_runs(tmp_path: Path) -> None:
    def own_share(seconds: float) -> float:
        before = time.process_time()
        ended = run(tmp_path, f"import time; time.sleep({seconds})")
        return (time.process_time() - before) / ended.wall_s

    # Popen.wait(timeout) alone would wake twenty times more; a progress bar's thread costs far more. The least of
    # three: what else this test process did meanwhile (its collector, xdist's threads) is no work of the runner's.
    assert min(own_share(2.0) for _ in range(3)) < 0.01


def test_a_job_ends_with_a_process_that_it_needs(tmp_path: Path) -> None:
    needed = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"])
    argv, env = [sys.executable, "-c", "import time; time.sleep(60)"], {**os.environ, "RUNNER_JOB": "test/beside"}
    ended = execute.run(
        argv, env, tmp_path / "out", tmp_path / "err", 30, "test/beside", companions=[os.getpid(), needed.pid]
    )
    assert ended.lost_companion == needed.pid
    assert not ended.timed_out
    assert ended.wall_s < 20
    assert needed.wait() == 0


def test_a_process_that_is_gone_before_the_job_starts_ends_it_at_once(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    argv, env = ["sleep", "60"], {**os.environ, "RUNNER_JOB": "test/gone"}
    ended = execute.run(argv, env, tmp_path / "out", tmp_path / "err", 30, "test/gone", companions=[gone.pid])
    assert ended.lost_companion == gone.pid


def test_the_cpu_time_of_a_job_is_known(tmp_path: Path) -> None:
    ended = run(tmp_path, "import time\nwhile time.process_time() < 0.3: pass")
    assert 0.3 <= ended.cpu_s < 3


def test_a_process_in_the_background_ends_with_its_block(tmp_path: Path) -> None:
    child = "[sys.executable, '-c', 'import time; time.sleep(60)']"
    script = f"import subprocess, sys, time; subprocess.Popen({child}, start_new_session=True); time.sleep(60)"
    argv, env = [sys.executable, "-c", script], {**os.environ, "RUNNER_JOB": "test/background"}
    with execute.background(argv, env, tmp_path / "out", tmp_path / "err", "test/background") as process:
        while len(processes.processes_with_marker("test/background")) < 2:
            time.sleep(0.02)
        assert process.is_alive
    assert processes.processes_with_marker("test/background") == []
    assert not process.is_alive


def test_an_interrupt_stops_the_job_and_is_passed_on(tmp_path: Path) -> None:
    # A shell starts background jobs with SIGINT ignored, and the tests with them.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.7, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, "import time; time.sleep(60)", marker="test/interrupt")
    finally:
        signal.signal(signal.SIGINT, before)
    assert processes.processes_with_marker("test/interrupt") == []


def test_links_are_made_before_the_start(tmp_path: Path) -> None:
    target = tmp_path / "libreal.so.2"
    target.write_text("x")
    link = tmp_path / "shim/lib/libreal.so"
    env = {**os.environ, "RUNNER_JOB": "test/links"}
    ended = execute.run(["cat", str(link)], env, tmp_path / "out", tmp_path / "err", 10, "test/links", {link: target})
    assert ended.returncode == 0
    assert (tmp_path / "out").read_text() == "x"


def test_a_program_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        execute.run(["/no/such/program"], {}, tmp_path / "out", tmp_path / "err", 1, "test/none")


def test_a_missing_command_is_captured_as_status_127() -> None:
    assert execute.run_short(["/no/such/program"])[:2] == (127, "")


def test_git_state_is_none_outside_a_checkout(tmp_path: Path) -> None:
    assert checkout.git_state(tmp_path) == (None, "")


def test_git_state_has_the_commit_and_what_differs_from_it(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=tmp_path, check=True)

    git("init", "-q")
    (tmp_path / "a").write_text("1\n")
    git("add", "a")
    git("commit", "-qm", "one")
    commit, diff = checkout.git_state(tmp_path)
    assert commit is not None
    assert len(commit) == 40
    assert diff == ""
    (tmp_path / "a").write_text("2\n")
    (tmp_path / "b").write_text("new\n")
    diff = checkout.git_state(tmp_path)[1]
    assert "+2" in diff
    assert "untracked: b" in diff


def test_what_a_job_announces_is_heard_while_it_runs_and_its_end_is_still_seen(tmp_path: Path) -> None:
    heard: list[tuple[str, bool]] = []
    script = (
        "import sys; fifo, answers = open(sys.argv[1], 'wb', 0), open(sys.argv[2], 'rb', 0)\n"
        "for name in (b'import', b'measure'): fifo.write(name + b'\\n'); assert answers.read(1) == name[:1]\n"
        "print('done')"
    )
    argv = [sys.executable, "-c", script, str(tmp_path / "phases"), str(tmp_path / "phases-heard")]

    def hear(name: str) -> None:
        heard.append((name, b"done" in (tmp_path / "out").read_bytes()))

    with announcements.listening(tmp_path, hear) as announced:
        files = tmp_path / "out", tmp_path / "err"
        ended = execute.run(argv, {**os.environ}, *files, 30, "test/announcing", announcements=announced)
    assert (ended.returncode, ended.timed_out) == (0, False)
    assert heard == [("import", False), ("measure", False)]


def test_a_job_that_announces_nothing_is_stopped_in_time(tmp_path: Path) -> None:
    with announcements.listening(tmp_path, lambda name: None) as announced:
        files = tmp_path / "out", tmp_path / "err"
        argv = [sys.executable, "-c", "import time; time.sleep(60)"]
        ended = execute.run(argv, {**os.environ}, *files, 0.3, "test/silent", announcements=announced)
    assert ended.timed_out
