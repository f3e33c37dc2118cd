"""The numerical guard: figures of an output against fp32, and what they must be."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runner.checks.quality import judge
from runner.protocol.cell import Precision
from runner.protocol.evidence import Quality
from runner.protocol.precision import OF_BF16
from runner.protocol.verdicts import QualityVerdict
from runner.worker import distance, models, quantize, reference
from runner.worker.call import Call, flat
from tests.conftest import CELL, ROOT

TOLERANCE = {"rel_l2": 1e-2, "cosine": 0.999, "top1_match_pct": 90.0}
GOOD = Quality(
    comparable=True,
    why=None,
    finite=True,
    tensors=1,
    outputs=1,
    reference_operators=1,
    reference_flop=1e6,
    reference_elements=1000,
    dtypes=["float32"],
    max_abs_err=1e-4,
    rel_l2=1e-3,
    cosine=0.9999,
    top1_match_pct=100.0,
    worst={},
)


def test_an_output_within_tolerance_is_ok() -> None:
    assert judge(GOOD, TOLERANCE) == "ok"
    assert judge(replace(GOOD, top1_match_pct=None), TOLERANCE) == "ok"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rel_l2": 0.02}, "rel_l2 0.02 is past the tolerance of 0.01"),
        ({"cosine": 0.9}, "cosine"),
        ({"top1_match_pct": 50.0}, "top1_match_pct"),
        ({"rel_l2": float("nan")}, "rel_l2"),
        ({"rel_l2": None}, "rel_l2 is too large to be a number"),
        ({"finite": False}, "nan or inf"),
        ({"comparable": False, "why": "output of shapes [[1]]"}, "output of shapes"),
    ],
)
def test_an_output_past_tolerance_is_named_with_its_figure(change: dict[str, Any], words: str) -> None:
    assert words in judge(replace(GOOD, **change), TOLERANCE)


def test_without_figures_nothing_is_assumed() -> None:
    assert judge(None, TOLERANCE) == QualityVerdict.UNOBSERVED


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=20), st.sampled_from([float("nan"), float("inf")]))
def test_nan_and_inf_never_pass(values: list[float], bad: float) -> None:
    right = torch.tensor(values)
    wrong = right.clone()
    wrong[0] = bad
    assert judge(distance.compare([wrong], [right]), {"rel_l2": 1e9, "cosine": -1.0}) != "ok"


def test_the_figures_are_those_of_their_definition() -> None:
    right = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    quality = distance.compare([torch.tensor([[3.0, 4.5], [1.0, 0.0]])], [right])
    assert quality.max_abs_err == 1.0
    assert quality.rel_l2 == pytest.approx((0.5**2 + 1) ** 0.5 / 5)
    assert quality.top1_match_pct == 100
    assert distance.compare([right], [right]).cosine == pytest.approx(1)


def test_a_figure_past_what_a_result_holds_is_unobserved_and_no_output_of_the_model() -> None:
    huge = torch.tensor([1e200, 1.0], dtype=torch.float64)
    quality = distance.compare([huge], [torch.ones(2)])
    assert quality.finite
    assert quality.max_abs_err is None
    assert judge(quality, {"max_abs_err": 1.0}) != QualityVerdict.OK


def test_integer_outputs_are_compared_too_and_none_at_all_is_said() -> None:
    assert distance.compare([torch.tensor([1, 2])], [torch.tensor([1, 3])]).max_abs_err == 1
    assert "without a tensor" in str(distance.compare([], []).why)


def test_arguments_that_can_only_be_named_are_refused_where_they_would_be_lost() -> None:
    class ByName(torch.nn.Module):
        def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
            return inputs["a"]

    call = Call.of({"a": ONE})
    assert torch.equal(call(ByName()), ONE)
    with pytest.raises(TypeError, match="by keyword only"):
        call.positional(ByName())


def test_a_model_whose_optional_branch_fx_would_lose_is_not_traceable() -> None:
    class Optional(torch.nn.Module):
        def forward(self, x: torch.Tensor, shift: torch.Tensor | None = None) -> torch.Tensor:
            return x if shift is None else x + 1

    assert not quantize.traceable(Optional(), Call.of(ONE))
    assert quantize.traceable(models.ConvRelu(), Call.of(torch.ones(1, 16, 8, 8)))


def test_outputs_of_another_shape_or_number_are_not_comparable() -> None:
    assert not distance.compare([torch.zeros(2)], [torch.zeros(3)]).comparable
    assert not distance.compare([torch.zeros(2)], [torch.zeros(2), torch.zeros(2)]).comparable


@pytest.mark.parametrize("factory", [models.tiny, models.conv_relu])
def test_one_percent_of_one_layers_weights_shows(factory: Any) -> None:
    torch.manual_seed(0)
    module, inputs = factory(batch_size=4)
    module.eval()
    with torch.no_grad():
        right = module(*inputs)
        next(module.parameters()).mul_(1.01)
        assert (distance.compare([module(*inputs)], [right]).rel_l2 or 0) > 1e-3


def test_outputs_of_a_shipped_model_depend_on_its_inputs() -> None:
    torch.manual_seed(0)
    module, (images,) = models.tiny(batch_size=4)
    with torch.no_grad():
        right = module.eval()(images)
        assert (distance.compare([right.roll(1, 0)], [right]).rel_l2 or 0) > 0.02


def one_output(*tensors: torch.Tensor) -> reference.Reference:
    """The reference of a model with one input set."""
    return reference.Reference([list(tensors)], [], [], 1, None, 0, {}, "", [], [])


@pytest.mark.parametrize("scale", [1e-10, 1e-30, 1e-200, 1e90])
def test_outputs_of_any_size_are_compared_alike(scale: float) -> None:
    right = torch.tensor([[3.0, 4.0], [1.0, 2.0]], dtype=torch.float64) * scale
    same = distance.compare([right], [right], batch_size=2)
    assert same.rel_l2 == 0
    assert same.cosine == pytest.approx(1, abs=1e-12)
    assert judge(same, TOLERANCE) == "ok"
    off = distance.compare([right * 1.1], [right], batch_size=2)
    assert off.rel_l2 == pytest.approx(0.1)
    assert off.cosine == pytest.approx(1, abs=1e-12)


def test_a_mask_is_right_where_the_reference_has_it_and_nowhere_else() -> None:
    masked = torch.tensor([[1.0, float("-inf"), 2.0, float("inf")]])
    same = distance.compare([masked], [masked])
    assert (same.finite, same.rel_l2, same.max_abs_err) == (True, 0, 0)
    assert judge(same, TOLERANCE) == "ok"
    for other in (-masked, masked.roll(1, 1), masked * float("nan")):
        assert "nan or inf" in judge(distance.compare([other], [masked]), TOLERANCE)


def test_the_worst_tensor_decides_and_is_named() -> None:
    boxes, scores = torch.full((4, 4), 1000.0), torch.rand(4, 3)
    names = ["output['boxes']", "output['scores']"]
    quality = distance.compare([boxes, torch.zeros(4, 3)], [boxes, scores], names, 4)
    assert quality.rel_l2 == pytest.approx(1)
    assert "output['scores']" in judge(quality, TOLERANCE)


def test_one_wrong_sample_of_many_decides_and_is_named() -> None:
    torch.manual_seed(0)
    right = torch.randn(64, 16)
    wrong = right.clone()
    wrong[41] = -wrong[41]
    assert distance.compare([wrong], [right], batch_size=64).rel_l2 == pytest.approx(2)
    assert "sample 42 of output" in judge(distance.compare([wrong], [right], ["output"], 64), {"rel_l2": 0.2})


def test_a_sample_near_zero_is_held_to_the_others_length() -> None:
    right = torch.tensor([[1.0], [-1.1], [1e-6], [0.9]])
    assert (distance.compare([right + 1e-5], [right], batch_size=4).rel_l2 or 1) < 2e-5


def test_classes_are_codes_and_not_held_to_a_length_of_their_own() -> None:
    right = torch.arange(100)
    wrong = right.clone()
    wrong[3] = 4
    assert (distance.compare([wrong], [right], batch_size=100).rel_l2 or 1) < 0.01


def test_the_worst_of_several_outputs_is_named_by_its_iteration_and_input_set() -> None:
    right = [torch.ones(2, 3), torch.arange(6.0).reshape(2, 3)]
    of_sets = reference.Reference([[right[0]], [right[1]]], [[right[1]]], [], 7, 1e9, 0, {}, "", [], [])
    seen = [
        distance.Observation("the last timed iteration", 1, {"logits": right[0]}),
        distance.Observation("the last warm-up iteration", 0, {"logits": right[0]}),
    ]
    quality = distance.compare_all(seen, of_sets, 2)
    assert (quality.outputs, quality.reference_operators) == (2, 7)
    assert judge(quality, TOLERANCE).endswith("of output['logits'] in the last timed iteration, input set 2")
    right_ones = [replace(seen[0], output=right[1]), replace(seen[1], output=right[0])]
    assert judge(distance.compare_all(right_ones, of_sets, 2), TOLERANCE) == "ok"
    odd = [*right_ones, replace(seen[1], output=torch.ones(2))]
    assert "in the last warm-up iteration, input set 1" in judge(distance.compare_all(odd, of_sets, 2), TOLERANCE)


def test_the_reference_counts_what_computes_and_keeps_inputs_that_the_model_changes() -> None:
    class Changes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(self.linear(x.zero_()))  # type: ignore[no-any-return]

    computed = reference.compute(Changes(), [Call.of(torch.ones(2)), Call.of(torch.ones(2))])
    assert computed.operators == 2
    assert torch.equal(computed.further_inputs[0][0], torch.ones(2))


def test_float32_that_may_be_rounded_to_bfloat16_is_held_to_bf16s_tolerance() -> None:
    assert yaml.safe_load((ROOT / "conf/precision/bf16.yaml").read_text())["tolerance"] == OF_BF16
    fp32 = Precision("fp32", {"rel_l2": 1e-4, "cosine": 0.9999})
    assert replace(CELL, precision=fp32, fp32_math="bf16").tolerance == OF_BF16
    assert replace(CELL, precision=fp32).tolerance == fp32.tolerance
    # What a person has widened further stays so.
    wide = replace(CELL, precision=Precision("fp32", {"rel_l2": 0.5}), fp32_math="bf16")
    assert wide.tolerance == {"rel_l2": 0.5, "least_rel_l2": OF_BF16["least_rel_l2"]}


def test_the_reference_is_computed_in_another_process(tmp_path: Path) -> None:
    file = tmp_path / "r.pt"
    assert reference.compute_in_child(lambda: one_output(torch.tensor([float(os.getpid())])), file, 0.0)
    assert reference.load(file).outputs[0][0].item() != os.getpid()


def test_a_reference_that_fails_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def fails() -> reference.Reference:
        raise ValueError("no such thing")

    assert not reference.compute_in_child(fails, tmp_path / "r.pt", 0.0)
    assert "no such thing" in capfd.readouterr().err


def test_a_model_that_kills_the_reference_kills_the_worker_alike(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:

        def dies() -> reference.Reference:
            os.kill(os.getpid(), signal.SIGKILL)
            return one_output()

        reference.compute_in_child(dies, tmp_path / "r.pt", 0.0)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


# -- calls --------------------------------------------------------------------------------------------


class Takes(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: Any = None, c: torch.Tensor | None = None) -> dict[str, Any]:
        return {"sum": a + (0 if c is None else c), "more": (a, [b])}


ONE = torch.ones(2)


@pytest.mark.parametrize(
    "inputs", [ONE, (ONE,), [ONE], {"a": ONE}, {"a": ONE, "c": ONE}, (ONE, {"x": (ONE, ONE)}), {"a": ONE, "b": [ONE]}]
)
def test_inputs_may_be_a_tensor_a_tuple_or_a_dict_nested_or_not(inputs: Any) -> None:
    call = Call.of(inputs)
    by_name = flat(call(Takes()))
    by_place = flat(Takes()(*call.positional(Takes())))
    assert len(by_name) == len(by_place)
    assert all(torch.equal(x, y) for x, y in zip(by_name, by_place, strict=True))
    doubled = call.map(lambda tensor: tensor * 2)
    assert [t.sum().item() for t in doubled.tensors()] == [2 * t.sum().item() for t in call.tensors()]


@pytest.mark.parametrize("inputs", ["text", 3, None, (), {}, {"a": 1}])
def test_inputs_without_a_tensor_are_refused(inputs: Any) -> None:
    with pytest.raises(TypeError, match="example inputs"):
        Call.of(inputs)
