"""The kernel's lists of CPUs, sysfs's topology, and the fingerprint of this machine."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.launch import place_cell
from runner.machine import capabilities, execute
from runner.machine.capabilities import unbound_nodes
from runner.machine.host import Topology, fingerprint, format_cpu_list, parse_cpu_list, read_topology
from runner.machine.torch_builds import bundled
from runner.protocol.errors import RunnerError
from tests.conftest import CELL


@given(st.sets(st.integers(min_value=0, max_value=500)))
def test_a_cpu_list_survives_the_round_trip(cpus: set[int]) -> None:
    assert set(parse_cpu_list(format_cpu_list(tuple(sorted(cpus))))) == cpus


@pytest.mark.parametrize(("text", "cpus"), [("0-3,8", (0, 1, 2, 3, 8)), ("5", (5,)), ("", ()), ("0-1\n", (0, 1))])
def test_the_kernels_list_format_is_read(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpu_list(text) == cpus


def two_sockets(root: Path) -> Path:
    """sysfs of two sockets, two cores of two threads each, as Xeons number them: 0-3 first siblings, 4-7 second."""
    system = root / "devices/system"
    (system / "cpu").mkdir(parents=True)
    (system / "cpu/online").write_text("0-7\n")
    for cpu in range(8):
        topology = system / f"cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "core_id").write_text(f"{cpu % 2}\n")
        (topology / "physical_package_id").write_text(f"{cpu % 4 // 2}\n")
    for node in range(2):
        (system / f"node/node{node}").mkdir(parents=True)
        (system / f"node/node{node}/cpulist").write_text(f"{2 * node}-{2 * node + 1},{2 * node + 4}-{2 * node + 5}\n")
    return root


def test_physical_cores_are_first_siblings_of_the_node(tmp_path: Path) -> None:
    topology = read_topology(two_sockets(tmp_path), frozenset(range(8)))
    assert topology.nodes() == (0, 1)
    assert topology.physical_cores(0) == (0, 1)
    assert topology.physical_cores(1) == (2, 3)


def test_physical_cores_stay_within_the_callers_affinity(tmp_path: Path) -> None:
    topology = read_topology(two_sockets(tmp_path), frozenset({1, 4, 5}))
    assert topology.physical_cores(0) == (1, 4)
    assert topology.physical_cores(1) == ()
    assert topology.first_siblings() == frozenset({0, 1, 2, 3})


def machine(root: Path, cpus: int, files: Mapping[str, str]) -> Topology:
    """The topology of a sysfs with these CPUs, and with further files in devices/; the caller may use all."""
    written = {"system/node/node0/cpulist": f"0-{cpus - 1}", "system/cpu/online": f"0-{cpus - 1}", **files}
    for name, text in written.items():
        file = root / "devices" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return read_topology(root, frozenset(range(cpus)))


def of_cpus(name: str, texts: Sequence[object]) -> dict[str, str]:
    """One file of the folder topology/ of each CPU."""
    return {f"system/cpu/cpu{cpu}/topology/{name}": str(text) for cpu, text in enumerate(texts)}


@pytest.mark.parametrize(
    ("core_ids", "lists", "name", "cores"),
    [
        ([0, 1, 0, 1], ["0", "1", "2", "3"], "core_cpus_list", (0, 1, 2, 3)),  # numbers begin anew on each die
        ([-1, -1, -1, -1], ["0", "1", "2", "3"], "thread_siblings_list", (0, 1, 2, 3)),
        ([-1, -1, -1, -1], ["0-1", "0-1", "2-3", "2-3"], "core_cpus_list", (0, 2)),
        ([0, 0, 0, 0], ["0,2", "1,3", "0,2", "1,3"], "thread_siblings_list", (0, 1)),
    ],
)
def test_lists_of_siblings_say_what_a_core_is_and_core_numbers_do_not(
    core_ids: list[int], lists: list[str], name: str, cores: tuple[int, ...], tmp_path: Path
) -> None:
    files = of_cpus("core_id", core_ids) | of_cpus("physical_package_id", [0] * 4) | of_cpus(name, lists)
    topology = machine(tmp_path, 4, files)
    assert topology.physical_cores(0) == cores
    assert topology.first_siblings() == frozenset(cores)


CAPACITIES = {f"system/cpu/cpu{cpu}/cpu_capacity": str(1024 if cpu < 2 else 446) for cpu in range(4)}
ALMOST_EQUAL = {f"system/cpu/cpu{cpu}/cpu_capacity": str(1024 - 10 * cpu) for cpu in range(4)}


@pytest.mark.parametrize(
    ("files", "p_cores"),
    [
        ({"cpu_core/cpus": "0-1", "cpu_atom/cpus": "2-3"}, (0, 1)),
        ({"cpu_core/cpus": "0-1", "cpu_atom/cpus": "2", "cpu_lowpower/cpus": "3"}, (0, 1)),
        (CAPACITIES, (0, 1)),
        (ALMOST_EQUAL, (0, 1, 2, 3)),
        ({}, (0, 1, 2, 3)),
    ],
)
def test_e_cores_are_never_mixed_with_p_cores(files: dict[str, str], p_cores: tuple[int, ...], tmp_path: Path) -> None:
    topology = machine(tmp_path, 4, of_cpus("core_cpus_list", range(4)) | files)
    assert topology.physical_cores(0) == p_cores
    assert topology.e_cores_left_out(0) == tuple(sorted(set(range(4)) - set(p_cores)))


def test_a_caller_with_e_cores_alone_gets_them(tmp_path: Path) -> None:
    files = {"cpu_core/cpus": "0-1", "cpu_atom/cpus": "2-3"}
    topology = replace(machine(tmp_path, 4, of_cpus("core_cpus_list", range(4)) | files), allowed=frozenset({2, 3}))
    assert topology.physical_cores(0) == (2, 3)
    assert topology.e_cores_left_out(0) == ()


# -- which nodes numactl can bind ---------------------------------------------------------------------


def answers(monkeypatch: pytest.MonkeyPatch, outputs: Mapping[str, execute.Output]) -> list[tuple[str, ...]]:
    """Let numactl answer for each node; returns the list of what it is asked."""
    questions: list[tuple[str, ...]] = []

    def answer(argv: Sequence[str]) -> execute.Output:
        questions.append(tuple(argv))
        return outputs[argv[argv.index("-m") + 1]]

    monkeypatch.setattr(execute, "run_short", answer)
    return questions


def test_a_caller_on_the_second_node_has_numactl_asked_about_that_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = answers(monkeypatch, {"1": execute.Output(0, "", "")})
    assert unbound_nodes(read_topology(two_sockets(tmp_path), frozenset({2, 3, 6, 7}))) == {}
    assert questions == [("numactl", "-C", "2", "-m", "1", "true")]


def test_a_node_without_memory_is_named_and_numactl_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = two_sockets(tmp_path)
    (root / "devices/system/node/has_memory").write_text("1\n")
    questions = answers(monkeypatch, {"1": execute.Output(0, "", "")})
    assert unbound_nodes(read_topology(root, frozenset(range(8)))) == {0: "node 0 has no memory"}
    assert len(questions) == 1


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (execute.Output(execute.NOT_STARTED, "", "no such file"), "numactl is not installed"),
        (execute.Output(1, "", "libnuma: Warning: node 0 is out of range\nusage: numactl\n"), "node 0 is out of range"),
        (execute.Output(1, "", ""), "exit status 1"),
    ],
)
def test_why_numactl_binds_no_memory_is_said(
    output: execute.Output, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, {"0": output, "1": output})
    assert reason in unbound_nodes(read_topology(two_sockets(tmp_path), frozenset({0})))[0]


def test_numactl_s_own_refusal_is_said_and_not_the_end_of_its_help(tmp_path: Path) -> None:
    if shutil.which("numactl") is None:
        pytest.skip("numactl is not installed")
    topology = read_topology(two_sockets(tmp_path), frozenset(range(8)))
    cpus = tuple(replace(cpu, node=999) for cpu in topology.cpus if cpu.node == 0)
    [reason] = unbound_nodes(replace(topology, cpus=cpus)).values()
    assert reason.startswith("numactl may not bind memory to node 999 here (")
    assert "999 is out of range" in reason


@pytest.mark.parametrize(
    ("has_memory", "allowed", "cores", "manager", "notes"),
    [
        ("0-1", {2, 3, 6, 7}, (2, 3), "numactl", ()),  # a container on the second socket
        ("1", set(range(8)), (0, 1), "taskset", ("node 0 has no memory: taskset pins the cores",)),
        ("0", {2, 3, 6, 7}, (2, 3), "taskset", ("node 1 has no memory: taskset pins the cores",)),
    ],
)
def test_cells_are_placed_where_the_caller_may_be_and_memory_is_bound_where_there_is_some(
    has_memory: str,
    allowed: set[int],
    cores: tuple[int, ...],
    manager: str,
    notes: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = two_sockets(tmp_path)
    (root / "devices/system/node/has_memory").write_text(f"{has_memory}\n")
    answers(monkeypatch, {node: execute.Output(0, "", "") for node in "01"})
    topology = read_topology(root, frozenset(allowed))
    monkeypatch.setattr(capabilities, "read_topology", lambda: topology)
    cell = replace(CELL, node=None, allocator=replace(CELL.allocator, library="glibc", launcher_value="default"))
    placed = place_cell(cell, capabilities.this_machine.__wrapped__(), {}, bundled())
    assert (placed.placement.cores, placed.placement.task_manager) == (cores, manager)
    assert [note[: len(start)] for note, start in zip(placed.notes, notes, strict=True)] == list(notes)


def test_without_sysfs_the_error_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="Linux"):
        read_topology(tmp_path)


def test_the_fingerprint_identifies_this_machine() -> None:
    found = fingerprint()
    assert len(found["host_id"]) == 12
    assert found["cpus"]
    assert found["versions"]["torch"] == "2.8.0"


def test_this_machine_has_cores_to_run_on() -> None:
    topology: Topology = read_topology()
    assert any(topology.physical_cores(node) for node in topology.nodes())
