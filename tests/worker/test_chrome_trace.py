"""Labels that torch's profiler does not escape: what can be read of such a trace, and what is counted as left out."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from runner.worker import chrome_trace, look

LABELS = ['block "stem"', "back\\slash", "line\nbreak", "tab\there", '", "pid": 1', "\x1b[31m", "{}[],:", "größe 日本"]


def event(name: bytes, number: int = 0, arguments: bytes = b'"Ev Idx": 0') -> bytes:
    """An event as torch 2.8 lays it out."""
    return (
        b'  {\n    "ph": "X", "cat": "cpu_op", "name": "%s", "pid": 7, "tid": 7,\n    "ts": %d.5, "dur": 0.25,\n'
        b'    "args": {\n      %s\n    }\n  },\n' % (name, number, arguments)
    )


def trace(*events: bytes) -> bytes:
    end = b'  {\n    "name": "Record Window End", "ph": "i", "s": "g",\n    "pid": "", "tid": "", "ts": 9.5\n  }\n'
    return (
        b'\n  {\n    "schemaVersion": 1,\n  "traceEvents": [\n'
        + b"".join(events)
        + end
        + b'  ],\n  "traceName": "t"\n}'
    )


def names(events: list[chrome_trace.Event]) -> list[str]:
    return [event["name"] for event in events if event["ph"] == "X"]


@pytest.mark.parametrize("label", LABELS)
def test_a_label_that_is_not_escaped_is_read_as_it_is(label: str) -> None:
    data = trace(event(b"aten::conv2d"), event(label.encode(), 1), event(b"aten::relu", 2))
    assert chrome_trace.read(data) == (chrome_trace.read(data)[0], 0)
    assert names(chrome_trace.read(data)[0]) == ["aten::conv2d", label, "aten::relu"]


def test_bytes_that_are_no_utf8_cost_only_themselves() -> None:
    events, left_out = chrome_trace.read(trace(event(b"a\xff\xfeb"), event(b"aten::relu")))
    assert (names(events), left_out) == (["a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b", "aten::relu"], 0)


def test_an_event_that_can_not_be_read_is_counted_and_costs_no_other() -> None:
    broken = event(b"aten::add", arguments=b'"Concrete Inputs": ["a "quoted" text"]')
    events, left_out = chrome_trace.read(trace(event(b"aten::conv2d"), broken, event(b"aten::relu")))
    assert (names(events), left_out) == (["aten::conv2d", "aten::relu"], 1)


@pytest.mark.parametrize("data", [b"", b"no trace", b'{"traceEvents": 3}', b'{"traceEvents": [\n  {\n  "na\n  },\n'])
def test_a_trace_without_an_event_that_can_be_read_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="can't be read"):
        chrome_trace.read(data)


@pytest.mark.parametrize("label", ["plain", *LABELS])
def test_a_packed_trace_is_json_and_has_every_range(label: str, tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    data = trace(event(b"step_0"), event(label.encode()))
    file.write_bytes(data)
    assert chrome_trace.pack(file) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json.gz"]
    packed = gzip.decompress((tmp_path / "trace.json.gz").read_bytes())
    assert names(json.loads(packed)["traceEvents"]) == ["step_0", label]


class Labelled(nn.Module):
    """Marks a part of itself for the profiler."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.label, self.conv = label, nn.Conv2d(3, 16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.profiler.record_function(self.label):
            y: torch.Tensor = self.conv(x)
            return y


@pytest.mark.parametrize("label", LABELS)
def test_the_operators_of_a_model_with_such_a_label_are_seen(label: str) -> None:
    model, image = Labelled(label), torch.zeros(2, 3, 16, 16)
    found = look.operators(lambda: model(image))
    assert found.left_out == 0
    assert [operator.dtype for operator in found.compute] == ["float32"]
    assert found.image_layouts
