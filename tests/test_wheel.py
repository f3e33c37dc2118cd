"""What is built and installed: a wheel has all that a sweep reads, and runs from any folder."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

SOURCES = ("runner", "conf", "experiments", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")


@dataclass(frozen=True)
class Installed:
    """A built wheel, unpacked beside nothing else."""

    site: Path
    elsewhere: Path

    def run(self, *arguments: str) -> str:
        """What the command prints, started in another folder by what the wheel calls ``runner``."""
        scripts = configparser.ConfigParser()
        scripts.read(self.metadata("entry_points.txt"))
        module, function = scripts["console_scripts"]["runner"].split(":")
        code = f"import sys; from {module} import {function}; sys.exit({function}())"
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=self.elsewhere,
            env={**os.environ, "PYTHONPATH": str(self.site)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def metadata(self, name: str) -> Path:
        (folder,) = self.site.glob("runner-*.dist-info")
        return folder / name


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    copy, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    leave_out = shutil.ignore_patterns("__pycache__", "*.so")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=leave_out)
        else:
            shutil.copy(source, copy)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*pip, "-w", str(folder), str(copy)], cwd=folder, env=own, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    (folder / "elsewhere").mkdir()
    return Installed(folder / "site", folder / "elsewhere")


def test_a_wheel_has_every_file_of_the_package_and_of_both_folders_of_yaml(installed: Installed) -> None:
    inside = {str(path.relative_to(installed.site)) for path in installed.site.rglob("*") if path.is_file()}
    kinds = (".py", ".yaml", ".j2", ".c")
    wanted = {path.relative_to(ROOT) for path in (ROOT / "runner").rglob("*") if path.suffix in kinds}
    wanted |= {Path("runner") / path.relative_to(ROOT) for path in (ROOT / "conf").rglob("*.yaml")}
    wanted |= {Path("runner") / path.relative_to(ROOT) for path in (ROOT / "experiments").rglob("*.yaml")}
    assert not {str(path) for path in wanted} - inside
    assert not [name for name in inside if name.startswith(("tests", "conf", "experiments", "benchmarks"))]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="they are left out where there is no C compiler")
@pytest.mark.parametrize("name", ["_itt_collector", "_machine_peak"])
def test_a_wheel_has_the_libraries_in_c(installed: Installed, name: str) -> None:
    assert list((installed.site / "runner/worker").glob(f"{name}*.so"))


def test_help_from_a_wheel_in_another_folder_lists_the_experiments(installed: Installed) -> None:
    out = installed.run("--help")
    for file in (ROOT / "experiments/experiment").glob("*.yaml"):
        assert f"\n{file.stem} " in out


def test_a_configuration_is_composed_from_a_wheel_in_another_folder(installed: Installed) -> None:
    assert "name: resnet50" in installed.run("--cfg", "job", "experiment=aa")
    assert list(installed.elsewhere.iterdir()) == []


def test_ipex_torchserve_and_tools_are_extras(installed: Installed) -> None:
    metadata = Parser().parsestr(installed.metadata("METADATA").read_text())
    assert metadata.get_all("Provides-Extra") == ["ipex", "serving", "server", "dev"]
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    # Any torch that is there; IPEX brings the one that it is for.
    assert any(line.startswith("torch>=") for line in needed)
    assert any(line.startswith("torch==2.8.0") for line in metadata.get_all("Requires-Dist", []))
    assert not [line for line in needed if line.startswith(("intel", "torchserve", "pytest", "ruff"))]
