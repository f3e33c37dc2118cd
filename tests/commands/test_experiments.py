"""How an experiment is named and found, from any working directory and with folders of one's own."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
import yaml

from runner.commands import resume, sweep
from runner.config.choices import as_hydra_wants
from runner.machine import host, installation
from runner.protocol.errors import RunnerError
from runner.results import ledger
from runner.sweep.planning import PlannedCell
from runner.sweep.resume import newest_sweep_of
from tests.config.test_config import config
from tests.conftest import Ran, ask

# Composed in full and then refused, so that nothing is launched.
REFUSED = "cores=4096"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of one's own with one experiment, of a model of its own."""
    for name in ("experiment", "model"):
        (tmp_path / "own" / name).mkdir(parents=True)
    text = "# @package _global_\ndefaults: [override /model: small]\nhydra: {sweeper: {params: {ipex: [off, on]}}}\n"
    (tmp_path / "own/experiment/mine.yaml").write_text(text)
    (tmp_path / "own/model/small.yaml").write_text("name: small\n_target_: a.small\nbatch_size: 3\n")
    return tmp_path / "own"


def composes(ran: Ran) -> bool:
    """Whether the command line was understood: it was refused for its cores, after the matrix was composed."""
    assert ran.status == 2, ran.out + ran.err
    return f"{REFUSED}: node" in ran.err


@pytest.mark.parametrize("words", [["experiment=aa"], ["+experiment=aa"], ["-m", "experiment=aa"]])
def test_an_experiment_is_named_with_a_plus_or_without(words: list[str], tmp_path: Path) -> None:
    assert composes(ask(*words, REFUSED, cwd=tmp_path))


def test_several_values_need_no_m(tmp_path: Path) -> None:
    assert composes(ask("model=tiny", "allocator=ptmalloc,tcmalloc", REFUSED, cwd=tmp_path))


def test_only_the_experiment_loses_its_plus() -> None:
    assert as_hydra_wants(["-m", "+experiment=a", "+experiments=b", "++experiment=c", "x=+experiment=d"]) == [
        "-m", "experiment=a", "+experiments=b", "++experiment=c", "x=+experiment=d",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["mine", "aa"])
@pytest.mark.parametrize("way", ["option", "option=", "variable", "working directory"])
def test_a_folder_of_ones_own_is_added_to_the_shipped_experiments(
    way: str, name: str, own: Path, tmp_path: Path
) -> None:
    env = {"RUNNER_EXPERIMENTS": str(own) if way == "variable" else ""}
    words = {"option": ["--config-dir", "own"], "option=": ["--config-dir=own"]}.get(way, [])
    if way == "working directory":
        own.rename(tmp_path / "experiments")
    assert composes(ask(*words, f"experiment={name}", REFUSED, env=env, cwd=tmp_path))


def test_an_experiment_of_ones_own_goes_before_the_shipped_one_of_its_name(own: Path, tmp_path: Path) -> None:
    (own / "experiment/aa.yaml").write_text("# @package _global_\nseed: -3\n")
    ran = ask("--config-dir", "own", "experiment=aa", cwd=tmp_path)
    assert ran.status == 2
    assert "seed=-3" in ran.err


def test_a_value_of_ones_own_with_the_name_of_a_shipped_one_is_refused_where_it_is_used(
    own: Path, tmp_path: Path
) -> None:
    file = own / "model/resnet50.yaml"
    file.write_text("name: resnet50\n_target_: a.small\nbatch_size: 4\n")
    for way in (["--config-dir", "own"], ["--config-dir", "own", "--cfg", "job"]):
        ran = ask(*way, "model=resnet50", cwd=tmp_path)
        assert ran.status == 2
        assert ran.err == (
            f"runner: model=resnet50: both {file} and {installation.CONF / 'model/resnet50.yaml'} have this name; "
            "rename yours\n"
        )
    assert composes(ask("--config-dir", "own", "model=tiny", REFUSED, cwd=tmp_path))


def test_a_folder_experiments_without_any_of_ours_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "experiments/2026-run").mkdir(parents=True)
    assert composes(ask("-m", "+experiment=smoke", REFUSED, cwd=tmp_path))


@pytest.mark.parametrize(
    ("words", "kwargs"),
    [
        (["model=resnet50", "model.kwargs.weights=/models/mine.pth"], {"weights": "/models/mine.pth"}),
        (["model=bert_base_uncased", "+model.kwargs.weights=/models/mine"], {"weights": "/models/mine"}),
        (["model=tiny", "model.kwargs.image_size=32"], {"image_size": 32}),
        (["model=tiny", "model.kwargs={image_size: 16}"], {"image_size": 16}),
        (["model=tiny", "++model.kwargs.a=1", "model.kwargs.a=2"], {"a": 2}),
    ],
)
def test_an_argument_of_the_models_callable_needs_no_plus(
    words: list[str], kwargs: dict[str, object], tmp_path: Path
) -> None:
    ran = ask("--cfg", "job", *words, cwd=tmp_path)
    assert ran.status == 0, ran.err
    assert yaml.safe_load(ran.out)["model"]["kwargs"] == kwargs


def test_several_mappings_for_the_models_callable_need_no_plus(tmp_path: Path) -> None:
    assert composes(ask("-m", "model=tiny", "model.kwargs={image_size:16},{image_size:32}", REFUSED, cwd=tmp_path))


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    ran = ask("--config-dir", "nowhere", "model=tiny", cwd=tmp_path)
    assert ran.status == 2
    assert (
        ran.err == "runner: --config-dir nowhere: there is no such folder; name one with experiment/NAME.yaml in it\n"
    )


def test_the_search_path_of_hydra_is_refused_with_the_option_that_does_it(tmp_path: Path) -> None:
    ran = ask(f"hydra.searchpath=[file://{tmp_path}]", cwd=tmp_path)
    assert ran.status == 2
    assert "--config-dir DIR" in ran.err


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(installation.OWN_FOLDERS, "")
    return tmp_path


def test_the_line_of_a_cell_names_the_folders_it_was_composed_from(here: Path) -> None:
    for name in ("first one", "second"):
        (here / name).mkdir()
    left = sweep.for_hydra(["--config-dir", "second", "-m", "+experiment=x", "-cd=first one", "--no-wait"])
    assert left == ["-m", "experiment=x", "wait=false"]
    planned = PlannedCell(config(), ("experiment=x",))
    options = ["--config-dir", str(here / "second"), "--config-dir", str(here / "first one")]
    assert shlex.split(planned.command)[:9] == ["python", "-m", "runner", *options, "-m", "experiment=x"]


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["model=tiny", "-m", "ipex=off,on"], ["-m", "model=tiny", "ipex=off,on"]),
        (["seed=1", "--cfg", "job", "-cn", "x", "+a=b"], ["--cfg", "job", "-cn", "x", "seed=1", "+a=b"]),
        (["seed=1", "--info", "seed=2", "--info", "plugins"], ["--info", "--info", "plugins", "seed=1", "seed=2"]),
        (["--cfg=job", "seed=1", "--resolve"], ["--cfg=job", "--resolve", "seed=1"]),
    ],
)
def test_options_may_stand_anywhere(here: Path, words: list[str], left: list[str]) -> None:
    assert sweep.for_hydra(words) == left


def test_the_line_of_a_cell_of_a_shipped_experiment_names_no_folder(here: Path) -> None:
    sweep.for_hydra(["experiment=aa"])
    planned = PlannedCell(config(), ("experiment=aa",))
    assert "--config-dir" not in planned.command


def test_a_folder_whose_path_would_be_two_is_refused(here: Path) -> None:
    (here / "a:b").mkdir()
    with pytest.raises(RunnerError, match="':' in its path would be misread"):
        sweep.for_hydra(["--config-dir", "a:b"])


def leave(mlruns: Path, name: str, arguments: list[str], experiments: str) -> Path:
    """A sweep that was started here and has ended."""
    folder = mlruns / "sweeps" / name
    (folder / "cells").mkdir(parents=True)
    here, host_id = str(Path.cwd()), str(host.fingerprint()["host_id"])
    entry = ledger.SweepEntry(name, "x", "line", host_id, "c", False, [], arguments, here, experiments, "1.1")
    ledger.begin(folder, entry)
    return folder


def test_going_on_looks_in_the_folders_that_the_sweep_had(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "own").mkdir()
    sweep.for_hydra(["--config-dir", "own", "experiment=x"])
    leave(here, "a", ["experiment=x"], os.environ[installation.OWN_FOLDERS])
    monkeypatch.setenv(installation.OWN_FOLDERS, "/another")
    resume.command_line(["a", "--mlruns", str(here)])
    assert os.environ[installation.OWN_FOLDERS] == str(here / "own")


def test_resume_true_takes_a_sweep_of_before_and_none_with_other_folders(here: Path) -> None:
    """Sweeps of before were recorded with a plus, and with the shipped folder where there was no other."""
    (here / "own").mkdir()
    before = leave(here, "1", ["+experiment=x"], str(installation.EXPERIMENTS))
    leave(here, "2", ["experiment=x"], str(here / "own"))
    assert newest_sweep_of(here, ["experiment=x", "resume=true"]) == before
