"""A model behind a server, without one: settings, command lines, parsers of recorded output, the search of a rate."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from runner.checks import gate
from runner.config.captures import CaptureConf, ToplevCaptureConf
from runner.config.limits import check
from runner.config.schema import Config
from runner.job.serving import load, session, torchserve
from runner.job.serving.server import PORTS, ServingError, Site
from runner.launch import PlacedCell, Placement, xeon
from runner.machine import servers
from runner.matrix.support import why_not
from runner.protocol.cell import ABSENT, WORK, Allocator, Graph, Launcher, Load, Scenario
from runner.protocol.errors import RunnerError
from runner.protocol.jobfile import JobSpec
from runner.protocol.resultfile import WorkerResult, read_result
from runner.protocol.stored import write_json
from tests.builders import window
from tests.checks.recorded import data_of, proof_of, recorded_build, tampered
from tests.config.test_config import config
from tests.conftest import CELL, ROOT

DATA = ROOT / "tests/data/torchserve"
SERVED = replace(
    CELL,
    scenario=Scenario("torchserve", 200, 8, 10),
    load=Load("ab"),
    launcher=Launcher("xeon", False, "auto"),
    iterations=None,
    min_time_s=None,
    max_time_s=None,
)


def text(name: str) -> str:
    return (DATA / name).read_text()


# -- settings -----------------------------------------------------------------------------------------


def served(**change: object) -> Config:
    """A sound configuration of a served cell, with some of its values changed: ``load__name`` is the load's name."""
    parts: dict[str, dict[str, object]] = {"scenario": {}, "load": {}}
    plain: dict[str, object] = {}
    for name, wanted in change.items():
        place, _, key = name.rpartition("__")
        (parts[place] if place else plain)[key] = wanted
    scenario = replace(SERVED.scenario, **parts["scenario"])  # type: ignore[arg-type]
    found = replace(SERVED.load, **parts["load"])  # type: ignore[arg-type]
    # What a test changes as a whole wins.
    whole = {"scenario": scenario, "load": found, "iterations": None, "min_time_s": None, "max_time_s": None}
    return config(**{**whole, **plain})


H2LOAD = {"load__name": "h2load"}


def test_a_sound_served_configuration_passes() -> None:
    check(served())
    check(served(**H2LOAD, load__rate_per_s=20.0))
    check(served(**H2LOAD, load__p99_limit_ms=500.0))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"scenario__requests": 0}, "scenario.requests=0: "),
        ({"scenario__requests": None}, "scenario.requests=null: "),
        ({"scenario__requests": 10**10}, "scenario.requests=10000000000: "),
        ({"scenario__concurrency": 0}, "scenario.concurrency=0: "),
        ({"scenario__max_batch_delay_ms": -1}, "scenario.max_batch_delay_ms=-1: "),
        ({"server_port": 80}, "scenario.port=80: "),
        ({"server_port": 65533}, "scenario.port=65533: "),
        ({"scenario__requests": 7}, "scenario.requests=7: ab needs at least scenario.concurrency=8"),
        ({"iterations": 5}, "iterations=5: it belongs to the timed loop"),
        ({"min_time_s": 3.0}, "min_time_s=3: it belongs to the timed loop"),
        ({"target_ci_pct": 1.0}, "target_ci_pct=1: it belongs to the timed loop"),
        ({"capture": CaptureConf(toplev=ToplevCaptureConf())}, "capture with toplev"),
        ({"load__name": None}, "load=none: "),
        ({"load__rate_per_s": 5.0}, "load.rate_per_s and load.p99_limit_ms: ab sends"),
        (H2LOAD, "load=h2load: it needs a rate; give either"),
        ({**H2LOAD, "load__rate_per_s": 5.0, "load__p99_limit_ms": 5.0}, "load=h2load: it needs a rate; give either"),
        ({**H2LOAD, "load__rate_per_s": 0.0}, "load.rate_per_s=0: "),
        ({**H2LOAD, "load__rate_per_s": 2000.0}, "load.rate_per_s=2000: "),
        ({**H2LOAD, "load__p99_limit_ms": float("nan")}, "load.p99_limit_ms=nan: "),
        ({**H2LOAD, "load__p99_limit_ms": 5.0, "scenario__requests": 100}, "scenario.requests=100: a p99"),
    ],
)
def test_what_a_served_cell_can_not_use_is_refused_by_name(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(RunnerError) as refused:
        check(served(**change))
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"scenario": Scenario(requests=5)}, "scenario.requests=5: scenario=inference has no requests"),
        ({"server_port": 5000}, "scenario.port=5000: scenario=inference has no requests"),
        ({"load": Load("ab")}, "load=ab: scenario=inference has no requests"),
        ({"min_time_s": None}, "min_time_s=null: "),
    ],
)
def test_what_only_a_served_cell_can_use_is_refused_elsewhere(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(RunnerError) as refused:
        check(config(**change))
    assert str(refused.value).startswith(sentence)


def test_a_cell_in_a_loop_has_no_load_and_none_of_its_settings() -> None:
    assert (CELL.axes["scenario"], CELL.axes["load"]) == ("inference", ABSENT)
    assert {value for name, value in CELL.settings.items() if name.startswith(("scenario.", "load."))} == {ABSENT}
    assert SERVED.axes["load"] == "ab"
    assert SERVED.settings["scenario.requests"] == "200"


def test_cells_under_another_load_do_other_work() -> None:
    assert {"scenario", "load", "scenario.concurrency", "load.rate_per_s"} <= set(WORK)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"launcher": CELL.launcher}, "choose xeon"),
        ({"instances": 2}, "one worker"),
        ({"graph": Graph("compile")}, "compiled again"),
    ],
)
def test_what_can_not_be_served_is_excluded_with_its_reason(change: dict[str, Any], reason: str) -> None:
    flags = frozenset({"avx2"})
    assert why_not(SERVED, flags) is None
    assert reason in str(why_not(replace(SERVED, **change), flags))


# -- what must be here ----------------------------------------------------------------------------------


# What each tool prints about its version, first lines; java on stderr.
PRINTS = {
    "java": 'openjdk version "17.0.15" 2025-04-15',
    "ab": "This is ApacheBench, Version 2.3 <$Revision: 1903618 $>",
    "h2load": "h2load nghttp2/1.52.0",
}
PACKAGES = {"java": "default-jre-headless", "ab": "apache2-utils", "h2load": "nghttp2-client"}


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only folder on PATH, with stand-ins for all tools that are programs; they are looked for anew."""
    probes = (servers.java, servers.ab, servers.h2load)
    for name, printed in PRINTS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{printed}' >&{2 if name == 'java' else 1}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for probe in probes:
        probe.cache_clear()
    yield tmp_path
    for probe in probes:
        probe.cache_clear()


@pytest.mark.parametrize("name", PRINTS)
def test_what_is_missing_is_named_with_the_line_that_installs_it(name: str, tools: Path) -> None:
    (tools / name).unlink()
    with pytest.raises(
        RunnerError, match=rf"{name}( 17)? is not installed; install it with: apt-get install {PACKAGES[name]}"
    ):
        servers.require(replace(SERVED, load=Load("h2load", rate_per_s=5.0)))
    servers.require(CELL)  # needs none of them


def test_with_all_tools_here_a_served_cell_can_run(tools: Path) -> None:
    cell = replace(SERVED, load=Load("h2load", rate_per_s=5.0))
    servers.require(cell)
    assert servers.versions(cell)["java 17"] == "17.0.15"


def test_a_java_that_is_too_old_is_none(tools: Path) -> None:
    (tools / "java").write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    with pytest.raises(RunnerError, match="java 17 is not installed"):
        servers.require(SERVED)


def test_a_served_cell_depends_on_the_versions_of_its_tools() -> None:
    assert set(servers.versions(SERVED)) == {"java 17", "torchserve", "ab"}
    assert servers.versions(CELL) == {}


def test_a_port_that_is_taken_is_named() -> None:
    assert len(set(session._free_ports(None))) == PORTS
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        first = taken - 1
        with pytest.raises(RunnerError, match=f"^scenario.port={first}: port {taken} can't be used"):
            session._free_ports(first)


# -- files and command lines ----------------------------------------------------------------------------


def site(tmp_path: Path, ports: tuple[int, ...] = (1, 2, 3, 4, 5)) -> Site:
    cell = replace(SERVED, batch_size=8, ipex="on")
    job = JobSpec(cell_id="c", round=0, cell=cell, runner_pid=1, result_path="r", instances=[[0, 1]])
    args = xeon.options(cell, Placement((0, 1), 2, 0, "taskset", False))
    private, logs = tmp_path / "private", tmp_path / "logs"
    private.mkdir()
    logs.mkdir()
    return Site(cell, job, private, logs, ports, "/venv/bin/python", args, 60.0)


def test_the_configuration_has_ports_and_folders_of_its_own_and_the_launcher_of_the_cell(tmp_path: Path) -> None:
    lines = dict(line.split("=", 1) for line in torchserve.properties(site(tmp_path)).splitlines())
    assert lines["inference_address"] == "http://127.0.0.1:1"
    assert len({lines[key] for key in lines if key.endswith("address")}) == 3
    assert lines["cpu_launcher_enable"] == lines["ipex_enable"] == "true"
    assert lines["cpu_launcher_args"] == (
        "--enable-jemalloc --core-list 0,1 --ninstances 1 --ncores-per-instance 2 --disable-iomp --disable-numactl"
    )
    assert lines["enable_envvars_config"] == "false"
    assert str(tmp_path) in lines["model_store"]


def test_the_server_writes_and_reads_in_its_own_folders_only(tmp_path: Path) -> None:
    where = site(tmp_path)
    server = torchserve.TorchServe()
    server.write(where)
    command, env = server.command(where), server.environment(where)
    assert command[0] == "java"
    assert f"-Djava.io.tmpdir={where.private / 'tmp'}" in command
    assert env["LOG_LOCATION"] == env["METRICS_LOCATION"] == str(where.logs)
    assert env["PATH"].startswith("/venv/bin:")
    assert (where.private / "store" / "cell.mar").exists()
    assert (where.logs / "config.properties").exists()


def target(tmp_path: Path) -> load.Target:
    return load.Target("http://127.0.0.1:1/predictions/cell", tmp_path / "body", tmp_path, 30.7)


def test_ab_keeps_connections_and_writes_a_row_a_request(tmp_path: Path) -> None:
    words = load.ab_command(target(tmp_path), 200, 8)
    assert words[:7] == ["ab", "-q", "-k", "-l", "-s", "30", "-c"]
    assert words[7:10] == ["8", "-n", "200"]
    assert words[-1] == "http://127.0.0.1:1/predictions/cell"


def test_h2load_opens_a_connection_every_period(tmp_path: Path) -> None:
    words = load.h2load_command(target(tmp_path), 200, 30.0)
    assert "--rate-period=33ms" in words
    assert words[words.index("-n") + 1] == words[words.index("-c") + 1] == "200"


# -- the search of a rate -------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [3.0, 40.0, 89.0, 95.0, 118.0])
def test_the_search_comes_within_a_twentieth_below_the_highest_good_rate(limit: float) -> None:
    tried: list[float] = []

    def is_good(rate: float) -> bool:
        tried.append(rate)
        return rate <= limit

    found = load.highest_rate(100.0, is_good)
    assert found is not None
    assert limit / 1.08 <= found <= limit
    assert len(tried) <= 8


def test_a_search_without_a_good_rate_says_so() -> None:
    assert load.highest_rate(100.0, lambda rate: False) is None


def test_a_percentile_is_a_sample_that_so_many_are_not_above() -> None:
    samples = tuple(float(i) for i in range(1, 201))
    assert load.percentile(samples, 99) == 198.0
    assert load.percentile((3.0, 1.0, 2.0), 99) == 3.0


# -- recorded output ------------------------------------------------------------------------------------


def test_ab_s_output_is_read() -> None:
    measured = load.read_ab(text("ab.txt"), text("ab_requests.tsv"), 40)
    assert measured.requests == len(measured.latencies_s) == 40
    # In a closed loop of 4 clients: latency times throughput is their number.
    assert measured.per_s * sum(measured.latencies_s) / 40 == pytest.approx(4, rel=0.1)
    assert measured.per_s == pytest.approx(40 / measured.wall_s, rel=0.01)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Failed requests:        0", "Failed requests:        2"),
        ("Failed requests:        0", "Failed requests:        0\nNon-2xx responses:      3"),
        ("Complete requests:      40", "Complete requests:      39"),
        ("Complete requests:      40", ""),
    ],
)
def test_a_failed_request_is_no_measurement(old: str, new: str) -> None:
    printed = text("ab.txt")
    assert old in printed
    with pytest.raises(load.LoadError):
        load.read_ab(printed.replace(old, new), text("ab_requests.tsv"), 40)


@pytest.mark.parametrize("rows", ["", "a\tb\n", text("ab_requests.tsv").rpartition("\n")[0].rpartition("\n")[0]])
def test_requests_missing_from_ab_s_file_are_an_error(rows: str) -> None:
    with pytest.raises(load.LoadError, match="file of requests"):
        load.read_ab(text("ab.txt"), rows, 40)


def test_an_ab_that_gave_up_is_quoted() -> None:
    with pytest.raises(load.LoadError, match=r"apr_socket_recv: Connection refused \(111\)"):
        load.read_ab("Benchmarking (be patient)\napr_socket_recv: Connection refused (111)\n", "", 40)


def test_h2load_s_file_is_read_in_the_order_of_sending() -> None:
    measured = load.read_h2load(text("h2load.tsv"), 40, 50.0)
    assert len(measured.latencies_s) == 40
    # A request every 20 ms, and the last one's answer.
    assert measured.wall_s == pytest.approx(0.78 + measured.latencies_s[-1], rel=0.1)
    assert abs(measured.late_s) < 0.02


@pytest.mark.parametrize("status", ["503", "-1", "0"])
def test_a_request_refused_under_h2load_is_no_measurement(status: str) -> None:
    rows = text("h2load.tsv").replace("\t200\t", f"\t{status}\t", 1)
    with pytest.raises(load.LoadError, match="40 of 40 requests were answered"):
        load.read_h2load(rows, 40, 50.0)


def test_a_torn_file_of_h2load_is_an_error() -> None:
    with pytest.raises(load.LoadError, match="can't be read"):
        load.read_h2load(text("h2load.tsv")[:-8], 40, 50.0)


def test_torchserve_s_own_times_are_of_the_requests_and_not_of_warm_up_or_orders() -> None:
    found = torchserve.times(text("metrics.log"), 40, 11)
    # What evaluating 40 requests in 11 batches took on a busy machine; the order to end took seconds.
    assert 0 <= found["serving/queue_ms"] < 50
    assert 50 < found["serving/handler_ms"] < found["serving/predict_ms"] < 200


def test_times_that_the_log_does_not_have_all_of_are_absent() -> None:
    assert torchserve.times(text("metrics.log"), 40, 12345) == {
        "serving/queue_ms": torchserve.times(text("metrics.log"), 40, 11)["serving/queue_ms"]
    }
    assert torchserve.times("", 40, 11) == {}


def test_torchserve_s_logs_name_the_reason() -> None:
    assert torchserve.reason("x\nFatal Python error: Segmentation fault\n\nThread") == (
        "Fatal Python error: Segmentation fault"
    )
    assert torchserve.reason("java.net.BindException: Address already in use") == (
        "java.net.BindException: Address already in use"
    )
    assert torchserve.reason("all is well") is None


# -- the gate -------------------------------------------------------------------------------------------

JEMALLOC_FILE = Path("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2")


def plan_of_recorded() -> PlacedCell:
    conf = "oversize_threshold:1,background_thread:true,metadata_thp:auto"
    allocator = Allocator("jemalloc", "jemalloc", "jemalloc", {"MALLOC_CONF": conf}, {})
    cell = replace(SERVED, allocator=allocator, batch_size=4, scenario=Scenario("torchserve", 40, 4, 10))
    return PlacedCell(cell, Placement((0, 1), 2, 0, "numactl", False), {"jemalloc": JEMALLOC_FILE}, recorded_build())


def test_a_served_cell_that_ran_as_asked_passes() -> None:
    assert gate.check(plan_of_recorded(), proof_of(data_of("torchserve_jemalloc"))) == ()


@pytest.mark.parametrize(
    ("key", "value", "axis"),
    [
        ("started_by", ["java", "-cp", "x"], "launcher"),
        ("requests", 39, "requests"),
    ],
)
def test_a_worker_of_another_launcher_or_with_other_requests_fails(key: str, value: object, axis: str) -> None:
    proof = tampered("torchserve_jemalloc", "serving", key, value=value)
    assert [mismatch.axis for mismatch in gate.check(plan_of_recorded(), proof)] == [axis]


def test_a_served_cell_without_evidence_of_serving_fails() -> None:
    proof = tampered("torchserve_jemalloc", "serving", value=None)
    assert [mismatch.axis for mismatch in gate.check(plan_of_recorded(), proof)] == ["serving"]


@pytest.mark.parametrize("name", ["R&D", "a<b", 'the "fast" one', "it's", "${sys:user.home}", "Büro"])
def test_log4j_finds_its_files_below_a_folder_of_any_name(name: str) -> None:
    folder = Path("/home/x") / name / "logs"
    root = ElementTree.fromstring(torchserve.log_configuration(folder))  # noqa: S314 - our own text
    # Log4j replaces ${...} and takes the first of two dollar signs away.
    files = {element.attrib["fileName"].replace("$$", "$") for element in root.iter("File")}
    assert files == {f"{folder}/{log}.log" for log in ("ts_metrics", "model_metrics", "model_log")}


def java_value(text: str) -> str:
    """What java.util.Properties.load() makes of a value, for the escapes that the file may have."""
    return (
        text.removeprefix("\\ ")
        .encode("latin-1")
        .decode("unicode_escape")
        .encode("utf-16", "surrogatepass")
        .decode("utf-16")
    )


@pytest.mark.parametrize("name", ["R&D", "back\\slash", "\\u0041", "line\nbreak", "Büro", "日本", "🦊"])
def test_java_reads_the_path_of_the_model_store_as_it_is(name: str, tmp_path: Path) -> None:
    lines = torchserve.properties(replace(site(tmp_path), private=Path("/tmp") / name)).splitlines()
    assert [java_value(line.partition("=")[2]) for line in lines if line.startswith("model_store=")] == [
        f"/tmp/{name}/store"
    ]


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        ("it measured, and could not prove what ran: RuntimeError: no", "the worker failed: it measured, and could"),
        (None, "the worker measured (result.json has its latencies), and ended before it proved what ran: a signal"),
    ],
)
def test_requests_that_were_measured_stay_where_the_worker_could_not_prove_what_ran(
    error: str | None, failure: str, tmp_path: Path
) -> None:
    where = site(tmp_path)
    placed = PlacedCell(SERVED, Placement((0, 1), 2, 0, "taskset", False), {}, recorded_build())
    began = session._Session(placed, served(), tmp_path, where, torchserve.TorchServe())
    stored = tmp_path / "result.json"
    write_json(stored, WorkerResult("c", 0, window=window([0.1] * 40), error=error))
    loaded = load.read_ab(text("ab.txt"), text("ab_requests.tsv"), 40)
    with pytest.raises(ServingError, match=re.escape(failure)):
        began._read_result(loaded, 0.1, "a signal")
    kept = read_result(stored)
    assert (kept.error, kept.latencies_s, kept.is_served) == (error, list(loaded.latencies_s), True)


def test_a_clock_that_was_set_below_a_generator_is_no_measurement() -> None:
    ab, h2load = text("ab_requests.tsv").splitlines(keepends=True), text("h2load.tsv").splitlines(keepends=True)
    fields = ab[7].split("\t")
    back = "".join([*ab[:7], "\t".join([*fields[:4], "-3599990", fields[5]]), *ab[8:]])
    with pytest.raises(load.LoadError, match="below 0: the clock was set back"):
        load.read_ab(text("ab.txt"), back, 40)
    start, status, _ = h2load[7].split()
    with pytest.raises(load.LoadError, match="not above 0: the clock was set back"):
        load.read_h2load("".join([*h2load[:7], f"{start}\t{status}\t-3599990\n", *h2load[8:]]), 40, 50.0)
    measured = load.read_h2load(
        "".join([*h2load[:7], f"{int(start) + 3600_000_000}\t200\t20000\n", *h2load[8:]]), 40, 50.0
    )
    with pytest.raises(load.LoadError, match="the clock was set"):
        load.check_clock(measured, wall_s=1.0)
    load.check_clock(load.read_h2load(text("h2load.tsv"), 40, 50.0), wall_s=1.0)


def test_a_last_line_that_is_cut_off_in_its_digits_is_torn() -> None:
    with pytest.raises(load.LoadError, match="cut off"):
        load.read_h2load(text("h2load.tsv")[:-2], 40, 50.0)
    with pytest.raises(load.LoadError, match="cut off"):
        load.read_ab(text("ab.txt"), text("ab_requests.tsv")[:-2], 40)


def test_a_time_below_zero_leaves_torchserve_s_figure_out() -> None:
    log = text("metrics.log")
    whole = torchserve.times(log, 40, 11)
    before, _, after = log.rpartition("HandlerTime.ms:")
    assert set(whole) - set(torchserve.times(f"{before}HandlerTime.ms:-{after}", 40, 11)) == {"serving/handler_ms"}
