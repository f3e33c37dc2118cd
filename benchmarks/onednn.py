"""How fast is a large log of oneDNN read, and with how much memory?

This benchmark repeats a recorded iteration of ResNet-50 until the log has a million lines, each with a time of its own,
and reads it as a job does: parse, summary, table of primitives, trace.csv. Claims: at least three times the speed of
oneDNN's own ``scripts/verbose_converter/verbose_converter.py`` (run beside it where --converter names the file), in at
most 300 MB. Both are CPU time of the process alone. Run it with `python -m benchmarks.onednn [--quick] [--converter
FILE]`; the exit status is 1 if a claim fails.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

from benchmarks.harness import ROOT
from runner.capture import kernel_tables, kernels, onednn

RECORDED = ROOT / "tests/data/onednn-verbose/resnet50_eager.log"
LINES, FEW_LINES = 1_000_000, 20_000
LIMIT_MB, TIMES_AS_FAST = 300.0, 3.0
# The breakdown of the converter that comes nearest to the table of primitives.
CONVERTER_WORDS = ("-p", "oneDNN", "-g", "breakdown", "-e", "exec")


@dataclass(frozen=True)
class Reading:
    """What reading a log took, and what was read."""

    parse_s: float
    tables_s: float
    """The seconds for the summary, the table of primitives and trace.csv."""
    peak_mb: float
    """The most memory that the process had so far."""
    primitives: int
    distinct: int
    steps: int

    @property
    def total_s(self) -> float:
        """All CPU seconds."""
        return self.parse_s + self.tables_s


def lines_of(count: int, recorded: Sequence[str]) -> Iterator[str]:
    """A log with this many executed primitives: recorded iterations with times that differ by 5 %."""
    draw = random.Random(0)
    executed = [line for line in recorded if ",exec," in line]
    yield from (f"{line}\n" for line in recorded if ",info," in line)
    for number in range(count):
        if number % len(executed) == 0:
            yield f"#### step {number // len(executed)} torch\n"
        beginning, _, time_ms = executed[number % len(executed)].rpartition(",")
        yield f"{beginning},{float(time_ms) * draw.lognormvariate(0, 0.05):.6g}\n"


def read(file: Path) -> Reading:
    """Read a log as a job does, and leave its trace beside it."""
    begun = process_time()
    with file.open(encoding="utf-8") as lines:
        log = onednn.parse(lines)
    parsed = process_time()
    step_s = {"torch": [1.0] * log.markers}
    kernels.summarize(log, step_s)
    kernel_tables.by_primitive(log, step_s)
    with file.with_suffix(".csv").open("w", encoding="utf-8") as trace:
        trace.writelines(kernel_tables.trace_lines(log))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    distinct = len(log.primitives.distinct)
    return Reading(parsed - begun, process_time() - parsed, peak_mb, len(log.primitives), distinct, log.markers)


def converter_s(converter: Path, file: Path) -> float:
    """The CPU seconds that oneDNN's own converter takes for the same log."""
    import subprocess

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, str(converter), *CONVERTER_WORDS, "-i", str(file)]
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the log, print the figures, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"a log of {FEW_LINES} lines")
    parser.add_argument(
        "--converter", metavar="FILE", type=Path, help="oneDNN's verbose_converter.py, to run beside it"
    )
    options = parser.parse_args(arguments)
    count = FEW_LINES if options.quick else LINES
    with TemporaryDirectory(prefix="runner-bench-") as folder:
        file = Path(folder) / "onednn.log"
        with file.open("w", encoding="utf-8") as out:
            out.writelines(lines_of(count, RECORDED.read_text(encoding="utf-8").splitlines()))
        found = read(file)
        theirs_s = converter_s(options.converter, file) if options.converter else None
    assert found.primitives == count
    print(f"{count} lines: parse {found.parse_s:.2f} s, tables {found.tables_s:.2f} s, {found.peak_mb:.0f} MB")
    fails = found.peak_mb > LIMIT_MB
    if theirs_s is not None:
        print(f"oneDNN's converter: {theirs_s:.2f} s, {theirs_s / found.total_s:.1f} times as long")
        fails = fails or theirs_s < TIMES_AS_FAST * found.total_s
    return int(fails)


if __name__ == "__main__":
    sys.exit(main())
