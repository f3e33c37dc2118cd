"""What a fleet submits: the lines, and what is refused before anything is."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from runner.commands import fleet as command
from runner.fleet import fleetfile, orders, progress, slurm
from runner.fleet.fleetfile import Fleet, FleetConf, HostConf
from runner.machine import execute
from runner.protocol.errors import RunnerError

CONF = FleetConf(
    "slurm",
    {
        "icelake": HostConf(sbatch=["--constraint=icelake"], usd_per_hour=1.7),
        "genoa": HostConf(sbatch=["--constraint=genoa"], usd_per_hour=2.4, machines=2),
    },
)


def planned(tmp_path: Path, *words: str, conf: FleetConf = CONF, hosts: tuple[str, ...] = (), uri: str = "") -> Fleet:
    return orders.plan("F", conf, hosts, words, tmp_path / "mlruns", uri)


def test_each_machine_gets_the_whole_matrix_as_a_sweep_of_its_own(tmp_path: Path) -> None:
    fleet = planned(tmp_path, "ipex=off,on", "experiment=aa")
    assert [placed.sweep_id for placed in fleet.sweeps] == ["F-icelake", "F-genoa-1", "F-genoa-2"]
    line = shlex.join(fleet.sweeps[0].command)
    assert " -m ipex=off,on experiment=aa host=icelake usd_per_hour=1.7 " in line
    assert line.endswith(f"mlruns={tmp_path}/mlruns resume=true hydra.sweep.dir={tmp_path}/mlruns/sweeps/F-icelake")
    assert [placed.machine for placed in planned(tmp_path, hosts=("genoa",)).sweeps] == [1, 2]


@pytest.mark.parametrize(
    ("words", "hosts", "problem"),
    [
        (("host=x",), (), "host=x: a fleet fills in host for each of its sweeps; leave it out"),
        (("resume=true",), (), "a fleet fills in resume"),
        (("ipex=on",), ("zen5",), "host=zen5: 'zen5' is no host of it; choose among icelake, genoa"),
    ],
)
def test_what_a_fleet_can_not_take_is_refused(
    tmp_path: Path, words: tuple[str, ...], hosts: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(RunnerError) as refused:
        planned(tmp_path, *words, hosts=hosts)
    assert problem in str(refused.value)


def test_a_sweep_that_its_scheduler_did_not_name_for_a_moment_is_fetched_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = replace(CONF, mlruns="/scratch/results", hosts={"genoa": HostConf()})
    fleet = planned(tmp_path, conf=own, uri="http://server:5000")
    fleet = replace(fleet, sweeps=[replace(fleet.sweeps[0], job="7")])
    [placed] = fleet.sweeps
    gone, runs = progress.Progress(placed, progress.STOPPED, 0, 0), progress.Progress(placed, "running", 0, 0)
    seen = iter([gone, runs, runs, gone, gone])
    monkeypatch.setattr(progress, "of", lambda *_: [next(seen)])
    asked: list[str] = []
    monkeypatch.setattr("runner.commands.pull.fetch", lambda name, *_: asked.append(name))
    fetched: set[str] = set()
    for _ in range(3):
        command._found(fleet, tmp_path, fetched)
    assert asked == [placed.sweep_id] * 2


def test_a_sweep_that_ends_while_another_is_fetched_is_fetched_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = replace(CONF, mlruns="/scratch/results", hosts={"icelake": HostConf(), "genoa": HostConf()})
    fleet = planned(tmp_path, conf=own, uri="http://server:5000")
    fleet = replace(fleet, sweeps=[replace(placed, job=placed.host) for placed in fleet.sweeps])
    asked: list[str] = []

    def of(*_: object) -> list[progress.Progress]:
        """The first has left its engine; the second leaves it while the first is fetched."""
        first, second = fleet.sweeps
        states = [
            progress.ENDED if first.sweep_id in asked else progress.STOPPED,
            "running" if not asked else progress.ENDED if second.sweep_id in asked else progress.STOPPED,
        ]
        return [progress.Progress(one, state, 0, 0) for one, state in zip(fleet.sweeps, states, strict=True)]

    monkeypatch.setattr(progress, "of", of)
    monkeypatch.setattr("runner.commands.pull.fetch", lambda name, *_: asked.append(name))
    found = command._found(fleet, tmp_path, set())
    assert asked == [placed.sweep_id for placed in fleet.sweeps]
    assert [one.state for one in found] == [progress.ENDED, progress.ENDED]


def test_hosts_with_results_of_their_own_need_a_server(tmp_path: Path) -> None:
    own = replace(CONF, mlruns="/scratch/results")
    with pytest.raises(RunnerError, match="tracking_uri=http"):
        planned(tmp_path, conf=own)
    fleet = planned(tmp_path, conf=own, uri="http://server:5000")
    assert not fleet.is_shared
    assert "mlruns=/scratch/results" in fleet.sweeps[0].command


def test_an_unknown_engine_and_a_ray_without_an_address_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="engine: lsf: choose one of slurm, ray, local"):
        planned(tmp_path, conf=replace(CONF, engine="lsf"))
    with pytest.raises(RunnerError, match="name the job server"):
        planned(tmp_path, conf=replace(CONF, engine="ray"))


@pytest.fixture
def own_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Leaves a fleet's file named ``mine`` in a folder of the user's own."""
    monkeypatch.setenv("RUNNER_EXPERIMENTS", str(tmp_path))

    def leave(text: str) -> None:
        (tmp_path / "fleet").mkdir(exist_ok=True)
        (tmp_path / "fleet" / "mine.yaml").write_text(text)

    return leave


def test_a_fleets_file_is_read_and_its_slips_are_told(own_fleet: Callable[[str], None]) -> None:
    own_fleet("engine: slurm\nhosts:\n  a: {sbatch: [--constraint=a], usd_per_hour: 1.5, machines: 2}\n  b: {}\n")
    conf = fleetfile.read_conf("mine")
    assert conf.hosts["a"] == HostConf(["--constraint=a"], {}, 1.5, 2)
    for text, problem in {
        "engine: slurm\nhosts: {a: {sbach: []}}": "hosts.a.sbach is unknown",
        "engine: slurm\nhosts: {a: {usd_per_hour: cheap}}": "hosts.a.usd_per_hour is 'cheap', not a number",
        "engine: slurm\nhosts: {}": "names no host",
        "engine: [": "can't be read",
        "hosts: {a: {}}": "engine is missing",
    }.items():
        own_fleet(text)
        with pytest.raises(RunnerError) as refused:
            fleetfile.read_conf("mine")
        assert problem in str(refused.value), text
    with pytest.raises(RunnerError, match="there is no such fleet; choose one of local, mine"):
        fleetfile.read_conf("other")


def test_slurm_is_asked_by_its_own_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run_short(words: list[str], **_: object) -> execute.Output:
        asked.append(list(words))
        # As squeue 22.05 prints them: one that runs, one that waits, one that was requeued, and somebody else's.
        queue = "7|RUNNING|None\n8|PENDING|Resources\n9|PENDING|BeginTime\n1|RUNNING|None\n"
        return execute.Output(0, "7;cluster\n" if words[0] == "sbatch" else queue, "")

    monkeypatch.setattr(execute, "run_short", run_short)
    fleet = planned(tmp_path, "ipex=on")
    fleet = orders.submit(fleet, tmp_path / "mlruns", ["F-icelake"])
    assert [placed.job for placed in fleet.sweeps] == ["7", "", ""]
    assert {"--exclusive", "--requeue", "--constraint=icelake"} <= set(asked[0])
    assert Path(asked[0][-1]).read_text().startswith("#!/bin/sh\nexec ")
    assert slurm.states(fleet, ["7", "8", "9", "10"]) == {
        "7": "running",
        "8": "waiting (Resources)",
        "9": "waiting (Slurm starts a requeued job after two minutes)",
    }
    assert fleetfile.find(None, tmp_path / "mlruns") == fleet


def test_a_scheduler_that_refuses_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = execute.Output(1, "", "sbatch: error: Batch job submission failed: Invalid feature specification\n")
    monkeypatch.setattr(execute, "run_short", lambda *_, **__: refusal)
    with pytest.raises(RunnerError, match=r"engine slurm: sbatch failed: .*Invalid feature specification"):
        orders.submit(planned(tmp_path), tmp_path / "mlruns", ["F-icelake"])


def test_a_sweep_that_left_its_engine_before_its_end_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "run_short", lambda *_, **__: execute.Output(0, "5\n", ""))
    fleet = orders.submit(planned(tmp_path, hosts=("icelake",)), tmp_path / "mlruns", ["F-icelake"])
    Path(fleet.sweeps[0].log).write_text("planning the sweep ...\nrunner: out of luck\n")
    [found] = progress.of(fleet, tmp_path / "mlruns")
    assert (found.state, found.detail, found.is_over) == (progress.STOPPED, "runner: out of luck", True)
    assert progress.left([found]) == ["F-icelake"]


def test_a_fleet_without_a_name_and_words_of_other_commands_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="name the hosts with fleet=NAME"):
        command.main(["-m", "ipex=on"])
    with pytest.raises(RunnerError, match="no fleet was submitted from here"):
        command.main(["status", "--mlruns", str(tmp_path)])
