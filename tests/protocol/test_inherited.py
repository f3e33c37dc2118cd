"""What a process inherits and can't be scrubbed is named where it is not the ordinary value, and only there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runner.protocol import inherited
from tests.conftest import ROOT


def read_after(change: str) -> dict[str, str]:
    """What a fresh process reads about itself once it has done something to itself."""
    code = (
        "import ctypes, json, os, resource, sys; from runner.protocol import inherited; before = inherited.read();"
        f" {change}; print(json.dumps([before, inherited.read()]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after = json.loads(done.stdout)
    return {name: value for name, value in after.items() if before.get(name) != value}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("pass", {}),
        ("os.nice(3)", "nice"),
        ("os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))", {"scheduling class": "batch"}),
        ("os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))", {"scheduling class": "idle"}),
        ("ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)", {"transparent huge pages": "disabled by prctl (1)"}),
        ("ctypes.CDLL(None).personality(0x0040000)", {"personality": "00040000"}),
        ("resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36))", {"limit of address space": "65536 MiB"}),
        ("resource.setrlimit(resource.RLIMIT_DATA, (2**35, 2**35))", {"limit of data segment": "32768 MiB"}),
        ("resource.setrlimit(resource.RLIMIT_STACK, (2**20, 2**20))", {"limit of stack": "1 MiB"}),
        ("resource.setrlimit(resource.RLIMIT_MEMLOCK, (2**19, 2**19))", {"limit of locked memory": "0.5 MiB"}),
        ("resource.setrlimit(resource.RLIMIT_NPROC, (4321, 4321))", {"limit of processes": "4321"}),
    ],
)
def test_what_is_not_ordinary_is_named(change: str, named: dict[str, str] | str) -> None:
    after = read_after(change)
    assert list(after) == [named] if isinstance(named, str) else after == named


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_the_smallest_quota_of_a_group_and_of_those_that_contain_it_counts(tmp_path: Path) -> None:
    group(tmp_path / "a", cpu__max="150000 100000")
    group(tmp_path / "a/b", cpu__max="max 100000")
    group(tmp_path / "a/b/c", cpu__max="400000 100000")
    assert inherited.cpu_quota("0::/a/b/c", tmp_path) == "1.5 CPUs"
    assert inherited.cpu_quota("0::/", tmp_path) == ""


def test_quotas_of_the_first_version_of_control_groups_are_read(tmp_path: Path) -> None:
    group(tmp_path / "cpu/job", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    group(tmp_path / "cpu/free", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert inherited.cpu_quota("4:memory:/x\n3:cpu,cpuacct:/job\n0::/", tmp_path) == "0.5 CPUs"
    assert inherited.cpu_quota("4:memory:/x\n3:cpu,cpuacct:/free\n0::/", tmp_path) == ""


def test_a_machine_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert inherited.cpu_quota("", tmp_path) == ""
    assert inherited.cpu_quota("0::/gone", tmp_path) == ""
