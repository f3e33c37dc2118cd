"""What is in git runs: every experiment on a tiny workload, the documented model of one's own, and transformers."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

from runner.protocol.jobfile import read_spec
from tests.conftest import ROOT, Runner, ask, records_of

pytestmark = pytest.mark.slow


# -- models -------------------------------------------------------------------------------------------


def test_the_documented_model_of_ones_own_runs_as_documented(run_cli: Runner, tmp_path: Path) -> None:
    text = (ROOT / "docs/your_model.md").read_text()
    blocks = dict(re.findall(r"```(python|yaml|sh)\n(.*?)```", text, re.S))
    (tmp_path / "my_models/model").mkdir(parents=True)
    (tmp_path / "acme_ranker.py").write_text(blocks["python"])
    (tmp_path / "my_models/model/acme_ranker.yaml").write_text(blocks["yaml"])
    words = re.search(r"python -m runner (.*)", blocks["sh"])
    assert words
    short = ("iterations=5", "rounds=1", "capture=[]")
    ran = run_cli(*words[1].split(), *short, env={"PYTHONPATH": str(ROOT)}, cwd=tmp_path)
    assert ran.status == 0, ran.out + ran.err
    assert [record.quality for record in records_of(ran)] == ["ok"] * 4
    both = ("-m", "model=acme_ranker,./acme_ranker.py:build")
    named = ask(*both, "--config-dir", "my_models", "--dry-run", cwd=tmp_path)
    assert "1  model=acme_ranker  batch_size=16" in named.out, named.err


def test_models_in_one_word_are_tried_run_and_compared_each_with_its_own(
    run_cli: Runner, tmp_path: Path, mlruns: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n\ndef build(batch_size):\n    return torch.nn.Linear(8, 4), torch.randn(batch_size, 8)\n"
    )
    words = "torchvision:squeezenet1_1,hf:google/bert_uncased_L-2_H-128_A-2,./mine.py:build"
    short = ("launcher=none", "iterations=3", "rounds=1", "capture=[]", "try_models=true")
    # No cache of the hub, whatever this machine has: the weights are random.
    env = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}
    ran = run_cli("-m", f"model={words}", "memory_format=channels_first,channels_last", *short, env=env, cwd=tmp_path)
    assert ran.status == 0, ran.out + ran.err
    cells = {(r.axes["model"], r.axes["memory_format"]): r.axes["sequence_length"] for r in records_of(ran)}
    image, text, own = words.split(",")
    assert cells == {
        (image, "channels_first"): "none", (image, "channels_last"): "none", (text, "channels_first"): "128",
        (own, "channels_first"): "none",
    }  # fmt: skip
    assert "random weights; for its own: hf download google/bert_uncased_L-2_H-128_A-2" in " ".join(ran.out.split())
    compared = ask("compare", ran.sweep.name, "--mlruns", str(mlruns), cwd=tmp_path)
    assert compared.status == 0, compared.err
    assert all(word in compared.out for word in (image, own))


def test_transformers_of_two_layers_run_in_bf16_as_a_graph(run_cli: Runner) -> None:
    # Also narrow: a CPU without instructions for bfloat16 takes seconds for a layer as wide as BERT's.
    layers = ("num_hidden_layers=2", "hidden_size=64", "num_attention_heads=2", "intermediate_size=128")
    small = (
        *(f"+model.kwargs.{each}" for each in layers),
        "batch_size=1",
        "iterations=3",
        "warmup=2",
        "rounds=1",
        "capture=[]",
    )
    ran = run_cli("-m", "model=bert_base_uncased,vit_base", "precision=bf16", "graph=torchscript", *small)
    assert ran.status == 0, ran.out + ran.err
    assert len(records_of(ran)) == 2


# -- values of lists ----------------------------------------------------------------------------------

WORDS = ["plain text (draft)", "x #1", "it's", "[a]", "/models/epoch=9-step=100.ckpt", "null"]
SETTINGS = [
    "oversize_threshold:1,background_thread:true,metadata_thp:auto",
    "dirty_decay_ms:-1,muzzy_decay_ms:-1",
]


def test_elements_of_an_experiment_s_lists_reach_the_worker_as_yaml_has_them(run_cli: Runner, tmp_path: Path) -> None:
    params = {"allocator.env": [{"MALLOC_CONF": text} for text in SETTINGS], "+model.kwargs.note": WORDS}
    (tmp_path / "experiment").mkdir()
    matrix = json.dumps({"hydra": {"sweeper": {"params": params}}})  # which is YAML as well
    (tmp_path / "experiment/words.yaml").write_text(f"# @package _global_\n{matrix}\n")
    words = ("experiment=words", "model=tiny", "capture=[]", "rounds=1", "launcher=none", "timeout_s=0.01")
    ran = run_cli("-m", *words, env={"RUNNER_EXPERIMENTS": str(tmp_path)})  # each job is stopped at once
    jobs = [read_spec(file).cell for file in ran.sweep.glob("cells/*/round-0/job.json")]
    assert len(jobs) == len(SETTINGS) * len(WORDS)
    assert {(cell.allocator.env["MALLOC_CONF"], cell.model.kwargs["note"]) for cell in jobs} == set(
        itertools.product(SETTINGS, WORDS)
    )


# -- what is in git runs ------------------------------------------------------------------------------


# Those run elsewhere: where their own results are looked at.
ELSEWHERE = {"aa": "analysis/test_noise.py", "channels_last_conv_relu": "capture/test_captures.py"} | {
    file.stem: "job/test_torchserve.py" for file in (ROOT / "experiments/experiment").glob("torchserve*.yaml")
}
HERE = [file for file in sorted((ROOT / "experiments/experiment").glob("*.yaml")) if file.stem not in ELSEWHERE]


@pytest.mark.parametrize("file", HERE, ids=lambda file: file.stem)
def test_each_experiment_runs_on_a_tiny_workload(run_cli: Runner, file: Path) -> None:
    small = ["model=tiny", "batch_size=2", "warmup=1", "iterations=3", "rounds=1", "capture=[]"]
    if file.stem != "smoke":
        # IPEX's import takes ten seconds per job and a compilation as long: smoke has one cell of each.
        small += ["ipex=off"] if file.stem not in ("graph_conv_relu", "operator_conv_relu") else []
        small += ["graph=eager,torchscript", "precision=fp32,bf16"] if "headline" in file.stem else []
        # Other builds are environments of gigabytes, which CI need not make; their own tests use small ones.
        if "torch:" in file.read_text():
            small += [
                "torch=bundled",
                "graph=eager",
                "hydra.sweeper.exclude=[]",
                "baseline={}",
            ]
            # The cell that a race includes is its baseline, of the runner's own build.
            if not file.stem.startswith("race_"):
                small += ["hydra.sweeper.include=[]"]
    ran = run_cli("-m", f"+experiment={file.stem}", *small)
    assert ran.status == 0, ran.out + ran.err
    assert all(record.evidence == "ok" for record in ran.cells().values())
    if "expect:" in file.read_text():
        assert "tutorial" in ran.out
        assert "| here " in ran.out


@pytest.mark.parametrize("name", ELSEWHERE)
def test_an_experiment_that_is_not_run_here_is_run_where_the_table_says(name: str) -> None:
    assert name in (ROOT / "tests" / ELSEWHERE[name]).read_text()


def test_smoke_has_every_value_of_every_axis() -> None:
    text = (ROOT / "experiments/experiment/smoke.yaml").read_text()
    for axis in ("allocator", "ipex", "memory_format", "precision", "graph", "launcher"):
        for file in (ROOT / "conf" / axis).glob("*.yaml"):
            first = file.stem in ("ptmalloc", "off", "channels_first", "fp32", "eager", "auto", "ipexrun")
            assert first or f"{axis}: {file.stem}" in text, (axis, file.stem)
