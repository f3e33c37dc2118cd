"""``python -m runner doctor``: what can run on this machine, axis by axis, what is missing, and how to install it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from runner.capture import probe, topdown
from runner.commands.options import add_format, make_parser
from runner.config.captures import CaptureConf, IttCaptureConf, ToplevCaptureConf
from runner.launch import libraries
from runner.machine import host, installation, servers, torch_environments
from runner.machine.capabilities import Machine, this_machine
from runner.machine.torch_builds import bundled
from runner.protocol import energy
from runner.protocol.cell import BUNDLED
from runner.protocol.errors import RunnerError
from runner.report import escaping, tables, terminal

_HEADINGS = ("axis", "value", "here", "", "to install it")
CAN, CAN_NOT, MISSING = "can run", "can't run", "missing"


@dataclass(frozen=True)
class Finding:
    """One value of one axis on this machine."""

    axis: str
    value: str
    verdict: str
    why: str = ""
    """What was found, or what keeps it from running."""
    mend: str = ""
    """The line that installs what is missing."""


def _allocators() -> Iterator[Finding]:
    yield Finding("allocator", "ptmalloc, ptmalloc_tuned", CAN, "glibc's own")
    folders = libraries.search_path(os.environ, sys.executable)
    stems = {
        "jemalloc": "jemalloc, jemalloc_benchmark, jemalloc_guide",
        "mimalloc": "mimalloc",
        "tcmalloc": "tcmalloc",
        "tcmalloc_minimal": "tcmalloc_minimal",
        "iomp5": "intel",
    }
    for stem, values in stems.items():
        axis = "openmp" if stem == "iomp5" else "allocator"
        file = libraries.find(stem, folders)
        if file:
            yield Finding(axis, values, CAN, str(file))
        else:
            yield Finding(axis, values, MISSING, f"no lib{stem}.so", libraries.INSTALL[stem])


def _precisions(isa: frozenset[str]) -> Iterator[Finding]:
    def having(*flags: str) -> str:
        return ", ".join(flag for flag in flags if flag in isa)

    yield Finding("precision", "fp32", CAN, having("avx2", "avx512f"))
    bf16 = having("avx512_bf16", "amx_bf16")
    yield Finding("precision", "bf16, bf16_autocast", CAN, bf16 or "no instructions for it: emulated, slow")
    int8 = having("avx512_vnni", "avx_vnni", "amx_int8")
    yield Finding("precision", "int8", CAN, int8 or "no VNNI: int8 by older instructions, slower")
    own = "linears alone; weights by torchao (torch=2.14.1) or IPEX"
    yield Finding("precision", "int8_dynamic, int8_weight, int4_weight", CAN, own)
    fp16 = having("avx512_fp16", "amx_fp16")
    yield Finding("precision", "fp16", CAN if fp16 else CAN_NOT, fp16 or "neither AVX512-FP16 nor AMX-FP16")


def findings() -> list[Finding]:
    """Every axis whose values depend on the machine."""
    machine = this_machine()
    own = [
        _allocators(),
        _precisions(machine.isa),
        _ipex(machine),
        _torch_builds(),
        _graphs(machine),
        _pinning(machine),
    ]
    return list(itertools.chain(*own, _serving(), _captures()))


def _ipex(machine: Machine) -> Iterator[Finding]:
    if machine.ipex is None:
        yield Finding("ipex", "on", MISSING, "Intel Extension for PyTorch is not installed", installation.IPEX_EXTRA)
        yield Finding("launcher", "ipexrun", MISSING, "it comes with IPEX; auto takes xeon", installation.IPEX_EXTRA)
    elif "avx2" not in machine.isa:
        yield Finding("ipex", "on", CAN_NOT, "needs AVX2")
    else:
        yield Finding("ipex", "on", CAN, f"IPEX {machine.ipex}")
        yield Finding("launcher", "ipexrun", CAN, f"IPEX {machine.ipex}")
    yield Finding("launcher", "xeon, none", CAN)


def _torch_builds() -> Iterator[Finding]:
    yield Finding("torch", BUNDLED, CAN, f"torch {bundled().torch}")
    for name, environment in torch_environments.environments().items():
        if environment.is_complete:
            yield Finding("torch", name, CAN, str(environment.folder))
            continue
        try:
            torch_environments.uv()
        except RunnerError:
            yield Finding("torch", name, CAN_NOT, "no uv, which makes it", f"{sys.executable} -m pip install uv")
        else:
            yield Finding("torch", name, CAN, f"made when it is needed: {torch_environments.SIZE}, minutes")


_INDUCTOR = "compile, compile_freezing, max_autotune, aot"


def _graphs(machine: Machine) -> Iterator[Finding]:
    yield Finding("memory_format", "channels_first, channels_last", CAN)
    yield Finding("graph", "eager, torchscript", CAN)
    if machine.compiler:
        yield Finding("graph", _INDUCTOR, CAN, machine.compiler)
    else:
        missing = "no C++ compiler, or no Python.h"
        yield Finding("graph", _INDUCTOR, MISSING, missing, "apt-get install g++ python3-dev")


def _pinning(machine: Machine) -> Iterator[Finding]:
    if shutil.which("numactl") is None:
        yield Finding("pinning", "numactl", MISSING, "taskset pins cores only", "apt-get install numactl")
    elif machine.unbound_nodes:
        reasons = "; ".join(machine.unbound_nodes.values())
        yield Finding("pinning", "numactl", CAN_NOT, f"{reasons}: taskset pins cores only")
    else:
        yield Finding("pinning", "numactl", CAN, "cores and memory")


def _serving() -> Iterator[Finding]:
    yield Finding("scenario", "inference", CAN)
    java, server = servers.java(), servers.torchserve()
    missing = next((tool for tool in (server, java) if tool.version is None), None)
    if missing is None:
        yield Finding("scenario", "torchserve", CAN, f"torchserve {server.version}, Java {java.version}")
    else:
        yield Finding("scenario", "torchserve", MISSING, f"no {missing.name}", missing.install)
    for tool in (servers.ab(), servers.h2load()):
        if tool.version is None:
            yield Finding("load", tool.name, MISSING, "", tool.install)
        else:
            yield Finding("load", tool.name, CAN, tool.version)


def _captures() -> Iterator[Finding]:
    yield Finding("capture", "onednn, profiler", CAN, "part of torch and IPEX")
    reasons = probe.unavailable(CaptureConf(itt=IttCaptureConf(), toplev=ToplevCaptureConf()))
    for name, file in (("itt", str(probe.collector())), ("toplev", str(topdown.SCRIPT))):
        yield Finding("capture", name, CAN_NOT if name in reasons else CAN, reasons.get(name, file))
    counted, reason = energy.counters()
    yield Finding("energy", "joules per sample", CAN if counted else CAN_NOT, reason or f"of {len(counted)} packages")
    missing = shutil.which("perf") is None
    mend = "apt-get install linux-perf" if missing else ""
    yield Finding("capture", "counters", MISSING if missing else CAN, probe.perf_counters().source, mend)


def machine_lines(fingerprint: dict[str, Any]) -> list[tuple[str, str]]:
    """The properties of the machine, as (name, text)."""
    cpus = fingerprint["cpus"]
    cores = len({(cpu["socket"], cpu["core"]) for cpu in cpus})
    nodes = len({cpu["node"] for cpu in cpus})
    return [
        ("CPU", f"{fingerprint['cpu_model']} (family/model/stepping {fingerprint['cpu_family_model_stepping']})"),
        (
            "cores",
            f"{cores} physical, {len(cpus)} logical, {nodes} NUMA node(s); allowed {fingerprint['cpus_allowed']}",
        ),
        ("instructions", " ".join(fingerprint["isa"])),
        ("memory", f"{fingerprint['memory_gib']} GiB, transparent huge pages {fingerprint['transparent_hugepages']}"),
        ("governor", fingerprint["governor"] or "not readable (a VM)"),
        ("virtual", "yes: neighbours may disturb" if fingerprint["hypervisor"] else "no"),
        ("system", f"Linux {fingerprint['kernel']}, {fingerprint['libc']}, Python {fingerprint['python']}"),
        ("versions", ", ".join(f"{k} {v or 'missing'}" for k, v in fingerprint["versions"].items())),
        ("host_id", fingerprint["host_id"]),
    ]


def main(arguments: list[str]) -> int:
    """Print the findings; exit status 0, or 1 when something is missing that can be installed."""
    parser = make_parser(
        "doctor", "Exit status: 0 if nothing is missing, 1 if something is missing that can be installed."
    )
    add_format(parser)
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format json")
    options = parser.parse_args(arguments)
    fingerprint, rows = host.fingerprint(), findings()
    status = 1 if any(finding.verdict == MISSING for finding in rows) else 0
    if options.format == "json":
        print(json.dumps({"host": fingerprint, "findings": [asdict(finding) for finding in rows]}, indent=1))
        return status
    if options.format == "md":
        values = [[tables.Value(text) for text in asdict(row).values()] for row in rows]
        section = tables.Section("Findings", [(heading, True) for heading in _HEADINGS], values)
        lines = [f"- {name}: {escaping.markdown(text)}" for name, text in machine_lines(fingerprint)]
        print("\n".join([*lines, "", *tables.markdown_table(section)]))
        return status
    console = terminal.make_console()
    for name, text in machine_lines(fingerprint):
        console.print(f"{name:<13}{text}", markup=False)
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in _HEADINGS:
        table.add_column(column, overflow="fold")
    colors = {CAN: "green", CAN_NOT: "yellow", MISSING: "red"}
    for row in rows:
        verdict = f"[{colors[row.verdict]}]{row.verdict}[/]"
        table.add_row(row.axis, row.value, verdict, escape(row.why), escape(row.mend))
    terminal.print_folded(console, table)
    return status
