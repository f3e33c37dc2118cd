"""What this process can prove about itself: read back after the timed loop, never assumed.

Pure observation: what was asked for is not known here; ``runner.checks.gate`` compares.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from runner.protocol.evidence import (
    AffinityEvidence,
    AllocatorEvidence,
    CallEvidence,
    Evidence,
    GraphEvidence,
    GraphKind,
    IpexEvidence,
    OpenMPEvidence,
    OperatorEvidence,
    ServingEvidence,
    TensorsEvidence,
    ThreadAffinity,
    VersionEvidence,
)
from runner.protocol.jobfile import TUNING
from runner.worker import look, surroundings
from runner.worker.call import flat
from runner.worker.transform import Subject


class _DlInfo(ctypes.Structure):
    """Dl_info of dladdr(3)."""

    _fields_ = [
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    ]


def owner(symbol: str) -> str | None:
    """File of the library whose ``symbol`` wins in this process's global scope; None if none defines it.

    Mapped is not live: two allocators can be mapped at once, and only the first in the search order serves.
    """
    process = ctypes.CDLL(None)
    try:
        address = ctypes.cast(getattr(process, symbol), ctypes.c_void_p)
    except AttributeError:
        return None
    info = _DlInfo()
    dladdr = process.dladdr
    dladdr.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    if not dladdr(address, ctypes.byref(info)) or not info.file:
        return None
    return os.path.realpath(os.fsdecode(info.file))


def _mallctl(name: str, kind: Any) -> Any:
    """A setting as jemalloc itself reports it (mallctl(3)); None if the live allocator is not jemalloc."""
    try:
        call = ctypes.CDLL(None).mallctl
    except AttributeError:
        return None
    value = kind()
    size = ctypes.c_size_t(ctypes.sizeof(value))
    if call(name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)):
        return None
    return value.value.decode() if isinstance(value.value, bytes) else value.value


_JEMALLOC_SETTINGS: dict[str, Any] = {
    "version": ctypes.c_char_p,
    "opt.dirty_decay_ms": ctypes.c_ssize_t,
    "opt.muzzy_decay_ms": ctypes.c_ssize_t,
    "opt.oversize_threshold": ctypes.c_size_t,
    "opt.background_thread": ctypes.c_bool,
    "opt.metadata_thp": ctypes.c_char_p,
    "opt.thp": ctypes.c_char_p,
    "opt.retain": ctypes.c_bool,
    "arenas.narenas": ctypes.c_uint,
}


_MALLINFO = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip


class _Mallinfo2(ctypes.Structure):
    """struct mallinfo2 of mallinfo(3), glibc 2.33 and later."""

    _fields_ = [(name, ctypes.c_size_t) for name in _MALLINFO]


class _Mallinfo(ctypes.Structure):
    """struct mallinfo of mallinfo(3): its byte counts overflow, its count of mapped blocks does not."""

    _fields_ = [(name, ctypes.c_int) for name in _MALLINFO]


# Past what a heap of smaller freed blocks could hold in one piece (glibc trims its top at 64 MiB by default), and below
# the threshold that ptmalloc_tuned sets. Never touched, so it costs address space only.
_LARGE_BLOCK_BYTES = 2 << 30


def _glibc_maps_large_blocks() -> bool | None:
    """Whether glibc serves a large block by a fresh mmap (its default) or from the heap (tuned): tried, not read.

    None when it can't be tried (no mallinfo, no address space).
    """
    libc = ctypes.CDLL(None)
    for name, kind in (("mallinfo2", _Mallinfo2), ("mallinfo", _Mallinfo)):
        info = getattr(libc, name, None)
        if info is not None:
            info.restype = kind
            break
    else:
        return None
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    before = info().hblks
    block = libc.malloc(_LARGE_BLOCK_BYTES)
    if not block:
        return None
    mapped = info().hblks > before
    libc.free(block)
    return bool(mapped)


def _allocator() -> AllocatorEvidence:
    malloc = owner("malloc")
    is_jemalloc = _mallctl("version", ctypes.c_char_p) is not None
    is_glibc = not is_jemalloc and malloc is not None and Path(malloc).name.startswith("libc")
    maps = Path("/proc/self/maps").read_text()
    return AllocatorEvidence(
        malloc=malloc,
        free=owner("free"),
        posix_memalign=owner("posix_memalign"),
        jemalloc={name: _mallctl(name, kind) for name, kind in _JEMALLOC_SETTINGS.items()} if is_jemalloc else None,
        glibc_maps_large_blocks=_glibc_maps_large_blocks() if is_glibc else None,
        mapped=sorted(set(re.findall(r"/\S*lib(?:tcmalloc|jemalloc|mimalloc)\S*", maps))),
    )


def _openmp() -> OpenMPEvidence:
    max_threads = None
    if owner("omp_get_max_threads"):
        max_threads = int(ctypes.CDLL(None).omp_get_max_threads())
    return OpenMPEvidence(owner("omp_get_num_threads"), torch.get_num_threads(), max_threads)


def _status(field: str, path: str = "/proc/self/status") -> str | None:
    for line in Path(path).read_text().splitlines():
        if line.startswith(field + ":"):
            return line.partition(":")[2].strip()
    return None


def _threads() -> list[ThreadAffinity]:
    """Every thread of this process, by the CPUs that it may run on."""
    counts: dict[str | None, int] = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            allowed = _status("Cpus_allowed_list", str(task / "status"))
        except OSError:
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
        memory_nodes_allowed=_status("Mems_allowed_list"),
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


def _node_kinds(graph: Any) -> dict[str, int]:
    """Operator -> count in a TorchScript graph, with its blocks and fused subgraphs."""
    kinds: dict[str, int] = {}
    waiting = [graph]
    while waiting:
        for node in waiting.pop().nodes():
            kinds[node.kind()] = kinds.get(node.kind(), 0) + 1
            waiting.extend(node.blocks())
            if node.hasAttribute("Subgraph"):
                waiting.append(node.g("Subgraph"))
    return dict(sorted(kinds.items()))


def _graph(subject: Subject) -> GraphEvidence:
    """What kind of module it is now, judged by its type. Call it right after an iteration."""
    inside = any(isinstance(child, torch.jit.ScriptModule) for child in subject.eager.modules())
    eager = GraphEvidence(
        kind=GraphKind.TORCHSCRIPT_INSIDE if inside else GraphKind.EAGER,
        frozen=None,
        nodes=None,
        compiler=None,
        graphs=None,
        graph_breaks=None,
        cache_hits=None,
    )
    if isinstance(subject.module, torch.jit.ScriptModule):
        return replace(
            eager,
            kind=GraphKind.TORCHSCRIPT,
            frozen=not list(subject.module.parameters()),
            nodes=_node_kinds(torch._C._last_executed_optimized_graph()),
        )
    if type(subject.module).__module__.startswith("torch._dynamo"):
        from torch._dynamo.utils import counters

        return replace(
            eager,
            kind=GraphKind.COMPILE,
            compiler=subject.compiler,
            graphs=subject.compiled_graphs,
            graph_breaks=sum(counters["graph_break"].values()),
            # The cache is in the job's private folder and empty at first: a hit would come from elsewhere.
            cache_hits=counters["inductor"]["fxgraph_cache_hit"] + counters["aot_autograd"]["autograd_cache_hit"],
        )
    return eager


def _transparent_hugepages() -> str | None:
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return None
    match = re.search(r"\[(\w+)\]", text)
    return match[1] if match else None


def _operators(subject: Subject) -> OperatorEvidence | None:
    try:
        return look.operators(lambda: subject.call(subject.module))
    except Exception:  # the measurement stands; whatever went wrong, the operators are unobserved
        traceback.print_exc()
        return None


def collect(subject: Subject, output: Any, grad_mode: str, serving: ServingEvidence | None) -> Evidence:
    """Everything the gate needs. Call it after the timed loop: it allocates, and runs one iteration."""
    return Evidence(
        graph=_graph(subject),
        operators=_operators(subject),
        int8_recipe=subject.int8_recipe,
        allocator=_allocator(),
        openmp=_openmp(),
        affinity=_affinity(),
        ipex=_ipex(subject.eager),
        tensors=_tensors(subject, output),
        grad_mode=grad_mode,
        float32_matmul_precision=torch.get_float32_matmul_precision(),
        environment={name: value for name, value in sorted(os.environ.items()) if TUNING.fullmatch(name)},
        transparent_hugepages=_transparent_hugepages(),
        versions=VersionEvidence(
            python=sys.version.split()[0],
            # torch.__version__ is not a plain str, which the job's files need.
            torch=str(torch.__version__),
            cpu_capability=torch.backends.cpu.get_cpu_capability(),
        ),
        argv=sys.orig_argv,
        pid=os.getpid(),
        serving=serving,
    )
