"""The gate on recorded evidence of real jobs, untouched and tampered with."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.gate import CHECKS, check
from runner.launch import Placement, Plan
from runner.matrix import Allocator

from .conftest import CELL

DATA = Path(__file__).with_name("data") / "evidence"

JEMALLOC = Path("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2")
CONF = "oversize_threshold:1,background_thread:true,metadata_thp:auto"
EXPECT_JEMALLOC = {"jemalloc": {"opt.oversize_threshold": 0, "opt.background_thread": True, "opt.metadata_thp": "auto"}}


def plan(allocator: Allocator, ipex: str, libraries: dict[str, Path]) -> Plan:
    cell = replace(CELL, allocator=allocator, ipex=ipex, batch_size=32)
    return Plan(cell, Placement((0, 1), 2, 0, "numactl", False), libraries)


PTMALLOC_OFF = plan(Allocator("ptmalloc", "glibc", "default", {}, {"glibc_maps_large_blocks": True}), "off", {})
JEMALLOC_ON = plan(
    Allocator("jemalloc", "jemalloc", "jemalloc", {"MALLOC_CONF": CONF}, EXPECT_JEMALLOC), "on", {"jemalloc": JEMALLOC}
)


def recorded(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    return data


def test_jobs_that_ran_as_asked_pass() -> None:
    assert check(PTMALLOC_OFF, recorded("ptmalloc_off")) == ()
    assert check(JEMALLOC_ON, recorded("jemalloc_on")) == ()


def test_evidence_of_one_cell_does_not_pass_for_another() -> None:
    assert {m.axis for m in check(JEMALLOC_ON, recorded("ptmalloc_off"))} >= {"allocator", "ipex"}
    assert {m.axis for m in check(PTMALLOC_OFF, recorded("jemalloc_on"))} >= {"allocator", "ipex"}


LIBC = "/usr/lib/x86_64-linux-gnu/libc.so.6"

TAMPERED: list[tuple[str, tuple[str, ...], Any]] = [
    ("allocator", ("allocator", "malloc"), LIBC),
    ("allocator", ("allocator", "malloc"), None),
    ("allocator", ("allocator", "malloc"), "/opt/lib/libjemalloc.so.2"),
    ("allocator", ("allocator", "free"), LIBC),
    ("allocator", ("allocator", "posix_memalign"), LIBC),
    ("allocator", ("allocator", "jemalloc", "opt.background_thread"), False),
    ("allocator", ("allocator", "jemalloc", "opt.metadata_thp"), "disabled"),
    ("allocator", ("allocator", "jemalloc"), None),
    ("openmp", ("openmp", "owner"), "/project/.venv/lib/libiomp5.so"),
    ("openmp", ("openmp", "owner"), None),
    ("threads", ("openmp", "torch_threads"), 1),
    ("threads", ("openmp", "max_threads"), 4),
    ("cores", ("affinity", "allowed"), [0, 1, 2]),
    ("cores", ("affinity", "allowed"), []),
    ("cores", ("affinity", "threads_allowed"), {"0": 3, "2-3": 1}),
    ("cores", ("affinity", "threads_allowed"), {"0": 4}),
    ("node", ("affinity", "memory_policy"), "default"),
    ("node", ("affinity", "memory_policy"), None),
    ("ipex", ("ipex", "imported"), False),
    ("ipex", ("ipex", "modules_replaced"), 0),
    ("allocator", ("environment", "MALLOC_CONF"), "background_thread:false"),
    ("batch_size", ("tensors", "inputs", "shapes"), [[4, 3, 224, 224]]),
    ("batch_size", ("tensors", "inputs", "shapes"), []),
    ("work", ("tensors", "inputs", "dtypes"), {"bfloat16": 1}),
    ("work", ("tensors", "weights", "dtypes"), {"float32": 3, "float64": 1}),
    ("work", ("grad_mode",), "grad"),
]


@pytest.mark.parametrize(("axis", "path", "value"), TAMPERED)
def test_a_job_that_ran_otherwise_fails_on_that_axis(axis: str, path: tuple[str, ...], value: Any) -> None:
    evidence = recorded("jemalloc_on")
    place = evidence
    for key in path[:-1]:
        place = place[key]
    assert place[path[-1]] != value
    place[path[-1]] = value
    assert {mismatch.axis for mismatch in check(JEMALLOC_ON, evidence)} == {axis}


@pytest.mark.parametrize("part", ["allocator", "openmp", "affinity", "ipex", "tensors", "environment"])
def test_missing_evidence_fails_instead_of_passing(part: str) -> None:
    evidence = copy.deepcopy(recorded("jemalloc_on"))
    del evidence[part]
    assert check(JEMALLOC_ON, evidence)


def test_without_any_evidence_every_check_fails() -> None:
    assert len(check(JEMALLOC_ON, {})) >= len(CHECKS)


def test_glibc_settings_are_checked_by_what_malloc_does() -> None:
    tuned = plan(Allocator("ptmalloc_tuned", "glibc", "default", {}, {"glibc_maps_large_blocks": False}), "off", {})
    assert [m.axis for m in check(tuned, recorded("ptmalloc_off"))] == ["allocator"]


def test_a_mismatch_says_what_was_asked_what_was_found_and_what_to_do() -> None:
    evidence = recorded("jemalloc_on")
    evidence["allocator"]["malloc"] = LIBC
    text = str(check(JEMALLOC_ON, evidence)[0])
    assert "jemalloc" in text
    assert LIBC in text
    assert "stderr.log" in text
