"""What this process can prove about itself: read back after the timed loop, never assumed.

Pure observation: what was asked for is not known here; ``runner.checks.gate`` compares.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from runner.protocol import inherited, kernel
from runner.protocol.evidence import (
    AffinityEvidence,
    CallEvidence,
    Evidence,
    IpexEvidence,
    ModelEvidence,
    OpenMPEvidence,
    OperatorEvidence,
    PrecisionEvidence,
    ServingEvidence,
    TensorsEvidence,
    ThreadAffinity,
    VersionEvidence,
)
from runner.protocol.jobfile import TUNING
from runner.worker import allocator, build, graph_evidence, look, process_state, streams, surroundings
from runner.worker.call import flat
from runner.worker.outputs import plain
from runner.worker.symbols import owner
from runner.worker.transform import Subject


def _openmp() -> OpenMPEvidence:
    max_threads = None
    if owner("omp_get_max_threads"):
        max_threads = int(ctypes.CDLL(None).omp_get_max_threads())
    return OpenMPEvidence(owner("omp_get_num_threads"), torch.get_num_threads(), max_threads)


def _threads() -> list[ThreadAffinity]:
    """Every thread of this process, by the CPUs that it may run on."""
    counts: dict[str | None, int] = {}
    for task in Path("/proc/self/task").iterdir():
        allowed = kernel.status("Cpus_allowed_list", task / "status")
        if allowed is None and not task.exists():
            continue  # the thread ended meanwhile
        counts[allowed] = counts.get(allowed, 0) + 1
    return [
        ThreadAffinity(None if cpus is None else sorted(surroundings.cpu_list(cpus)), threads)
        for cpus, threads in sorted(counts.items(), key=str)
    ]


def _affinity() -> AffinityEvidence:
    try:
        # Column 2 of numa_maps (proc(5)) is the policy in force for the mapping; the stack has the task's.
        lines = Path("/proc/self/numa_maps").read_text().splitlines()
        policy = next((line.split()[1] for line in lines if "stack" in line), None)
    except OSError:
        policy = None
    return AffinityEvidence(
        allowed=sorted(os.sched_getaffinity(0)),
        threads=_threads(),
        memory_nodes_allowed=kernel.status("Mems_allowed_list"),
        memory_policy=policy,
    )


def memory_format(tensor: torch.Tensor) -> str:
    """The memory format of a tensor.

    For four dimensions it is what look.layout() says, for others ``contiguous`` or ``strided``, and for a tensor that
    is not strided, torch's own name of its layout.
    """
    if tensor.layout != torch.strided:
        return str(tensor.layout).removeprefix("torch.")
    if tensor.dim() == 4:
        return look.layout(tensor.shape, tensor.stride())
    return "contiguous" if tensor.is_contiguous() else "strided"


def _count(values: list[str]) -> dict[str, int]:
    return {value: values.count(value) for value in sorted(set(values))}


def _described(tensors: list[torch.Tensor], with_shapes: bool = True) -> TensorsEvidence:
    return TensorsEvidence(
        dtypes=_count([str(t.dtype).removeprefix("torch.") for t in tensors]),
        memory_formats=_count([memory_format(t) for t in tensors if t.dim() == 4]),
        shapes=[list(tensor.shape) for tensor in tensors] if with_shapes else None,
    )


def _tensors(subject: Subject, output: Any) -> CallEvidence:
    return CallEvidence(
        samples=subject.call.samples,
        lengths=subject.call.lengths(),
        inputs=_described(subject.call.tensors()),
        weights=_described(list(subject.eager.parameters()), with_shapes=False),
        outputs=_described(flat(output)),
    )


def _ipex(module: nn.Module) -> IpexEvidence:
    package = sys.modules.get("intel_extension_for_pytorch")
    kinds = [
        type(child).__name__ for child in module.modules() if type(child).__module__.startswith("intel_extension_for")
    ]
    return IpexEvidence(
        imported=package is not None,
        version=getattr(package, "__version__", None),
        modules_replaced=len(kinds),
        modules_by_type=_count(kinds),
    )


def _transparent_hugepages() -> str | None:
    text = kernel.text(Path("/sys/kernel/mm/transparent_hugepage/enabled")) or ""
    match = re.search(r"\[(\w+)\]", text)
    return match[1] if match else None


def _operators(iterate: Callable[[], object], has_streams: bool) -> OperatorEvidence | None:
    try:
        return look.operators(iterate, on_all_threads=has_streams)
    except Exception:  # the measurement stands; whatever went wrong, the operators are unobserved
        traceback.print_exc()
        return None


def _readable(read: Callable[[], Any]) -> str:
    """A setting as text. A torch that has old and new settings of one thing refuses to read those that disagree."""
    try:
        return str(read())
    except RuntimeError as error:
        return f"unreadable: {str(error)[:200]}"


def _matmul_precision() -> str | None:
    try:
        return str(torch.get_float32_matmul_precision())
    except RuntimeError:
        return None


_NO_SUCH = str(None)


def _float32_settings() -> dict[str, str]:
    """Every setting that can allow less than float32 inside float32 operations, by the name under which it is set.

    torch 2.9 has fp32_precision for each kind of operation, which replaces allow_tf32; reading both is an error there.
    """
    # Not hasattr(): it reads the setting, which torch may refuse.
    settings = {}
    for name in ("torch.backends", *(f"torch.backends.mkldnn{part}" for part in ("", ".matmul", ".conv", ".rnn"))):
        place: Any = torch.backends
        for part in name.split(".")[2:]:
            place = getattr(place, part, None)
        settings[f"{name}.fp32_precision"] = _readable(partial(getattr, place, "fp32_precision", None))
    settings = {name: value for name, value in settings.items() if value != _NO_SUCH}
    tf32 = _readable(partial(getattr, torch.backends.mkldnn, "allow_tf32", None)) if not settings else _NO_SUCH
    if tf32 != _NO_SUCH:  # nor does a build that only knows the CPU have a value
        settings["torch.backends.mkldnn.allow_tf32"] = tf32
    ipex: Any = sys.modules.get("intel_extension_for_pytorch")
    if hasattr(ipex, "get_fp32_math_mode"):
        settings["ipex.get_fp32_math_mode()"] = _readable(lambda: ipex.get_fp32_math_mode(device="cpu").name)
    return settings


def collect(
    subject: Subject,
    output: Any,
    reference_layouts: dict[str, int],
    grad_mode: str,
    serving: ServingEvidence | None,
    model: ModelEvidence,
    looks: bool = True,
) -> Evidence:
    """Everything the gate needs. Call it after the timed loop: it allocates, and runs one iteration.

    Args:
        model: what the model is, by its fp32 reference.
        looks: whether that iteration is looked at by torch's profiler.
        grad_mode: the mode in which the caller runs the model; the model may have another inside.
    """
    graph = graph_evidence.observe(subject)
    children = process_state.Children()
    returned: list[Any] = []

    def iterate() -> None:
        returned[:] = [children.watched(lambda: subject.call(subject.module))]

    operators = None
    if looks:
        operators = _operators(iterate, streams.is_multistream(subject.module))
    else:
        iterate()
    if any(tensor.requires_grad for tensor in flat(plain(returned))):
        grad_mode = "gradients recorded"
    return Evidence(
        graph=graph,
        operators=operators,
        process_state=process_state.observe(children),
        reference_layouts=reference_layouts,
        precision=PrecisionEvidence(subject.recipe, subject.quantized_layers, subject.quantized),
        allocator=allocator.observe(),
        openmp=_openmp(),
        affinity=_affinity(),
        ipex=_ipex(subject.eager),
        streams=streams.observe(subject.module, iterate),
        tensors=_tensors(subject, output),
        grad_mode=grad_mode,
        float32_matmul_precision=_matmul_precision(),
        float32_settings=_float32_settings(),
        environment={name: value for name, value in sorted(os.environ.items()) if TUNING.fullmatch(name)},
        inherited=inherited.read(),
        transparent_hugepages=_transparent_hugepages(),
        versions=VersionEvidence(
            python=sys.version.split()[0],
            # torch.__version__ is not a plain str, which the job's files need.
            torch=str(torch.__version__),
            cpu_capability=torch.backends.cpu.get_cpu_capability(),
        ),
        build=build.observe(),
        model=model,
        argv=sys.orig_argv,
        pid=os.getpid(),
        serving=serving,
    )
