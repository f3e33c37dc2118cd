"""The command `peak`: what it measures on this machine, and what it keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runner.commands import peak as command
from runner.job import peak
from runner.launch import place_cores
from runner.machine.capabilities import this_machine
from runner.machine.torch_builds import bundled
from runner.protocol.errors import RunnerError
from runner.protocol.peaks import DTYPES
from runner.results import peaks as kept
from tests.builders import PEAKS


@pytest.mark.slow
def test_a_short_measurement_has_every_figure_of_this_machine() -> None:
    placement = place_cores(this_machine(), cores=1)
    measured = peak.measure(bundled(), placement, is_quick=True)
    without = {dtype for dtype in DTYPES if any(f"{dtype}: torch's" in note for note in measured.notes)}
    assert "fp32" in measured.gemm
    assert set(measured.gemm) | without == set(DTYPES)
    assert {"fp32", "int8"} <= set(measured.registers)
    assert set(measured.memory) == {"read", "copy", "matrix x vector"}
    assert tuple(measured.cores) == placement.cores
    assert measured.window.surroundings is not None
    assert measured.torch.startswith(bundled().torch or "")
    assert measured.host_id


def test_more_cores_than_there_are_are_refused_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match=r"cores=100000: node \d+ has"):
        command.main(["--cores", "100000", "--mlruns", str(tmp_path)])


def test_a_process_that_leaves_no_result_is_named_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "PEAK", Path("/nowhere/peak.py"))
    with pytest.raises(RunnerError, match=r"the process left no result .*nowhere/peak.py"):
        peak.measure(bundled(), place_cores(this_machine(), cores=1))


def test_peaks_are_kept_and_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peak, "measure", lambda *_: PEAKS)
    assert [command.main(["--mlruns", str(tmp_path)]) for _ in range(2)] == [0, 0]
    out = capsys.readouterr().out
    assert "avx512_vnni" in out
    assert "memory, read: 25 GB/s" in out
    assert "arithmetic within 0 % of that of 2026-11-26" in out
    assert kept.HostPeaks(tmp_path, PEAKS.host_id).of(PEAKS.torch, 2, [0, 1]) == PEAKS


def test_peaks_that_others_disturbed_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    surroundings = PEAKS.window.surroundings
    assert surroundings is not None
    window = replace(PEAKS.window, surroundings=replace(surroundings, busy_s=40.0))
    monkeypatch.setattr(peak, "measure", lambda *_: replace(PEAKS, window=window))
    assert command.main(["--mlruns", str(tmp_path)]) == 1
    assert "not kept, because others disturbed the measurement: other processes took" in capsys.readouterr().out
    assert not (tmp_path / "peaks").exists()


def test_a_short_measurement_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peak, "measure", lambda *_: replace(PEAKS, is_quick=True))
    assert command.main(["--quick", "--mlruns", str(tmp_path)]) == 0
    assert "not kept: these are no peaks after so short a time" in capsys.readouterr().out
    assert not (tmp_path / "peaks").exists()
