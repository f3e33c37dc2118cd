"""toplev: the real one of pmu-tools on a fake perf, and what it once printed. toplev/README.md says what is real."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner.capture.toplev import LEVEL1, Rejected, TopDown, command, parse, read, script, why_not
from runner.worker.region import PerfControl
from tests.conftest import ROOT

DATA = ROOT / "tests/data/toplev"
EACH = tuple(itertools.product(("icx", "spr", "skx"), (1, 2, 3)))
RAW = "Value;Unit;Event;Run-Time;Enabled;;\n6000000000;;cpu/slots/;300000000;100.00;;\n"

# Work before, in and after the region; says how long the region was, and ends as it is told.
WORKLOAD = """
import os, sys, time
from runner.worker.region import PerfControl

ctl, ack, region_s, end = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4]
time.sleep(0.2)
print("UserWarning: this op is not supported and was not counted", file=sys.stderr)
with PerfControl(ctl, ack):
    start = time.monotonic()
    time.sleep(region_s)
    took = time.monotonic() - start
time.sleep(0.2)
print("region_s", took, flush=True)
if end == "killed":
    os.kill(os.getpid(), 9)
sys.exit(int(end))
"""


def recorded(name: str) -> str:
    return (DATA / name).read_text()


# -- the real toplev ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Left:
    """What one run of the real toplev left behind."""

    csv: str | None
    raw: str | None
    out: str
    err: str
    status: int

    def read(self) -> TopDown:
        return read(self.csv, self.raw, self.err, self.status)


Measure = Callable[..., Left]


@pytest.fixture(scope="session")
def toplev() -> Path:
    found = script(Path(sys.prefix))
    assert found.is_file(), f"{found} is missing: rm -f .venv/.ready && make .venv/.ready"
    return found


@pytest.fixture(scope="session")
def measure(toplev: Path, tmp_path_factory: pytest.TempPathFactory) -> Measure:
    """Run the workload under the real toplev, exactly by the command line of production."""
    base = tmp_path_factory.mktemp("toplev")

    def run(
        cpu: str = "icx",
        level: int = 1,
        region_s: float = 0.1,
        end: str = "0",
        argv: tuple[str, ...] = (),
        **env: str,
    ) -> Left:
        # With a blank, because a user's folder may have one; not by mktemp(), which threads must not share.
        folder = Path(tempfile.mkdtemp(prefix="job folder ", dir=base))
        csv, raw, ctl, ack = (folder / name for name in ("tma.csv", "raw.perf", "ctl", "ack"))
        os.mkfifo(ctl)
        os.mkfifo(ack)
        (folder / "workload.py").write_text(WORKLOAD)
        job = argv or (sys.executable, str(folder / "workload.py"), str(ctl), str(ack), str(region_s), end)
        fake = {
            "CPUINFO": str(DATA / "cpuinfo" / cpu),
            "EVENTMAP": str(DATA / "events" / f"{cpu}_core.min.json"),
            "PERF": str(DATA / "fakeperf/perf"),
            "FORCEMETRICS": "1",
        }
        done = subprocess.run(
            command(sys.executable, toplev, level, csv, raw, ctl, ack, job),
            # An empty value takes a variable away.
            env={
                "PATH": os.environ["PATH"],
                "HOME": "/nonexistent",
                "PYTHONPATH": str(ROOT),
                **{name: value for name, value in {**fake, **env}.items() if value},
            },
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        text = {file: file.read_text() if file.is_file() else None for file in (csv, raw)}
        return Left(text[csv], text[raw], done.stdout, done.stderr, done.returncode)

    return run


@pytest.fixture(scope="module")
def measured(measure: Measure) -> Iterator[Mapping[tuple[str, int], Future[Left]]]:
    """Every CPU and level, started at once: they mostly sleep."""
    with ThreadPoolExecutor(9) as pool:
        yield {key: pool.submit(measure, *key, region_s=0.3) for key in EACH}


@pytest.mark.slow
@pytest.mark.parametrize(("cpu", "level"), EACH)
def test_the_real_toplev_gives_the_recorded_figures_for_the_region(
    measured: Mapping[tuple[str, int], Future[Left]], cpu: str, level: int
) -> None:
    left = measured[cpu, level].result()
    here, then = left.read(), parse(recorded(f"csv/{cpu}-l{level}.csv"))
    assert [node.path for node in here.nodes] == [node.path for node in then.nodes]
    # Recorded with a fixed number of cycles; with the control FIFO the fake perf counts clock x time of the region, so
    # the ratios are the same and the last printed digit may round the other way.
    for node, recorded_node in zip(here.nodes, then.nodes, strict=True):
        assert node.value == pytest.approx(recorded_node.value, abs=0.1 + 1e-9), node.path
        assert (node.unit, node.multiplex) == (recorded_node.unit, 100.0)
    assert (here.model, here.levels, here.mux_pct) == (then.model, level, 100.0)
    assert here.bottleneck is not None
    if here.bottleneck != then.bottleneck:
        # The fake counts put skx's Heavy_Operations right on its threshold: a count more or less moves the mark.
        assert here.bottleneck.split(".")[:2] == ["Retiring", "Heavy_Operations"]
        heavy = next(node for node in here.nodes if node.path == "Retiring.Heavy_Operations")
        assert cpu == "skx"
        assert heavy.value == pytest.approx(10, abs=0.1)
    assert here.metrics == then.metrics == {}


@pytest.mark.slow
def test_work_outside_the_region_is_not_counted(measured: Mapping[tuple[str, int], Future[Left]]) -> None:
    for key, future in measured.items():
        left = future.result()
        assert left.raw is not None
        region_s = float(left.out.split("region_s ")[1].split()[0])
        counted_s = max(int(line.split(";")[3]) for line in left.raw.splitlines()[1:]) / 1e9
        # 0.4 s of work lie outside.
        assert region_s - 0.02 < counted_s < region_s + 0.35, key


def without_slots(folder: Path) -> Path:
    events = json.loads(recorded("events/icx_core.min.json"))
    events["Events"] = [event for event in events["Events"] if event["EventName"] != "TOPDOWN.SLOTS_P"]
    file = folder / "noslots.json"
    file.write_text(json.dumps(events))
    return file


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "sentence"),
    [
        ("not-supported", "58 events not supported: this PMU lacks events that it needs"),
        ("not-counted", "none of 58 events was counted"),
        ("partial", r"21 events were not counted \(a shared PMU.*its figures would be made of missing events"),
        ("denied", "/proc/sys/kernel/perf_event_paranoid"),
        ("syntax-error", "no performance counters.*the job was never started"),
    ],
)
def test_the_real_toplev_on_a_perf_that_cannot_count_is_rejected(measure: Measure, mode: str, sentence: str) -> None:
    with pytest.raises(Rejected, match=f"^toplev: .*{sentence}"):
        measure(level=3, FAKE_PERF_MODE=mode).read()


@pytest.mark.slow
def test_the_real_toplev_round_a_job_that_never_enables_is_rejected(measure: Measure) -> None:
    with pytest.raises(Rejected, match="none of 7 events was counted: the region was never enabled"):
        measure(argv=("true",)).read()


@pytest.mark.slow
def test_the_real_toplev_without_an_event_it_needs_exits_0_and_is_rejected(measure: Measure, tmp_path: Path) -> None:
    left = measure(level=2, EVENTMAP=str(without_slots(tmp_path)), FORCEMETRICS="")
    assert left.status == 0
    with pytest.raises(Rejected, match=r"lacks events \(TOPDOWN.SLOTS_P\)"):
        left.read()


@pytest.mark.slow
def test_the_real_toplev_on_an_intel_cpu_it_does_not_know_is_rejected(measure: Measure, tmp_path: Path) -> None:
    newer = tmp_path / "cpuinfo"
    newer.write_text(recorded("cpuinfo/icx").replace("model\t\t: 106", "model\t\t: 250"))
    left = measure(level=1, CPUINFO=str(newer))
    assert (left.status, "falling back to simple model" in left.out) == (0, True)
    with pytest.raises(Rejected):
        left.read()
    # Also when no event is missing from its event file: the simple model's categories have other names.
    with pytest.raises(Rejected, match=r"lacks level-1 categories: does its model \(1\.0 on"):
        read(left.csv, left.raw, "", 0)


@pytest.mark.slow
def test_the_real_toplev_round_a_job_that_fails_is_rejected(measure: Measure) -> None:
    left = measure(end="7")
    assert left.csv is not None
    assert parse(left.csv).bottleneck == "Backend_Bound"
    with pytest.raises(Rejected, match="exit status 7"):
        left.read()


@pytest.mark.slow
def test_a_killed_job_leaves_an_accepted_table_so_that_only_its_own_result_file_counts(measure: Measure) -> None:
    # Like the real one, the fake perf exits 0 when the workload dies by a signal, and toplev passes that on.
    left = measure(end="killed")
    assert left.status == 0
    assert left.read().bottleneck == "Backend_Bound"
    assert read(recorded("errors/workload-sigkill.csv"), RAW, recorded("errors/workload-sigkill.stderr"), 0).nodes


# -- what it once printed -----------------------------------------------------------------------------

FAILED = {
    "mode-not-supported": (1, "58 events not supported: this PMU"),
    "mode-not-counted": (1, "none of 58 events was counted"),
    "mode-partial": (0, "21 events were not counted"),
    "mode-denied": (255, "/proc/sys/kernel/perf_event_paranoid"),
    "mode-syntax-error": (129, "no performance counters"),
    "never-enabled": (1, "the region was never enabled"),
    "event-not-found": (0, r"lacks events \(TOPDOWN.SLOTS_P\)"),
    "workload-exit-7": (7, "exit status 7"),
    "real-perf-no-pmu": (129, "no performance counters"),
    "amd-with-event-server": (1, "does not support this CPU"),
    "interval-idle-real-perf": (1, "every count is 0"),
}


@pytest.mark.parametrize("name", FAILED)
def test_every_recorded_failure_is_rejected_with_its_reason(name: str) -> None:
    status, sentence = FAILED[name]
    table = DATA / f"errors/{name}.csv"
    text = table.read_text() if table.is_file() else None
    with pytest.raises(Rejected, match=sentence) as rejected:
        read(text, RAW, recorded(f"errors/{name}.stderr"), status)
    assert "\n" not in str(rejected.value)


def test_no_recorded_failure_is_left_out() -> None:
    assert {file.stem for file in (DATA / "errors").iterdir()} == {*FAILED, "workload-sigkill"}


def test_a_machine_without_event_files_and_network_is_told_about_the_event_file() -> None:
    stderr = "Cannot access event server: <urlopen error>\n" + recorded("errors/amd-with-event-server.stderr")
    with pytest.raises(Rejected, match="set EVENTMAP"):
        read(None, None, stderr, 1)


def test_a_table_is_read_whole() -> None:
    table = parse(recorded("csv/icx-l3.csv"))
    assert len(table.nodes) == 38
    assert (table.levels, table.mux_pct) == (3, 100.0)
    assert table.model == "5.1-full on Intel(R) Xeon(R) Platinum 8380 CPU @ 2.30GHz [icx]"
    assert table.bottleneck == "Backend_Bound.Memory_Bound.DRAM_Bound"
    assert table.level1 == dict(zip(LEVEL1, (11.8, 2.8, 55.3, 30.0), strict=True))
    dram = next(node for node in table.nodes if node.bottleneck)
    assert (dram.value, dram.unit, dram.crossed, dram.multiplex) == (20.6, "% Stalls", True, 100.0)
    assert next(node for node in table.nodes if node.path == "Retiring").crossed is False


@pytest.mark.parametrize(("cpu", "level"), EACH)
def test_no_row_is_lost(cpu: str, level: int) -> None:
    text = recorded(f"csv/{cpu}-l{level}.csv")
    table = parse(text)
    # Header, MUX and the last line are the rest.
    assert len(table.nodes) + len(table.metrics) + 3 == len(text.splitlines())


def test_a_row_that_is_no_node_is_kept_and_the_order_of_columns_is_the_headers() -> None:
    lines = L1.splitlines(keepends=True)
    table = parse("".join([*lines[:-1], "CPU_Utilization,0.9,Metric,,,0.0,,,\n", lines[-1]]))
    assert table.metrics == {"CPU_Utilization": 0.9}
    swapped = [",".join(reversed(line.rstrip("\n").split(","))) + "\n" for line in lines[:-1]]
    assert parse("".join([*swapped, lines[-1]])) == parse(L1)


def test_without_a_marked_node_there_is_no_bottleneck() -> None:
    assert parse(L1.replace("<==", "")).bottleneck is None


# -- gates --------------------------------------------------------------------------------------------

L1 = recorded("csv/icx-l1.csv")


def test_a_clean_run_passes() -> None:
    noise = "UserWarning: float16 is not supported; 3 samples were not counted\n" + recorded(
        "errors/mode-partial.stderr"
    )
    assert read(L1, RAW, noise.replace("21 events not counted\n", ""), 0).bottleneck == "Backend_Bound"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "wrote no table"),
        ("", "wrote no table"),
        ("\n", "empty or torn"),
        ("# 5.1-full on X [icx]\n", "no rows"),
        (L1.replace("MUX,100.0", "MUX,0.0"), "MUX 0"),
        (L1.replace("MUX,100.0", "MUX,nan"), "MUX 0"),
        (L1.replace("MUX,", "Other,"), "no MUX row"),
        (L1.replace("Retiring,30.0", "Retiring,27.0"), r"add up to 96\.9 %"),
        (L1.replace("Retiring,30.0", "Retiring,nan"), "Retiring is nan % Slots"),
        (L1.replace("Retiring,30.0", "Retiring,inf"), "Retiring is inf % Slots"),
        (L1.replace("Retiring,30.0", "Retiring,130.0"), "Retiring is 130 % Slots, which is impossible"),
        (L1.replace("Bad_Speculation,2.8", "Bad_Speculation,-8.0"), "Bad_Speculation is -8 % Slots"),
        (L1.replace("Retiring,30.0", "Retiring,"), "no number for Retiring"),
        (L1.replace("Retiring,", "Retired,"), "lacks level-1 categories"),
        (L1.replace("Retiring,", "Backend_Bound,"), "two rows for Backend_Bound"),
        (L1.replace("Retiring,30.0,% Slots <,,", "Retiring,30.0,"), "torn at 'Retiring,30.0"),
        (L1.replace("Retiring,30.0", '"Retiring,30.0'), "can't be read"),
        (L1.replace("Area,Value", "Area;Value"), "does not have the columns of a single run"),
        (L1.replace("Area,", "CPUs,Area,"), "does not have the columns of a single run"),
    ],
)
def test_a_table_that_can_not_be_believed_is_rejected(text: str | None, sentence: str) -> None:
    with pytest.raises(Rejected, match=sentence):
        read(text, RAW, "", 0)


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (None, "no raw counts"),
        ("", "no raw counts"),
        (RAW + "<not counted>;;cpu/topdown-retiring/;0;0.00;;\n", "1 raw counts are missing"),
    ],
)
def test_a_table_without_all_raw_counts_is_rejected(raw: str | None, sentence: str) -> None:
    with pytest.raises(Rejected, match=sentence):
        read(L1, raw, "", 0)


def test_a_table_cut_anywhere_is_rejected() -> None:
    for end in range(len(L1)):
        with pytest.raises(Rejected):
            read(L1[:end], RAW, "", 0)


def test_rounding_does_not_reject() -> None:
    assert math.fsum(parse(L1).level1.values()) == pytest.approx(99.9)
    assert read(L1, RAW, "", 0) == parse(L1)


# -- before it is started -----------------------------------------------------------------------------


# The events of the kind of cores that the job did not run on are in perf's output, without a count.
HYBRID_RAW = "6;;cpu_core/slots/;3;100.00;;\n<not counted>;;cpu_atom/cycles/;0;0.00;;\n"
ATOM = "atom,Frontend_Bound,20.0,% Slots,,,0.0,100.0,,\n"


def test_a_hybrid_cpus_table_is_that_of_the_cores_that_ran() -> None:
    text = recorded("hybrid-pcores.csv")
    level1 = {"Frontend_Bound": 11.8, "Bad_Speculation": 2.8, "Backend_Bound": 55.3, "Retiring": 30.1}
    for rows in ("", ATOM.replace("20.0", "0.0")):
        table = read(text.replace("core,MUX", f"{rows}core,MUX"), HYBRID_RAW, "", 0)
        assert (table.level1, table.kind, table.bottleneck) == (level1, "core", "Backend_Bound")
    raw = HYBRID_RAW.replace("core", "x").replace("atom", "core").replace("x", "atom")
    assert read(text.replace("core,", "atom,"), raw, "", 0).kind == "atom"


def test_a_job_that_ran_on_both_kinds_of_cores_has_no_table() -> None:
    with pytest.raises(Rejected, match="ran on P-cores and on E-cores"):
        read(recorded("hybrid-pcores.csv").replace("core,MUX", f"{ATOM}core,MUX"), HYBRID_RAW, "", 0)


def test_a_missing_count_of_the_cores_that_ran_is_missing() -> None:
    with pytest.raises(Rejected, match="1 raw counts are missing"):
        read(recorded("hybrid-pcores.csv"), "<not counted>;;cpu_core/slots/;0;0.00;;\n" + HYBRID_RAW, "", 0)


def test_the_command_line_is_this_one() -> None:
    files = (Path("/j/tma.csv"), Path("/j/raw.perf"), Path("/j/ctl"), Path("/j/ack"))
    assert command("/v/bin/python", script(Path("/v")), 2, *files, ("ipexrun", "cpu", "w.py")) == (
        "/v/bin/python", "/v/pmu-tools/toplev.py", "-S", "-l2", "-v", "--no-desc", "-x,", "-o", "/j/tma.csv",
        "--perf-output", "/j/raw.perf", "-D", "-1", "--control", "fifo:/j/ctl,/j/ack", "--", "ipexrun", "cpu", "w.py",
    )  # fmt: skip


def test_a_fifo_whose_name_perf_would_split_is_refused() -> None:
    with pytest.raises(ValueError, match="comma"):
        command("python", Path("t"), 1, Path("c"), Path("r"), Path("/a,b/ctl"), Path("/a,b/ack"), ("true",))


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ((None, None, "AuthenticAMD", False), "apt-get install linux-perf"),
        (("no PMU", "/usr/bin/perf", "AuthenticAMD", False), "perf counts no cycles here: no PMU"),
        ((None, "/usr/bin/perf", "AuthenticAMD", False), "Intel CPUs only, and this CPU is AuthenticAMD"),
        ((None, "/usr/bin/perf", "GenuineIntel", False), "--target .venv/pmu-tools -r requirements-toplev.lock"),
    ],
)
def test_why_toplev_cannot_run_is_one_sentence_with_the_next_step(
    facts: tuple[str | None, str | None, str, bool], sentence: str
) -> None:
    reason = why_not(*facts)
    assert reason is not None
    assert sentence in reason


def test_nothing_keeps_toplev_from_an_intel_cpu_with_counters() -> None:
    assert why_not(None, "/usr/bin/perf", "GenuineIntel", True) is None


# -- the region ---------------------------------------------------------------------------------------


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def fifos(folder: Path) -> tuple[str, str]:
    paths = str(folder / "ctl"), str(folder / "ack")
    for path in paths:
        os.mkfifo(path)
    return paths


def test_enable_gives_up_in_time_when_nobody_answers(tmp_path: Path) -> None:
    control, start = PerfControl(*fifos(tmp_path), timeout_s=0.2), time.monotonic()
    before = open_files()
    with pytest.raises(RuntimeError, match=r"no answer to enable on .*ack within 0\.2 s: perf has ended"):
        control.enable()
    assert 0.2 <= time.monotonic() - start < 2
    assert open_files() == before


def test_a_fifo_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ctl can't be opened: No such file"):
        PerfControl(str(tmp_path / "ctl"), str(tmp_path / "ack")).enable()


def test_disable_without_enable_and_enable_twice_are_mistakes(tmp_path: Path) -> None:
    ctl, ack = fifos(tmp_path)
    control = PerfControl(ctl, ack, timeout_s=5)
    with pytest.raises(RuntimeError, match="without enable"):
        control.disable()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(obey, ctl, ack, b"ack\n\0", 2, [])
        with control, pytest.raises(RuntimeError, match="twice"):
            control.enable()


@pytest.mark.parametrize("answer", [b"ack\n\0", b"ack\n"])
def test_the_region_orders_perf_to_start_and_to_stop(tmp_path: Path, answer: bytes) -> None:
    ctl, ack = fifos(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        orders: list[bytes] = []
        heard = pool.submit(obey, ctl, ack, answer, 2, orders)
        with PerfControl(ctl, ack, timeout_s=5):
            assert orders == [b"enable\n"]
        heard.result(5)
    assert orders == [b"enable\n", b"disable\n"]


def test_what_went_wrong_inside_the_region_is_not_hidden_by_a_perf_that_went_too(tmp_path: Path) -> None:
    ctl, ack = fifos(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(obey, ctl, ack, b"ack\n", 1, [])
        with pytest.raises(ZeroDivisionError), PerfControl(ctl, ack, timeout_s=0.2):
            raise ZeroDivisionError


def test_a_perf_that_is_gone_at_the_end_of_the_region_is_an_error(tmp_path: Path) -> None:
    ctl, ack = fifos(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(obey, ctl, ack, b"ack\n", 1, [])
        with pytest.raises(RuntimeError, match="no answer to disable"), PerfControl(ctl, ack, timeout_s=0.2):
            pass


def obey(ctl: str, ack: str, answer: bytes, times: int, orders: list[bytes]) -> None:
    """perf's side, for so many orders."""
    orders_from, answers_to = os.open(ctl, os.O_RDWR), os.open(ack, os.O_RDWR)
    try:
        for _ in range(times):
            orders.append(os.read(orders_from, 64))
            os.write(answers_to, answer)
    finally:
        os.close(orders_from)
        os.close(answers_to)
