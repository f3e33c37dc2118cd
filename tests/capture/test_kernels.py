"""What oneDNN's log of several steps comes to, on recorded real logs."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import pytest

from runner.capture import kernel_tables, kernels
from runner.capture.onednn import Log, parse
from runner.protocol.evidence import ComputeOperator, OperatorEvidence
from runner.results.metric_names import Metric
from runner.results.metrics import evidence_figures
from tests.conftest import ROOT

DATA = ROOT / "tests/data/onednn-verbose"


def steps(name: str, copies: dict[str, int]) -> Log:
    """A recorded log as if each copy had logged it so many times."""
    lines = (DATA / f"{name}.log").read_text().splitlines()
    marked = [(f"#### step {i} {copy}", *lines) for copy, n in copies.items() for i in range(n)]
    return parse(line for group in marked for line in group)


@pytest.mark.parametrize(
    ("name", "activations", "weights"),
    # Per recorded file: four iterations of conv_relu (reorder in, weights, reorder out), one step of ResNet-50.
    [("convrelu_eager", 2, 1), ("convrelu_eager+cl", 0, 1)],
)
def test_reorders_of_activations_are_told_from_those_of_weights(name: str, activations: int, weights: int) -> None:
    found = kernels.summarize(steps(name, {"torch": 1}), {"torch": [1.0]})
    iterations = found.by_kind["convolution"][0]
    assert found.weight_reorders == weights * iterations
    assert found.reorders - found.weight_reorders == activations * iterations


def test_channels_last_resnet50_reorders_weights_only() -> None:
    found = kernels.summarize(steps("resnet50_cl", {"torch": 1}), {"torch": [1.0]})
    assert found.reorders == found.weight_reorders > 0


def test_counts_are_a_step_whatever_number_of_steps_and_copies_were_logged() -> None:
    one = kernels.summarize(steps("resnet50_eager", {"torch": 1}), {"torch": [1.0]})
    several = kernels.summarize(
        steps("resnet50_eager", {"torch": 3, "ipex": 2}), {"torch": [1.0, 3.0, 2.0], "ipex": [2.0, 2.0]}
    )
    assert several.calls == pytest.approx(2 * one.calls)
    assert several.reorders == pytest.approx(2 * one.reorders)
    assert several.seconds == pytest.approx(2 * one.seconds)
    table = kernel_tables.by_primitive(steps("resnet50_eager", {"torch": 3}), {"torch": [1.0, 3.0, 2.0]})
    assert sum(table["calls per iteration"]) == pytest.approx(one.calls)
    assert sum(table["ms per iteration"]) == pytest.approx(1e3 * one.seconds)
    assert set(table["copies"]) == {"torch"}


def test_one_disturbed_iteration_of_three_moves_no_figure_and_no_table() -> None:
    calm = [line for line in (DATA / "convrelu_eager.log").read_text().splitlines() if "exec" in line]
    # The reorders of the second iteration took a second each.
    disturbed = [re.sub(r",[\d.]+$", ",1000", line) if ",reorder," in line else line for line in calm]
    header = [line for line in (DATA / "convrelu_eager.log").read_text().splitlines() if "info" in line]
    marked = [(f"#### step {i} torch", *lines) for i, lines in enumerate((calm, disturbed, calm))]
    log = parse([*header, *(line for group in marked for line in group)])
    step_s = {"torch": [0.01, 9.0, 0.01]}
    found = kernels.summarize(log, step_s)
    expected = kernels.summarize(parse([*header, "#### step 0 torch", *calm]), {"torch": [0.01]})
    assert replace(found, layouts=expected.layouts) == expected
    figures = evidence_figures(found, None)
    table = kernel_tables.by_primitive(log, step_s)
    for kind in ("reorder", "convolution"):
        rows = [i for i, name in enumerate(table["primitive"]) if name.startswith(f"{kind} ")]
        assert sum(table["ms per iteration"][i] for i in rows) == pytest.approx(
            figures[f"onednn/{kind}_ms_per_iteration"]
        )
        assert sum(table["calls per iteration"][i] for i in rows) == figures[f"onednn/{kind}_calls_per_iteration"]


def reorder_of(dtypes: tuple[str, str], shape: str = "3x5") -> Log:
    tensors = " ".join(f"{name}:{dtype}::blocked:ab::f0" for name, dtype in zip(("src", "dst"), dtypes, strict=True))
    template = (
        "operation,engine,primitive,implementation,prop_kind,memory_descriptors,attributes,auxiliary,problem_desc"
    )
    return parse(
        [
            f"onednn_verbose,v1,primitive,info,template:{template},exec_time",
            f"onednn_verbose,v1,primitive,exec,cpu,reorder,jit:uni,undef,{tensors},,,{shape},0.1",
        ]
    )


@pytest.mark.parametrize(
    ("dtypes", "read_and_written"),
    [
        (("f32", "bf16"), 90),
        (("f32", "s8"), 75),
        # Fifteen halves of a byte are eight bytes.
        (("f32", "s4"), 68),
        (("u4", "f4_e2m1"), 16),
        (("f8_e5m2", "f8_e4m3"), 30),
        (("e8m0", "boolean"), 30),
        (("f64", "f16"), 150),
    ],
)
def test_a_reorder_s_bytes_are_those_of_its_element_types(dtypes: tuple[str, str], read_and_written: int) -> None:
    assert kernels.summarize(reorder_of(dtypes), {}).reorder_bytes == read_and_written


@pytest.mark.parametrize("log", [reorder_of(("f32", "f32"), "3x*"), reorder_of(("f32", "f32"), "3:5")])
def test_a_reorder_whose_size_is_not_known_leaves_the_figure_out(log: Log) -> None:
    assert len(log.primitives) == 1
    found = kernels.summarize(log, {})
    assert found.reorder_bytes is None
    assert "onednn/reorder_mb_per_iteration" not in evidence_figures(found, None)


def test_the_kinds_of_primitives_add_up_to_their_time() -> None:
    found = kernels.summarize(steps("resnet50_eager", {"torch": 1}), {"torch": [2.0]})
    assert found.coverage == pytest.approx(found.seconds / 2)
    assert sum(seconds for _, seconds in found.by_kind.values()) == pytest.approx(found.seconds)


def test_a_reorders_bytes_are_read_and_written_elements() -> None:
    log = steps("convrelu_eager", {"torch": 1})
    found = kernels.summarize(log, {"torch": [1.0]})
    image_in, image_out, weights = 20 * 16 * 50 * 100, 20 * 33 * 24 * 49, 33 * 16 * 3 * 3
    iterations = found.by_kind["convolution"][0]
    assert found.reorder_bytes == iterations * 8 * (image_in + image_out + weights)


def test_the_trace_has_a_row_a_primitive_with_its_layouts() -> None:
    log = steps("convrelu_eager", {"torch": 1})
    rows = list(csv.DictReader(io.StringIO(kernel_tables.trace(log))))
    assert len(rows) == len(log.primitives)
    assert rows[0]["src_layout"] == "abcd"
    assert rows[0]["dst_layout"] == "aBcd16b"
    assert {row["copy"] for row in rows} == {"torch"}


def test_the_shapes_of_a_trace_add_up_to_the_step() -> None:
    log = steps("resnet50_eager", {"torch": 3, "ipex": 2})
    one = kernels.summarize(steps("resnet50_eager", {"torch": 1}), {"torch": [1.0]})
    found = kernel_tables.by_shape(csv.DictReader(io.StringIO(kernel_tables.trace(log))))
    assert sum(problem.ms for problem in found) == pytest.approx(2 * 1e3 * one.seconds)
    assert sum(problem.calls for problem in found) == pytest.approx(2 * one.calls)
    assert [problem.ms for problem in found] == sorted((problem.ms for problem in found), reverse=True)
    assert len({problem.name for problem in found}) == len(found)


def test_the_implementations_of_a_shape_are_named_with_what_they_fuse() -> None:
    found = kernel_tables.by_shape(
        csv.DictReader(io.StringIO(kernel_tables.trace(steps("resnet50_ipex+jit+bf16", {"torch": 1}))))
    )
    assert any(problem.by.endswith("(sum, eltwise_relu)") for problem in found)
    assert all(problem.by for problem in found)


def test_graphs_repeat_the_time_of_their_primitives_and_are_no_shapes() -> None:
    row = {"step": "0", "copy": "torch", "implementation": "dnnl", "post_ops": "", "problem": "", "seconds": "0.5"}
    assert not kernel_tables.by_shape([{**row, "operation": "graph", "primitive": "graph"}])


def test_an_empty_log_has_no_kernel_and_no_share() -> None:
    found = kernels.summarize(parse([]), {})
    assert found.main_isa == "unobserved"
    assert found.main_kernel == ""
    assert found.coverage == found.seconds == 0


def test_attention_whose_products_no_log_has_counts_for_the_second_witness_of_the_operations() -> None:
    found = kernels.summarize(parse((DATA / "convrelu_eager.log").read_text().splitlines(keepends=True)), {})
    name = "aten::_scaled_dot_product_flash_attention_for_cpu"
    others = [ComputeOperator("aten::mkldnn_convolution", "float32", None, 1, 0.1, 7e9)]
    operators = OperatorEvidence([ComputeOperator(name, "float32", None, 12, 0.1, 5e8), *others], 0, {}, 0)
    by_log = evidence_figures(found, None)[Metric.WITNESSED_FLOP]
    assert by_log > 0
    assert evidence_figures(found, None, operators)[Metric.WITNESSED_FLOP] == by_log + 5e8
