"""IPEX's runtime extension: a module whose calls split the batch into streams, each on cores of its own.

With ``ipex=multistream`` the model is prepared as with ``ipex=on``, for the part of the batch that a stream gets, and
wrapped here. What can be read back of the streams is read here too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from runner.protocol import kernel
from runner.protocol.evidence import StreamsEvidence, ThreadsAtWork
from runner.worker import surroundings
from runner.worker.call import Call
from runner.worker.measure import thread_cpu_clock

# The iterations over which the CPU time of threads is added up: those of a small model take less than a tick.
_ITERATIONS = 5


def largest_part(call: Call, batch_size: int, streams: int) -> Call:
    """The call with as many samples as the first stream gets, which is as many as any gets."""
    if streams == 1:
        return call
    samples = -(-batch_size // streams)
    return call.map(lambda tensor: tensor[:samples] if _has_batch(tensor, batch_size) else tensor)


def wrap(module: nn.Module, call: Call, batch_size: int, cpus: Sequence[int], streams: int) -> nn.Module:
    """IPEX's MultiStreamModule around a module: tensors with the batch as their first dimension are split along it, and
    what the streams return is put together along it.

    Args:
        module: the model as it is called, prepared for ``largest_part``.
        call: the example with the whole batch, from which it is derived what to split.
        cpus: the cores that the streams share.

    Raises:
        ValueError: no input or no output has the batch as its first dimension.
    """
    import intel_extension_for_pytorch.cpu.runtime as runtime

    part = largest_part(call, batch_size, streams)
    inputs = split_hint((call.args, dict(call.kwargs or {})), batch_size)
    with torch.inference_mode():
        output = split_hint(part(module), -(-batch_size // streams))
    for what, hint in (("inputs", inputs), ("output", output)):
        if not _splits(hint):
            raise ValueError(
                f"ipex=multistream: no tensor of the model's {what} has the batch of {batch_size} as its first "
                "dimension, along which streams split it; choose ipex=on"
            )
    args, kwargs = inputs
    wrapped: nn.Module = runtime.MultiStreamModule(
        module,
        num_streams=streams,
        cpu_pool=runtime.CPUPool(list(cpus)),
        input_split_hint=runtime.MultiStreamModuleHint(*args, **kwargs),
        output_concat_hint=runtime.MultiStreamModuleHint(output),
    )
    return wrapped


def split_hint(value: Any, batch_size: int) -> Any:
    """What is split of a value along its first dimension, as IPEX wants to be told: 0 for a tensor with the batch
    there, None for anything else, in the containers of the value."""
    if isinstance(value, torch.Tensor):
        return 0 if _has_batch(value, batch_size) else None
    # IPEX looks into containers of exactly these types.
    if isinstance(value, Mapping):
        return {key: split_hint(part, batch_size) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        parts = [split_hint(part, batch_size) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    return None


def _has_batch(tensor: torch.Tensor, batch_size: int) -> bool:
    return tensor.dim() > 0 and tensor.shape[0] == batch_size


def _splits(hint: Any) -> bool:
    if isinstance(hint, (dict, tuple, list)):
        return any(map(_splits, hint.values() if isinstance(hint, dict) else hint))
    return hint is not None


def observe(module: nn.Module, iterate: Callable[[], object]) -> StreamsEvidence | None:
    """The streams of a module, and which threads work in its iterations; None if it is no MultiStreamModule.

    Call it after the timed loop: it runs further iterations.
    """
    if not is_multistream(module):
        return None
    wrapped: Any = module
    # A single stream has no task of its own: the caller's thread computes.
    pools = [task.cpu_pool for task in wrapped.tasks] if hasattr(wrapped, "tasks") else [wrapped.cpu_pool]
    before = _cpu_s_of_threads()
    for _ in range(_ITERATIONS):
        iterate()
    used_s = {thread: end - before.get(thread, 0.0) for thread, end in _cpu_s_of_threads().items()}
    caller_s = used_s.pop(os.getpid())
    at_work: dict[str | None, float] = {}
    for thread, seconds in used_s.items():
        if seconds > 0:
            allowed = kernel.status("Cpus_allowed_list", Path(f"/proc/self/task/{thread}/status"))
            at_work[allowed] = at_work.get(allowed, 0.0) + seconds / _ITERATIONS
    return StreamsEvidence(
        number=int(wrapped.get_stream_number()),
        pools=[sorted(pool.cpu_pool.get_core_list()) for pool in pools],
        caller_s=caller_s / _ITERATIONS,
        threads=[
            ThreadsAtWork(None if cpus is None else sorted(surroundings.cpu_list(cpus)), seconds)
            for cpus, seconds in sorted(at_work.items(), key=str)
        ],
    )


def is_multistream(module: nn.Module) -> bool:
    """Whether a module is IPEX's MultiStreamModule."""
    kind = type(module)
    return kind.__name__ == "MultiStreamModule" and kind.__module__.startswith("intel_extension_for_pytorch.")


def _cpu_s_of_threads() -> dict[int, float]:
    """Number of each thread of this process -> the CPU time that it has used."""
    seconds = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            seconds[int(task.name)] = time.clock_gettime(thread_cpu_clock(int(task.name)))
        except OSError:  # it ended meanwhile
            continue
    return seconds
