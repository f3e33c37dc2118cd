"""Managed torch builds: made once by uv from their lock, found again, mended when they are broken."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runner.commands import torch as command
from runner.machine import torch_builds, torch_environments
from runner.machine.torch_builds import build_of, require
from runner.machine.torch_environments import COMPLETE, Environment, environments, leftovers, make
from runner.protocol.cell import Torch
from runner.protocol.errors import RunnerError

try:
    torch_environments.uv()
except RunnerError as error:
    pytest.skip(str(error), allow_module_level=True)

NAME = "2.99.0"


def wheel(folder: Path, version: str) -> Path:
    """A wheel with the few files of torch that are read."""
    file = folder / f"torch-{version}-py3-none-any.whl"
    info = f"torch-{version}.dist-info"
    files = {
        "torch/__init__.py": "",
        "torch/version.py": f"__version__ = '{version}'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in files))
    return file


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lock of a managed build of one's own, whose only package lies beside it."""
    folder = tmp_path / "mine" / "torch"
    folder.mkdir(parents=True)
    digest = hashlib.sha256(wheel(tmp_path, NAME).read_bytes()).hexdigest()
    (folder / f"{NAME}.lock").write_text(f"torch=={NAME} --hash=sha256:{digest}\n")
    for name, value in {
        "RUNNER_EXPERIMENTS": tmp_path / "mine",
        "RUNNER_TORCH_BUILDS": tmp_path / "cache",
        "UV_FIND_LINKS": tmp_path,
        "UV_CACHE_DIR": tmp_path / "uv",
        "UV_OFFLINE": "1",
        "UV_NO_INDEX": "1",
        "UV_QUIET": "1",
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch_builds, "_FAILED", {})
    return folder / f"{NAME}.lock"


@pytest.fixture
def environment(lock: Path) -> Environment:
    return environments()[NAME]


def test_a_build_is_made_when_it_is_needed_and_once(environment: Environment) -> None:
    with pytest.raises(RunnerError, match=rf"^torch={NAME}: .* not made yet; .*: python -m runner torch add {NAME}$"):
        build_of(Torch(NAME))
    said: list[str] = []
    require(Torch(NAME), said.append)
    require(Torch(NAME), said.append)
    assert [line.partition(",")[0] for line in said] == [f"torch={NAME}: making its environment", f"torch={NAME}: made"]
    build = build_of(Torch(NAME))
    assert (build.torch, build.prefix) == (NAME, str(environment.folder))
    assert environment.size_bytes > 0


def test_two_processes_do_not_make_the_same_one_twice(environment: Environment) -> None:
    said: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: make(environment, said.append), range(4)))
    assert sum("making" in line for line in said) == 1


def test_what_a_killed_process_left_is_made_again(environment: Environment) -> None:
    (environment.folder / "bin").mkdir(parents=True)
    (environment.folder / "bin/python").touch()
    said: list[str] = []
    require(Torch(NAME), said.append)
    assert said[0].endswith("is not whole: it is made again")
    assert build_of(Torch(NAME)).torch == NAME


@pytest.mark.parametrize("lost", ["lib/python3*/site-packages/torch", "bin/python", COMPLETE])
def test_a_broken_environment_is_told_and_made_again(lost: str, environment: Environment) -> None:
    make(environment, print)
    for path in environment.folder.glob(lost):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    with pytest.raises(RunnerError, match=rf"^torch={NAME}: its environment is (broken|not made yet)"):
        build_of(Torch(NAME))
    said: list[str] = []
    require(Torch(NAME), said.append)
    assert any("again" in line for line in said)
    assert build_of(Torch(NAME)).torch == NAME


def test_what_uv_can_not_make_leaves_nothing_and_is_not_tried_for_each_cell(
    environment: Environment, lock: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lock.write_text(lock.read_text().replace(NAME, "2.98.0"))
    said: list[str] = []
    for _ in range(2):
        with pytest.raises(RunnerError, match=rf"^torch={NAME}: uv could not make its environment .exit status"):
            require(Torch(NAME), said.append)
    assert sum("making" in line for line in said) == 1
    assert not environments()[NAME].folder.exists()
    assert "2.98.0" in capfd.readouterr().err


def test_another_lock_is_another_environment_and_the_old_one_can_be_removed(
    environment: Environment, lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(environment, print)
    assert leftovers() == []
    lock.write_text(lock.read_text() + "# newer\n")
    assert environments()[NAME].folder != environment.folder
    assert leftovers() == [environment.folder]
    assert command.main(["remove"]) == 0
    assert not environment.folder.exists()
    assert capsys.readouterr().out.endswith(f"removed {environment.folder}\n")


def test_the_command_makes_lists_and_removes(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["add", NAME]) == 0
    assert f"torch={NAME}: torch {NAME}, {environment.python}" in capsys.readouterr().out
    command.main(["list"])
    assert f"{NAME}" in capsys.readouterr().out
    command.main(["remove", NAME])
    assert not environment.folder.exists()
    with pytest.raises(RunnerError, match=r"torch add 9\.9: there is no such managed build; choose one of .*2\.14\.1"):
        command.main(["add", "9.9"])
