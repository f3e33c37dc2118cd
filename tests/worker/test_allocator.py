"""Allocators are recognized by what they answer, whatever their files are called."""

from __future__ import annotations

import json
import mmap
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from runner.launch import libraries
from runner.worker import allocator, symbols
from tests.conftest import ROOT

FOLDERS = libraries.search_path({}, sys.executable)


# This environment's interpreter, and the system's: Debian's is linked without PIE and takes the address of malloc, and
# the loader then says that malloc is the program's.
INTERPRETERS = [sys.executable, *filter(None, [shutil.which("python3", path="/usr/bin")])]


def owner_under(interpreter: str, preload: Path | None) -> str:
    """The file that owns malloc in a process of this interpreter."""
    code = "from runner.worker import symbols; print(symbols.owner('malloc'))"
    env = {"LD_PRELOAD": str(preload)} if preload else {}
    done = subprocess.run(
        [interpreter, "-S", "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def answers_under(preload: Path) -> dict[str, str | None]:
    """Allocator -> what the file that owns malloc answers, in a process that preloads this library."""
    code = (
        "import json; from runner.worker import allocator, symbols;"
        " print(json.dumps(allocator.answers_of(symbols.owner('malloc'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"LD_PRELOAD": str(preload)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    answers: dict[str, str | None] = json.loads(done.stdout)
    return answers


@pytest.mark.parametrize("stem", ["jemalloc", "tcmalloc", "mimalloc"])
def test_an_allocator_answers_as_itself_alone_under_any_name(stem: str, tmp_path: Path) -> None:
    file = libraries.find(stem, FOLDERS)
    if file is None:
        pytest.skip(f"lib{stem} is not installed")
    other = tmp_path / "libother.so"
    shutil.copy(file, other)
    link = tmp_path / "liblink.so"
    link.symlink_to(file)
    for path in (file, other, link):
        answers = answers_under(path)
        assert [name for name, version in answers.items() if version] == [stem]


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_malloc_is_the_allocators_whatever_program_runs_python(interpreter: str) -> None:
    assert Path(owner_under(interpreter, None)).name.startswith("libc")
    file = libraries.find("jemalloc", FOLDERS)
    if file is None:
        pytest.skip("libjemalloc is not installed")
    assert owner_under(interpreter, file) == str(file)


@pytest.mark.parametrize("stem", ["jemalloc", "tcmalloc", "tcmalloc_minimal", "mimalloc"])
def test_an_allocator_that_is_preloaded_owns_the_storage_of_tensors_and_tells_its_settings(stem: str) -> None:
    file = libraries.find(stem, FOLDERS)
    if file is None:
        pytest.skip(f"lib{stem} is not installed")
    code = (
        "import dataclasses, json; from runner.worker import allocator;"
        " print(json.dumps(dataclasses.asdict(allocator.observe())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"LD_PRELOAD": str(file)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    observed = json.loads(done.stdout)
    assert (observed["malloc"], observed["owns_tensors"]) == (str(file), True)
    assert (observed["tcmalloc"] is not None) == stem.startswith("tcmalloc")
    assert all(value is not None for value in (observed["tcmalloc"] or {}).values())


def test_a_tensor_whose_storage_is_elsewhere_is_not_the_allocators(monkeypatch: pytest.MonkeyPatch) -> None:
    assert allocator.observe().owns_tensors is True

    def elsewhere(size: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.frombuffer(mmap.mmap(-1, size), dtype=dtype)

    monkeypatch.setattr(torch, "empty", elsewhere)
    assert allocator.observe().owns_tensors is False


def test_without_a_preloaded_library_glibc_answers_alone() -> None:
    malloc = symbols.owner("malloc")
    assert malloc is not None
    assert [name for name, version in allocator.answers_of(malloc).items() if version] == ["glibc"]


def test_a_function_is_a_file_s_own_only_if_that_file_defines_it() -> None:
    libc, libm = symbols.owner("malloc"), symbols.owner("cos")
    assert libc is not None
    assert libm is not None
    assert symbols.function_in(libc, "malloc") is not None
    assert symbols.function_in(libm, "cos") is not None
    assert symbols.function_in(libm, "malloc") is None
    assert symbols.function_in("/no/such/file.so", "malloc") is None
