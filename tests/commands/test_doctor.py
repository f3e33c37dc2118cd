from __future__ import annotations

import json

import pytest

from runner.capture import probe
from runner.commands import doctor
from runner.machine import execute
from runner.machine.capabilities import this_machine
from tests.conftest import Runner, ask


def test_doctor_says_what_runs_here_and_its_json_says_the_same() -> None:
    shown, data = ask("doctor"), ask("doctor", "--json")
    assert shown.status == data.status
    found = json.loads(data.out)
    assert found["host"]["host_id"] in shown.out
    axes = {finding["axis"] for finding in found["findings"]}
    assert axes >= {"allocator", "ipex", "memory_format", "precision", "graph", "launcher", "openmp", "capture"}
    for finding in found["findings"]:
        assert finding["verdict"] in ("can run", "can't run", "missing")
        assert finding["value"] in shown.out


def test_what_is_missing_comes_with_the_line_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.launch.libraries.find", lambda stem, folders: None)
    missing = [finding for finding in doctor.findings() if finding.verdict == doctor.MISSING]
    assert {finding.mend for finding in missing} >= {
        "apt-get install libjemalloc2", "apt-get install libgoogle-perftools4", "pip install 'runner[ipex]'",
    }  # fmt: skip
    assert doctor.main([]) == 1


def test_doctor_and_the_sweep_agree_on_fp16(run_cli: Runner) -> None:
    fp16 = next(finding for finding in doctor.findings() if finding.value == "fp16")
    has_it = bool(this_machine().isa & {"avx512_fp16", "amx_fp16"})
    assert (fp16.verdict == doctor.CAN) == has_it
    if not has_it:
        ran = run_cli("model=tiny", "precision=fp16")
        assert ran.status == 2
        assert "precision=fp16" in ran.err


def test_a_perf_that_counts_nothing_counts_no_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, expected in (
        ("<not supported>,,cycles,0,,,,\n<not supported>,,instructions,0,,,,\n", False),
        ("", False),
        ("1234,,cycles,100,100.00,,\n5678,,instructions,100,100.00,,\n", True),
    ):
        monkeypatch.setattr(execute, "run_short", lambda *_, text=text: execute.Output(0, text.replace(",", ";"), ""))
        assert (probe._why_no_counts("perf", ("{cycles,instructions}",)) is None) is expected
