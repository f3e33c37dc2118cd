"""The shape of the house: who may import what, and what may not be committed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT

FILES = sorted((ROOT / "runner").rglob("*.py"))


def imports(file: Path) -> set[str]:
    """Every module imported anywhere in the file, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
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


def test_only_the_store_imports_mlflow() -> None:
    assert importers_of("mlflow") == {"store.py"}


def test_only_execute_starts_processes() -> None:
    assert importers_of("subprocess") == {"execute.py"}


def test_only_the_life_of_a_served_cell_knows_which_servers_there_are() -> None:
    assert importers_of("runner.serving.torchserve") == {"serving/session.py"}
    assert importers_of("runner.serving.session") == {"jobs.py"}


def test_a_server_and_its_load_know_nothing_of_processes_jobs_or_results() -> None:
    for name in ("load", "server", "settings", "torchserve"):
        own = {found for found in imports(ROOT / "runner/serving" / f"{name}.py") if found.startswith("runner.")}
        allowed = (
            "runner.serving",
            "runner.capture.settings",
            "runner.errors",
            "runner.job",
            "runner.matrix",
            "runner.stored",
        )
        assert all(found.startswith(allowed) for found in own), (name, own)


def test_torch_is_imported_in_the_worker_only() -> None:
    assert {Path(name).parts[0] for name in importers_of("torch")} == {"worker"}


def test_hydra_and_omegaconf_stop_at_the_edge() -> None:
    assert importers_of("hydra") | importers_of("omegaconf") == {
        "__main__.py",
        "config.py",
        "plugins/hydra_plugins/runner_matrix.py",
        "refusal.py",
    }


def test_the_worker_needs_torch_the_standard_library_and_the_job_types_only() -> None:
    allowed = {"torch", "torchvision", "transformers", "intel_extension_for_pytorch", "runner"} | set(
        sys.stdlib_module_names
    )
    for file in (ROOT / "runner/worker").glob("*.py"):
        names = imports(file)
        assert {name.partition(".")[0] for name in names} <= allowed, file
        own = {name for name in names if name.startswith("runner.")}
        assert all(name.startswith(("runner.job", "runner.stopping", "runner.worker")) for name in own), file


@pytest.mark.parametrize(
    "module",
    [
        "runner.matrix",
        "runner.stats",
        "runner.gate",
        "runner.report.terminal",
        "runner.launch",
        "runner.serving.session",
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
    host = re.compile(r"index-url|https?://[^ ]*/(simple|packages)/|(^|[^A-Za-z.])/work/|/root/", re.M)
    files = [file for file in tracked() if file.suffix not in {".png", ".svg"} and file.name != Path(__file__).name]
    assert not [file.name for file in files if file.is_file() and host.search(file.read_text(errors="replace"))]


def calls(file: Path) -> list[tuple[str, ast.Call]]:
    """Every call in the file, by the dotted name of what is called."""
    found = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    return [(ast.unparse(call.func), call) for call in found]


def test_what_a_job_file_is_read_with_needs_the_standard_library_only() -> None:
    leaves = {"job", "stopping", "stored", "errors"}
    for name in leaves:
        names = {found for found in imports(ROOT / f"runner/{name}.py") if found not in ("runner", "__future__")}
        own = {found.split(".")[1] for found in names if found.startswith("runner.")}
        assert own <= leaves, name
        assert {found.partition(".")[0] for found in names} <= {"runner", *sys.stdlib_module_names}, name


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
    """By runner.stored, which bounds them; the worker reads what it wrote a moment ago."""
    others = {"stored.py", "host.py", "identity.py", "execute.py", "job.py"}
    for file in FILES:
        if file.name not in others and "worker" not in file.parts:
            names = {name for name, _ in calls(file)}
            assert "json.loads" not in names, file
            assert "json.load" not in names, file
