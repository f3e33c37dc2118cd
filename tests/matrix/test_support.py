"""Which combinations are known not to work, and that the reason is given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runner.matrix.support import build_lacks, why_not, why_not_in_its_memory_format, why_not_in_its_precision
from runner.protocol.cell import Cell, Graph, Launcher, Precision, Scenario, Torch
from runner.protocol.torch_build import TorchBuild
from tests.conftest import CELL

ZEN4 = frozenset({"avx2", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"})


def precision(name: str) -> Precision:
    return Precision(name, {})


INT8, BF16, FP16 = precision("int8"), precision("bf16"), precision("fp16")
COMPILE, FREEZING, SCRIPT = Graph("compile"), Graph("compile_freezing"), Graph("torchscript")
AUTOTUNE, AOT = Graph("max_autotune"), Graph("aot")


def first_reason(cell: Cell) -> str | None:
    """Why a model of images can't run as the cell asks, on Zen 4."""
    return why_not(cell, ZEN4) or why_not_in_its_memory_format(cell, has_images=True)


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"precision": FP16, "memory_format": "channels_last"}, "AVX512-FP16"),
    ({"graph": COMPILE}, "channels last by itself"),
    ({"precision": INT8}, "int8 convolutions work channels last"),
    ({"precision": INT8, "ipex": "on"}, "only once TorchScript"),
    (
        {"precision": INT8, "ipex": "on", "graph": FREEZING, "memory_format": "channels_last"},
        "torch.compile can't trace",
    ),
    ({"precision": INT8, "graph": COMPILE, "memory_format": "channels_last"}, "choose compile_freezing"),
    ({"precision": INT8, "graph": AOT, "memory_format": "channels_last"}, "choose compile_freezing"),
    (
        {"ipex": "on", "graph": AUTOTUNE, "memory_format": "channels_last"},
        "IPEX's backend of torch.compile knows no mode",
    ),
    ({"ipex": "on", "graph": AOT, "memory_format": "channels_last"}, "would leave IPEX out"),
    ({"ipex": "multistream", "graph": SCRIPT}, "choose openmp=intel"),
    ({"ipex": "multistream", "openmp": "intel", "graph": COMPILE}, "one thread of Python"),
    ({"ipex": "multistream", "openmp": "intel", "graph": AOT}, "one thread of Python"),
    ({"ipex": "multistream", "openmp": "intel", "precision": INT8}, "only once TorchScript"),
    (
        {"ipex": "multistream", "openmp": "intel", "scenario": Scenario("torchserve"), "launcher": Launcher("xeon")},
        "streams split one",
    ),
    ({"graph": Graph("eager", compile_cache="warm")}, "inductor compiles nothing"),
    (
        {"precision": precision("int8_dynamic"), "graph": AOT, "memory_format": "channels_last"},
        "the profiler does not see a package's products",
    ),
    ({"precision": precision("int8_dynamic"), "ipex": "on", "graph": COMPILE}, "torch.compile can't trace"),
    ({"precision": precision("int8_weight"), "graph": SCRIPT}, "torch.jit.freeze makes bfloat16 constants"),
    ({"precision": BF16, "fp32_math": "bf16"}, "it is for what computes in float32"),
    ({"instances": 2, "launcher": Launcher("none", False, "auto")}, "one process"),
]


@pytest.mark.parametrize(("change", "reason"), IMPOSSIBLE)
def test_what_can_not_work_is_refused_with_its_reason(change: dict[str, Any], reason: str) -> None:
    assert reason in str(first_reason(replace(CELL, **change)))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"precision": BF16},
        {"ipex": "on", "precision": BF16, "graph": SCRIPT},
        {"ipex": "multistream", "openmp": "intel"},
        {"ipex": "multistream", "openmp": "intel", "precision": INT8, "graph": SCRIPT},
        {"ipex": "on", "precision": INT8, "graph": SCRIPT},
        {"precision": INT8, "graph": FREEZING, "memory_format": "channels_last"},
        {"precision": INT8, "graph": AUTOTUNE, "memory_format": "channels_last"},
        {"ipex": "on", "graph": COMPILE, "memory_format": "channels_last"},
        {"ipex": "on", "graph": FREEZING, "memory_format": "channels_last"},
        {"graph": AOT, "memory_format": "channels_last"},
        {"precision": precision("bf16_autocast")},
        {"precision": precision("int8_dynamic"), "graph": SCRIPT},
        {"precision": precision("int8_weight"), "ipex": "on", "graph": SCRIPT},
        {"precision": precision("int4_weight"), "graph": SCRIPT},
    ],
)
def test_what_can_work_is_let_through(change: dict[str, Any]) -> None:
    assert first_reason(replace(CELL, **change)) is None


@pytest.mark.parametrize(
    ("name", "linear_inputs", "reason"),
    [
        ("fp32", [], None),
        ("bf16_autocast", [], None),
        ("int8", [], None),
        ("int8_dynamic", [], "model=tiny has no linear layer, and its recipes quantize no other"),
        ("int8_weight", [16], None),
        ("int4_weight", [16, 40], "scales are for 32 inputs or more"),
        ("int4_weight", [16, 64], None),
    ],
)
def test_recipes_for_linears_depend_on_those_that_the_model_has(
    name: str, linear_inputs: list[int], reason: str | None
) -> None:
    given = why_not_in_its_precision(replace(CELL, precision=precision(name)), linear_inputs)
    assert reason in str(given) if reason else given is None


def test_memory_formats_mean_nothing_to_a_model_without_images() -> None:
    last = replace(CELL, memory_format="channels_last")
    assert "works on no images" in str(why_not_in_its_memory_format(last, has_images=False))
    for change in ({"graph": COMPILE}, {"precision": INT8}):
        cell = replace(CELL, **change)
        assert why_not_in_its_memory_format(cell, has_images=False) is None
        assert why_not_in_its_memory_format(cell, has_images=True) is not None


def test_what_depends_on_the_cpu_is_decided_by_its_flags() -> None:
    half = replace(CELL, precision=FP16)
    assert why_not(half, ZEN4 | {"avx512_fp16"}) is None
    assert "AVX2" in str(why_not(replace(CELL, ipex="on"), frozenset()))
    assert "AVX-512" in str(why_not(replace(CELL, ipex="on", precision=BF16), frozenset({"avx2"})))
    assert "AVX512-BF16" in str(why_not(replace(CELL, fp32_math="bf16"), frozenset({"avx2"})))


def test_float32_in_less_is_left_out_where_a_compiler_does_not_take_the_setting() -> None:
    flags = ZEN4 | {"avx512_bf16"}
    allowed = replace(CELL, fp32_math="bf16")
    assert why_not(replace(allowed, graph=COMPILE), flags) is None
    assert "does not reach its compiled code" in str(why_not(replace(allowed, ipex="on", graph=COMPILE), flags))
    assert "old setting of it" in str(why_not(replace(allowed, graph=AUTOTUNE), flags))


UPSTREAM = TorchBuild(
    python="/up/bin/python", version="3.12.1", prefix="/up", has_headers=True, folder="/up/torch",
    is_in_user_site=False, torch="2.15.0", git=None, parts=(), distributions={"torch": "2.15.0"}, hashes={},
)  # fmt: skip
ON_UPSTREAM = replace(CELL, torch=Torch("own", "/up/bin/python"))
LACKING: list[tuple[dict[str, Any], str]] = [
    ({"ipex": "on"}, "ipex=on torch=own: that build has no Intel Extension for PyTorch"),
    ({"graph": SCRIPT}, "graph=torchscript torch=own: torch 2.15.0 has no TorchScript any more"),
    ({"precision": INT8, "graph": FREEZING}, "install it with: /up/bin/python -m pip install torchao"),
    ({"precision": precision("int8_dynamic"), "graph": COMPILE}, "precision=int8_dynamic graph=compile torch=own"),
    ({"precision": precision("int4_weight")}, "precision=int4_weight graph=eager torch=own: torch 2.15.0 leaves this"),
    ({"precision": INT8}, "precision=int8 graph=eager torch=own: torch 2.15.0 has no FX quantization"),
    ({"fp32_math": "bf16"}, "fp32_math=bf16 ipex=off torch=own: torch 2.15.0 has no setting for it"),
    ({"launcher": Launcher("xeon")}, "launcher=xeon torch=own: torch 2.15.0 has no launcher"),
    ({"scenario": Scenario("torchserve")}, "scenario=torchserve torch=own: the server runs on the bundled torch"),
]


@pytest.mark.parametrize(("change", "reason"), LACKING)
def test_what_a_build_lacks_is_refused_with_its_reason(change: dict[str, Any], reason: str) -> None:
    assert reason in str(build_lacks(replace(ON_UPSTREAM, **change), UPSTREAM))


def test_what_a_build_has_is_let_through() -> None:
    both = {"torchao": "0.18.0", "intel-extension-for-pytorch": "2.8.0"}
    richer = replace(UPSTREAM, parts=("torchscript", "fx", "xeon", "fp32_precision"), distributions=both)
    for change, _ in LACKING[:-1]:
        assert build_lacks(replace(ON_UPSTREAM, **change), richer) is None
    assert build_lacks(ON_UPSTREAM, UPSTREAM) is None


def test_dynamic_int8_of_a_build_without_torchao_wants_frozen_weights() -> None:
    build = replace(UPSTREAM, parts=("pt2e", "fx"))
    cell = replace(ON_UPSTREAM, precision=precision("int8_dynamic"))
    assert "choose compile_freezing" in str(build_lacks(replace(cell, graph=COMPILE), build))
    assert build_lacks(replace(cell, graph=FREEZING), build) is None


def test_the_torch_whose_templates_are_no_c_plus_plus_chooses_no_kernels() -> None:
    cell = replace(CELL, graph=AUTOTUNE)
    assert "a brace is missing" in str(build_lacks(cell, replace(UPSTREAM, torch="2.8.0+cpu")))
    assert build_lacks(cell, replace(UPSTREAM, torch="2.13.0")) is None


def test_ipex_that_is_not_installed_beside_the_bundled_torch_is_for_a_person_to_install() -> None:
    assert build_lacks(replace(CELL, ipex="on"), UPSTREAM) is None
