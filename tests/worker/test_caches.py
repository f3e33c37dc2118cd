"""How large the caches are that cache=cold overwrites."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from runner.worker import caches

KB, MB = 2**10, 2**20


def write_caches(root: Path, cpu: int, indexes: Mapping[str, tuple[str, str, str, str]]) -> None:
    """The kernel's files: index -> (level, type, shared_cpu_list, size)."""
    for index, texts in indexes.items():
        folder = root / f"cpu{cpu}/cache/{index}"
        folder.mkdir(parents=True)
        for name, text in zip(("level", "type", "shared_cpu_list", "size"), texts, strict=True):
            (folder / name).write_text(f"{text}\n")


def two_cores(root: Path) -> None:
    for cpu in (0, 1):
        write_caches(
            root,
            cpu,
            {
                "index0": ("1", "Data", str(cpu), "48K"),
                "index1": ("1", "Instruction", str(cpu), "64K"),
                "index2": ("2", "Unified", str(cpu), "2M"),
                "index3": ("3", "Unified", "0-1", "32M"),
            },
        )


def test_caches_of_all_cores_are_added_up_and_shared_ones_are_counted_once(tmp_path: Path) -> None:
    two_cores(tmp_path)
    assert caches.size_bytes([0, 1], tmp_path) == 2 * 48 * KB + 2 * 2 * MB + 32 * MB
    assert caches.size_bytes([1], tmp_path) == 48 * KB + 2 * MB + 32 * MB


def test_caches_that_the_kernel_does_not_describe_have_no_size(tmp_path: Path) -> None:
    assert caches.size_bytes([0], tmp_path) is None
    write_caches(tmp_path, 0, {"index0": ("1", "Data", "0", "")})
    assert caches.size_bytes([0], tmp_path) is None
