"""Which of inductor's kernels took how long, and what each computes."""

from __future__ import annotations

import pytest

from runner.capture import inductor
from runner.capture.inductor import ProfilerRow

# As torch 2.8 says it of a kernel of BERT's, and torch 2.14 of one that stands for several nodes.
SAID = (
    "# Topologically Sorted Source Nodes: [hidden_states_2, add_1], Original ATen: [aten.add, aten.native_layer_norm]",
    "# Topologically Sorted Source Nodes: [x], Original ATen: [aten.gelu, aten.add]",
)


def test_a_kernel_computes_the_operators_that_inductor_names_of_its_nodes() -> None:
    found = inductor.operators_of({"cpp_fused_add_native_layer_norm_0": SAID, "cpp_fused_1": ["no word of any"]})
    assert found == {
        "cpp_fused_add_native_layer_norm_0": ("aten.add", "aten.native_layer_norm", "aten.gelu"),
        "cpp_fused_1": (),
    }


def test_kernels_of_several_graphs_are_one_and_ranges_around_them_name_no_work() -> None:
    found = inductor.kernels(
        [
            ProfilerRow("graph_0_cpp_fused_relu_0", 4, 0.004, 0.004),
            ProfilerRow("graph_1_cpp_fused_relu_0", 2, 0.001, 0.001),
            ProfilerRow("mkldnn::_convolution_pointwise", 2, 0.010, 0.010),
            ProfilerRow("Torch-Compiled Region: 0/0", 2, 0.020, 0.005),
        ],
        2,
        {"cpp_fused_relu_0": ("aten.relu",)},
    )
    assert [(one.name, one.kind, one.calls) for one in found] == [
        ("mkldnn::_convolution_pointwise", "operator", 1),
        ("cpp_fused_relu_0", "generated", 3),
        ("Torch-Compiled Region: 0/0", "around", 1),
    ]
    assert found[1].operators == ("aten.relu",)
    assert found[1].self_s == pytest.approx(0.0025)
    assert inductor.named_pct(found, 0.010) == pytest.approx(75)
