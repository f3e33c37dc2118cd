"""Run by tests/test_itt.py in a process of its own: ranges through torch's real ITT, then the same by the profiler."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

COLLECTOR, FOLDER = sys.argv[1], Path(sys.argv[2])
collector = ctypes.CDLL(COLLECTOR)
itt: Any = torch.profiler.itt
emit_itt: Any = torch.autograd.profiler.emit_itt

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(16, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.BatchNorm2d(64), nn.ReLU()).eval()
image = torch.randn(8, 16, 96, 96)
STEPS = 40


def recorded(name: str) -> None:
    collector.runner_itt_stop()
    assert collector.runner_itt_write(os.fsencode(FOLDER / name)) == 0


with torch.inference_mode():
    for _ in range(5):
        model(image)
    idle = collector.runner_itt_connected()

    collector.runner_itt_start()
    seconds, profiled = [], []
    rows: dict[str, dict[str, list[float]]] = {}
    for i in range(STEPS):
        # In turns, so that what the machine does meanwhile meets both alike.
        with emit_itt():
            start = time.perf_counter()
            itt.range_push(f"step_{i}")
            model(image)
            itt.range_pop()
            seconds.append(time.perf_counter() - start)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            start = time.perf_counter()
            model(image)
            profiled.append(time.perf_counter() - start)
        for row in profiler.key_averages():
            entry = rows.setdefault(row.key, {"calls": [], "total_s": []})
            entry["calls"].append(row.count)
            entry["total_s"].append(row.cpu_time_total / 1e6)
    recorded("steps.bin")

    # Nothing may be recorded while it is stopped.
    for _ in range(3):
        itt.range_push("unseen")
        itt.range_pop()

    collector.runner_itt_start()
    for _ in range(1_000_000):
        itt.range_push("one of a million")
        itt.range_pop()
    recorded("million.bin")

print(json.dumps({"connected": idle, "seconds": seconds, "profiled": profiled, "profiler": rows}))
