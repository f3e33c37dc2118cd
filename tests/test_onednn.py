"""oneDNN's verbose log, on recorded real output."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.capture.onednn import isa_family, parse, summarize

DATA = Path(__file__).with_name("data") / "onednn-verbose"
LOGS = sorted(DATA.glob("*.log"))


def lines(name: str) -> list[str]:
    return (DATA / f"{name}.log").read_text().splitlines()


@pytest.mark.parametrize("file", LOGS, ids=lambda file: file.stem)
def test_every_executed_primitive_is_read_and_counted_as_grep_counts(file: Path) -> None:
    text = file.read_text().splitlines()
    log = parse(text)
    assert len(log.primitives) == sum("primitive,exec" in line for line in text)
    assert log.unparsed == []
    assert summarize(log, 1.0).reorders == sum("primitive,exec,cpu,reorder" in line for line in text)


def test_channels_first_convolutions_are_told_from_channels_last() -> None:
    assert set(summarize(parse(lines("resnet50_eager")), 1.0).layouts) == {"channels_first"}
    assert set(summarize(parse(lines("resnet50_cl")), 1.0).layouts) == {"channels_last"}
    assert set(summarize(parse(lines("convrelu_eager")), 1.0).layouts) == {"channels_first"}
    assert set(summarize(parse(lines("convrelu_eager+cl")), 1.0).layouts) == {"channels_last"}


def test_the_isa_is_that_of_most_of_the_time() -> None:
    summary = summarize(parse(lines("resnet50_ipex+jit+bf16")), 0.1)
    assert summary.main_isa == "avx512_core_bf16"
    assert summary.dtypes == {"bfloat16": pytest.approx(1.0)}
    assert summary.fused == 49


def test_where_the_work_bypasses_onednn_the_isa_is_unobserved() -> None:
    assert summarize(parse(lines("bert_eager")), 0.3).main_isa == "unobserved"
    assert summarize(parse([]), 0.3).main_isa == "unobserved"
    # The same kernels in a step of which they are a small part.
    assert summarize(parse(lines("resnet50_ipex+jit+bf16")), 100.0).main_isa == "unobserved"


@pytest.mark.parametrize(
    ("implementation", "family"),
    [
        ("brg_conv_fwd:avx512_core_amx", "amx"),
        ("brgconv_1x1:avx512_core_bf16", "avx512_core_bf16"),
        ("brg_matmul:avx512_core_vnni", "avx512_core_vnni"),
        ("jit:avx512_core", "avx512"),
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
    assert summarize(log, 1.0).unparsed == 1


def test_a_timestamp_is_no_column() -> None:
    stamped = [
        line.replace("onednn_verbose,v1,", "onednn_verbose,v1,1763890000123.456,") for line in lines("convrelu_eager")
    ]
    assert parse(stamped) == parse(lines("convrelu_eager"))


@given(st.lists(st.text(max_size=80) | st.text(max_size=60).map(lambda t: "onednn_verbose,v1,primitive,exec," + t)))
def test_no_text_makes_the_parser_fail(text: list[str]) -> None:
    log = parse(text)
    assert summarize(log, 1.0).calls == len(log.primitives)
