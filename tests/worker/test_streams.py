"""What IPEX's runtime extension is told to split and put together, without IPEX."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from runner.worker import streams
from runner.worker.call import Call

BATCH, OTHER = torch.zeros(5, 3), torch.zeros(3, 5)


def test_the_largest_part_has_the_samples_that_the_first_stream_gets() -> None:
    call = Call((BATCH, OTHER, 5), {"mask": torch.ones(5)})
    part = streams.largest_part(call, 5, 2)
    assert [tensor.shape for tensor in part.tensors()] == [(3, 3), (3, 5), (3,)]
    assert part.args[2] == 5
    assert streams.largest_part(call, 5, 1) is call


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (BATCH, 0),
        (OTHER, None),
        (torch.tensor(5), None),
        ((BATCH, {"a": BATCH, "b": None}), (0, {"a": 0, "b": None})),
        ([BATCH, (OTHER, "text")], [0, (None, None)]),
    ],
)
def test_what_has_the_batch_as_its_first_dimension_is_split_in_containers_of_any_kind(value: Any, hint: Any) -> None:
    assert streams.split_hint(value, 5) == hint


def test_a_container_of_a_class_of_its_own_is_a_plain_one_to_ipex() -> None:
    class Output(dict[str, Any]):
        pass

    hint = streams.split_hint(Output(logits=BATCH), 5)
    assert (type(hint), hint) == (dict, {"logits": 0})


def test_a_module_without_streams_has_none() -> None:
    assert streams.observe(nn.Identity(), lambda: None) is None
