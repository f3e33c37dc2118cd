"""The handler that a server's worker runs, called as TorchServe calls it, without TorchServe."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from runner.protocol.captures import Steps
from runner.protocol.cell import Model, Precision
from runner.protocol.jobfile import BEGIN, END, JobSpec
from runner.protocol.resultfile import read_result
from runner.worker import reference, serve, stages, watch
from runner.worker.transform import inputs
from tests.conftest import CELL

MODEL = Model("tiny", "runner.worker.models.tiny", {})
SPEC = JobSpec(
    cell_id="c",
    round=0,
    cell=replace(CELL, model=MODEL, batch_size=4, warmup=2, iterations=None, min_time_s=None, max_time_s=None),
    runner_pid=os.getpid(),
    result_path="",
    instances=[sorted(os.sched_getaffinity(0))],
    onednn=Steps(1, 1.0),
)


class Context:
    """What TorchServe hands over, as far as the handler uses it."""

    def __init__(self, folder: Path) -> None:
        self.system_properties = {"model_dir": str(folder)}
        self.times: list[str] = []
        self.metrics = SimpleNamespace(add_time=lambda name, *_: self.times.append(name))

    def set_all_response_status(self, code: int, phrase: str) -> None:
        assert (code, phrase) == (200, "OK")


@pytest.fixture
def ranges(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ITT ranges that were pushed; the test's own process is not ended with a runner."""
    pushed: list[str] = []
    recorder = SimpleNamespace(range_push=pushed.append, range_pop=lambda: pushed.append("/"))
    monkeypatch.setattr(serve, "_itt_api", recorder)
    monkeypatch.setattr(watch, "die_with", lambda pid: None)
    monkeypatch.setattr(watch, "mark_crashes", lambda: None)
    monkeypatch.setattr(watch, "end_this_process", lambda: pushed.append("the worker ends"))
    # Not in a child: torch has long started threads in this process.

    def reference_here(spec: JobSpec, folder: Path) -> Path:
        file = stages.own_reference(folder)
        reference.save(stages._reference(spec), file)
        return file

    monkeypatch.setattr(stages, "reference_in_child", reference_here)
    return pushed


def started(tmp_path: Path, **change: Any) -> tuple[serve.Handler, Context, bytes]:
    """A handler that is ready, its context, and the body of a request."""
    cell = replace(SPEC.cell, **change)
    spec = replace(SPEC, cell=cell, result_path=str(tmp_path / "result.json"), request=str(tmp_path / "request"))
    (tmp_path / "job.json").write_text(json.dumps(asdict(spec)))
    handler, context = serve.Handler(), Context(tmp_path)
    handler.initialize(context)
    return handler, context, (tmp_path / "request").read_bytes()


def rows(*bodies: bytes) -> list[dict[str, Any]]:
    return [{"body": bytearray(body)} for body in bodies]


def test_requests_are_answered_between_two_orders_and_the_worker_proves_itself(
    tmp_path: Path, ranges: list[str]
) -> None:
    handler, context, body = started(tmp_path)
    handler.handle(rows(body, body), context)  # a warm-up: not counted
    assert handler.handle(rows(BEGIN), context) == ["done"]
    first = handler.handle(rows(body), context)
    assert handler.handle(rows(body, body, body), context) == first * 3
    assert handler.handle(rows(END), context) == ["done"]
    result = read_result(tmp_path / "result.json")
    assert result.error is None
    assert result.evidence is not None
    served = result.evidence.serving
    assert served is not None
    assert (served.requests, served.batches, served.batch_sizes) == (4, 2, {"1": 1, "3": 1})
    assert result.quality is not None
    assert result.quality.rel_l2 == pytest.approx(0, abs=1e-6)
    assert result.window is not None
    # One of each batch, none of an order.
    assert context.times == ["HandlerTime"] * 3
    assert ranges == ["preprocess", "/", "inference", "/"] * 3
    assert not list(tmp_path.glob(".reference*"))


def test_a_proof_that_fails_leaves_what_was_measured(
    tmp_path: Path, ranges: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no profiler here")

    monkeypatch.setattr(stages, "prove", fails)
    handler, context, body = started(tmp_path)
    handler.handle(rows(BEGIN), context)
    handler.handle(rows(body), context)
    with pytest.raises(RuntimeError, match="no profiler here"):
        handler.handle(rows(END), context)
    result = read_result(tmp_path / "result.json")
    assert result.error == "it measured, and could not prove what ran: RuntimeError: no profiler here"
    assert "the worker ends" not in ranges
    assert result.window is not None
    assert result.phases_s["measure"] == result.window.wall_s


def test_another_worker_s_failure_does_not_hide_the_result_of_one_that_died(tmp_path: Path, ranges: list[str]) -> None:
    handler, context, body = started(tmp_path)
    handler.handle(rows(body), context)
    handler.handle(rows(END), context)
    with pytest.raises(ValueError, match=r"."):
        started(tmp_path)[0].handle(rows(b"no sample"), context)
    assert read_result(tmp_path / "result.json").error is None


def test_a_request_comes_out_as_the_sample_it_was_made_from(tmp_path: Path, ranges: list[str]) -> None:
    handler, _, body = started(tmp_path, memory_format="channels_last", precision=Precision("bf16", {}))
    [sample] = handler._samples.tensors()
    assert body == handler._encode(0)
    [decoded] = handler._decode([bytearray(handler._encode(i)) for i in range(4)]).tensors()
    assert torch.equal(decoded, sample)
    [ready] = inputs(handler._spec, handler._samples).tensors()
    assert ready.dtype == torch.bfloat16
    assert ready.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("body", [b"", b"x", b"x" * 10_000])
def test_a_body_that_is_no_sample_is_an_error_and_on_record(tmp_path: Path, ranges: list[str], body: bytes) -> None:
    handler, context, _ = started(tmp_path)
    with pytest.raises(ValueError, match=r"."):
        handler.handle(rows(body), context)
    assert "ValueError" in str(read_result(tmp_path / "result.json").error)
    assert ranges[-1] == "the worker ends"


def test_an_input_without_a_batch_can_not_be_served(tmp_path: Path, ranges: list[str]) -> None:
    with pytest.raises(ValueError, match="has no batch of 4"):
        started(tmp_path, model=Model("masked", "tests.worker.test_serve.with_one_mask", {}))
    assert "has no batch of 4" in str(read_result(tmp_path / "result.json").error)


def with_one_mask(batch_size: int) -> Any:
    class Masked(torch.nn.Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return x * mask

    return Masked(), (torch.ones(batch_size, 3), torch.ones(1, 3))
