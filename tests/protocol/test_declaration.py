"""A setting is declared once: all that follows from a field of the cell follows from the field alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest

from runner.config import limits, option_help
from runner.config.schema import Config, schema
from runner.protocol.cell import AXES, ENTRIES, SETTINGS, WORK, Cell
from runner.protocol.declaration import Role, axis, declaration_of, entries, setting
from runner.protocol.errors import RunnerError
from tests.conftest import CELL, ROOT

FIELD = """
    colour: str = setting(
        "The colour that the cell is painted in.", "red", choices=("red", "blue"), is_work=True
    )
"""


@dataclass(frozen=True, kw_only=True)
class Wider(Cell):
    """The cell with two more fields, as somebody would add them."""

    colour: str = setting("The colour that the cell is painted in.", "red", choices=("red", "blue"), is_work=True)
    height_m: float | None = axis("Metres above the sea.", None, absent="sea level", above=0, unit="metres")


WIDER = Wider(**{field.name: getattr(CELL, field.name) for field in fields(CELL)}, height_m=2.5)


def test_every_field_of_a_cell_and_of_its_parts_is_declared_with_a_sentence() -> None:
    for field in fields(Cell):
        assert declaration_of(field).help.endswith(".")
    for entry in ENTRIES.values():
        assert entry.declaration.help.endswith("."), entry.key
        assert (entry.declaration.least is None and entry.declaration.above is None) or entry.declaration.unit


def test_axes_settings_and_details_are_all_there_is() -> None:
    details = {key for key, entry in ENTRIES.items() if entry.declaration.role is Role.DETAIL}
    assert {*AXES, *SETTINGS, *details} == set(ENTRIES)
    assert tuple(CELL.axes) == AXES
    assert tuple(CELL.settings) == SETTINGS
    assert set(WORK) < {*AXES, *SETTINGS}


def test_a_new_field_is_an_axis_or_a_setting_with_its_words() -> None:
    assert WIDER.settings == {**CELL.settings, "colour": "red"}
    assert WIDER.axes == {**CELL.axes, "height_m": "2.5"}
    assert replace(WIDER, height_m=None).axes["height_m"] == "sea level"
    assert replace(WIDER, colour="blue").key != WIDER.key


def test_a_new_field_is_in_the_schema_and_in_the_help_with_its_default() -> None:
    known = {field.name: field.default for field in fields(schema(Wider))}
    assert known["colour"] == "red"
    assert known["height_m"] is None
    text = option_help.list_settings(entries(Wider))
    assert "colour=red" in text
    assert "height_m=null" in text
    assert "Metres above the sea." in text


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("colour", "green", "colour=green: choose one of red, blue"),
        ("height_m", 0.0, "height_m=0: it must be above 0 (metres)"),
        ("height_m", float("nan"), "height_m=nan: it must be above 0 (metres)"),
        ("height_m", 2.0**40, "it must be at most 1000000000 (metres)"),
    ],
)
def test_a_new_field_has_its_limits(key: str, value: object, sentence: str) -> None:
    entry = next(entry for entry in entries(Wider) if entry.key == key)
    with pytest.raises(RunnerError) as refused:
        limits.check_declared(key, value, entry.declaration)
    assert sentence in str(refused.value)


def test_every_option_of_a_sweep_is_explained() -> None:
    text = option_help.list_sweep_options(Config)
    for field in fields(Config):
        assert ("declaration" in field.metadata) == any(
            line.startswith(field.name) and line[len(field.name)] in "= " for line in text.splitlines()
        ), field.name


@pytest.fixture(scope="module")
def widened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project whose cell has one more field; nothing else is touched."""
    copy = tmp_path_factory.mktemp("widened")
    for name in ("runner", "conf", "experiments"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    file = copy / "runner/protocol/cell.py"
    before, field, after = file.read_text().partition("    warmup: int = setting(")
    assert field, "the field that the new one goes before has moved"
    file.write_text(before.rstrip() + FIELD + field + after)
    return copy


def run(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "runner", *arguments],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_a_field_added_to_the_cell_is_found_in_help_table_comparison_job_file_and_mlflow(widened: Path) -> None:
    assert "colour=red" in run(widened, "--help").stdout
    refused = run(widened, "model=tiny", "colour=green")
    assert (refused.returncode, refused.stderr) == (2, "runner: colour=green: choose one of red, blue\n")

    options = ("model=tiny", "launcher=none", "warmup=2", "iterations=6", "rounds=1", "capture=[]", "reruns=0")
    ran = run(widened, "-m", "colour=red,blue", *options)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    heading = next(line for line in ran.stdout.splitlines() if "p50 ms" in line)
    assert heading.split()[0] == "colour"
    # Declared as work: a red and a blue cell have no ratio.
    data = json.loads(run(widened, "compare", "--format", "json").stdout)
    assert {group["work"]["colour"] for group in data["groups"]} == {"red", "blue"}

    sweep = next((widened / "mlruns/sweeps").iterdir())
    colours = {json.loads(file.read_text())["cell"]["colour"] for file in sweep.glob("cells/*/round-0/job.json")}
    assert colours == {"red", "blue"}
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{widened / 'mlruns/mlflow.db'}")
    experiments = [one.experiment_id for one in client.search_experiments()]
    cells = client.search_runs(experiments, "tags.kind = 'cell'")
    assert {cell.data.tags["setting.colour"] for cell in cells} == {"red", "blue"}
