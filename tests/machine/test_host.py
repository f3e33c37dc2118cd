"""The kernel's lists of CPUs, sysfs's topology, and the fingerprint of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.machine.host import Topology, fingerprint, format_cpu_list, parse_cpu_list, read_topology
from runner.protocol.errors import RunnerError


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
