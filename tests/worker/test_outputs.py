"""Whatever form a model's output has, its numbers are compared, and promises of numbers are refused."""

from __future__ import annotations

import collections
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from runner.worker.call import copied, flat, is_same, places
from runner.worker.distance import compare
from runner.worker.outputs import plain

ROWS = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])


@dataclass
class Detections:
    scores: Any
    label: str = "cat"


class Instances:
    """An object of a model's own, as detectors return it."""

    __slots__ = ("__dict__", "boxes")

    def __init__(self, boxes: torch.Tensor, scores: torch.Tensor) -> None:
        self.boxes, self.scores = boxes, scores
        self.itself, self.draw = self, lambda: None


@pytest.mark.parametrize(
    ("output", "tensors"),
    [
        (Detections(ROWS), [ROWS]),
        (collections.UserDict(a=ROWS, b=None), [ROWS]),
        (Instances(ROWS, 2 * ROWS), [ROWS, 2 * ROWS]),
        ((ROWS, ROWS, [ROWS]), [ROWS] * 3),
        (ROWS.numpy()[:, ::-1], [ROWS.flip(1)]),
        ({"a": np.float32(2.5), "words": np.array(["a"])}, [torch.tensor(2.5)]),
        (ROWS.to_sparse(), [ROWS]),
        (ROWS.to_sparse_csr(), [ROWS]),
        (torch.quantize_per_tensor(ROWS, 0.5, 0, torch.quint8), [ROWS]),
        (torch.nested.nested_tensor([ROWS[0], ROWS[1, :2]]), [ROWS[0], ROWS[1, :2]]),
        (torch.nested.nested_tensor([ROWS[0], ROWS[1, :2]], layout=torch.jagged), [ROWS[0], ROWS[1, :2]]),
        (torch.complex(ROWS, -ROWS).conj(), [torch.stack([ROWS, ROWS], -1)]),
        # Python's own numbers are all that there is, or figures about the call.
        ([1.5, True, 2 + 1j], [torch.tensor(value, dtype=torch.float64) for value in (1.5, 1.0, 2.0, 1.0)]),
        ({"logits": ROWS, "took_ms": 3.25}, [ROWS]),
        (("text", None, {1, 2}, 10**400), []),
    ],
)
def test_every_number_of_an_output_is_found(output: Any, tensors: list[torch.Tensor]) -> None:
    found = flat(plain(output))
    assert [tensor.tolist() for tensor in found] == [tensor.tolist() for tensor in tensors]
    assert is_same(output, copied(output))


def test_the_parts_of_objects_have_their_names() -> None:
    assert places(copied({"found": Detections([ROWS, ROWS])})) == [
        "output['found']['scores'][0]",
        "output['found']['scores'][1]",
    ]


def test_a_wrong_complex_number_is_an_error() -> None:
    right, wrong = (flat(plain(torch.complex(ROWS, imaginary))) for imaginary in (ROWS, 1.01 * ROWS))
    assert compare(right, right).rel_l2 == 0
    assert 5e-3 < (compare(wrong, right).rel_l2 or 0) < 1e-2


class Lazy:
    def __init__(self, compute: Any) -> None:
        self.compute = compute


class LazyTensor(torch.Tensor):
    """Computes when an operator reads it."""

    @staticmethod
    def __new__(cls) -> LazyTensor:
        made: LazyTensor = torch.Tensor._make_wrapper_subclass(cls, (2,))
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return func(torch.ones(2))


@pytest.mark.parametrize(
    ("promise", "sentence"),
    [
        ([ROWS, lambda: ROWS], r"returned a function \(output\[1\]\)"),
        ({"a": ROWS, "b": Lazy(lambda: ROWS)}, r"returned a function \(output\['b'\].compute\)"),
        (Lazy(functools.partial(torch.ones, 2)), r"returned a partial \(output.compute\)"),
        (LazyTensor(), r"returned a LazyTensor \(output\): .* may compute when it is read"),
        ([ROWS.to("meta")], r"on the device meta \(output\[0\]\), which has no values"),
    ],
)
def test_a_part_that_computes_later_or_not_at_all_is_refused_with_its_place(promise: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        plain(promise)
