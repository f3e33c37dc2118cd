"""From a cell and a machine to argv and environment, and the fast launcher against the plain one."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import launch
from runner.launch import environment, ipexrun, libraries
from runner.launch.placement import UnplaceableError, place
from runner.machine import execute
from runner.machine.capabilities import Machine, this_machine
from runner.machine.host import Cpu, Topology
from runner.machine.installation import WORKER
from runner.machine.torch_builds import bundled
from runner.protocol.cell import Allocator, Cell, Graph, Launcher, Model, target_of
from runner.protocol.errors import LibraryMissingError, RunnerError
from runner.protocol.torch_build import TorchBuild
from tests.conftest import CELL as SOME_CELL

PTMALLOC = Allocator("ptmalloc", "glibc", "default", {}, {})
JEMALLOC = Allocator("jemalloc", "jemalloc", "jemalloc", {"MALLOC_CONF": "background_thread:true"}, {})
TCMALLOC = Allocator("tcmalloc", "tcmalloc", "tcmalloc", {}, {})

CELL = replace(SOME_CELL, allocator=PTMALLOC)

# Two sockets of two cores with two threads each: 0-3 first siblings, 4-7 second; node 0 has 0, 1, 4, 5.
XEON = Topology(tuple(Cpu(c, c % 2, c % 4 // 2, c % 4 // 2) for c in range(8)), frozenset(range(8)))


HERE = Machine(XEON, "numactl", frozenset({"avx2"}), "2.8.0")


def folder_with(tmp_path: Path, *names: str) -> Path:
    """An installation prefix whose lib/ holds these files."""
    (tmp_path / "lib").mkdir(exist_ok=True)
    (tmp_path / "bin").mkdir(exist_ok=True)
    for name in names:
        (tmp_path / "lib" / name).touch()
    return tmp_path


def build_at(python: str, ipex: bool = True) -> TorchBuild:
    """The bundled torch, as if its interpreter were this one."""
    build = bundled()
    packages = {**build.distributions, "intel-extension-for-pytorch": "2.8.0"}
    if not ipex:
        del packages["intel-extension-for-pytorch"]
    return replace(build, python=python, distributions=packages)


def argv_of(tmp_path: Path, cell: Cell, machine: Machine = HERE) -> launch.Command:
    python = str(
        folder_with(tmp_path, "libjemalloc.so.2", "libtcmalloc.so.4", "libmimalloc.so.2.0", "libiomp5.so")
        / "bin/python"
    )
    planned = launch.place_cell(cell, machine, {}, build_at(python))
    return launch.command(planned, Path("/jobs/job.json"), Path("/tmp/private"), {"HOME": "/h"}, "s/c/0")


# -- placement ----------------------------------------------------------------------------------------


def test_the_default_is_all_physical_cores_of_the_first_node() -> None:
    placement = place(CELL, XEON, "numactl")
    assert (placement.cores, placement.threads, placement.node) == ((0, 1), 2, 0)


def test_pinning_stays_within_what_the_caller_may_use() -> None:
    placement = place(CELL, replace(XEON, allowed=frozenset({1, 2, 3})), "numactl")
    assert (placement.cores, placement.threads) == ((1,), 1)


def test_a_second_sibling_is_used_when_the_caller_has_no_first_one() -> None:
    placement = place(CELL, replace(XEON, allowed=frozenset({5})), "numactl")
    assert placement.cores == (5,)
    assert placement.has_second_siblings


STREAMS: dict[str, Any] = {"ipex": "multistream", "openmp": "intel", "batch_size": 8}


@pytest.mark.parametrize(("streams", "number"), [(None, 4), (3, 3), (2, 2)])
def test_an_instance_has_a_stream_per_core_unless_fewer_are_asked_for(streams: int | None, number: int) -> None:
    four = Topology(tuple(Cpu(c, c, 0, 0) for c in range(4)), frozenset(range(4)))
    assert place(replace(CELL, **STREAMS, streams=streams), four, "numactl").streams == number
    assert place(replace(CELL, ipex="on", streams=streams), four, "numactl").streams == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"node": 7}, "node=7: this machine has NUMA node 0, 1 only"),
        ({"cores": 3}, "cores=3: node 0 has 2 physical core"),
        ({"threads": 3}, "threads=3: an instance has 2 core"),
        ({**STREAMS, "cores": 1}, "ipex=multistream: an instance has 1 core"),
        ({**STREAMS, "instances": 2}, "ipex=multistream: an instance has 1 core"),
        ({**STREAMS, "streams": 3}, "streams=3 ipex=multistream: an instance has 2 cores"),
        ({**STREAMS, "threads": 1}, "threads=1 ipex=multistream: streams have a thread on each of the 2 cores"),
        ({**STREAMS, "batch_size": 1}, "batch_size=1 ipex=multistream: 2 streams share a batch"),
    ],
)
def test_what_the_machine_has_not_is_refused_by_name(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UnplaceableError, match=sentence.replace("(", r"\(")):
        place(replace(CELL, **change), XEON, "numactl")


@pytest.mark.parametrize(
    ("cell", "machine", "kind", "sentence"),
    [
        (replace(CELL, ipex="on"), replace(HERE, isa=frozenset()), UnplaceableError, "ipex=on: IPEX needs AVX2"),
        (
            replace(CELL, ipex="on"),
            replace(HERE, ipex=None),
            RunnerError,
            "ipex=on: Intel Extension for PyTorch .* is not installed; install",
        ),
        (
            CELL,
            replace(HERE, ipex=None),
            RunnerError,
            "launcher=ipexrun: it is a part of Intel Extension.*choose launcher=xeon",
        ),
    ],
)
def test_a_machine_without_ipex_or_its_instructions_is_told_so(
    cell: Cell, machine: Machine, kind: type[RunnerError], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        launch.place_cell(cell, machine, {}, build_at("/venv/bin/python", ipex=machine.ipex is not None))


def test_a_library_of_models_that_a_build_lacks_is_named_with_the_line_that_installs_it() -> None:
    cell = replace(CELL, model=Model("timm:resnet18", target_of("timm"), {"architecture": "resnet18"}))
    build = build_at("/venv/bin/python")
    without = {name: version for name, version in build.distributions.items() if name != "timm"}
    with pytest.raises(RunnerError, match=r"timm is not installed.*-m pip install timm"):
        launch.place_cell(cell, HERE, {}, replace(build, distributions=without))
    assert launch.place_cell(cell, HERE, {}, replace(build, distributions={**without, "timm": "1"})).cell == cell


def test_without_ipex_the_other_launchers_still_run_cells_without_it() -> None:
    cell = replace(CELL, launcher=Launcher("xeon", False, "auto"))
    assert launch.place_cell(
        cell, replace(HERE, ipex=None), {}, build_at("/venv/bin/python", ipex=False)
    ).placement.cores == (0, 1)


# -- nodes that numactl can't bind, and cores of two kinds --------------------------------------------

NO_MEMORY = replace(HERE, unbound_nodes={0: "node 0 has no memory"})


def with_manager(name: str, node: int | None = None) -> Cell:
    return replace(CELL, node=node, launcher=Launcher("none", False, name))


@pytest.mark.parametrize(
    ("cell", "manager", "notes"),
    [
        (with_manager("auto"), "taskset", ("node 0 has no memory: taskset pins the cores",)),
        (with_manager("auto", node=1), "numactl", ()),
        (with_manager("taskset"), "taskset", ()),
    ],
)
def test_each_node_is_bound_as_it_can_be(cell: Cell, manager: str, notes: tuple[str, ...]) -> None:
    placed = launch.place_cell(cell, NO_MEMORY, {}, build_at("/venv/bin/python"))
    assert placed.placement.task_manager == manager
    assert len(placed.notes) == len(notes)
    assert all(note.startswith(start) for note, start in zip(placed.notes, notes, strict=True))


def test_numactl_is_refused_for_a_node_that_it_can_not_bind_and_for_no_other() -> None:
    with pytest.raises(RunnerError, match="task_manager=numactl: node 0 has no memory"):
        launch.place_cell(with_manager("numactl"), NO_MEMORY, {}, build_at("/venv/bin/python"))
    placed = launch.place_cell(with_manager("numactl", node=1), NO_MEMORY, {}, build_at("/venv/bin/python"))
    assert placed.placement.task_manager == "numactl"


def test_e_cores_are_left_out_with_a_note() -> None:
    machine = replace(HERE, topology=replace(XEON, e_cores=frozenset({1, 5})))
    placed = launch.place_cell(CELL, machine, {}, build_at("/venv/bin/python"))
    assert placed.placement.cores == (0,)
    assert placed.notes[0].startswith("E-cores 1 are left out")
    with pytest.raises(UnplaceableError, match="E-cores 1 are left out"):
        launch.place_cell(replace(CELL, cores=2), machine, {}, build_at("/venv/bin/python"))


def test_launchers_and_workers_run_in_the_locale_c(tmp_path: Path) -> None:
    python = str(folder_with(tmp_path) / "bin/python")
    caller = {"LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8"}
    command = launch.command(launch.place_cell(CELL, HERE, {}, build_at(python)), Path("/j"), Path("/t"), caller, "m")
    assert command.env["LC_ALL"] == "C"
    assert "LC_ALL=C" in shlex.split(command.as_shell())


@pytest.mark.parametrize(
    ("change", "cores", "each"),
    [({"instances": 2}, (0, 1), (1,)), ({"instances": 2, "cores_per_instance": 1, "cores": 2}, (0, 1), (1,))],
)
def test_instances_get_cores_of_their_own(
    change: dict[str, Any], cores: tuple[int, ...], each: tuple[int, ...]
) -> None:
    placed = launch.place_cell(replace(CELL, **change), HERE, {}, build_at("/venv/bin/python")).placement
    assert placed.cores == cores
    assert placed.of_instance(1).cores == each
    assert placed.threads == 1


@pytest.mark.parametrize(
    "change", [{"instances": 3}, {"instances": 2, "cores_per_instance": 2}, {"instances": 2, "cores": 1}]
)
def test_instances_without_enough_cores_are_excluded_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(UnplaceableError, match=r"^instances="):
        launch.place_cell(replace(CELL, **change), HERE, {}, build_at("/venv/bin/python"))


def test_a_warm_cache_of_inductor_is_the_cells_and_a_cold_one_the_jobs() -> None:
    for cache, folder in (("warm", "/sweep/cells/c/inductor-cache"), ("cold", "/t/inductor-cache")):
        cell = replace(CELL, graph=Graph("compile", compile_cache=cache), memory_format="channels_last")
        placed = launch.place_cell(cell, replace(HERE, compiler="/usr/bin/g++"), {}, build_at("/venv/bin/python"))
        built = launch.command(placed, Path("/sweep/cells/c/round-1/job.json"), Path("/t"), {}, "m")
        assert built.env["TORCHINDUCTOR_CACHE_DIR"] == folder


def test_compile_without_a_compiler_names_the_line_that_installs_one() -> None:
    cell = replace(CELL, graph=Graph("compile"), memory_format="channels_last")
    with pytest.raises(RunnerError, match=r"apt-get install g\+\+"):
        launch.place_cell(cell, HERE, {}, build_at("/venv/bin/python"))


# -- libraries ----------------------------------------------------------------------------------------


def test_the_highest_version_of_the_exact_library_is_found(tmp_path: Path) -> None:
    folder_with(
        tmp_path, "libtcmalloc.so.4.5.10", "libtcmalloc.so.4.5.9", "libtcmalloc_minimal.so.9", "libtcmalloc.so.x"
    )
    found = libraries.find("tcmalloc", (tmp_path / "lib",))
    assert found is not None
    assert found.name == "libtcmalloc.so.4.5.10"


def test_a_dangling_link_is_no_library(tmp_path: Path) -> None:
    folder_with(tmp_path)
    (tmp_path / "lib/libjemalloc.so").symlink_to("/no/such/file")
    assert libraries.find("jemalloc", (tmp_path / "lib",)) is None


def test_a_missing_library_is_one_sentence_with_the_line_that_installs_it(tmp_path: Path) -> None:
    with pytest.raises(LibraryMissingError, match=r"^allocator=tcmalloc: .*apt-get install libgoogle-perftools4$"):
        libraries.find_for_cell(replace(CELL, allocator=TCMALLOC), (tmp_path,))


def test_the_interpreters_own_lib_folder_comes_first_and_no_folder_twice() -> None:
    path = libraries.search_path({"VIRTUAL_ENV": "/v", "CONDA_PREFIX": "/c", "HOME": "/h"}, "/v/bin/python")
    assert path[:3] == (Path("/v/lib"), Path("/c/lib"), Path("/h/.local/lib"))
    assert len(set(path)) == len(path)


# -- environment --------------------------------------------------------------------------------------


def test_everything_that_tunes_a_cell_is_scrubbed_and_recorded() -> None:
    leaks = dict.fromkeys(
        ("LD_PRELOAD", "MALLOC_CONF", "MALLOC_ARENA_MAX", "OMP_NUM_THREADS", "KMP_BLOCKTIME", "GOMP_CPU_AFFINITY",
         "MKL_NUM_THREADS", "ONEDNN_VERBOSE", "DNNL_MAX_CPU_ISA", "TORCHINDUCTOR_FREEZING", "GLIBC_TUNABLES",
         "TCMALLOC_RELEASE_RATE", "ATEN_CPU_CAPABILITY", "INTEL_LIBITTNOTIFY64",
         "PYTHONDEVMODE", "PYTHONTRACEMALLOC", "PYTHONASYNCIODEBUG", "PYTHONPROFILEIMPORTTIME", "PYTHONFAULTHANDLER",
         "PYTHONMALLOC", "PYTHONMALLOCSTATS", "PYTHONINSPECT", "PYTHON_GIL", "PYTHON_JIT", "LD_BIND_NOT", "LD_DEBUG"),
        "1",
    )  # fmt: skip
    others = {"HOME": "/h", "PYTHONPATH": "/p", "PATH": "/bin", "PYTHONHASHSEED": "0", "LD_LIBRARY_PATH": "/l"}
    kept, scrubbed = environment.scrub({**leaks, **others})
    assert kept == others
    assert scrubbed == leaks


def test_nothing_leads_a_worker_to_packages_of_another_environment(tmp_path: Path) -> None:
    other, models = tmp_path / "site-packages", tmp_path / "models"
    (other / "transformers").mkdir(parents=True)
    (other / "transformers/__init__.py").touch()
    models.mkdir()
    caller = {"PYTHONPATH": f"{other}:{models}", "PYTHONHOME": "/usr", "PYTHONUSERBASE": "/u"}
    command = launch.command(
        launch.place_cell(CELL, HERE, {}, build_at("/venv/bin/python")), Path("/j"), Path("/t"), caller, "m"
    )
    assert command.env["PYTHONPATH"] == str(models)
    assert command.env["PYTHONNOUSERSITE"] == "1"
    assert command.scrubbed == {**caller, "PYTHONPATH": str(other)}
    assert f"PYTHONPATH={models}" in shlex.split(command.as_shell())


def test_a_runner_in_the_users_site_packages_keeps_them() -> None:
    build = replace(build_at("/usr/bin/python3"), is_in_user_site=True)
    placed = launch.place_cell(CELL, HERE, {}, build)
    command = launch.command(placed, Path("/j"), Path("/t"), {"PYTHONUSERBASE": "/u"}, "m")
    assert "PYTHONNOUSERSITE" not in command.env
    assert command.env["PYTHONUSERBASE"] == "/u"


@given(st.dictionaries(st.text(), st.text()))
def test_no_variable_is_lost_between_kept_and_scrubbed(caller: dict[str, str]) -> None:
    kept, scrubbed = environment.scrub(caller)
    gone = set(caller) - set(kept) - set(scrubbed)
    assert gone <= {"CONDA_PREFIX", "VIRTUAL_ENV", "LC_ALL"}
    assert not set(kept) & set(scrubbed)


# -- argv ---------------------------------------------------------------------------------------------


def test_ipexrun_is_told_everything_it_would_otherwise_choose(tmp_path: Path) -> None:
    command = argv_of(tmp_path, replace(CELL, allocator=JEMALLOC))
    words = command.argv[2:]
    assert words[:13] == (
        "cpu", "--memory-allocator", "jemalloc", "--omp-runtime", "default", "--cores-list", "0-1", "--ninstances", "1",
        "--ncores-per-instance", "2",        "--multi-task-manager", "numactl",
    )  # fmt: skip
    assert words[-2:] == (str(WORKER), "/jobs/job.json")
    assert command.env["MALLOC_CONF"] == "background_thread:true"
    assert command.env["VIRTUAL_ENV"] == "/tmp/private"
    assert "CONDA_PREFIX" not in command.env
    assert "LD_PRELOAD" not in command.env
    assert command.links == {Path("/tmp/private/lib/libjemalloc.so"): (tmp_path / "lib/libjemalloc.so.2").resolve()}


def test_the_runners_own_launcher_starts_the_interpreter_of_another_build(tmp_path: Path) -> None:
    other = str(folder_with(tmp_path) / "bin/python")
    own, its = argv_of_build(sys.executable), argv_of_build(other)
    assert own[:2] == its[:2] == (sys.executable, str(ipexrun.FAST))
    assert "--no-python" not in own
    assert its[-5:] == ("--no-python", other, "-u", str(WORKER), "/j.json")
    assert argv_of_build(other, "xeon")[:3] == (other, "-m", "torch.backends.xeon.run_cpu")
    assert other in argv_of_build(other, "none")


def argv_of_build(python: str, launcher: str = "ipexrun") -> tuple[str, ...]:
    cell = replace(CELL, launcher=Launcher(launcher, False, "auto"))
    return launch.command(
        launch.place_cell(cell, HERE, {}, build_at(python)), Path("/j.json"), Path("/t"), {}, "m"
    ).argv


def test_paths_with_spaces_reach_the_worker_whole_through_the_launchers_shell(tmp_path: Path) -> None:
    python = str(folder_with(tmp_path) / "bin/python")
    planned = launch.place_cell(CELL, HERE, {}, build_at(python))
    command = launch.command(planned, Path("/my jobs/a'b.json"), Path("/tmp/private"), {}, "m")
    assert shlex.split(command.argv[-1]) == ["/my jobs/a'b.json"]


def test_an_interpreter_whose_path_launchers_would_split_is_refused() -> None:
    with pytest.raises(RunnerError, match="move the virtual environment"):
        launch.place_cell(CELL, HERE, {}, build_at("/my env/bin/python"))


def test_the_plain_launcher_differs_only_in_what_starts_it(tmp_path: Path) -> None:
    fast = argv_of(tmp_path, CELL)
    plain = argv_of(tmp_path, replace(CELL, launcher=Launcher("ipexrun", True, "auto")))
    assert plain.argv[0] == str(Path(sys.executable).with_name("ipexrun"))
    assert plain.argv[1:] == fast.argv[2:]
    assert plain.env == fast.env


def test_torchs_launcher_gets_its_own_spelling(tmp_path: Path) -> None:
    cell = replace(CELL, allocator=TCMALLOC, launcher=Launcher("xeon", False, "taskset"))
    assert argv_of(tmp_path, cell).argv[1:-2] == (
        "-m", "torch.backends.xeon.run_cpu", "--enable-tcmalloc", "--core-list", "0,1", "--ninstances", "1",
        "--ncores-per-instance", "2",        "--disable-iomp", "--disable-numactl",
    )  # fmt: skip


def test_without_a_launcher_cores_and_preload_are_the_same(tmp_path: Path) -> None:
    cell = replace(CELL, allocator=JEMALLOC, openmp="intel", launcher=Launcher("none", False, "auto"))
    command = argv_of(tmp_path, cell)
    assert command.argv[:5] == ("numactl", "-C", "0-1", "-m", "0")
    assert command.env["LD_PRELOAD"] == "/tmp/private/lib/libjemalloc.so:/tmp/private/lib/libiomp5.so"
    assert argv_of(tmp_path, cell, replace(HERE, task_manager="taskset")).argv[:3] == ("taskset", "-c", "0-1")


@pytest.mark.parametrize(
    ("launcher", "asked"),
    [("ipexrun", "--memory-allocator default"), ("xeon", "--use-default-allocator"), ("none", "")],
)
def test_an_allocator_that_no_launcher_knows_is_preloaded_beside_it(tmp_path: Path, launcher: str, asked: str) -> None:
    mimalloc = Allocator("mimalloc", "mimalloc", "preload", {}, {})
    command = argv_of(tmp_path, replace(CELL, allocator=mimalloc, launcher=Launcher(launcher, False, "auto")))
    assert asked in " ".join(command.argv)
    assert command.env["LD_PRELOAD"] == "/tmp/private/lib/libmimalloc.so"
    assert command.links == {Path(command.env["LD_PRELOAD"]): (tmp_path / "lib/libmimalloc.so.2.0").resolve()}


def test_fewer_threads_than_cores_are_asked_for_explicitly(tmp_path: Path) -> None:
    assert argv_of(tmp_path, replace(CELL, threads=1)).env["OMP_NUM_THREADS"] == "1"


def test_the_shell_line_unsets_what_was_scrubbed_and_sets_what_the_cell_needs(tmp_path: Path) -> None:
    python = str(folder_with(tmp_path) / "bin/python")
    planned = launch.place_cell(CELL, HERE, {}, build_at(python))
    caller = {"OMP_NUM_THREADS": "9", "KMP_BLOCKTIME": "5"}
    line = launch.command(planned, Path("/j.json"), Path("/tmp/s"), caller, "m").as_shell()
    words = shlex.split(line)
    assert words[0] == "env"
    assert "KMP_BLOCKTIME" in words[words.index("-u") :]
    assert "OMP_NUM_THREADS=2" in words


# -- against the real launcher ------------------------------------------------------------------------

DUMP = """
import json, os, sys
skip = {"RUNNER_JOB", "_", "SHLVL", "PWD", "OLDPWD"}
maps = open("/proc/self/maps").read()
json.dump({
    "argv": [os.path.realpath(sys.orig_argv[0]), *sys.orig_argv[1:-1]],
    "env": {k: v for k, v in os.environ.items() if k not in skip},
    "affinity": sorted(os.sched_getaffinity(0)),
    "jemalloc": "jemalloc" in maps,
    "memory": [l.split()[1] for l in open("/proc/self/numa_maps") if "stack" in l],
}, open(sys.argv[1], "w"))
"""


@pytest.mark.slow
def test_the_fast_launcher_gives_a_job_exactly_what_plain_ipexrun_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "dump.py"
    program.write_text(DUMP)
    monkeypatch.setattr(launch, "WORKER", program)
    seen = []
    for plain in (False, True):
        cell = replace(CELL, allocator=JEMALLOC, launcher=Launcher("ipexrun", plain, "auto"))
        planned = launch.place_cell(cell, this_machine(), os.environ, bundled())
        found, private = tmp_path / f"plain-{plain}.json", tmp_path / "private"
        command = launch.command(planned, found, private, os.environ, f"test/{plain}")
        ended = execute.run(
            command.argv, command.env, tmp_path / "out", tmp_path / "err", 120, f"test/{plain}", command.links
        )
        assert ended.returncode == 0, (tmp_path / "err").read_text()
        seen.append(json.loads(found.read_text()))
        for link in command.links:
            link.unlink()
    assert seen[0]["jemalloc"]
    assert seen[0] == seen[1]
