"""Floating-point operations of torch's operators, by the shapes of their arguments."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from runner.worker import flop, reference
from runner.worker.call import Call


@pytest.mark.parametrize(
    ("name", "shapes", "output", "expected"),
    [
        ("aten::mm", [[2, 3], [3, 5]], None, 60),
        ("aten::addmm", [[5], [2, 3], [3, 5], [], []], None, 60),
        ("aten::bmm", [[7, 2, 3], [7, 3, 5]], None, 420),
        ("aten::matmul", [[7, 2, 3], [3, 5]], None, 420),
        ("aten::matmul", [[1, 2, 3], [7, 3, 5]], None, 420),
        ("aten::matmul", [[3], [7, 3, 5]], None, 210),
        ("aten::matmul", [[2, 3], [3]], None, 12),
        ("aten::linear", [[7, 2, 3], [5, 3], [5]], None, 420),
        ("aten::conv2d", [[2, 3, 8, 8], [4, 3, 3, 3]], [2, 4, 6, 6], 2 * 2 * 4 * 36 * 27),
        ("aten::conv2d", [[2, 4, 8, 8], [4, 1, 3, 3]], [2, 4, 6, 6], 2 * 2 * 4 * 36 * 9),  # of groups
        ("aten::conv_transpose2d.input", [[2, 4, 6, 6], [4, 3, 3, 3]], [2, 3, 8, 8], 2 * 2 * 4 * 36 * 27),
        ("aten::scaled_dot_product_attention", [[2, 3, 5, 8], [2, 3, 7, 8], [2, 3, 7, 8]], None, 2 * 30 * 7 * 16),
    ],
)
def test_the_operations_of_an_operator_follow_from_its_shapes(
    name: str, shapes: Sequence[Sequence[int]], output: Sequence[int] | None, expected: float
) -> None:
    assert flop.of_operator(name, shapes, output) == expected


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("aten::lstm", [[3, 2, 8]]),
        ("aten::conv2d", [[2, 3, 8, 8], [4, 3, 3, 3]]),  # the profiler has no shape of what it returns
        ("torch_ipex::ipex_linear", [[2, 3], [], []]),  # packed weights
        ("aten::linear", [[2, 3], [64, 1]]),
        ("aten::mm", [[2, 3]]),
        ("aten::mm", [[2, 3], []]),
    ],
)
def test_what_does_not_follow_from_the_shapes_is_not_guessed(name: str, shapes: Sequence[Sequence[int]]) -> None:
    assert flop.of_operator(name, shapes) is None


@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (torch.nn.Conv2d(4, 6, 3, groups=2), (torch.rand(2, 4, 9, 9),)),
        (torch.nn.ConvTranspose2d(4, 6, 3, stride=2), (torch.rand(2, 4, 9, 9),)),
        (torch.nn.Sequential(torch.nn.Conv1d(3, 4, 3), torch.nn.Linear(6, 5)), (torch.rand(2, 3, 8),)),
    ],
)
def test_a_references_operations_are_those_of_torchs_own_counter(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]
) -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    assert reference.compute(module, [Call(inputs)]).flop == counter.get_total_flops() > 0


def test_a_reference_with_an_operator_that_cant_be_counted_has_no_number() -> None:
    assert reference.compute(torch.nn.LSTM(3, 4), [Call((torch.rand(2, 5, 3),))]).flop is None


def test_an_iteration_must_move_inputs_outputs_and_the_weights_that_compute_each_once() -> None:
    class Shared(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.linear = torch.nn.Embedding(1000, 4), torch.nn.Linear(4, 4)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.linear(self.linear(self.table(rows)))  # type: ignore[no-any-return]

    found = reference.compute(Shared(), [Call((torch.tensor([1, 2, 3]),))])
    # Of the table only the rows are read that are asked for.
    assert found.elements == (4 * 4 + 4) + 3 + 3 * 4
