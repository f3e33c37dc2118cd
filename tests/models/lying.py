"""Models whose times are not what they seem, for tests of what the worker notices; found through PYTHONPATH."""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from runner.worker import models


class Answers(nn.Module):
    """The tiny model, whose answer is another one's."""

    def __init__(self, inner: nn.Module, answer: Callable[[nn.Module, torch.Tensor], Any]) -> None:
        super().__init__()
        self.inner, self.answer = inner, answer

    def forward(self, x: torch.Tensor) -> Any:
        return self.answer(self.inner, x)


def _answers(answer: Callable[[nn.Module, torch.Tensor], Any], batch_size: int) -> Any:
    module, inputs = models.tiny(batch_size)
    return Answers(module, answer), inputs


def records_gradients(batch_size: int) -> Any:
    """Leaves the inference mode in which it is called."""

    def answer(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(False), torch.enable_grad():  # type: ignore[no-untyped-call]
            return module(x.clone())  # type: ignore[no-any-return]

    return _answers(answer, batch_size)


def slows_the_clock(batch_size: int) -> Any:
    """Replaces the clock by one that is a thousand times slower, as packages that freeze the time do."""
    clock = time.perf_counter_ns
    begin = clock()
    time.perf_counter_ns = lambda: begin + (clock() - begin) // 1000
    return models.tiny(batch_size)


def is_nice(batch_size: int) -> Any:
    """Gives up its priority, unlike what is in the identity of its cell."""
    os.nice(5)
    return models.tiny(batch_size)


def is_traced(batch_size: int) -> Any:
    """Runs under a tracer of Python's lines, as under a debugger or a measurement of coverage."""

    def tracer(frame: Any, event: str, argument: Any) -> Any:
        return tracer

    def answer(module: nn.Module, x: torch.Tensor) -> Any:
        sys.settrace(tracer)
        return module(x)

    return _answers(answer, batch_size)


def lets_others_work(batch_size: int) -> Any:
    """A process of its own computes; here it only waits, and computes next to nothing."""
    module, inputs = models.tiny(batch_size, 256)
    context = multiprocessing.get_context("fork")
    pipes: dict[int, Any] = {}

    def serve(pipe: Any) -> None:
        torch.set_num_threads(1)
        with torch.inference_mode():
            while True:
                values = torch.frombuffer(bytearray(pipe.recv_bytes()), dtype=torch.float32)
                pipe.send_bytes(module(values.view(inputs[0].shape)).numpy().tobytes())

    def answer(inner: nn.Module, x: torch.Tensor) -> torch.Tensor:
        if os.getpid() not in pipes:  # the reference is computed in a process of its own
            pipes[os.getpid()], theirs = context.Pipe()
            context.Process(target=serve, args=(theirs,), daemon=True).start()
        pipe = pipes[os.getpid()]
        pipe.send_bytes(x.numpy().tobytes())
        nn.functional.linear(torch.ones(1, 16), torch.ones(4, 16))
        return torch.frombuffer(bytearray(pipe.recv_bytes()), dtype=torch.float32).view(batch_size, 10)

    return Answers(module, answer), inputs


def hides_its_numbers(batch_size: int) -> Any:
    """Return an array of numpy's that is wrong when it is timed, beside a right tensor."""
    calls = itertools.count(1)

    def answer(module: nn.Module, x: torch.Tensor) -> Any:
        scores = module(x)
        return {"classes": scores, "scores": scores.numpy() * (next(calls) < 5)}

    return _answers(answer, batch_size)


class Lazy:
    """Scores that are computed when they are wanted."""

    def __init__(self, compute: Callable[[], torch.Tensor]) -> None:
        self.compute = compute


def computes_when_asked(batch_size: int) -> Any:
    """Return an object that holds a function, beside a right tensor."""
    return _answers(lambda module, x: {"mean": x.mean(), "scores": Lazy(lambda: module(x))}, batch_size)


def tunes_the_allocator(batch_size: int) -> Any:
    """Has jemalloc keep what is freed, whatever it was started with."""
    forever = ctypes.c_ssize_t(-1)
    size = ctypes.c_size_t(ctypes.sizeof(forever))
    ctypes.CDLL(None).mallctl(b"arena.0.dirty_decay_ms", None, None, ctypes.byref(forever), size)
    return models.tiny(batch_size)


def sets_what_holds_for_all(batch_size: int) -> Any:
    """Turns oneDNN off, flushes denormal numbers, sets a variable; nothing is wrong with it, and it is told."""
    os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"
    torch.backends.mkldnn.set_flags(False)  # type: ignore[no-untyped-call]
    torch.set_flush_denormal(True)
    return models.tiny(batch_size)


def ignores_the_seed(batch_size: int) -> Any:
    """Makes the same inputs every time."""
    module, inputs = models.tiny(batch_size)
    return module, tuple(map(torch.ones_like, inputs))


class Words(nn.Module):
    """Scores of texts."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.score = nn.Embedding(100, 16), nn.Linear(16, 4)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.score(self.embedding(words)).mean(1)  # type: ignore[no-any-return]

    @classmethod
    def ignoring_length(cls, batch_size: int, sequence_length: int) -> Any:
        """Always seven words."""
        return cls(), torch.randint(0, 100, (batch_size, 7))
