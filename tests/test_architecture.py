"""The shape of the house: who may import what, and what may not be committed."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

FILES = sorted((ROOT / "runner").rglob("*.py"))


@functools.cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@functools.cache
def imports(file: Path) -> set[str]:
    """Every module imported anywhere in the file, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def importers_of(package: str) -> set[str]:
    return {
        str(file.relative_to(ROOT / "runner"))
        for file in FILES
        if any(name == package or name.startswith(package + ".") for name in imports(file))
    }


# Room -> rooms that it may import; a room stands above all that it imports. `__main__` is the command line.
ROOMS = {
    "__main__": "commands config protocol",
    "commands": "sweep fleet job tracking report analysis results capture launch machine config matrix protocol",
    "plugins": "sweep results machine config matrix protocol",
    "sweep": "job tracking report analysis results capture launch machine config matrix stats protocol",
    "fleet": "results machine config protocol",
    "job": "tracking results checks capture launch machine config matrix protocol",
    "tracking": "results checks capture machine config matrix protocol",
    "report": "analysis results capture config matrix stats protocol",
    "analysis": "results capture config matrix stats protocol",
    "results": "checks capture config matrix stats protocol",
    "checks": "capture launch machine protocol",
    "capture": "machine config protocol",
    "launch": "machine matrix protocol",
    "machine": "matrix protocol",
    "config": "matrix protocol",
    "matrix": "protocol",
    "stats": "",
    "worker": "protocol",
    "protocol": "",
}


def room_of(file: Path) -> str:
    """The folder below runner/ that a file is in; of a file at its root, the file."""
    return file.relative_to(ROOT / "runner").parts[0].removesuffix(".py")


def rooms_imported() -> dict[str, set[str]]:
    """Room -> the other rooms that its files import."""
    found: dict[str, set[str]] = {room_of(file): set() for file in FILES}
    for file in FILES:
        others = {name.split(".")[1] for name in imports(file) if name.startswith("runner.")}
        found[room_of(file)] |= (others & set(ROOMS)) - {room_of(file)}
    return found


def test_the_package_holds_its_command_line_and_the_rooms_and_nothing_else() -> None:
    there = {path.name for path in (ROOT / "runner").iterdir() if path.name != "__pycache__"}
    assert there == {"__init__.py", "__main__.py", *(set(ROOMS) - {"__main__"})}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_below_it(room: str) -> None:
    assert rooms_imported()[room] <= set(ROOMS[room].split())


def test_the_rooms_form_no_circle() -> None:
    left = rooms_imported()
    while left:
        ground = {room for room, below in left.items() if not below & set(left)}
        assert ground, f"these rooms import each other in a circle: {sorted(left)}"
        left = {room: below for room, below in left.items() if room not in ground}


def test_the_tests_mirror_the_rooms() -> None:
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders - {"data", "models"} <= set(ROOMS)


def test_only_the_connection_to_mlflow_imports_it() -> None:
    assert importers_of("mlflow") == {"tracking/connection.py", "tracking/pages.py"}


def test_only_execute_starts_processes() -> None:
    assert importers_of("subprocess") == {"machine/execute.py"}


def test_the_root_of_the_installation_is_computed_in_one_place() -> None:
    """A worker finds itself: it is started by its path, before it can import anything of the project."""
    computing = {file for file in FILES if "__file__" in file.read_text()}
    assert {str(file.relative_to(ROOT / "runner")) for file in computing} == {
        "machine/installation.py",
        "worker/__main__.py",
        "worker/trial.py",
        "worker/peak.py",
        "launch/ipexrun.py",  # of the script beside it, which another process runs
        "report/html.py",  # of the templates beside it
    }


def test_only_the_life_of_a_served_cell_knows_which_servers_there_are() -> None:
    assert importers_of("runner.job.serving.torchserve") == {"job/serving/session.py"}
    assert importers_of("runner.job.serving.session") == {"job/run.py"}


def test_a_server_and_its_load_know_nothing_of_processes_jobs_or_results() -> None:
    for name in ("load", "server", "torchserve"):
        own = {found for found in imports(ROOT / "runner/job/serving" / f"{name}.py") if found.startswith("runner.")}
        allowed = ("runner.job.serving", "runner.machine.installation", "runner.matrix", "runner.protocol")
        assert all(found.startswith((*allowed, "runner.machine")) for found in own), (name, own)
        assert "runner.machine.execute" not in own, name


def test_torch_is_imported_in_the_worker_only() -> None:
    assert {Path(name).parts[0] for name in importers_of("torch")} == {"worker"}


def test_hydra_and_omegaconf_stop_at_the_edge() -> None:
    assert importers_of("hydra") | importers_of("omegaconf") == {
        "commands/sweep.py",
        "config/schema.py",
        "plugins/hydra_plugins/runner_files.py",
        "plugins/hydra_plugins/runner_matrix.py",
        "commands/refusal.py",
    }


def test_the_worker_needs_torch_the_standard_library_and_the_job_types_only() -> None:
    allowed = {"torch", "torchvision", "transformers", "timm", "intel_extension_for_pytorch", "runner"} | set(
        sys.stdlib_module_names
    )
    for file in (ROOT / "runner/worker").glob("*.py"):
        names = imports(file)
        assert {name.partition(".")[0] for name in names} <= allowed, file
        own = {name for name in names if name.startswith("runner.")}
        assert all(name.startswith(("runner.protocol", "runner.worker")) for name in own), file


@pytest.mark.parametrize(
    "module",
    [
        "runner.protocol.cell",
        "runner.stats",
        "runner.checks.gate",
        "runner.report.terminal",
        "runner.launch",
        "runner.job.serving.session",
    ],
)
def test_the_pure_rooms_load_neither_torch_nor_mlflow(module: str) -> None:
    code = f"import sys, {module}; sys.exit(bool({{'torch', 'mlflow', 'matplotlib'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_module_is_a_drawer_for_everything() -> None:
    assert not [file.name for file in FILES if file.stem in {"utils", "util", "helpers", "common", "misc"}]


def test_no_benchmark_hides_a_module_of_the_standard_library_from_the_scripts_beside_it() -> None:
    # A script's own folder comes first on its path: benchmarks/bare.py is run by path.
    assert not {file.stem for file in (ROOT / "benchmarks").glob("*.py")} & sys.stdlib_module_names


def test_no_file_has_grown_past_two_concepts() -> None:
    assert not {file.name: n for file in FILES if (n := len(file.read_text().splitlines())) > 400}


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    return [ROOT / name for name in done.stdout.splitlines()]


def test_no_committed_file_names_a_registry_or_a_folder_of_one_machine() -> None:
    # The brackets keep this file, which is read too, from naming what it looks for.
    host = re.compile(r"index[-]url|https?://[^ ]*/(simple|packages)/|(^|[^A-Za-z.])/(work)/|/(root)/", re.M)
    files = [file for file in tracked() if file.suffix not in {".png", ".svg"}]
    assert not [file.name for file in files if file.is_file() and host.search(file.read_text(errors="replace"))]


def calls(file: Path) -> list[tuple[str, ast.Call]]:
    """Every call in the file, by the dotted name of what is called."""
    found = [node for node in ast.walk(parsed(file)) if isinstance(node, ast.Call)]
    return [(ast.unparse(call.func), call) for call in found]


def test_what_a_job_file_is_read_with_needs_the_standard_library_only() -> None:
    for file in (ROOT / "runner/protocol").glob("*.py"):
        assert {found.partition(".")[0] for found in imports(file)} <= {"runner", *sys.stdlib_module_names}, file


def test_nothing_that_is_read_is_run() -> None:
    """No pickle, marshal or shelve, no eval or exec, no shell, no YAML but by a safe loader, no foreign template."""
    modules = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}
    for file in FILES:
        assert not {name.partition(".")[0] for name in imports(file)} & modules, file
        for name, call in calls(file):
            keywords = {word.arg: word.value for word in call.keywords}
            assert name not in ("eval", "exec", "compile", "os.system", "os.popen", "yaml.load"), (file, name)
            assert not name.endswith(("read_pickle", "unsafe_load", "full_load", "from_string")), (file, name)
            assert "shell" not in keywords, (file, name)
            assert "allow_pickle" not in keywords, (file, name)
            if name.endswith("torch.load"):  # of weights, and of a reference that the same job wrote
                assert ast.unparse(keywords["weights_only"]) == "True", file


def test_stored_files_are_read_in_one_place() -> None:
    """By runner.protocol.strict_json, which bounds them; the worker reads what it wrote a moment ago."""
    others = {"strict_json.py", "host.py", "identity.py", "execute.py"}
    for file in FILES:
        if file.name not in others and "worker" not in file.parts:
            names = {name for name, _ in calls(file)}
            assert "json.loads" not in names, file
            assert "json.load" not in names, file


def test_nothing_private_of_hydra_or_omegaconf_is_imported() -> None:
    """What begins with an underscore there may be gone in the next version."""
    for file in FILES:
        foreign = {name for name in imports(file) if name.partition(".")[0] in ("hydra", "omegaconf")}
        assert not [name for name in foreign if any(part.startswith("_") for part in name.split("."))], file
