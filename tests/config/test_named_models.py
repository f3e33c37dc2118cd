"""Models in one word: what they stand for, and how the others are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.config import named_models, override_text
from runner.protocol.errors import RunnerError
from runner.sweep import model_identity
from tests.conftest import ask

BUILD = "import beside\n\ndef build(batch_size):\n    return beside.module(), beside.inputs(batch_size)\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model in a file, what it imports, and a configuration of transformers."""
    (tmp_path / "my_model.py").write_text(BUILD)
    (tmp_path / "beside.py").write_text("def module(): ...\n")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return tmp_path


def test_a_model_of_a_library_keeps_the_word_as_its_name_and_hands_on_the_architecture() -> None:
    config = named_models.config_of("torchvision:mobilenet_v3_large")
    assert config["name"] == "torchvision:mobilenet_v3_large"
    assert config["_target_"] == "runner.worker.torchvision_models.build"
    assert config["kwargs"] == {"architecture": "mobilenet_v3_large"}


def test_a_model_of_the_hub_is_the_folder_of_its_cache_and_else_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert named_models.config_of("hf:acme/bert")["kwargs"] == {"architecture": "acme/bert"}
    kept = tmp_path / "models--acme--bert"
    (kept / "snapshots" / "abc").mkdir(parents=True)
    (kept / "snapshots" / "abc" / "config.json").write_text("{}")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("abc")
    assert named_models.config_of("hf:acme/bert")["kwargs"] == {"folder": str(kept / "snapshots" / "abc")}


def test_a_folder_of_transformers_is_named_by_its_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert named_models.config_of("hf:./bert")["kwargs"] == {"folder": str(folder / "bert")}


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("keras:resnet50", "there is no such model; a model in one word is torchvision:"),
        ("./my_model.py", "name the function in this file that returns the model and its inputs: ./my_model.py:build"),
        ("./none.py:build", "there is no file ./none.py in "),
        ("hf:./none", "no folder with a config.json in it"),
        ("torchvision:", "'' is no name of one"),
        (
            "torchvision:mobilenet_v3_smal",
            "torchvision has no model mobilenet_v3_smal; did you mean mobilenet_v3_small?",
        ),
        ("torchvision:" + "x" * 300, "use a shorter path"),
        ("./a.py:build" + "x" * 300, "use a shorter path"),
    ],
)
def test_what_is_no_model_is_refused_with_what_would_be_one(
    word: str, sentence: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(RunnerError) as caught:
        named_models.config_of(word)
    assert str(caught.value).startswith(f"model={word[:50]}")
    assert sentence in str(caught.value)


def test_hydra_reads_several_of_them_beside_the_names_of_files(folder: Path) -> None:
    words = "tiny,torchvision:resnet18,./my_model.py:build,hf:google/vit-base-patch16-224"
    ran = ask("-m", f"model={words}", "batch_size=2", "--dry-run", cwd=folder)
    assert ran.status == 0, ran.err
    listed = [line.split()[1] for line in ran.out.splitlines() if line.startswith("   ")]
    assert listed[:4] == [f"model={word}" for word in words.split(",")]


def test_an_experiment_names_them_as_it_names_others(folder: Path) -> None:
    (folder / "experiment").mkdir()
    (folder / "experiment" / "mine.yaml").write_text(
        "# @package _global_\n# Two\ndefaults:\n  - override /model: torchvision:resnet18\n"
        "hydra:\n  sweeper:\n    params:\n      model: ['torchvision:resnet18', './my_model.py:build']\n"
    )
    ran = ask("--config-dir", str(folder), "-m", "experiment=mine", "--dry-run", cwd=folder)
    assert ran.status == 0, ran.err
    assert "model=./my_model.py:build" in ran.out


def test_the_line_that_runs_a_cell_alone_has_no_escapes_in_it(folder: Path) -> None:
    ran = ask("-m", "model=torchvision:resnet18,./my_model.py:build", "--dry-run=2", cwd=folder)
    assert "-m model=./my_model.py:build" in ran.out, ran.err


def test_a_text_that_needs_its_escapes_keeps_them() -> None:
    assert override_text.plain("torchvision\\:resnet18") == "torchvision:resnet18"
    assert override_text.plain("a\\:b\\,c") == "a\\:b\\,c"


def test_the_identity_of_a_model_in_a_file_has_all_that_it_imports_from_beside_it(folder: Path) -> None:
    target = f"{folder}/my_model.py:build"
    first = model_identity.code(target)
    (folder / "beside.py").write_text("def module(): return 2\n")
    model_identity.code.cache_clear()
    assert first != model_identity.ABSENT
    assert model_identity.code(target) not in (first, model_identity.ABSENT)


def test_a_file_is_named_by_its_whole_path_whatever_the_word_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/tmp")
    assert named_models.with_whole_path("./a.py:Ranker.build") == "/tmp/a.py:Ranker.build"
    assert named_models.with_whole_path("acme.ranker") == "acme.ranker"


def test_every_model_that_torchvision_lists_has_a_name_here() -> None:
    from torchvision import models

    assert set(models.list_models()) == named_models._names_of_torchvision()
