"""Lies that only the process itself can tell, and truths that look like lies, through the real worker."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.launch import libraries
from runner.results.metrics import cell_metrics
from tests.conftest import MODELS, TINY, Ran, Runner, records_of

pytestmark = pytest.mark.slow


def evidence_of(ran: Ran) -> dict[str, Any]:
    """The evidence of the sweep's only job."""
    [file] = ran.sweep.glob("cells/*/round-0/evidence.json")
    data: dict[str, Any] = json.loads(file.read_text())
    return data


def test_a_library_called_libtcmalloc_that_is_jemalloc_fails_by_name(run_cli: Runner, tmp_path: Path) -> None:
    jemalloc = libraries.find("jemalloc", libraries.search_path({}, sys.executable))
    if jemalloc is None:
        pytest.skip("jemalloc is not installed")
    (tmp_path / "lib").mkdir()
    shutil.copy(jemalloc, tmp_path / "lib/libtcmalloc.so.4.5.10")
    ran = run_cli("allocator=tcmalloc", "capture=[]", *TINY, env={"VIRTUAL_ENV": str(tmp_path)})
    [record] = records_of(ran)
    assert ran.status == 1
    assert "allocator: asked for a library that answers as tcmalloc alone (tcmalloc), found" in (record.failure or "")
    assert "libtcmalloc.so.4.5.10, which answers as jemalloc" in (record.failure or "")


def test_float32_that_may_be_less_fails_by_the_name_of_what_allows_it(run_cli: Runner) -> None:
    ran = run_cli("model._target_=misbehaving.allows_bf32", "ipex=on", "capture=[]", *TINY, env=MODELS)
    [record] = records_of(ran)
    assert "precision: asked for float32 products in float32, found ipex.get_fp32_math_mode() = BF32" in (
        record.failure or ""
    )


def test_float32_that_onednn_may_round_fails_by_onednn_s_own_log(run_cli: Runner, tmp_path: Path) -> None:
    # A file that each Python of this user runs, before torch is imported; the caller's own variable is scrubbed.
    variable = "import os\nos.environ['ONEDNN_DEFAULT_FPMATH_MODE'] = 'BF16'\n"
    (tmp_path / "sitecustomize.py").write_text(variable)
    ran = run_cli("capture=[]", *TINY, env={"PYTHONPATH": str(tmp_path)})
    [record] = records_of(ran)
    assert "precision: asked for float32 arithmetic, found attr-fpmath:bf16 (100% of the time of onednn)" in (
        record.failure or ""
    )


def test_python_s_variables_do_not_reach_the_worker_and_priority_and_limits_are_told(run_cli: Runner) -> None:
    words = ("model._target_=misbehaving.demands_a_plain_python", "capture=[]", *TINY)
    traced = {**MODELS, "PYTHONDEVMODE": "1", "PYTHONTRACEMALLOC": "5", "PYTHONFAULTHANDLER": "1"}
    plain = run_cli(*words, env=traced)
    nice = run_cli(*words, prefix=["nice", "-n", "5", "prlimit", f"--data={2**36}"], env=MODELS)
    assert plain.status == nice.status == 0, plain.out + plain.err + nice.out + nice.err
    assert not any(name.startswith("PYTHON") for name in evidence_of(plain)["environment"])
    usual, inherited = evidence_of(plain)["inherited"], evidence_of(nice)["inherited"]
    assert {name: value for name, value in inherited.items() if name not in usual} == {
        "nice": "5",
        "limit of data segment": "65536 MiB",
    }
    assert records_of(plain)[0].cell_id != records_of(nice)[0].cell_id
    assert json.loads((nice.sweep / "host.json").read_text())["inherited"] == inherited


@pytest.fixture(scope="module")
def honest(run_cli: Runner) -> Ran:
    """Models of tests/models/honest.py, one per twin."""
    return run_cli(
        "-m", "model._target_=honest.${twin}", "twin=convnext,swin,mobilenet,detector,odd",
        "capture=[]", "batch_size=2", "warmup=2", "iterations=3", "rounds=1", "model=tiny",
        "hydra.sweeper.include=[{twin: [convnext, swin], memory_format: channels_last}]",
        env=MODELS,
    )  # fmt: skip


def test_models_that_look_wrong_and_are_right_are_measured(honest: Ran) -> None:
    judged = {(r.axes["twin"], r.axes["memory_format"]): (r.failure, r.quality) for r in records_of(honest)}
    assert set(judged.values()) == {(None, "ok")}
    assert judged.keys() == {
        *((twin, "channels_first") for twin in ("convnext", "swin", "mobilenet", "detector", "odd")),
        *((twin, "channels_last") for twin in ("convnext", "swin")),
    }


def test_a_small_output_is_compared_by_figures_without_an_epsilon(honest: Ran) -> None:
    for record in records_of(honest):
        if record.axes["twin"] in ("mobilenet", "odd"):
            [result] = record.results.values()
            assert result.quality is not None
            assert result.quality.cosine == pytest.approx(1, abs=1e-9)
            assert (result.quality.rel_l2 or 0) < 1e-4


def test_a_model_that_waits_is_told_by_its_idle_cores(honest: Ran) -> None:
    [record] = [record for record in records_of(honest) if record.axes["twin"] == "odd"]
    busy = cell_metrics(record)["cpu/cores_busy"]
    assert busy < 0.5
    # Cores that others used meanwhile were not idle.
    is_told = f"model._target_=honest.odd: {busy:.1f} of " in honest.out
    assert is_told or record.outcomes[0].contamination


def test_a_batch_that_is_not_the_first_dimension_is_measured_or_asked_for(run_cli: Runner) -> None:
    ran = run_cli(
        "-m", "model._target_=batches.${twin}", "twin=time_first,packed,images_in_a_list,counted,uncounted",
        "batch_size=8", "capture=[]", *TINY, env=MODELS,
    )  # fmt: skip
    failures = {record.axes["twin"]: record.failure for record in records_of(ran)}
    asked = failures.pop("uncounted") or ""
    assert failures == {"time_first": None, "packed": None, "images_in_a_list": None, "counted": None}
    assert "batch_size: asked for 8, found inputs of 160 and 7" in asked
    assert "it returns the number of samples in them as a third value" in asked


def test_how_a_model_behaves_is_noted_where_no_check_fails_for_it(run_cli: Runner) -> None:
    noted = {
        "changes_its_inputs": "the model changes its inputs in place (tensor 1 of them)",
        "draws": "the model is random or remembers earlier calls: two runs of the untouched fp32 model",
        "keeps_what_it_allocates": "memory grows: +8",
        "spins": "cores stay busy when no iteration runs",
    }
    targets = ",".join(f"misbehaving.{target}" for target in ("behaves", *noted))
    ran = run_cli("-m", f"model._target_={targets}", "capture=[]", *TINY, "iterations=40", env=MODELS)
    found = {record.labels["model._target_"].partition(".")[2]: record.notes for record in records_of(ran)}
    assert found.pop("behaves") == ()
    assert found.keys() == noted.keys()
    for target, wanted in noted.items():
        assert [note for note in found[target] if wanted in note], found[target]


def test_cold_caches_are_overwritten_before_each_iteration_and_named_by_the_result(run_cli: Runner) -> None:
    ran = run_cli("cache=warm,cold", "iterations=20", "capture=[]", *TINY)
    assert ran.status == 0, ran.out + ran.err
    warm, cold = sorted(records_of(ran), key=lambda record: record.labels["cache"], reverse=True)
    assert (warm.labels["cache"], cold.labels["cache"]) == ("warm", "cold")
    assert warm.notes == ()
    assert cold.notes[0].startswith("cache=cold: before each timed iteration")
    # A model of 16 x 16 pixels fits into any cache: what it takes longer is what the memory took. The least of each,
    # because what others do on the machine makes any of them longer and none shorter.
    assert min(cold.rounds[0]) > 1.5 * min(warm.rounds[0])
