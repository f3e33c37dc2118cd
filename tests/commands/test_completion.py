"""completion: what the Tab key offers is what is shipped, declared and stored."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runner import commands
from runner.commands import completion
from runner.config.schema import sweep_settings
from runner.protocol.cell import AXES
from tests.conftest import ROOT


def offered(line: str) -> list[str]:
    *before, current = completion._words(line)
    return completion.candidates(before[1:], current)


def test_the_first_word_may_be_any_command_or_setting() -> None:
    first = offered("runner ")
    assert {*commands.COMMANDS, *(f"{axis}=" for axis in AXES), "experiment=", "capture="} <= set(first)
    assert {f"{name}=" for name in sweep_settings()} - {"expect="} <= set(first)


@pytest.mark.parametrize("group", ["model", "allocator", "launcher", "memory_format"])
def test_the_values_of_an_axis_are_the_files_that_are_shipped(group: str) -> None:
    files = {f"{group}={file.stem}" for file in (ROOT / "conf" / group).glob("*.yaml")}
    assert files
    assert set(offered(f"runner -m {group}=")) == files


def test_after_a_comma_the_values_that_are_there_are_not_offered_again() -> None:
    assert offered("runner -m ipex=off,") == ["ipex=off,multistream", "ipex=off,on"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "runner experiment=a",
            [
                "experiment=aa",
                "experiment=allocator_all",
                "experiment=allocator_resnet50",
                "experiment=allocator_settings",
            ],
        ),
        ("runner openmp=", ["openmp=default", "openmp=intel"]),
        ("runner wait=", ["wait=true", "wait=false"]),
        ("runner --dry", ["--dry-run"]),
        ("runner --cfg ", ["job", "hydra", "all"]),
        ("runner list m", ["models"]),
        ("runner explain fastest b", ["baseline", "batch_size="]),
        ("runner compare --by ip", ["ipex"]),
        ("runner show --format=", ["--format=text", "--format=md", "--format=json"]),
        ("runner completion ", ["bash", "zsh"]),
        ('runner twin="half a ', []),
    ],
)
def test_a_line_is_completed_by_what_may_stand_there(line: str, words: list[str]) -> None:
    assert offered(line) == words


@pytest.mark.parametrize("command", ["show", "compare", "resume", "delete"])
@pytest.mark.parametrize("option", ["--mlruns {}", "mlruns={}"])
def test_sweeps_are_those_of_the_folder_that_is_named_newest_first(tmp_path: Path, command: str, option: str) -> None:
    for name in ("20260101-000000-aaaa", "20260102-000000-bbbb"):
        (tmp_path / "sweeps" / name).mkdir(parents=True)
    found = offered(f"runner {command} {option.format(tmp_path)} 2026")
    assert found == ["20260102-000000-bbbb", "20260101-000000-aaaa"]


def test_in_bash_what_is_offered_replaces_what_follows_the_equals_sign(tmp_path: Path) -> None:
    runner = tmp_path / "runner"
    runner.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m runner "$@"\n')
    runner.chmod(0o755)
    for line, words in (("runner -m allocator=ptmalloc_", "ptmalloc_tuned"), ("runner doc", "doctor")):
        script = (
            f'source <("{runner}" completion bash); compopt() {{ :; }}\n'
            f'COMP_LINE="{line}" COMP_POINT={len(line)}; _runner_complete "{runner}"; echo "${{COMPREPLY[@]}}"'
        )
        done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
        assert (done.stdout.strip(), done.stderr) == (words, "")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_can_read_its_script() -> None:
    done = subprocess.run(["zsh", "-n", "-c", completion._SCRIPTS["zsh"]], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
