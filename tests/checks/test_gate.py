"""The gate on recorded evidence of real jobs, untouched and tampered with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.checks import precision
from runner.checks.gate import check
from runner.launch import PlacedCell, Placement
from runner.protocol.cell import Allocator, Graph, Precision
from runner.protocol.resultfile import Window
from runner.protocol.stored import FormatError
from tests.checks.recorded import data_of, proof_of, recorded_build, tampered
from tests.conftest import CELL

JEMALLOC = Path("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2")
CONF = "oversize_threshold:1,background_thread:true,metadata_thp:auto"
EXPECT_JEMALLOC = {"jemalloc": {"opt.oversize_threshold": 0, "opt.background_thread": True, "opt.metadata_thp": "auto"}}


def plan(allocator: Allocator, ipex: str, libraries: dict[str, Path]) -> PlacedCell:
    cell = replace(CELL, allocator=allocator, ipex=ipex, batch_size=2)
    return PlacedCell(cell, Placement((0, 1), 2, 0, "numactl", False), libraries, recorded_build())


PTMALLOC_OFF = plan(Allocator("ptmalloc", "glibc", "default", {}, {"glibc_maps_large_blocks": True}), "off", {})
JEMALLOC_ON = plan(
    Allocator("jemalloc", "jemalloc", "jemalloc", {"MALLOC_CONF": CONF}, EXPECT_JEMALLOC), "on", {"jemalloc": JEMALLOC}
)


PTMALLOC = Allocator("ptmalloc", "glibc", "default", {}, {"glibc_maps_large_blocks": True})


def plan_of(
    ipex: str, memory_format: str, numbers: str, graph: str, openmp: str = "default", streams: int = 1
) -> PlacedCell:
    base = plan(PTMALLOC, ipex, {})
    limits = {"least_rel_l2": 1e-4} if numbers != "fp32" else {}
    cell = replace(base.cell, memory_format=memory_format, precision=Precision(numbers, limits), graph=Graph(graph))
    placement = replace(base.placement, streams=streams)
    return replace(base, cell=replace(cell, openmp=openmp), placement=placement)


# recorded evidence -> the cell it is of
RECORDED = {
    "ptmalloc_off": plan_of("off", "channels_first", "fp32", "eager"),
    "ipex_channels_last": plan_of("on", "channels_last", "fp32", "eager"),
    "ipex_int8_torchscript": plan_of("on", "channels_last", "int8", "torchscript"),
    "bf16_compile": plan_of("off", "channels_last", "bf16", "compile"),
    "freezing": plan_of("off", "channels_last", "fp32", "compile_freezing"),
    "aot": plan_of("off", "channels_last", "fp32", "aot"),
    "ipex_bf16_freezing": plan_of("on", "channels_last", "bf16", "compile_freezing"),
    "bf16_autocast": plan_of("off", "channels_last", "bf16_autocast", "torchscript"),
    "int8_dynamic": plan_of("off", "channels_last", "int8_dynamic", "eager"),
    "ipex_int8_weight": plan_of("on", "channels_last", "int8_weight", "eager"),
    "int8_eager": plan_of("off", "channels_last", "int8", "eager"),
    "ipex_multistream": plan_of("multistream", "channels_last", "fp32", "torchscript", "intel", streams=2),
}


def test_jobs_that_ran_as_asked_pass() -> None:
    assert check(PTMALLOC_OFF, proof_of(data_of("ptmalloc_off"))) == ()
    assert check(JEMALLOC_ON, proof_of(data_of("jemalloc_on"))) == ()


@pytest.mark.parametrize("name", RECORDED)
def test_each_recorded_cell_passes_as_itself_and_as_no_other(name: str) -> None:
    proof = proof_of(data_of(name))
    assert check(RECORDED[name], proof) == ()
    for other, asked in RECORDED.items():
        assert bool(check(asked, proof)) == (other != name), (other, name)


def axes_of(name: str, *path: Any, value: Any) -> set[str]:
    """Axes that fail when one thing of recorded evidence is another."""
    return {mismatch.axis for mismatch in check(RECORDED[name], tampered(name, *path, value=value))}


def test_a_graph_that_is_none_fails() -> None:
    assert axes_of("bf16_compile", "graph", "graphs", value=[]) == {"graph"}
    assert axes_of("bf16_compile", "graph", "graph_breaks", value=2) == {"graph"}
    assert axes_of("bf16_compile", "graph", "cache_hits", value=1) == {"graph"}
    assert axes_of("bf16_compile", "operators", "compiled_regions", value=0) == {"graph"}
    assert axes_of("ipex_int8_torchscript", "graph", "frozen", value=False) == {"graph"}
    assert axes_of("bf16_compile", "graph", "frozen", value=True) == {"graph"}
    assert axes_of("freezing", "graph", "frozen", value=False) == {"graph"}
    assert axes_of("bf16_compile", "graph", "compiled_in_window", value=1) == {"graph"}
    assert axes_of("aot", "graph", "compiled_in_window", value=1) == {"graph"}
    assert axes_of("aot", "graph", "objects", value=[]) == {"graph"}
    assert axes_of("aot", "operators", "compiled_regions", value=1) == {"graph"}
    assert axes_of("ptmalloc_off", "operators", "compiled_regions", value=1) == {"graph"}


@pytest.mark.parametrize(
    ("cache", "number", "cached_files", "is_right"),
    [("cold", 0, 0, True), ("cold", 1, 3, False), ("warm", 0, 0, True), ("warm", 1, 3, True), ("warm", 1, 0, False)],
)
def test_a_cache_of_inductor_that_is_not_as_asked_for_fails(
    cache: str, number: int, cached_files: int, is_right: bool
) -> None:
    cell = RECORDED["freezing"].cell
    placed = replace(RECORDED["freezing"], cell=replace(cell, graph=replace(cell.graph, compile_cache=cache)))
    data = data_of("freezing")
    data["graph"]["cached_files"] = cached_files
    mismatches = check(placed, replace(proof_of(data), round=number))
    assert [mismatch.axis for mismatch in mismatches] == ([] if is_right else ["graph"])


def test_kernels_that_were_to_be_chosen_by_their_time_were_unless_there_is_nothing_to_choose() -> None:
    asked = replace(RECORDED["freezing"], cell=replace(RECORDED["freezing"].cell, graph=Graph("max_autotune")))
    chosen, unknown = {"cpp_CppMicroGemmFP32Vec": 1}, None
    for autotuned, axes in ((chosen, []), ({}, ["graph"]), (unknown, ["graph"])):
        data = data_of("freezing")
        data["graph"]["autotuned"] = autotuned
        assert [m.axis for m in check(asked, proof_of(data))] == axes
    data["graph"]["autotuned"] = {}
    data["operators"]["compute"] = [each for each in data["operators"]["compute"] if "conv" in each["name"]]
    assert check(asked, proof_of(data)) == ()


def test_operators_that_the_profiler_could_not_see_are_looked_for_elsewhere_and_never_assumed() -> None:
    # oneDNN's log and the kind of the module are enough for these.
    for name in ("ptmalloc_off", "ipex_channels_last", "ipex_int8_torchscript"):
        assert axes_of(name, "operators", value=None) == set()
    assert axes_of("bf16_compile", "operators", value=None) == {"graph"}


def test_ipex_that_is_not_in_the_graph_fails() -> None:
    assert axes_of("ipex_int8_torchscript", "graph", "nodes", value={"aten::_convolution": 2}) == {"ipex"}
    assert axes_of("ipex_bf16_freezing", "graph", "compiler", value="inductor") == {"ipex"}


def test_arithmetic_in_another_precision_fails_by_either_witness() -> None:
    fp32 = [{"name": "aten::addmm", "dtype": "float32", "layout": "", "count": 1, "time_s": 1.0, "flop": None}]
    assert axes_of("bf16_compile", "operators", "compute", value=fp32) == {"precision"}
    assert axes_of("bf16_compile", "onednn", "dtypes", value={"float32": 1.0}) == {"precision"}
    assert axes_of("int8_eager", "onednn", "dtypes", value={"float32": 0.9, "int8": 0.1}) == {"precision"}
    assert axes_of("bf16_compile", "tensors", "weights", "dtypes", value={"float32": 3}) == {"precision"}


def test_only_an_fp32_cell_must_compute_in_all_of_float32_in_onednn() -> None:
    assert axes_of("bf16_compile", "onednn", "fpmath", value={"bf16": 1.0}) == set()
    assert axes_of("ptmalloc_off", "onednn", "fpmath", value={"bf16": 0.01}) == {"precision"}


def test_bf16_math_that_no_kernel_was_allowed_fails() -> None:
    asked = replace(RECORDED["ptmalloc_off"].cell, fp32_math="bf16")
    placed = replace(RECORDED["ptmalloc_off"], cell=asked)
    data = data_of("ptmalloc_off")
    data["quality"]["rel_l2"] = 2e-3
    data["float32_settings"] = {PRODUCTS: "bf16", "torch.backends.mkldnn.conv.fp32_precision": "bf16"}
    [mismatch] = check(placed, proof_of(data))
    assert str(mismatch).startswith("fp32_math: asked for attr-fpmath:bf16 in oneDNN's primitives, found it in 0%")
    data["onednn"]["fpmath"] = {"bf16": 1.0}
    assert check(placed, proof_of(data)) == ()
    data["quality"]["rel_l2"] = 3e-7
    assert [m.axis for m in check(placed, proof_of(data))] == ["precision"]


def test_an_error_as_small_as_fp32s_is_no_lower_precision() -> None:
    assert axes_of("bf16_compile", "quality", "rel_l2", value=3e-7) == {"precision"}
    assert axes_of("int8_eager", "quality", "rel_l2", value=0.0) == {"precision"}


@pytest.mark.parametrize("name", ["int8_eager", "int8_dynamic", "ipex_int8_weight"])
def test_a_recipe_that_quantized_nothing_fails_by_its_name(name: str) -> None:
    [mismatch] = check(RECORDED[name], tampered(name, "precision", "quantized", value={}))
    recipe = data_of(name)["precision"]["recipe"]
    assert str(mismatch).startswith("precision: asked for layers quantized for int8")
    assert f"in the model), found none by {recipe}; the recipe found nothing that it quantizes" in str(mismatch)


FLOAT = [{"name": "aten::addmm", "dtype": "float32", "layout": None, "count": 1, "time_s": 1.0, "flop": None}]


def test_dynamic_int8_without_an_int8_kernel_fails_whatever_its_error() -> None:
    assert axes_of("int8_dynamic", "operators", "compute", value=FLOAT) == {"precision"}
    assert axes_of("int8_dynamic", "operators", value=None) == {"precision"}
    # One kernel does not compute three layers.
    assert axes_of("int8_dynamic", "precision", "quantized", value={"dynamic.Linear": 3}) == {"precision"}


def test_weights_that_a_graph_has_turned_back_into_floats_fail_and_those_dequantized_in_eager_are_a_note() -> None:
    data = data_of("ipex_int8_weight")
    assert list(precision.notes(RECORDED["ipex_int8_weight"], proof_of(data))) == []
    for operator in data["operators"]["compute"]:
        operator["name"] = "aten::mm"
    assert check(RECORDED["ipex_int8_weight"], proof_of(data)) == ()
    [note] = precision.notes(RECORDED["ipex_int8_weight"], proof_of(data))
    assert note.startswith("the weights are dequantized in every iteration (ipex weight-only int8): no kernel of eager")
    data["graph"] |= {"kind": "torchscript", "frozen": True, "nodes": {"aten::mm": 1}}
    script = replace(RECORDED["ipex_int8_weight"].cell, graph=Graph("torchscript"))
    [mismatch] = check(replace(RECORDED["ipex_int8_weight"], cell=script), proof_of(data))
    assert str(mismatch).startswith("precision: asked for kernels that read the weights of int8_weight, found no such")


def test_weights_of_another_width_are_another_precision() -> None:
    cell = replace(RECORDED["ipex_int8_weight"].cell, precision=Precision("int4_weight", {"least_rel_l2": 1e-4}))
    [mismatch] = check(replace(RECORDED["ipex_int8_weight"], cell=cell), proof_of(data_of("ipex_int8_weight")))
    assert str(mismatch).startswith(
        "precision: asked for layers quantized for int4_weight (1 in the model), found none"
    )


def test_layers_that_a_recipe_left_are_a_note() -> None:
    proof = tampered("ipex_int8_weight", "precision", "layers", value=3)
    [note] = precision.notes(RECORDED["ipex_int8_weight"], proof)
    assert note == "2 of 3 linear layers were not quantized (ipex weight-only int8)"


def test_autocast_that_casts_nothing_or_runs_on_other_weights_fails() -> None:
    assert axes_of("bf16_autocast", "operators", "compute", value=FLOAT) == {"precision"}
    assert axes_of("bf16_autocast", "onednn", "dtypes", value={"float32": 1.0}) == {"precision"}
    assert axes_of("bf16_autocast", "tensors", "weights", "dtypes", value={"bfloat16": 8}) == {"precision"}
    assert axes_of("bf16_autocast", "tensors", "inputs", "dtypes", value={"bfloat16": 1}) == {"precision"}


def test_a_lower_precision_that_nothing_shows_fails() -> None:
    data = data_of("bf16_compile")
    data["operators"]["compute"], data["onednn"]["dtypes"] = [], {}
    assert [m.axis for m in check(RECORDED["bf16_compile"], proof_of(data))] == ["precision"]


def test_operators_that_took_no_time_or_have_no_dtype_show_no_precision() -> None:
    data = data_of("bf16_compile")
    data["onednn"]["dtypes"] = {}
    operators = data["operators"]["compute"]
    for change in ({"time_s": 0.0}, {"dtype": None}):
        data["operators"]["compute"] = [{**operator, **change} for operator in operators]
        assert [m.axis for m in check(RECORDED["bf16_compile"], proof_of(data))] == ["precision"]


def test_channels_last_lost_on_the_way_fails() -> None:
    assert axes_of(
        "ipex_channels_last", "operators", "image_layouts", value={"channels_last": 1, "channels_first": 9}
    ) == {"memory_format"}
    assert axes_of("ipex_channels_last", "tensors", "inputs", "memory_formats", value={"channels_first": 1}) == {
        "memory_format"
    }


@pytest.mark.parametrize(
    ("shapes", "lengths", "samples"),
    [
        ([[35, 2, 40]], [], None),
        ([[3, 320, 320], [3, 320, 320]], [2], None),
        ([[17, 40], [5]], [2], None),
        ([[17, 40], [5]], [], 2),
        ([[4, 3, 16, 16]], [], 2),
    ],
)
def test_a_batch_is_a_dimension_the_length_of_a_list_or_what_the_callable_counts(
    shapes: list[list[int]], lengths: list[int], samples: int | None
) -> None:
    data = data_of("ptmalloc_off")
    data["tensors"]["inputs"]["shapes"] = shapes
    data["tensors"] |= {"lengths": lengths, "samples": samples}
    assert check(RECORDED["ptmalloc_off"], proof_of(data)) == ()


def test_inputs_without_a_batch_ask_for_the_number_of_samples() -> None:
    data = data_of("ptmalloc_off")
    data["tensors"]["inputs"]["shapes"] = [[17, 40], [5]]
    [mismatch] = check(RECORDED["ptmalloc_off"], proof_of(data))
    assert str(mismatch).startswith("batch_size: asked for 2, found inputs of 17x40 and 5; the model's callable must")
    assert str(mismatch).endswith("it returns the number of samples in them as a third value")


PERMUTING = {"channels_first": 4, "channels_last": 85}


def test_a_model_that_permutes_by_itself_is_held_to_its_own_layout() -> None:
    data = data_of("ptmalloc_off")
    data["operators"]["image_layouts"] = PERMUTING
    assert [m.axis for m in check(RECORDED["ptmalloc_off"], proof_of(data))] == ["memory_format"]
    data["reference_layouts"] = PERMUTING
    assert check(RECORDED["ptmalloc_off"], proof_of(data)) == ()
    data["operators"]["image_layouts"] = {"channels_last": 89}
    assert [m.axis for m in check(RECORDED["ptmalloc_off"], proof_of(data))] == ["memory_format"]


def test_a_conversion_of_ours_that_was_lost_is_not_the_model_s_own_layout() -> None:
    data = data_of("ipex_channels_last")
    data["operators"]["image_layouts"] = data["reference_layouts"] = {"channels_first": 14}
    assert [m.axis for m in check(RECORDED["ipex_channels_last"], proof_of(data))] == ["memory_format"]


def test_a_model_without_images_has_no_memory_format_to_lose() -> None:
    for name, asked in (("ptmalloc_off", []), ("ipex_channels_last", ["memory_format"])):
        data = data_of(name)
        data["reference_layouts"] = data["operators"]["image_layouts"] = data["onednn"]["layouts"] = {}
        data["tensors"]["inputs"]["memory_formats"] = data["tensors"]["outputs"]["memory_formats"] = {}
        assert [m.axis for m in check(RECORDED[name], proof_of(data))] == asked


def test_weights_in_the_other_memory_format_fail() -> None:
    assert axes_of("ptmalloc_off", "tensors", "weights", "memory_formats", value={"channels_last": 2}) == {
        "memory_format"
    }
    assert axes_of(
        "bf16_compile", "tensors", "weights", "memory_formats", value={"channels_first": 1, "either": 1}
    ) == {"memory_format"}


def test_without_operators_on_images_onednns_convolutions_tell_the_memory_format() -> None:
    data = data_of("ipex_channels_last")
    data["operators"]["image_layouts"] = {}
    assert check(RECORDED["ipex_channels_last"], proof_of(data)) == ()
    data["onednn"]["layouts"] = {"channels_first": 2}
    assert [m.axis for m in check(RECORDED["ipex_channels_last"], proof_of(data))] == ["memory_format"]


def test_evidence_of_one_cell_does_not_pass_for_another() -> None:
    assert {m.axis for m in check(JEMALLOC_ON, proof_of(data_of("ptmalloc_off")))} >= {"allocator", "ipex"}
    assert {m.axis for m in check(PTMALLOC_OFF, proof_of(data_of("jemalloc_on")))} >= {"allocator", "ipex"}


LIBC = "/usr/lib/x86_64-linux-gnu/libc.so.6"

TAMPERED: list[tuple[str, tuple[str, ...], Any]] = [
    ("torch", ("build", "prefix"), "/home/me/other"),
    ("torch", ("build", "torch_folder"), "/home/me/other/lib/python3.11/site-packages/torch"),
    ("torch", ("build", "torch_folder"), None),
    ("torch", ("build", "libraries"), ["/home/me/other/torch/lib/libtorch_cpu.so"]),
    ("torch", ("build", "libraries"), []),
    ("torch", ("build", "git"), "0000000"),
    ("torch", ("build", "packages", "transformers"), "4.51.3"),
    ("torch", ("versions", "torch"), "2.14.1"),
    ("allocator", ("allocator", "malloc"), LIBC),
    ("allocator", ("allocator", "malloc"), None),
    ("allocator", ("allocator", "malloc"), "/opt/lib/libjemalloc.so.2"),
    ("allocator", ("allocator", "free"), LIBC),
    ("allocator", ("allocator", "posix_memalign"), LIBC),
    ("allocator", ("allocator", "jemalloc", "opt.background_thread"), False),
    ("allocator", ("allocator", "jemalloc", "opt.metadata_thp"), "disabled"),
    ("allocator", ("allocator", "jemalloc"), None),
    ("allocator", ("allocator", "answers"), {}),
    ("allocator", ("allocator", "owns_tensors"), False),
    ("allocator", ("allocator", "owns_tensors"), None),
    ("allocator", ("allocator", "answers", "jemalloc"), None),
    ("allocator", ("allocator", "answers", "tcmalloc"), "gperftools 2.10"),
    ("allocator", ("allocator", "jemalloc", "background_thread"), False),
    ("allocator", ("allocator", "jemalloc", "arena.0.dirty_decay_ms"), -1),
    ("openmp", ("openmp", "owner"), "/project/.venv/lib/libiomp5.so"),
    ("openmp", ("openmp", "owner"), None),
    ("threads", ("openmp", "torch_threads"), 1),
    ("threads", ("openmp", "max_threads"), 4),
    ("threads", ("openmp", "max_threads"), None),
    ("cores", ("affinity", "allowed"), [0, 1, 2]),
    ("cores", ("affinity", "allowed"), []),
    ("cores", ("affinity", "threads"), [{"cpus": [0], "threads": 3}, {"cpus": [2, 3], "threads": 1}]),
    ("cores", ("affinity", "threads"), [{"cpus": [0], "threads": 4}]),
    ("cores", ("affinity", "threads"), [{"cpus": [0, 1], "threads": 3}, {"cpus": None, "threads": 1}]),
    ("cores", ("affinity", "threads"), []),
    ("node", ("affinity", "memory_policy"), "default"),
    ("node", ("affinity", "memory_policy"), None),
    ("ipex", ("ipex", "imported"), False),
    ("ipex", ("ipex", "modules_replaced"), 0),
    ("allocator", ("environment", "MALLOC_CONF"), "background_thread:false"),
    ("batch_size", ("tensors", "inputs", "shapes"), [[4, 3, 16, 16]]),
    ("batch_size", ("tensors", "inputs", "shapes"), []),
    ("batch_size", ("tensors", "inputs", "shapes"), None),
    ("batch_size", ("tensors", "samples"), 3),
    ("precision", ("tensors", "inputs", "dtypes"), {"bfloat16": 1}),
    ("precision", ("tensors", "weights", "dtypes"), {"float32": 3, "float64": 1}),
    ("precision", ("float32_matmul_precision",), "medium"),
    ("precision", ("float32_matmul_precision",), None),
    ("precision", ("float32_settings", "ipex.get_fp32_math_mode()"), "BF32"),
    ("precision", ("float32_settings",), {"torch.backends.mkldnn.matmul.fp32_precision": "bf16"}),
    ("precision", ("float32_settings",), {"torch.backends.fp32_precision": "unreadable: both old and new are set"}),
    ("precision", ("onednn", "fpmath"), {"bf16": 0.7}),
    ("memory_format", ("operators", "image_layouts"), {"channels_last": 5}),
    ("graph", ("graph", "kind"), "torchscript"),
    ("work", ("grad_mode",), "grad"),
    ("work", ("process_state",), {"nice": "as usual at first, now 5"}),
    ("precision", ("quality",), None),
]


@pytest.mark.parametrize(("axis", "path", "value"), TAMPERED)
def test_a_job_that_ran_otherwise_fails_on_that_axis(axis: str, path: tuple[str, ...], value: Any) -> None:
    assert {mismatch.axis for mismatch in check(JEMALLOC_ON, tampered("jemalloc_on", *path, value=value))} == {axis}


PRODUCTS = "torch.backends.mkldnn.matmul.fp32_precision"


@pytest.mark.parametrize(("value", "axes"), [("ieee", []), ("none", []), ("bf16", ["precision", "precision"])])
def test_where_torch_only_tells_the_newer_setting_of_products_it_decides(value: str, axes: list[str]) -> None:
    data = data_of("ptmalloc_off")
    data["float32_matmul_precision"] = None
    data["float32_settings"] = {PRODUCTS: value}
    assert [m.axis for m in check(PTMALLOC_OFF, proof_of(data))] == axes


def test_a_library_of_torch_that_is_loaded_beside_the_builds_own_fails_by_name() -> None:
    data = data_of("ptmalloc_off")
    data["build"]["libraries"].append("/usr/lib/libtorch_cpu.so")
    [mismatch] = check(PTMALLOC_OFF, proof_of(data))
    assert str(mismatch).startswith("torch: asked for /project/.venv/lib/python3")
    assert "and /usr/lib/libtorch_cpu.so; LD_LIBRARY_PATH" in str(mismatch)


@pytest.mark.parametrize(
    ("axis", "name", "path"),
    [
        ("graph", "bf16_compile", ("graph", "graphs")),
        ("graph", "bf16_compile", ("graph", "graph_breaks")),
        ("graph", "bf16_compile", ("graph", "cache_hits")),
        ("graph", "bf16_compile", ("graph", "frozen")),
        ("graph", "bf16_compile", ("graph", "compiled_in_window")),
        ("graph", "aot", ("graph", "objects")),
        ("graph", "ipex_int8_torchscript", ("graph", "frozen")),
        ("ipex", "ipex_bf16_freezing", ("graph", "compiler")),
        ("allocator", "ptmalloc_off", ("allocator", "glibc_maps_large_blocks")),
        ("precision", "bf16_compile", ("quality", "rel_l2")),
    ],
)
def test_what_was_not_observed_is_not_assumed(axis: str, name: str, path: tuple[str, ...]) -> None:
    assert axes_of(name, *path, value=None) == {axis}


OPEN = {
    "answers", "dtypes", "environment", "float32_settings", "image_layouts", "inherited", "jemalloc", "memory_formats",
    "modules_by_type", "packages", "process_state", "quantized", "reference_layouts", "tcmalloc",
}  # fmt: skip


def fields_of(data: dict[str, Any], *path: str) -> Iterator[tuple[str, ...]]:
    """The path of each field of recorded evidence, outside the tables whose names are open."""
    for name, value in data.items():
        yield (*path, name)
        is_open = name in OPEN
        if isinstance(value, dict) and not is_open:
            yield from fields_of(value, *path, name)


FIELDS = [path for path in fields_of(data_of("jemalloc_on")) if path[0] not in ("onednn", "quality")]


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_evidence_without_a_field_is_refused_by_the_name_of_the_field(path: tuple[str, ...]) -> None:
    data = data_of("jemalloc_on")
    place = data
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    with pytest.raises(FormatError, match=f"evidence.{'.'.join(path)} is missing"):
        proof_of(data)


CALLER = {"cpus": [0, 1], "cpu_s": 1.0}


@pytest.mark.parametrize(
    ("path", "value", "axis", "found"),
    [
        (("streams",), None, "ipex", "found a module that is no MultiStreamModule"),
        (("streams", "number"), 1, "streams", "found 1 streams on 2 pools of cores"),
        (("streams", "pools"), [[0, 1]], "streams", "found 2 streams on 1 pools of cores"),
        (("streams", "pools"), [[0], [0]], "streams", "found pools of 0 and 0"),
        (("streams", "pools"), [[0], [2]], "streams", "found pools of 0 and 2"),
        (("streams", "threads"), [], "streams", "found 0 ms of their CPU time per iteration"),
        (
            ("streams", "threads"),
            [{"cpus": [0], "cpu_s": 1.0}],
            "streams",
            "asked for threads that compute on the cores 1",
        ),
        (("streams", "threads"), [CALLER], "streams", "other threads computed instead, on 0-1"),
        (("streams", "threads"), [{"cpus": None, "cpu_s": 1.0}], "streams", "instead, on unobserved"),
        (
            ("streams", "threads"),
            [{"cpus": [0], "cpu_s": 1.0}, {"cpus": [1], "cpu_s": 1.0}, {**CALLER, "cpu_s": 2.1}],
            "streams",
            "found 2.1e+03 ms of CPU time in threads outside of the pools, 2e+03 ms in the streams",
        ),
        (("streams", "caller_s"), 1.0, "streams", "ms of CPU time in the calling thread, 0.321 ms in the streams"),
        (("graph", "kind"), "eager", "graph", "found eager"),
        (("graph", "frozen"), False, "graph", "not frozen"),
        (("ipex", "modules_replaced"), 0, "ipex", "asked for multistream, found 0 modules replaced"),
        (("openmp", "owner"), "/usr/lib/libgomp.so.1", "openmp", "found /usr/lib/libgomp.so.1"),
    ],
)
def test_streams_that_are_not_as_asked_for_fail(path: tuple[str, ...], value: Any, axis: str, found: str) -> None:
    mismatches = check(RECORDED["ipex_multistream"], tampered("ipex_multistream", *path, value=value))
    assert {mismatch.axis for mismatch in mismatches} == {axis}
    assert found in str(mismatches[0])


def test_streams_that_nobody_asked_for_fail() -> None:
    data = data_of("ipex_channels_last")
    data["streams"] = data_of("ipex_multistream")["streams"]
    [mismatch] = check(RECORDED["ipex_channels_last"], proof_of(data))
    assert str(mismatch).startswith("ipex: asked for on, found a MultiStreamModule")


def test_an_iteration_without_the_models_arithmetic_fails() -> None:
    data = data_of("ptmalloc_off")
    data["operators"]["compute"], data["onednn"]["dtypes"] = [], {}
    assert [m.axis for m in check(PTMALLOC_OFF, proof_of(data))] == ["work"]
    data["quality"]["reference_operators"] = 0  # the model has none
    assert check(PTMALLOC_OFF, proof_of(data)) == ()


@pytest.mark.parametrize(
    ("wall_s", "busy_s", "axes"),
    [
        (3.0, 5.9, []),  # two threads
        (3.0, 6.5, []),  # with an allocator's thread beside them
        (3.0, 7.5, ["threads"]),
        (0.001, 0.03, []),  # the kernel counts in ticks
    ],
)
def test_more_busy_cores_than_threads_fail(wall_s: float, busy_s: float, axes: list[str]) -> None:
    proof = replace(proof_of(data_of("ptmalloc_off")), window=Window(wall_s, 0, 0, 0, 0, busy_s, 0.0, None, None, None))
    assert [m.axis for m in check(PTMALLOC_OFF, proof)] == axes


@pytest.mark.parametrize(
    ("cache", "cache_bytes", "overwritten_bytes", "is_right"),
    [
        ("cold", 100, 200, True),
        ("cold", 100, 50, False),
        ("cold", 100, 0, False),
        ("cold", None, 200, False),  # nobody knows whether that was all
        ("warm", 100, 0, True),
        ("warm", None, 0, True),
        ("warm", 100, 200, False),
        ("warm", 100, 50, False),
    ],
)
def test_caches_that_were_not_as_asked_for_fail(
    cache: str, cache_bytes: int | None, overwritten_bytes: int, is_right: bool
) -> None:
    placed = replace(PTMALLOC_OFF, cell=replace(PTMALLOC_OFF.cell, cache=cache))
    idle = Window(3.0, 0, 0, 0, 0, 1.0, 0.0, None, None, None)
    window = replace(idle, cache_bytes=cache_bytes, overwritten_bytes=overwritten_bytes)
    mismatches = check(placed, replace(proof_of(data_of("ptmalloc_off")), window=window))
    assert [mismatch.axis for mismatch in mismatches] == ([] if is_right else ["cache"])


@pytest.mark.parametrize(
    ("length", "samples", "axes"), [(16, None, []), (24, None, ["sequence_length"]), (24, 2, []), (None, None, [])]
)
def test_sequences_of_another_length_fail_unless_samples_are_counted(
    length: int | None, samples: int | None, axes: list[str]
) -> None:
    placed = replace(PTMALLOC_OFF, cell=replace(PTMALLOC_OFF.cell, sequence_length=length))
    data = data_of("ptmalloc_off")  # with images of 16 pixels
    data["tensors"]["samples"] = samples
    assert [m.axis for m in check(placed, proof_of(data))] == axes


def test_a_worker_without_proof_has_not_run_as_asked() -> None:
    assert [mismatch.axis for mismatch in check(JEMALLOC_ON, None)] == ["evidence"]


def test_glibc_settings_are_checked_by_what_malloc_does() -> None:
    tuned = plan(Allocator("ptmalloc_tuned", "glibc", "default", {}, {"glibc_maps_large_blocks": False}), "off", {})
    assert [m.axis for m in check(tuned, proof_of(data_of("ptmalloc_off")))] == ["allocator"]


def test_a_mismatch_says_what_was_asked_what_was_found_and_what_to_do() -> None:
    text = str(check(JEMALLOC_ON, tampered("jemalloc_on", "allocator", "malloc", value=LIBC))[0])
    assert "jemalloc" in text
    assert LIBC in text
    assert "stderr.log" in text
