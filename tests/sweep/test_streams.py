"""IPEX's streams through the real launcher."""

from __future__ import annotations

import json
import os

import pytest

from tests.conftest import MODELS, Ran, Runner, records_of

CORES = sorted(os.sched_getaffinity(0))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(len(CORES) < 2, reason="one core has one stream, which is no stream"),
]

QUICK = ("cores=2", "openmp=intel", "iterations=20", "rounds=1", "reruns=0", "target_ci_pct=null")


@pytest.fixture(scope="module")
def streams(run_cli: Runner) -> Ran:
    """Two models in streams, in eager and TorchScript."""
    axes = ("model=tiny,conv_relu", "ipex=multistream", "graph=eager,torchscript", "batch_size=5")
    return run_cli("-m", *axes, *QUICK, "capture=[]")


def test_every_cell_runs_as_asked_and_is_right(streams: Ran) -> None:
    records = records_of(streams)
    assert streams.status == 0, streams.out + streams.err
    assert len(records) == 4
    assert {(record.failure, record.quality) for record in records} == {(None, "ok")}


def test_each_stream_computed_on_a_core_of_its_own(streams: Ran) -> None:
    for record in records_of(streams):
        evidence = json.loads((streams.sweep / f"cells/{record.cell_id}/round-0/evidence.json").read_text())
        pools = evidence["streams"]["pools"]
        assert len(pools) == evidence["streams"]["number"] == 2
        assert all(len(pool) == 1 for pool in pools)
        assert pools[0] != pools[1]
        assert evidence["graph"]["kind"] == record.axes["graph"]
        # Each stream has its own call of the model's convolution.
        calls = sum(each["count"] for each in evidence["operators"]["compute"] if "conv" in each["name"])
        assert calls % 2 == 0
        assert calls >= 2


def test_operators_of_other_threads_are_unavailable_to_itt_and_in_the_profilers_table(run_cli: Runner) -> None:
    cells = ("model=tiny", "ipex=multistream", "graph=eager,torchscript", "batch_size=5")
    captured = run_cli("-m", *cells, *QUICK, "capture=[itt,profiler]")
    assert captured.status == 0, captured.out + captured.err
    assert len(records_of(captured)) == 2
    for record in records_of(captured):
        folder = captured.sweep / f"cells/{record.cell_id}/captures"
        tags = json.loads((folder / "outcome.json").read_text())["captures"]
        assert tags["capture.itt"].startswith("unavailable: torch marks the operators of the thread that calls")
        assert tags["capture.profiler"].startswith("ok")
        table = json.loads((folder / "profiler" / "by_op.json").read_text())
        assert any("conv" in name for name in str(table).split('"'))


def test_a_batch_that_is_too_small_and_a_graph_without_streams_are_excluded_with_the_reason(run_cli: Runner) -> None:
    words = ("model=tiny", "memory_format=channels_last", "ipex=on,multistream", *QUICK, "capture=[]", "--dry-run")
    small = run_cli("-m", *words, "batch_size=1")
    assert "2 streams share a batch, and some would have nothing to do" in small.out
    compiled = run_cli("-m", *words, "graph=compile")
    assert "torch.compile's code is for one thread of Python" in compiled.out


# The function of tests/models/misbehaving.py -> what its FAILED cell says
FAILURES = {
    "leaves_out_streams": "ipex: asked for multistream, found a module that is no MultiStreamModule",
    "has_one_stream": "streams: asked for 2, found 1 streams on 1 pools of cores",
    "crowds_its_streams": "streams: asked for",
}


def test_streams_that_are_planted_otherwise_are_failed_cells(run_cli: Runner) -> None:
    words = (f"twin={','.join(FAILURES)}", "ipex=multistream", "graph=torchscript", "batch_size=4", "capture=[]")
    ran = run_cli("-m", "model._target_=misbehaving.${twin}", "model=tiny", *words, *QUICK, env=MODELS)
    assert ran.status == 1
    found = {record.axes["twin"]: record.failure or "" for record in records_of(ran)}
    for twin, sentence in FAILURES.items():
        assert sentence in found[twin]
