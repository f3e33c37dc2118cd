"""Which interpreter stands for a torch build, and what is read of it without importing torch."""

from __future__ import annotations

import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from runner.machine.torch_builds import build_of, bundled
from runner.protocol.cell import Torch
from runner.protocol.errors import RunnerError


def environment(folder: Path) -> Path:
    """The interpreter of a new, empty environment."""
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / "bin/python"


def site_packages(python: Path) -> Path:
    [folder] = python.parents[1].glob("lib/python3*/site-packages")
    return folder


def copied_prefix(folder: Path) -> Path:
    """The interpreter of an environment of its own that finds all packages of this one."""
    python = environment(folder)
    (site_packages(python) / "all.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def with_torch(folder: Path, version: str) -> Path:
    """The interpreter of an environment with the few files of torch that are read."""
    python = environment(folder)
    torch = site_packages(python) / "torch"
    (torch / "backends/xeon").mkdir(parents=True)
    (torch / "__init__.py").touch()
    (torch / "backends/xeon/run_cpu.py").touch()
    (torch / "version.py").write_text(f"__version__ = '{version}'\ngit_version: str = 'abc123'\n")
    return python


def test_the_bundled_build_is_the_one_of_this_interpreter() -> None:
    build = build_of(Torch())
    assert (build.python, build.prefix) == (sys.executable, sys.prefix)
    assert build.torch is not None
    assert build.torch.startswith(build.distributions["torch"])
    assert build.packages["torch"] == f"{build.distributions['torch']} {build.hashes['torch']}"


def test_a_path_reaches_a_build_of_ones_own_and_not_the_bundled_one() -> None:
    assert Torch("bundled", "/somewhere/bin/python") == Torch()


def test_an_environment_with_the_same_packages_is_another_build_with_the_same_files(tmp_path: Path) -> None:
    python = copied_prefix(tmp_path / "copy")
    build = build_of(Torch("own", str(python)))
    assert (build.python, build.prefix) == (str(python), str(tmp_path / "copy"))
    assert (build.folder, build.packages) == (bundled().folder, bundled().packages)
    assert build_of(Torch("own", str(tmp_path / "copy"))) == build  # the folder stands for its interpreter


def test_a_build_is_described_by_its_files(tmp_path: Path) -> None:
    build = build_of(Torch("own", str(with_torch(tmp_path, "2.14.1+cpu"))))
    assert (build.torch, build.git, build.parts) == ("2.14.1+cpu", "abc123", ("xeon",))
    assert build.packages == {}  # it was not installed by a tool that leaves metadata


def test_what_the_worker_can_not_run_on_is_refused_in_one_sentence(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'no such thing' >&2; exit 3\n")
    broken.chmod(0o755)
    for path, sentence in (
        (str(tmp_path / "nothing"), "there is no Python interpreter; name one, as in"),
        (str(broken), r"it is no Python that the worker can run on \(no such thing\); choose another"),
        (str(environment(tmp_path / "bare")), "torch is not installed for it; install it with: .*python -m pip"),
        (str(with_torch(tmp_path / "old", "2.5.1")), "it has torch 2.5.1; the worker needs 2.6 or newer"),
    ):
        with pytest.raises(RunnerError, match=rf"^torch\.path={path}[^:]*: {sentence}"):
            build_of(Torch("own", path))
