"""Cells on another torch build, from the command line to the proof: an environment beside the runner's own."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from runner.analysis.cause import differences
from runner.machine.host import isa
from runner.results.cells import CellRow, read
from tests.conftest import MODELS, TINY, Runner, records_of
from tests.machine.test_torch_builds import copied_prefix, site_packages

pytestmark = pytest.mark.slow


def test_cells_on_an_environment_of_ones_own_prove_that_they_ran_there(run_cli: Runner, tmp_path: Path) -> None:
    python = copied_prefix(tmp_path / "copy")
    ran = run_cli("-m", "torch=bundled,own", f"torch.path={python}", "capture=[]", *TINY)
    assert ran.status == 0, ran.out + ran.err
    assert {record.axes["torch"]: record.evidence for record in records_of(ran)} == {"bundled": "ok", "own": "ok"}
    evidence = [json.loads(file.read_text()) for file in ran.sweep.glob("cells/*/round-0/evidence.json")]
    assert str(tmp_path / "copy") in {one["build"]["prefix"] for one in evidence}


def test_a_build_that_draws_other_weights_gets_those_of_the_first(run_cli: Runner, tmp_path: Path) -> None:
    python = copied_prefix(tmp_path / "copy")
    (site_packages(python) / "other.pth").write_text("import os; os.environ['DRAWS_MORE'] = '1'\n")
    model = tmp_path / "drawing.py"
    model.write_text(
        "import os\nimport torch\n"
        "def build(batch_size):\n"
        "    torch.randn(int(os.environ.get('DRAWS_MORE', '0')))\n"
        "    layer = torch.nn.Linear(64, 64)\n"
        "    torch.manual_seed(0)\n"
        "    return layer, torch.randn(batch_size, 64)\n"
    )
    ran = run_cli(
        "-m", "torch=bundled,own", f"torch.path={python}", f"model={model}:build", "capture=[]", "rounds=2",
        "batch_size=4", "warmup=2", "iterations=10", "try_models=true", env={"XDG_CACHE_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    assert ran.status == 0, ran.out + ran.err
    assert "so all get those of torch=bundled" in " ".join(ran.out.split())
    assert all(record.quality == "ok" for record in records_of(ran))
    rows = read([ran.sweep]).rows
    assert len({row.model.weights for row in rows if row.model}) == 1
    assert "the model differs" not in ran.out


@pytest.mark.skipif(not isa() >= {"avx512f", "avx2"}, reason="the kernels of AVX-512 are what is taken away")
def test_an_upgrade_that_loses_its_fast_kernels_is_told_by_the_kernels(run_cli: Runner, tmp_path: Path) -> None:
    python = copied_prefix(tmp_path / "upgraded")
    # What a build would do whose oneDNN knows no AVX-512.
    line = "import os; os.environ['ONEDNN_MAX_CPU_ISA'] = 'AVX2'\n"
    (site_packages(python) / "older.pth").write_text(line)
    cells: Sequence[CellRow] = ()
    for _ in range(3):
        ran = run_cli(
            "-m", "torch=bundled,own", f"torch.path={python}", "model=conv_relu", "batch_size=256",
            "memory_format=channels_last", "capture=[]", "rounds=1", "warmup=3", "iterations=10",
        )  # fmt: skip
        assert ran.status == 0, ran.out + ran.err
        cells = read([ran.sweep]).rows
        # An iteration that others disturbed proves nothing, which the cell says: once more then.
        if all(cell.isa != "unobserved" for cell in cells):
            break
    before, after = sorted(cells, key=lambda cell: cell.axes["torch"])
    assert (before.isa, after.isa) == ("avx512", "avx2")
    # Whatever the times on a machine that is busy.
    assert differences(before, after).startswith("kernels avx512 -> avx2")


@pytest.mark.skipif("RUNNER_SECOND_PYTHON" not in os.environ, reason="names an interpreter with another torch")
def test_a_real_second_build_runs_every_precision_and_graph(run_cli: Runner) -> None:
    ran = run_cli(
        "-m", "torch=own", f"torch.path={os.environ['RUNNER_SECOND_PYTHON']}", "precision=fp32,bf16,int8",
        "graph=eager,compile_freezing", "ipex=off,on", "memory_format=channels_last", "capture=[]", *TINY,
    )  # fmt: skip
    assert ran.status == 0, ran.out + ran.err
    assert len(records_of(ran)) == 6
    assert "ipex=on torch=own: that build has no Intel Extension for PyTorch" in ran.out


@pytest.mark.skipif("RUNNER_SECOND_PYTHON" not in os.environ, reason="names an interpreter with another torch")
def test_kernels_are_chosen_by_their_time_and_a_torch_that_chooses_none_fails_by_name(run_cli: Runner) -> None:
    ran = run_cli(
        "-m", "torch=own", f"torch.path={os.environ['RUNNER_SECOND_PYTHON']}", "model._target_=misbehaving.${twin}",
        "twin=behaves,tunes_nothing", "graph=max_autotune", "memory_format=channels_last", "capture=[]", *TINY,
        env=MODELS,
    )  # fmt: skip
    failures = {record.axes["twin"]: record.failure for record in records_of(ran)}
    assert failures["behaves"] is None
    assert "graph: asked for kernels chosen by their time (max_autotune), found none" in str(failures["tunes_nothing"])
