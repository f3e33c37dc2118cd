"""The YAML in conf/ and experiments/: it composes, it is typed, and `off` is a word."""

from __future__ import annotations

import re
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import yaml

from runner.config import captures
from runner.config.captures import CaptureConf
from runner.config.limits import check
from runner.config.schema import Config, SweepConf
from runner.protocol.cell import Cell
from runner.protocol.errors import RunnerError
from tests.conftest import CELL, ROOT, Ran, ask, explained

CAPTURES = {file.stem for file in (ROOT / "conf" / "capture").glob("*.yaml")}
GROUPS = ("model", "scenario", "load", "allocator", "ipex", "memory_format", "precision", "graph", "torch", "launcher")
OPTIONS = [(group, file.stem) for group in GROUPS for file in sorted((ROOT / "conf" / group).glob("*.yaml"))]


@pytest.fixture(scope="module")
def every_option() -> dict[str, str]:
    return explained(ask("--help").out)


# Stands for one of the others, whose name the cell has.
AUTO = ("launcher", "auto")


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_each_option_is_named_as_its_file_and_listed_by_help(
    group: str, name: str, every_option: dict[str, str]
) -> None:
    data = yaml.load((ROOT / "conf" / group / f"{name}.yaml").read_text(), Loader=yaml.BaseLoader)
    named = (data["scenario"] if group == "scenario" and "scenario" in data else data)["name"]
    assert (group, name) == AUTO or named == name
    values = every_option[group].rpartition("One of ")[2].rstrip(".")
    assert name in values.split(", ")


def test_every_axis_that_is_a_group_is_a_folder() -> None:
    assert {folder.name for folder in (ROOT / "conf").iterdir() if folder.is_dir()} - {
        "hydra",
        "capture",
        "fleet",
    } == set(GROUPS)


def test_every_capture_of_the_schema_has_a_file_and_is_on_by_default() -> None:
    assert {field.name for field in fields(CaptureConf)} == CAPTURES
    default = yaml.load((ROOT / "conf" / "config.yaml").read_text(), Loader=yaml.BaseLoader)["defaults"]
    assert {"capture": ["onednn", "itt", "profiler", "counters", "toplev", "inductor"]} in default
    for name in CAPTURES:
        data = yaml.safe_load((ROOT / "conf" / "capture" / f"{name}.yaml").read_text())
        schema = next(field for field in fields(CaptureConf) if field.name == name)
        assert str(schema.type).startswith(f"{name.capitalize()}CaptureConf")
        assert data == asdict(getattr(captures, f"{name.capitalize()}CaptureConf")())


@pytest.mark.parametrize("file", sorted((ROOT / "conf").rglob("*.yaml")), ids=lambda file: file.stem)
def test_each_file_says_what_it_is_in_its_first_line(file: Path) -> None:
    assert file.read_text().startswith("# ")


def config(**change: object) -> Config:
    """A sound configuration, with some of its values changed: of its cell, or of the sweep."""
    of_cell = {name: value for name, value in change.items() if name in {field.name for field in fields(Cell)}}
    value = Config(
        cell=replace(CELL, **of_cell),  # type: ignore[arg-type]
        sequence_length_of_model=None,
        server_port=None,
        capture=CaptureConf(),
        sweep=SweepConf(),
    )
    of_sweep = {name: value for name, value in change.items() if name not in of_cell}
    return replace(value, **of_sweep)  # type: ignore[arg-type]


def test_a_sound_configuration_passes() -> None:
    check(config())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("warmup", -1),
        ("iterations", 0),
        ("cores", 0),
        ("threads", -2),
        ("node", -1),
        ("seed", -1),
        ("inputs", 0),
        ("instances", 0),
        ("cores_per_instance", 0),
        ("sequence_length", 0),
        ("rounds", 0),
        ("rounds", "often"),
        ("target_ci_pct", 0.0),
        ("max_time_s", 0.5),
        ("budget_min", -1.0),
        ("smallest_pct", float("nan")),
        ("reruns", -1),
        ("min_time_s", 0.0),
        ("min_time_s", float("nan")),
        ("timeout_s", float("inf")),
    ],
)
def test_a_value_out_of_range_is_refused_by_name_and_value(name: str, value: float | str) -> None:
    text = value if isinstance(value, str) else f"{value:g}"
    with pytest.raises(RunnerError, match=f"^{name}={text}: "):
        check(config(**{name: value}))


@pytest.mark.parametrize("name", ["", "-"])
def test_a_twin_without_a_name_is_refused(name: str) -> None:
    check(config(twin="a"))
    with pytest.raises(RunnerError, match=f"^twin={name}: a twin needs a name"):
        check(config(twin=name))


def test_a_sequence_length_for_a_model_without_sequences_is_refused() -> None:
    with pytest.raises(RunnerError, match="has no sequences"):
        check(config(sequence_length=128))


def composed(ran: Ran) -> dict[str, object]:
    assert ran.status == 0, ran.err
    data: dict[str, object] = yaml.safe_load(ran.out)
    return data


def test_cfg_job_shows_the_configuration_and_runs_nothing(tmp_path: Path) -> None:
    shown = composed(ask("--cfg", "job", "allocator=tcmalloc", f"mlruns={tmp_path}"))
    assert shown["allocator"]["name"] == "tcmalloc"  # type: ignore[index]
    assert shown["batch_size"] == "${model.batch_size}"
    assert list(tmp_path.iterdir()) == []


RULED_OUT = "excluded by the rule ipex=on"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("defaults:\n  - override /ipex: off\n", []),
        ("defaults:\n  - override /ipex: 'off'\n", []),
        ("hydra: {sweeper: {params: {ipex: off}}}\n", []),
        ("hydra: {sweeper: {params: {ipex: [off]}}}\n", []),
        ("hydra: {sweeper: {params: {ipex: 'off,on'}}}\n", []),
        ("hydra: {sweeper: {params: {ipex: [off, on]}, exclude: [{ipex: on}]}}\n", [RULED_OUT]),
    ],
)
def test_off_in_yaml_is_the_option_off_wherever_it_is_written(tmp_path: Path, text: str, said: list[str]) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\n" + text)
    # Refused for its cores, after the whole matrix has been composed: nothing is launched.
    own = {"RUNNER_EXPERIMENTS": str(tmp_path)}
    ran = ask("+experiment=mine", "cores=4096", f"mlruns={tmp_path / 'mlruns'}", env=own)
    assert ran.status == 2
    assert "cores=4096" in ran.err
    assert re.findall(r"[^;]*ipex[^;]*", ran.err.replace("\n", "")) == [f" {sentence}" for sentence in said]
