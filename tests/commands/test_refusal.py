"""Bad input: one sentence, exit status 2, no traceback, nothing launched or recorded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, ask

EXPERIMENTS = {
    "not_yaml": b"a: [1, 2\nb: }",
    "not_utf8": b"# @package _global_\nseed: \xff\xfe\n",
    "a_list": b"- 1\n- 2\n",
    "unknown_key": b"# @package _global_\nbatchsize: 3\n",
    "wrong_type": b"# @package _global_\niterations: many\n",
    "wrong_rule": b"# @package _global_\nhydra: {sweeper: {exclude: [{alocator: jemalloc}]}}\n",
    "empty_list": b"# @package _global_\nhydra: {sweeper: {params: {allocator: []}}}\n",
    "defaults_number": b"# @package _global_\ndefaults: 3\n",
    "defaults_bool": b"# @package _global_\ndefaults:\n  - override /ipex: true\n",
    "grammar": b"# @package _global_\nhydra: {sweeper: {params: {twin: 'a=b'}}}\n",
    "elements": b"# @package _global_\nhydra: {sweeper: {params: {allocator.launcher_value: ['a,b']}}}\n",
    "nested": b"# @package _global_\nhydra: {sweeper: {params: {allocator: {a: 1}}}}\n",
}

REFUSED = [
    (["-m", "allocator=ptmalloc,nope"], "allocator=nope: there is no such allocator; choose one of jemalloc"),
    (["-m", "allocator=ptmaloc"], "did you mean ptmalloc?"),
    (["allocator="], "allocator=: there is no such allocator"),
    (["launcher=slurm"], "launcher=slurm"),
    (["~ipex"], "~ipex: it always has a value; leave this out for its default, or choose ipex=..."),
    (["batchsize=4"], "batchsize: there is no such option; did you mean batch_size?"),
    (["model.image=4"], "model.image: there is no such option"),
    (["batch_size=0"], "batch_size=0: it must be at least 1 (samples per iteration)"),
    (["batch_size=many"], "batch_size=many: it must be a whole number (samples per iteration)"),
    (["max_time_s=long"], "max_time_s=long: it must be a number (seconds)"),
    (["-m", "allocator=jemalloc ipex=on"], "a pair of quotes holds one setting; write allocator=jemalloc ipex=on"),
    (["-m", "batch_size=1,0"], "batch_size=0"),
    (["iterations=1e3"], "iterations=1000.0: it must be a whole number (timed iterations)"),
    (["min_time_s=nan"], "min_time_s=nan"),
    (["openmp=gnu"], "openmp"),
    (
        ["allocator.launcher_value=zzz"],
        "allocator.launcher_value=zzz: choose one of default, jemalloc, tcmalloc",
    ),
    (["ipex=true"], "ipex=true: choose one of multistream, off, on; did you mean ipex=on?"),
    (["-m", "ipex=0,1"], "ipex=0,1: choose one of multistream, off, on; did you mean ipex=off?"),
    (["allocator=null"], "allocator=null: choose one of jemalloc, jemalloc_benchmark, jemalloc_guide, mimalloc"),
    (["-m", "allocator=all"], "name the values, with commas: allocator=jemalloc,jemalloc_benchmark,jemalloc_guide"),
    (["-m", "allocator=ptmalloc", "jemalloc"], "with a comma and no blank: allocator=ptmalloc,jemalloc"),
    (["-m", "allocator=ptmalloc,", "jemalloc"], "with a comma and no blank: allocator=ptmalloc,jemalloc"),
    (["-m", "batch_size=1,", "2"], "with a comma and no blank: batch_size=1,2"),
    (["allocator", "=", "jemalloc"], "allocator: a setting is written name=value, without blanks"),
    (["allocator = jemalloc"], "a setting is written without blanks: allocator=jemalloc"),
    (["--allocator=jemalloc"], "--allocator: a setting is written without dashes: allocator=jemalloc"),
    (["capture=none"], "capture=none: for no captures: capture=[]"),
    (["capture=all"], "capture=all: name the captures: capture=[counters,inductor,itt,onednn,profiler,toplev]"),
    (["capture=onednn,itt"], "are a list in brackets: capture=[onednn,itt]"),
    (["--dryrun"], "--dryrun: there is no such option; did you mean --dry-run?"),
    (["-n", "ipex=on"], "-n: there is no such option; did you mean --dry-run?"),
    (["--dry-run=two"], "--dry-run=two: it takes the number of a cell, as in --dry-run=1, or nothing"),
    (["dry-run"], "did you mean --dry-run?"),
    (["--cfg", "job", "-m"], "--cfg: it shows the configuration of one cell and takes no -m"),
    (["--cfg", "ipex=on"], "--cfg: say what it is to show: --cfg job"),
    (["--cfg", "job", "ipex=off,on"], "ipex=off,on: --cfg shows one cell"),
    (["ls"], "ls: there is no such command, and a setting is written name=value; did you mean list?"),
    (["Doctor"], "did you mean doctor?"),
    (["run"], "run: a sweep needs no command"),
    (["-m", "compare"], "compare: a command is the first word: python -m runner compare"),
    (
        ["gibberish"],
        "gibberish: there is no such command, and a setting is written name=value. The commands are compare",
    ),
    (["model=resnet18"], "docs/models.md"),
    (["rounds=0"], "rounds=0: choose 1 to 10000 (fresh processes per cell), auto or race"),
    (["ipex=[off,on]"], "write several values with commas: ipex=off,on"),
    (["+itertions=5"], "itertions: there is no such option"),
    (["+launcher.fast=1"], "launcher.fast: there is no such option"),
    (["rounds=1,3"], "a sweep takes one value of rounds"),
    (["reruns=0,2"], "a sweep takes one value of reruns"),
    (["reruns=-1"], "reruns=-1: it must be at least 0 (further measurements of what was disturbed)"),
    (["+experiment=not_yaml,a_list"], "a sweep takes one value of experiment"),
    (["hydra.sweeper.max_batch_size=2"], "max_batch_size"),
    (
        ["hydra.launcher._target_=hydra_plugins.joblib.JoblibLauncher"],
        "start one sweep per",
    ),
    (["tracking_uri=ftp://server"], "tracking_uri=ftp://server: it must be the http:// or https:// address"),
    (["tracking_uri=http://me:secret@server:5000"], "MLFLOW_TRACKING_PASSWORD"),
    (["wait=-1"], "wait=-1: it must be at least 0 (seconds)"),
    (["+experiment=defaults_number"], "defaults must be a list"),
    (["+experiment=defaults_bool"], "an axis takes the name of one of its values"),
    (["allocator=["], "the command line can't be read"),
    (["allocator"], "allocator: a setting is written name=value, without blanks: allocator=..."),
    (["comapre"], "comapre: there is no such command, and a setting is written name=value; did you mean compare?"),
    (["-m", "batch_size=range(1,3)", "cores=4096"], "cores=4096: node 0 has"),
    (["-m", "min_time_s=interval(1,2)"], "list the values with commas"),
    (["node=77"], "node=77: this machine has NUMA node"),
    (["threads=4096"], "threads=4096: an instance has"),
    (["baseline={alocator: ptmalloc}"], "baseline: 'alocator' is not an axis"),
    (["-m", "allocator=ptmalloc,jemalloc", "baseline={allocator: tcmalloc}"], "no cell of this matrix has it"),
    (["+experiment=nope"], "experiment=nope: there is no such experiment"),
    (["+experiment=not_yaml"], "not_yaml.yaml is not YAML at line 2"),
    (["+experiment=not_utf8"], "not_utf8.yaml can't be read"),
    (["+experiment=a_list"], "a_list.yaml must hold a mapping"),
    (["+experiment=unknown_key"], "batchsize"),
    (["+experiment=wrong_type"], "iterations=many: it must be a whole number (timed iterations)"),
    (["+experiment=wrong_rule"], "hydra.sweeper.exclude: 'alocator' is not an axis"),
    (["+experiment=empty_list"], "hydra.sweeper.params.allocator: the list is empty"),
    (["+experiment=nested"], "hydra.sweeper.params.allocator"),
    (["mlruns=/proc/nothing"], "mlruns=/proc/nothing"),
    (["capture=[nope]"], "capture=[nope]: there is no such capture; choose among onednn, itt"),
    (["-m", "capture=[itt],[onednn]"], "a sweep takes one value of capture"),
    (["-m", "capture.itt.iterations=1,2"], "a sweep takes one value of capture.itt.iterations"),
    (["capture.toplev.level=7"], "capture.toplev.level=7: choose 1, 2 or 3"),
    (["capture.itt.iterations=0"], "capture.itt.iterations=0: it must be a number of iterations"),
    (["capture.profiler.max_trace_mb=nan"], "capture.profiler.max_trace_mb=nan"),
    (["model.kwargs.w=/m/epoch=9-step=100.ckpt"], """'=' in a value needs quotes; if it is meant as text, write '++"""),
    (
        ["+model.kwargs.note=a#b"],
        """'#' in a value needs quotes; if it is meant as text, write '++model.kwargs.note="a#b"'""",
    ),
    (["twin=прогоны"], """twin=прогоны: 'п' in a value needs quotes; if it is meant as text, write 'twin="прогоны"'"""),
    (["-m", "model.kwargs.w=a=1,b=2"], """write '++model.kwargs.w="a=1","b=2"'"""),
    (["twin=it's"], "a bracket or a quote in it is not closed"),
    (["twin=(a)"], "brackets and quotes are Hydra's syntax; if it is meant as text, write 'twin=\"(a)\"'"),
    (
        ["+experiment=grammar"],
        "grammar.yaml: hydra.sweeper.params.twin: 'a=b' can't be read as Hydra's text; write a list",
    ),
    (["+experiment=elements"], "allocator.launcher_value=a,b: choose one of"),
    (["ui", "--mlruns", "/nowhere"], "there is no mlflow.db in it"),
]


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experiments")
    (folder / "experiment").mkdir()
    for name, content in EXPERIMENTS.items():
        (folder / f"experiment/{name}.yaml").write_bytes(content)
    return folder


def test_warnings_that_are_to_be_errors_are_none_of_ours() -> None:
    words = [sys.executable, "-W", "error", "-m", "runner", "model=nope"]
    ran = subprocess.run(words, check=False, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 2, ran.stderr
    assert ran.stderr.startswith("runner: model=nope: there is no such model; choose one of ")


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED, ids=[" ".join(a) for a, _ in REFUSED])
def test_bad_input_is_refused_in_one_sentence(
    arguments: list[str], sentence: str, experiments: Path, tmp_path: Path
) -> None:
    own = any(a.startswith(("mlruns=", "ui")) for a in arguments)
    extra = [] if own else [f"--mlruns={tmp_path}"]
    ran = ask(*arguments, *extra, env={"RUNNER_EXPERIMENTS": str(experiments)})
    assert ran.status == 2, ran.out + ran.err
    assert ran.err.startswith("runner: ")
    assert ran.err.count("\n") == 1
    assert sentence in ran.err
    assert list(tmp_path.iterdir()) == []


def test_help_names_axes_settings_and_exit_statuses() -> None:
    shown = ask("--help").out
    for word in ("allocator ", "ipex ", "batch_size ", "EXPERIMENTS", "Exit status", "mlruns="):
        assert word in shown
