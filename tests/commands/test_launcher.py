"""What launcher=auto comes to, with IPEX and without."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.commands import sweep
from tests.conftest import ROOT, invoke

# Python runs it at its start, where it is on the path. A worker still reports what its build has, which is read from
# its files.
WITHOUT_IPEX = """
import sys
from importlib import metadata
version_of = metadata.version
def version(name):
    if name == "intel-extension-for-pytorch" and "runner" in sys.orig_argv:
        raise metadata.PackageNotFoundError(name)
    return version_of(name)
metadata.version = version
"""


@pytest.mark.parametrize(("version", "launcher"), [("2.8.0", "ipexrun"), (None, "xeon")])
def test_the_automatic_launcher_is_one_that_is_installed(
    version: str | None, launcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "version_of", lambda name: version)
    assert sweep.launcher_here() == launcher


@pytest.fixture
def without_ipex(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that finds no IPEX."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_IPEX)
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}


def test_without_ipex_a_cell_has_the_name_of_the_launcher_that_starts_it(without_ipex: dict[str, str]) -> None:
    ran = invoke(["--cfg", "job", "--resolve", "--package", "launcher"], env=without_ipex)
    assert ran.status == 0, ran.err
    assert "name: xeon" in ran.out


@pytest.mark.slow
def test_without_ipex_a_plain_sweep_runs_and_says_which_launcher_it_takes(
    without_ipex: dict[str, str], mlruns: Path
) -> None:
    words = ["model=tiny", "allocator=ptmalloc,tcmalloc", "rounds=1", "iterations=5", "reruns=0", "capture=[]"]
    ran = invoke([*words, f"mlruns={mlruns}"], env=without_ipex)
    assert ran.status == 0, ran.out + ran.err
    (note,) = [line for line in ran.out.splitlines() if "launcher=xeon" in line]
    assert note.endswith("pip install 'runner[ipex]'")
