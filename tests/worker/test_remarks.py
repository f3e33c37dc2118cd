"""What a worker notes of how a model behaves."""

from __future__ import annotations

import pytest
import torch

from runner.protocol.resultfile import Window
from runner.worker import reference, remarks
from runner.worker.call import Call


def window(growth: float | None, peak: int = 10**9) -> Window:
    return Window(1.0, 0, 0, 0, 0, 1.0, 0.0, peak, None, None, rss_growth_bytes=growth)


@pytest.mark.parametrize(
    ("growth", "peak", "is_noted"),
    [
        (8e8, 10**9, True),
        (6.5e7, 10**8, True),
        (6.5e7, 10**9, False),  # a tenth of what there was: an allocator keeps as much
        (3e7, 10**8, False),
        (-8e8, 10**9, False),
        (None, 10**9, False),
    ],
)
def test_memory_that_grows_over_the_window_is_noted(growth: float | None, peak: int, is_noted: bool) -> None:
    notes = remarks.growing_memory(window(growth, peak), 10)
    assert bool(notes) == is_noted


def test_growth_is_told_per_iteration() -> None:
    [note] = remarks.growing_memory(window(500e6), 10)
    assert note.startswith("memory grows: +50 MB per iteration, 500 MB in the timed loop")
    assert remarks.growing_memory(None, 10) == remarks.growing_memory(window(500e6), 0) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
def test_an_input_that_was_changed_in_place_is_noted_by_its_number(dtype: torch.dtype) -> None:
    call = Call((torch.zeros(3), torch.zeros(2, 3, 4, 5).to(dtype).transpose(1, 2)))
    before = remarks.InputsBefore.of([call, call])
    assert before.changed([call, call]) == []
    call.tensors()[1][1, 1] = 1
    [note] = before.changed([call, call])
    assert "(tensor 2 of them)" in note


def test_inputs_without_values_in_a_row_are_passed_over() -> None:
    call = Call((torch.zeros(3).to_sparse(),))
    assert remarks.InputsBefore.of([call]).changed([call]) == []


def test_a_second_run_that_differs_by_more_than_rounding_is_noted() -> None:
    right = torch.ones(2, 3)

    def notes(*repeated: torch.Tensor) -> list[str]:
        return remarks.randomness(reference.Reference([[right]], [], list(repeated), 1, None, 0, {}, "", [], []))

    assert notes() == notes(right * (1 + 1e-6)) == []
    assert "differ by 0.5 (relative L2 norm)" in notes(right * 1.5)[0]
    assert "output of shapes" in notes(torch.ones(3, 3))[0]


def test_the_reference_keeps_a_second_run_only_where_it_differs() -> None:
    torch.manual_seed(0)
    inputs = [Call((torch.rand(2, 3),)), Call((torch.rand(2, 3),))]
    assert reference.compute(torch.nn.Linear(3, 3), inputs).repeated == []
    drawing = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5))
    assert len(reference.compute(drawing.train(), inputs).repeated) == 1
