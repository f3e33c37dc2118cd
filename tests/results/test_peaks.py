"""Peaks of hosts: what is kept, what is believed, and which of them hold for a cell."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.protocol.errors import FormatError
from runner.protocol.peaks import Best
from runner.results import peaks as kept
from runner.results.peaks import HostPeaks
from tests.builders import PEAKS


def test_peaks_are_read_as_they_were_kept(tmp_path: Path) -> None:
    assert kept.read(kept.save(PEAKS, tmp_path)) == PEAKS


def test_peaks_hold_for_the_host_the_build_and_as_many_of_the_cores_as_there_are_threads(tmp_path: Path) -> None:
    kept.save(PEAKS, tmp_path)
    one_core = replace(PEAKS, cores=[0])
    kept.save(one_core, tmp_path)
    of_host = HostPeaks(tmp_path, PEAKS.host_id)
    assert of_host.of(PEAKS.torch, 2, [0, 1]) == PEAKS
    assert of_host.of(PEAKS.torch, 1, [0, 1]) == one_core
    assert of_host.of(PEAKS.torch, 2, [2, 3]) is None
    assert of_host.of("2.14.1", 2, [0, 1]) is None
    assert HostPeaks(tmp_path, "another").of(PEAKS.torch, 2, [0, 1]) is None


def test_the_newest_of_several_counts(tmp_path: Path) -> None:
    kept.save(PEAKS, tmp_path)
    newer = replace(PEAKS, date="2026-11-27T00:00:00+00:00")
    kept.save(newer, tmp_path).rename(tmp_path / "peaks" / "a.json")
    kept.save(PEAKS, tmp_path)
    assert HostPeaks(tmp_path, PEAKS.host_id).of(PEAKS.torch, 2, [0, 1]) == newer


def test_bfloat16_without_instructions_of_its_own_is_under_the_roof_of_float32() -> None:
    fp32 = PEAKS.registers["fp32"]
    without = replace(PEAKS, registers={"fp32": fp32})
    assert (without.ceiling("bf16"), without.ceiling("int8")) == (fp32, None)


def disturbed(data: dict[str, Any]) -> None:
    data["window"]["surroundings"]["busy_s"] = 100.0


def faster_than_registers(data: dict[str, Any]) -> None:
    data["gemm"]["bf16"]["per_s"] *= 2


def quick(data: dict[str, Any]) -> None:
    data["is_quick"] = True


def nothing(data: dict[str, Any]) -> None:
    data["gemm"], data["registers"] = {}, {}


def absurd(data: dict[str, Any]) -> None:
    data["registers"]["fp32"]["per_s"] = 1e30


def negative(data: dict[str, Any]) -> None:
    data["memory"]["read"]["per_s"] = -1.0


def undated(data: dict[str, Any]) -> None:
    data["date"] = "yesterday"


@pytest.mark.parametrize(
    ("tamper", "why"),
    [
        (disturbed, "others disturbed the measurement: other processes took"),
        (faster_than_registers, "a product of matrices in bf16 did 880 GOP/s, more than the registers"),
        (quick, "it was measured briefly"),
        (nothing, "no arithmetic was measured"),
        (absurd, "registers.fp32.per_s is 1e+30, which is out of range"),
        (negative, "memory.read.per_s is -1.0, which is out of range"),
        (undated, "date is 'yesterday'"),
    ],
)
def test_peaks_that_were_tampered_with_are_passed_over_by_name(tmp_path: Path, tamper: Any, why: str) -> None:
    file = kept.save(PEAKS, tmp_path)
    data = json.loads(file.read_text())
    tamper(data)
    file.write_text(json.dumps(data))
    with pytest.raises(FormatError, match=r"believed|read") as refused:
        kept.read(file)
    assert why in str(refused.value)
    of_host = HostPeaks(tmp_path, PEAKS.host_id)
    assert of_host.of(PEAKS.torch, 2, [0, 1]) is None
    assert file.name in of_host.notes[0]
    assert why in of_host.notes[0]


def test_how_well_two_measurements_agree_is_their_largest_difference() -> None:
    other = replace(PEAKS, gemm={**PEAKS.gemm, "int8": Best(887e9 / 1.02, "mm")})
    assert kept.repeatability(PEAKS, PEAKS) == 0.0
    assert kept.repeatability(PEAKS, other) == pytest.approx(0.02)
