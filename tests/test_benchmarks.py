"""The benchmarks' short forms run: what they print and whether they end well, not how fast this machine is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"benchmarks.{name}", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.parametrize("rotation", [[], ["--rotation"]])
def test_fidelity_compares_a_pair_and_gives_no_verdict_on_a_short_one(rotation: list[str]) -> None:
    ran = run("fidelity", "--quick", *rotation)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "conv_relu: median ratio " in ran.stdout
    assert ran.stdout.endswith("no verdict: the pair is too short\n")


@pytest.mark.parametrize("name", ["compare", "decision", "power", "early_stop", "racing", "onednn", "report"])
def test_the_others_print_what_they_claim(name: str) -> None:
    ran = run(name, "--quick")
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr  # 1 where a claim on time fails on a busy machine
    assert ran.stdout.strip()
    assert "Traceback" not in ran.stderr


def test_comparing_hosts_takes_seconds() -> None:
    ran = run("store_scale", "--quick", "--hosts-only")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.startswith("compare across 10 hosts of 100 cells: ")
