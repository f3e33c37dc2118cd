"""What a command may import: a person who asks for help, or made a slip, does not wait for MLflow or torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import compared_cell, store_compared
from tests.commands.test_compare import HERE
from tests.conftest import ROOT

# What takes a tenth of a second or more, or is none of the runner's business.
HEAVY = frozenset(
    {"torch", "transformers", "mlflow", "pandas", "scipy", "sklearn", "numpy", "pyarrow", "matplotlib", "jinja2"}
    | {"hydra", "omegaconf", "rich", "requests", "sqlalchemy"}
)
HYDRA = frozenset({"hydra", "omegaconf"})
# Words of the command line -> (exit status, the heavy modules that they may import).
ALLOWED: dict[str, tuple[int, frozenset[str]]] = {
    "--version": (0, frozenset()),
    "-m": (0, frozenset()),
    "comapre": (2, HYDRA),
    "allocator=all": (2, HYDRA),
    "completion zsh": (0, frozenset()),
    "completion bash --line=runner": (0, frozenset()),
    "list models": (0, frozenset({"numpy"})),
    "list --mlruns=STORE": (0, frozenset({"numpy", "pyarrow", "rich", "scipy"})),
    "show nosuch mlruns=STORE": (2, frozenset({"numpy", "pyarrow", "rich", "scipy"})),
    "delete nosuch mlruns=STORE": (2, frozenset({"numpy"})),
    "--help": (0, HYDRA),
    "--cfg job": (0, HYDRA),
    "ipexx=on": (2, HYDRA),
    "-m allocator=jemalloc,nosuch": (2, HYDRA | {"numpy", "rich"}),
    "-m model=tiny launcher=none mlruns=NONE --dry-run": (0, HYDRA | {"numpy", "rich"}),
    "hydra.searchpath=[x]": (2, frozenset()),
    "doctor --json": (0, frozenset({"numpy", "rich"})),
    "compare --mlruns=STORE": (0, frozenset({"numpy", "pyarrow", "rich", "scipy"})),
    "compare nosuch --mlruns=STORE": (2, frozenset({"numpy", "rich"})),
    "explain slowest fastest --mlruns=NONE": (2, frozenset({"numpy", "rich"})),
    "resume nosuch --mlruns=STORE": (2, frozenset({"numpy"})),
    "import nosuch": (2, frozenset({"numpy"})),
    "ui --mlruns=STORE": (2, frozenset({"numpy"})),
}
# Its parent has imported nothing yet, so that each child imports what its own words need.
PROGRAM = """
import json, os, sys
import runner.__main__
for words in json.loads(sys.argv[1]):
    sys.stdout.flush()
    reads, writes = os.pipe()
    if not (child := os.fork()):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        sys.argv = ["runner", *words]
        try:
            status = runner.__main__.main()
        except SystemExit as ended:
            status = ended.code or 0
        tops = sorted({name.partition(".")[0] for name in sys.modules})
        os.write(writes, json.dumps([status, tops]).encode())
        os._exit(0)
    os.close(writes)
    with open(reads) as left:
        print(left.read())
    os.waitpid(child, 0)
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, set[str]]]:
    """Words -> their exit status and the packages that they imported."""
    store = tmp_path_factory.mktemp("mlruns")
    store_compared(store, "20260101-000000-aaaa", [compared_cell(number, 0.1) for number in range(3)], HERE)
    lines = [words.replace("STORE", str(store)).split() for words in ALLOWED]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(lines)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    ended = map(json.loads, done.stdout.splitlines())
    return {words: (status, set(tops)) for words, (status, tops) in zip(ALLOWED, ended, strict=True)}


@pytest.mark.parametrize("words", ALLOWED)
def test_a_command_imports_no_more_than_it_needs(words: str, imported: dict[str, tuple[int, set[str]]]) -> None:
    status, allowed = ALLOWED[words]
    ended, modules = imported[words]
    assert ended == status
    assert "runner" in modules
    assert modules & HEAVY <= allowed


def test_every_heavy_module_is_installed() -> None:
    """A misspelt name would be imported by nothing, for ever."""
    folders = [Path(entry) for entry in sys.path if entry.endswith("site-packages")]
    assert [name for name in HEAVY if not any((folder / name).is_dir() for folder in folders)] == []
