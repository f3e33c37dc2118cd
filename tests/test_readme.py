"""Every command of the README is run as it stands, on a tiny workload."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from tests.conftest import ROOT, Runner, ask

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [body for language, body in re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.M | re.S) if language == "sh"]
LINES = [line.split("   #")[0].split("  #")[0].strip() for block in BLOCKS for line in block.splitlines()]
RUNNER = sorted({line for line in LINES if line.startswith("python -m runner")})
MAKE = sorted({line for line in LINES if line.startswith("make ")})


# These have tests of their own: commands by their last word, and every experiment in tests/sweep/test_experiments.py.
APART = re.compile(r" (ui|doctor|compare|resume|import mlruns|explain slowest fastest)$|[ +]experiment=")


def test_the_readme_has_its_two_set_up_commands() -> None:
    assert "make sweep" in MAKE
    assert "make test" in MAKE


@pytest.mark.parametrize("line", MAKE)
def test_each_make_line_is_a_target(line: str) -> None:
    done = subprocess.run([*shlex.split(line), "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in RUNNER if not APART.search(line)])
def test_each_runner_line_runs(run_cli: Runner, line: str) -> None:
    words = shlex.split(line)[3:]
    if {"--help", "--cfg", "--dry-run"} & set(words):
        ran = ask(*words)
    else:
        # As it stands but for the work: its own number of rounds or requests would take an hour.
        words = [word for word in words if not word.startswith(("rounds=", "scenario.requests="))]
        tiny = ["warmup=1", "rounds=1"]
        if "model=bert_base_uncased" in words:
            tiny += ["+model.kwargs.num_hidden_layers=1"]
        else:
            tiny += ["model=tiny", "batch_size=2"]
        if "scenario=torchserve" in words:
            tiny += ["scenario.requests=40", "scenario.concurrency=4"]
        else:
            tiny += ["iterations=3"]
        if not any(word.startswith("capture=") for word in words):
            tiny += ["capture=[]"]
        ran = run_cli(*words, *tiny)
    assert ran.status == 0, ran.out + ran.err
