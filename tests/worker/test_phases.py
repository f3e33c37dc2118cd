"""What a worker announces: each phase at its beginning, and nothing once it measures."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runner.machine.announcements import Announcements, listening
from runner.protocol.announcements import ANSWER_S
from runner.worker.phases import Phases


@contextmanager
def runner_that_takes(folder: Path, heard: list[str], draws_s: float = 0.0) -> Iterator[Announcements]:
    """A runner that listens in a thread, and takes that long to show what it heard."""

    def hear(name: str) -> None:
        time.sleep(draws_s)
        heard.append(name)

    with listening(folder, hear) as announcements:
        is_over = threading.Event()

        def wait() -> None:
            while not is_over.is_set():
                announcements.take()
                time.sleep(0.002)

        thread = threading.Thread(target=wait)
        thread.start()
        try:
            yield announcements
        finally:
            is_over.set()
            thread.join()


def test_phases_are_timed_where_nobody_listens() -> None:
    timed = Phases("/nowhere")
    with timed("build"):
        time.sleep(0.01)
    timed.announce("measure")
    assert timed.seconds["build"] >= 0.01
    assert list(timed.seconds) == ["build"]


def test_every_phase_is_announced_once_in_its_order(tmp_path: Path) -> None:
    heard: list[str] = []
    with runner_that_takes(tmp_path, heard):
        said = Phases(str(tmp_path))
        for name in ("import", "warmup"):
            with said(name):
                pass
        said.announce("measure")
        with said("measure"):
            pass
    assert heard == ["import", "warmup", "measure"]


def test_nothing_is_measured_before_the_runner_has_shown_it(tmp_path: Path) -> None:
    heard: list[str] = []
    with runner_that_takes(tmp_path, heard, draws_s=0.05):
        said = Phases(str(tmp_path))
        said.announce("build")
        said.announce("warmup")
        with said("measure"):
            assert heard == ["build", "warmup", "measure"]


def test_several_instances_wait_for_an_answer_each(tmp_path: Path) -> None:
    heard: list[str] = []
    with runner_that_takes(tmp_path, heard, draws_s=0.02):
        instances = [Phases(str(tmp_path)) for _ in range(3)]
        start = time.monotonic()
        threads = [threading.Thread(target=instance.announce, args=("measure",)) for instance in instances]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert heard == ["measure"] * 3
        assert time.monotonic() - start < ANSWER_S


def test_a_runner_that_is_stopped_keeps_nobody_from_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.worker.phases.ANSWER_S", 0.05)
    with listening(tmp_path, lambda name: None):
        said = Phases(str(tmp_path))
        with said("measure"):
            pass
    said.announce("quality")  # and one that is gone
    said.announce("evidence")
    assert "measure" in said.seconds


def test_what_is_no_name_of_a_phase_is_not_handed_on(tmp_path: Path) -> None:
    heard: list[str] = []
    with listening(tmp_path, heard.append) as announcements:
        (tmp_path / "phases").open("wb", buffering=0).write(b"\x1b[2J\n" + b"x" * 200 + b"\nbuild\nwarm")
        announcements.take()
        (tmp_path / "phases").open("wb", buffering=0).write(b"up\n")
        announcements.take()
    assert heard == ["build", "warmup"]
