"""Every command of the README is run as it stands, on a tiny workload."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from tests.conftest import ROOT, Runner

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [body for language, body in re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.M | re.S) if language == "sh"]
LINES = [line.split("   #")[0].split("  #")[0].strip() for block in BLOCKS for line in block.splitlines()]
RUNNER = sorted({line for line in LINES if line.startswith("python -m runner")})
MAKE = sorted({line for line in LINES if line.startswith("make ")})


APART = (" ui", " doctor", "=smoke", " compare", " resume", " import mlruns", " explain slowest fastest")


def test_the_readme_has_its_two_set_up_commands() -> None:
    assert "make sweep" in MAKE
    assert "make test" in MAKE


@pytest.mark.parametrize("line", MAKE)
def test_each_make_line_is_a_target(line: str) -> None:
    done = subprocess.run([*shlex.split(line), "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# The commands ui, doctor, compare and explain, and every experiment, have tests of their own.
@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in RUNNER if not line.endswith(APART)])
def test_each_runner_line_runs(run_cli: Runner, line: str) -> None:
    words = shlex.split(line)[3:]
    if {"--help", "--cfg"} & set(words):
        tiny: list[str] = []
    elif "scenario=torchserve" in words:
        words = [word for word in words if not word.startswith("scenario.requests=")]
        tiny = [
            "model=tiny",
            "batch_size=2",
            "warmup=1",
            "scenario.requests=40",
            "scenario.concurrency=4",
            "capture=[]",
        ]
    elif "model=bert_base_uncased" in words:
        tiny = ["+model.kwargs.num_hidden_layers=1", "warmup=1", "iterations=3"]
    else:
        tiny = ["model=tiny", "batch_size=2", "warmup=1", "iterations=3"]
    if not any(word.startswith("rounds=") for word in words):
        tiny.append("rounds=1")
    ran = run_cli(*words, *tiny)
    assert ran.status == 0, ran.out + ran.err
