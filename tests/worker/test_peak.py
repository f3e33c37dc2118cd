"""What the process that measures peaks tries, and what it leaves out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from runner.protocol.peaks import DTYPES, PeakJob
from runner.worker import peak


def test_plain_loops_are_no_peak_and_get_no_larger_products(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[str, int]] = []

    def products(dtype: str, size: int) -> Iterator[tuple[str, Callable[[], object]]]:
        yield "loops", lambda: tried.append(("loops", size))
        yield "kernel", lambda: tried.append(("kernel", size))

    def seconds(call: Callable[[], object], _: float) -> float:
        call()
        return 3.0 if tried[-1][0] == "loops" else 0.2

    monkeypatch.setattr(peak, "_products", products)
    monkeypatch.setattr(peak, "_seconds", seconds)
    notes: list[str] = []
    best = peak._gemm(PeakJob(0, [0], False), notes)
    of_one_dtype = [("loops", 1024), ("kernel", 1024), ("kernel", 2048), ("kernel", 4096)]
    again = [("kernel", 1024), ("kernel", 2048), ("kernel", 4096)]
    assert tried == of_one_dtype * len(DTYPES) + again * len(DTYPES) * (peak._PASSES - 1)
    assert {figure.by for figure in best.values()} == {"kernel 4096"}
    assert notes == [f"{dtype}: torch's loops has plain loops on this CPU (0.72 GOP/s)" for dtype in DTYPES]
