"""oneDNN's verbose log, on recorded real output of 18 versions."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import onednn as benchmark
from runner.capture import onednn
from runner.capture.kernels import Summary, summarize
from runner.capture.onednn import Log, parse
from runner.capture.primitives import Tensor, isa_family
from tests.conftest import ROOT

DATA = ROOT / "tests/data/onednn-verbose"
LOGS = sorted(DATA.rglob("*.log"))
VERSIONS = sorted(
    {re.sub(r"onednn-|-plain\.log", "", file.name) for file in (DATA / "versions").glob("*-plain.log")},
    key=lambda version: [int(number) for number in version.split(".")],
)
GRAPHS = sorted((DATA / "versions").glob("*-graph.log"))
DISPATCHES = sorted((DATA / "versions").glob("*-dispatch.log"))
EXECUTED = re.compile(r"^(dnnl|onednn)_verbose,(v1,)?(\d+\.\d+,)?(primitive,)?exec,")
EVERY_LINE = sorted({line for file in LOGS for line in file.read_text().splitlines()[:40]})


def lines(name: str) -> list[str]:
    return (DATA / f"{name}.log").read_text().splitlines()


def recorded(version: str, verbose: str) -> list[str]:
    return lines(f"versions/onednn-{version}-{verbose}")


def summary(log: Log, wall_s: float) -> Summary:
    return summarize(log, {"": [wall_s]})


@pytest.mark.parametrize("file", LOGS, ids=lambda file: file.stem)
def test_every_executed_primitive_is_read_and_counted_as_grep_counts(file: Path) -> None:
    text = file.read_text().splitlines()
    log = parse(text)
    assert len(log.primitives) == sum(bool(EXECUTED.match(line)) for line in text)
    assert log.unparsed == []
    assert log.messages == []
    assert log.others == sum("_verbose," not in line for line in text)
    assert log.lines == len(text)
    assert summary(log, 1.0).reorders == sum(bool(EXECUTED.match(line)) and ",cpu,reorder," in line for line in text)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_version_and_the_instructions_are_those_of_the_info_lines(version: str) -> None:
    log = parse(recorded(version, "plain"))
    assert log.versions == [version]
    assert log.isa == ["Intel AVX-512 with Intel DL Boost and bfloat16 support"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("verbose", ["plain", "create", "timestamp"])
def test_every_version_tells_the_same_of_the_same_program(version: str, verbose: str) -> None:
    """See record.cpp: reorder, two convolutions, inner product, matmul, sum; all twice."""
    log = parse(recorded(version, verbose))
    kinds = ["reorder", "convolution", "convolution", "inner_product", "matmul", "sum"]
    assert [p.kind for p in log.primitives] == 2 * kinds
    assert {p.engine for p in log.primitives} == {"cpu"}
    assert {p.dtype for p in log.primitives} == {"float32"}
    reorder, fused, thrice, inner, product, total = log.primitives[:6]
    assert reorder.tensors == {"src": Tensor("f32", "abcd"), "dst": Tensor("f32", "aBcd16b")}
    assert reorder.shape == "2x16x12x10"
    assert fused.post_ops == ("eltwise_relu",)
    assert thrice.post_ops == ("eltwise_relu", "sum", "binary_add")
    assert thrice.prop_kind == "forward_inference"
    assert thrice.auxiliary == "alg:convolution_direct"
    assert thrice.shape == "mb2_ic16oc32_ih12oh12kh3sh1dh0ph1_iw10ow10kw3sw1dw0pw1"
    assert list(inner.tensors) == ["src", "wei", "bia", "dst"]
    assert product.tensors["wei"] == Tensor("f32", "abc")
    assert list(total.tensors) == ["src", "src_1", "dst"]
    assert [p.post_ops for p in (reorder, inner, product, total)] == [()] * 4
    assert all(0 < p.seconds < 1 for p in log.primitives)


@pytest.mark.parametrize("version", VERSIONS)
def test_primitives_made_anew_are_told_from_those_of_the_cache(version: str) -> None:
    assert parse(recorded(version, "plain")).created == {}
    assert parse(recorded(version, "create")).created == {"cache_miss": 6, "cache_hit": 6}


@pytest.mark.parametrize("version", VERSIONS)
def test_timestamps_are_seconds_since_the_epoch_and_increase(version: str) -> None:
    assert {p.timestamp_s for p in parse(recorded(version, "plain")).primitives} == {None}
    stamps = [p.timestamp_s for p in parse(recorded(version, "timestamp")).primitives]
    if version.startswith("2.0."):
        assert set(stamps) == {None}  # came with 2.1
        return
    known = [stamp for stamp in stamps if stamp is not None]
    assert len(known) == len(stamps)
    assert known == sorted(set(known))
    # 2026, when they were recorded.
    assert 1.76e9 < known[0] < known[-1] < 1.80e9


@pytest.mark.parametrize("file", GRAPHS, ids=lambda file: file.stem)
def test_graph_partitions_are_kept_apart_from_the_primitives_they_run(file: Path) -> None:
    log = parse(file.read_text().splitlines())
    (partition,) = log.graphs
    assert partition.kind == "matmul_post_ops"
    assert partition.operations == ("product", "relu")
    assert partition.engine == "cpu"
    assert partition.backend == "dnnl_backend"
    assert partition.implementation == ("" if re.search(r"-3\.[25]\.", file.name) else "matmul_t")
    assert log.created["graph:cache_miss"] == 1
    assert log.primitives[-1].post_ops == ("eltwise_relu",)
    assert log.primitives[-1].seconds < partition.seconds


@pytest.mark.parametrize("file", DISPATCHES, ids=lambda file: file.stem)
def test_refused_implementations_are_counted(file: Path) -> None:
    text = file.read_text().splitlines()
    assert parse(text).created == {"dispatch": sum("create:dispatch" in line for line in text)}


@pytest.mark.parametrize("version", VERSIONS)
def test_lines_of_a_gpu_are_read_as_those_of_a_cpu(version: str) -> None:
    text = recorded(version, "plain")
    there = parse([line.replace(",cpu,", ",gpu,") if "exec," in line else line for line in text])
    assert {p.engine for p in there.primitives} == {"gpu"}
    assert [replace(p, engine="cpu") for p in there.primitives] == parse(text).primitives


@pytest.mark.parametrize("version", VERSIONS)
def test_columns_are_those_the_template_names_in_its_order(version: str) -> None:
    text = recorded(version, "plain")
    if version.startswith("2.0."):
        assert "template" not in "".join(text)
        return
    swapped = [line.replace("engine,primitive,", "primitive,engine,") for line in text]
    assert {p.kind for p in parse(swapped).primitives} == {"cpu"}
    without = [line for line in text if "template" not in line]
    if version.startswith("2.") and version < "2.5":
        assert parse(without).primitives == parse(text).primitives  # as 2.0 prints them
    else:
        assert parse(without).primitives == []
        assert len(parse(without).unparsed) == len(parse(text).primitives)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_comma_too_many_or_too_few_makes_a_line_unparsed(version: str) -> None:
    text = recorded(version, "create")
    more = [line.replace("eltwise_relu", "eltwise,relu") for line in text]
    less = [line.replace("alg:convolution_direct,", "") for line in text]
    for torn in (more, less):
        log = parse(torn)
        assert len(log.unparsed) == 8  # four convolutions: made and executed
        assert "convolution" not in {p.kind for p in log.primitives}
        assert log.created == {"cache_miss": 4, "cache_hit": 4}


@pytest.mark.parametrize("version", VERSIONS)
def test_markers_say_which_step_and_whose_copy_a_primitive_is_of(version: str) -> None:
    text = recorded(version, "plain")
    executed = [line for line in text if EXECUTED.match(line)]
    header = text[: -len(executed)]
    log = parse(
        [*header, *executed[:3], "#### step 0 torch", *executed[3:6], "#### step 1 torch", *executed[6:9],
         "#### iter 7", "#### step", "#### step 0 ipex", *executed[9:]]
    )  # fmt: skip
    assert [(p.step, p.copy) for p in log.primitives[::3]] == [(0, ""), (0, "torch"), (1, "torch"), (0, "ipex")]
    assert (log.markers, log.others) == (3, 2)


@pytest.mark.parametrize(
    ("attributes", "post_ops"),
    [
        ("attr-scratchpad:user attr-post-ops:sum+eltwise_relu", ("sum", "eltwise_relu")),
        ("attr-post-ops:eltwise_clip:0:6+binary_add:bf16:2:acdb ", ("eltwise_clip", "binary_add")),
        ("attr-scales:src0:0:f32 attr-post-ops:sum:1e+10+eltwise_relu attr-fpmath:any", ("sum", "eltwise_relu")),
        ("scratchpad_mode:user;post_ops:'sum:0.5;eltwise_relu;';", ("sum", "eltwise_relu")),
        ("post_ops:'';", ()),
        ("attr-scratchpad:user", ()),
        ("", ()),
    ],
)
def test_post_ops_are_named_without_their_arguments(attributes: str, post_ops: tuple[str, ...]) -> None:
    text = [line.replace("attr-post-ops:eltwise_relu,", f"{attributes},") for line in recorded("3.9.1", "plain")]
    assert parse(text).primitives[1].post_ops == post_ops


@pytest.mark.parametrize(
    ("descriptor", "name", "tensor"),
    [
        ("bia:undef::undef:::", "bia", Tensor("undef", "")),
        ("bia_undef::undef::f0", "bia", Tensor("undef", "")),
        ("src_iter:f32::blocked:abcd::f0", "src_iter", Tensor("f32", "abcd")),
        ("src_iter_f32::blocked:abcd:f0", "src_iter", Tensor("f32", "abcd")),
        ("diff_wei_s8:a:blocked:AcdB48a4b::s8m1", "diff_wei", Tensor("s8", "AcdB48a4b")),
        ("diff_wei:f8_e5m2:a:blocked:ab::f0", "diff_wei", Tensor("f8_e5m2", "ab")),
        ("src_fused_f8_e4m3:a:blocked:ab::f0", "src_fused", Tensor("f8_e4m3", "ab")),
    ],
)
def test_tensors_are_read_in_both_spellings(descriptor: str, name: str, tensor: Tensor) -> None:
    text = [line.replace("bia:f32::blocked:a::f0", descriptor) for line in recorded("3.9.1", "plain")]
    log = parse(text)
    assert log.unparsed == []
    assert log.primitives[1].tensors[name] == tensor


def test_a_product_through_the_gemm_api_is_read_though_it_keeps_the_old_spelling() -> None:
    # As src/common/gemm.cpp of 3.10 prints it.
    line = "exec,cpu,gemm_api,,undef,src_f32::blocked:ab:f0 wei_f32::blocked:ba:f0 dst_f32::blocked:ab:f0,"
    header = [text for text in recorded("3.9.1", "plain") if "info" in text]
    log = parse([*header, f"onednn_verbose,v1,primitive,{line}ldb:8 attr-post-ops:sum:1 ,,4x8:8x16,0.5"])
    assert log.primitives[0].tensors["wei"] == Tensor("f32", "ba")
    assert log.primitives[0].post_ops == ("sum",)


@pytest.mark.parametrize(
    "line",
    [
        "onednn_verbose,v1,primitive,error,cpu,errors executing primitive,src/common/primitive.cpp:123",
        "onednn_verbose,v1,common,warn,runtime,thread pool is not set,src/common/utils.cpp:1",
        "onednn_verbose,primitive,exec:check,matmul,bad arguments,src/common/matmul.cpp:1",
    ],
)
def test_errors_and_warnings_are_messages(line: str) -> None:
    assert parse([line]) == Log(messages=[line])


@pytest.mark.parametrize(
    "line",
    [
        "onednn_verbose",
        "onednn_verbose,",
        "onednn_verbose,v1",
        "onednn_verbose,v2,primitive,exec,cpu,reorder",
        "50 %onednn_verbose,v1,info,gpu,runtime:none",
        "onednn_verbose,v1,ukernel,exec,cpu,brgemm,,undef,,,,8x8,0.1",
        "onednn_verbose,v1,primitive,exec,cpu,reorder,jit:blk,undef,src:f32::blocked:abcd::f0,,,2x16x12x10,nan",
        "onednn_verbose,v1,primitive,exec,cpu,reorder,jit:blk,undef,src:f32::blocked:abcd::f0,,,2x16x12x10,0.1,0.2",
    ],
)
def test_what_cannot_be_read_is_kept(line: str) -> None:
    header = [text for text in recorded("3.9.1", "plain") if "info" in text]
    assert parse([*header, line]).unparsed == [line]


def test_channels_first_convolutions_are_told_from_channels_last() -> None:
    assert set(summary(parse(lines("resnet50_eager")), 1.0).layouts) == {"channels_first"}
    assert set(summary(parse(lines("resnet50_cl")), 1.0).layouts) == {"channels_last"}
    assert set(summary(parse(lines("convrelu_eager")), 1.0).layouts) == {"channels_first"}
    assert set(summary(parse(lines("convrelu_eager+cl")), 1.0).layouts) == {"channels_last"}


def test_the_isa_is_that_of_most_of_the_time() -> None:
    found = summary(parse(lines("resnet50_ipex+jit+bf16")), 0.1)
    assert found.main_isa == "avx512_core_bf16"
    assert found.dtypes == {"bfloat16": pytest.approx(1.0)}
    assert found.fused == 49


def test_where_the_work_bypasses_onednn_the_isa_is_unobserved() -> None:
    assert summary(parse(lines("bert_eager")), 0.3).main_isa == "unobserved"
    assert summary(parse([]), 0.3).main_isa == "unobserved"
    # The same kernels in a step of which they are a small part.
    assert summary(parse(lines("resnet50_ipex+jit+bf16")), 100.0).main_isa == "unobserved"


@pytest.mark.parametrize(
    ("implementation", "family"),
    [
        ("brg_conv_fwd:avx512_core_amx", "amx"),
        ("brgconv_1x1:avx512_core_bf16", "avx512_core_bf16"),
        ("brg_matmul:avx512_core_vnni", "avx512_core_vnni"),
        ("jit:avx512_core", "avx512"),
        ("jit:avx512_common", "avx512"),
        ("jit:avx2", "avx2"),
        ("gemm:jit", "gemm"),
        ("x64:gemm:jit", "gemm"),
        ("brgemm_matmul_copy_reorder_t", "other"),
        ("ref:any", "ref"),
        ("simple:any", "ref"),
        ("jit:uni", "other"),
    ],
)
def test_implementations_are_filed_by_instructions(implementation: str, family: str) -> None:
    assert isa_family(implementation) == family


def test_a_torn_line_is_kept_not_dropped() -> None:
    text = lines("resnet50_eager")
    whole = next(i for i, line in enumerate(text) if "primitive,exec" in line)
    text[whole] = text[whole][:90]
    log = parse(text)
    assert len(log.unparsed) == 1
    assert summary(log, 1.0).unparsed == 1


def test_a_last_line_that_is_cut_off_in_its_time_is_torn() -> None:
    recorded_lines = lines("convrelu_eager")
    last = max(i for i, line in enumerate(recorded_lines) if "primitive,exec" in line)
    text = "".join(f"{line}\n" for line in recorded_lines[: last + 1])
    whole = parse(text.splitlines(keepends=True))
    assert whole == parse(text.splitlines())
    cut = parse(text[:-2].splitlines(keepends=True))
    assert cut.unparsed == [text[:-2].splitlines()[-1]]
    assert cut.lines == whole.lines


@pytest.mark.parametrize("stamp", ["", "1763890000123.456,"], ids=["plain", "with timestamps"])
def test_executions_that_are_alike_are_kept_once_and_have_their_own_times(stamp: str) -> None:
    text = lines("convrelu_eager")
    executed = [line.replace("v1,primitive", f"v1,{stamp}primitive") for line in text if EXECUTED.match(line)]
    header = [line for line in text if "info" in line]
    times = [f"{number}.25" for number in range(1, 4)]
    repeated = [line.rpartition(",")[0] + f",{time}" for time in times for line in executed]
    log = parse([*header, *repeated])
    once = {replace(p, tensors=str(p.tensors), seconds=0.0) for p in parse([*header, *executed]).primitives}  # type: ignore[arg-type]
    assert len(log.primitives.distinct) == len(once) < len(repeated) / 3
    assert [p.seconds for p in log.primitives] == [float(time) / 1e3 for time in times for _ in executed]
    assert {p.timestamp_s for p in log.primitives} == {1763890000.123456 if stamp else None}
    assert list(log.primitives)[2:5] == log.primitives[2:5]
    assert log.primitives[-1] == list(log.primitives)[-1]
    with pytest.raises(IndexError):
        log.primitives[len(repeated)]


def test_a_large_log_is_read_quickly_and_by_its_distinct_lines(tmp_path: Path) -> None:
    """The short form of benchmarks/onednn.py, which has the figures of a million."""
    file = tmp_path / "big.log"
    with file.open("w") as out:
        out.writelines(benchmark.lines_of(benchmark.FEW_LINES, benchmark.RECORDED.read_text().splitlines()))
    found = benchmark.read(file)
    assert found.primitives == benchmark.FEW_LINES
    assert found.distinct < 100
    assert len(file.with_suffix(".csv").read_text().splitlines()) == 1 + benchmark.FEW_LINES
    assert found.total_s < 2  # 0.04 on the machine this was written on; before lines were remembered it was 0.8


def test_a_timestamp_is_no_column() -> None:
    plain = parse(lines("convrelu_eager")).primitives
    stamped = parse(
        line.replace("v1,primitive,exec,", "v1,1763890000123.456,primitive,exec,") for line in lines("convrelu_eager")
    ).primitives
    assert stamped == [replace(primitive, timestamp_s=1763890000.123456) for primitive in plain]


# By number: a strategy prints the lines it samples from.
REAL = st.integers(0, len(EVERY_LINE) - 1).map(lambda i: EVERY_LINE[i])


@st.composite
def torn(draw: st.DrawFn) -> str:
    """A real line of any log, less some of its beginning or end, glued to nothing, to another or to any text."""
    line = draw(REAL)
    line = line[draw(st.sampled_from([0, 0, 0, 1, 15])) :]
    line = line[: draw(st.integers(0, len(line)))]
    return line + draw(st.just("") | REAL | st.text(max_size=9))


@given(
    st.lists(
        torn()
        | REAL
        | st.text(max_size=80)
        | st.text(max_size=60).map(lambda text: "onednn_verbose,v1,primitive,exec," + text)
        | st.builds("#### step {} {}".format, st.integers(), st.text(max_size=5)),
        max_size=40,
    )
)
def test_no_line_is_lost_and_none_makes_the_parser_fail(text: list[str]) -> None:
    log = parse(text)
    assert log.lines == len(text)
    assert summary(log, 1.0).calls == len(log.primitives)


@given(st.lists(torn() | REAL | st.sampled_from(["#### step 1 torch"]), max_size=20), st.booleans())
def test_what_is_remembered_of_earlier_lines_changes_nothing(text: list[str], have_ends: bool) -> None:
    twice = [line + "\n" * have_ends for line in text + text]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onednn, "_LONGEST_TIME", -1)  # every line is looked at closely
        expected = parse(twice)
    assert parse(twice) == expected


@given(st.data())
def test_a_line_cut_short_of_its_time_is_never_a_primitive(data: st.DataObject) -> None:
    version = data.draw(st.sampled_from(VERSIONS))
    text = recorded(version, "timestamp")
    last = text.pop()
    cut = data.draw(st.integers(0, last.rindex(",") + 1))
    assert len(parse([*text, last[:cut]]).primitives) == len(parse(text).primitives)
