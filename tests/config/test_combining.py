"""Configurations of a large matrix: each is what Hydra would have composed, and few were composed by Hydra."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from runner.config.combining import LEAST, Combiner, Composed
from runner.protocol.errors import RunnerError
from tests.conftest import ROOT

# An axis with files, one without, a setting, and something that belongs to an axis.
CHOICES = {
    "allocator": ("ptmalloc", "jemalloc", "tcmalloc"),
    "ipex": ("off", "on"),
    "batch_size": ("1", "2", "3", "4"),
    "warmup": ("2", "3"),
    "allocator.env.A": ("1", "2"),
}
Compose = Callable[[Mapping[str, str]], Composed]


def by_hydra(values: Mapping[str, str]) -> Composed:
    """A configuration in which every key has its own part, and two parts refer to others."""
    allocator = {"name": values["allocator"], "env": {"A": values["allocator.env.A"]}}
    model = {"name": "tiny", "target": f"models.of_{values['ipex']}", "batch_size": int(values["batch_size"])}
    resolved: dict[str, Any] = {
        "allocator": allocator, "ipex": values["ipex"], "model": model, "batch_size": int(values["batch_size"]),
        "warmup": int(values["warmup"]), "launcher": {"name": "xeon"}, "mlruns": "mlruns",
    }  # fmt: skip
    if values.get("scenario") == "torchserve":
        resolved["launcher"] = {"name": "served"}
    written = {
        **resolved,
        "batch_size": int(values["batch_size"]),
        "model": {**model, "target": "models.of_${ipex}", "batch_size": "${batch_size}"},
        "launcher": {"name": "${runner.launcher:}"} if resolved["launcher"]["name"] == "xeon" else resolved["launcher"],
    }
    return Composed(written, resolved)


class Hydra:
    """Counts what it composes."""

    def __init__(self, compose: Compose = by_hydra) -> None:
        self.compose, self.count = compose, 0

    def __call__(self, values: Mapping[str, str]) -> Composed:
        self.count += 1
        return self.compose(values)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A folder with files of two axes: those of allocator keep to their part, a scenario does not."""
    for name in CHOICES["allocator"]:
        (tmp_path / "allocator").mkdir(exist_ok=True)
        (tmp_path / "allocator" / f"{name}.yaml").write_text(f"name: {name}\n")
    for name in CHOICES["ipex"]:
        (tmp_path / "ipex").mkdir(exist_ok=True)
        (tmp_path / "ipex" / f"{name}.yaml").write_text(f"name: {name}\n")
    (tmp_path / "scenario").mkdir()
    (tmp_path / "scenario" / "inference.yaml").write_text("name: inference\n")
    (tmp_path / "scenario" / "torchserve.yaml").write_text("# @package _global_\nscenario: {name: torchserve}\n")
    return tmp_path


def combinations(choices: Mapping[str, tuple[str, ...]]) -> list[dict[str, str]]:
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def check(choices: Mapping[str, tuple[str, ...]], folder: Path, compose: Compose = by_hydra) -> int:
    """See that every combination is as Hydra composes it; returns how many Hydra composed."""
    hydra = Hydra(compose)
    combiner = Combiner([choices], hydra, [folder])
    for combination in combinations(choices):
        assert combiner(combination) == compose(combination).resolved
    return hydra.count


def test_a_combination_has_the_parts_of_its_values_and_each_was_composed_once(conf: Path) -> None:
    # The base, 3 x 2 - 1 allocators with their variable, and the further values of three axes; four to compare.
    assert check(CHOICES, conf) == 1 + 5 + 1 + 3 + 1 + 4
    assert len(combinations(CHOICES)) == 96


def test_what_acts_on_other_parts_is_composed_with_every_part(conf: Path) -> None:
    assert check({**CHOICES, "scenario": ("inference", "torchserve")}, conf) == 2 * (1 + 5 + 1 + 3 + 1) + 4


def test_a_few_combinations_are_composed_by_hydra_alone(conf: Path) -> None:
    few = {**CHOICES, "batch_size": ("1",), "allocator.env.A": ("1",)}
    assert len(combinations(few)) < LEAST
    assert check(few, conf) == len(combinations(few))


def masked(values: Mapping[str, str]) -> Composed:
    """ipex=on would set warmup, which shows with one of the allocators only."""
    resolved = dict(by_hydra(values).resolved)
    if values["ipex"] == "on" and values["allocator"] == "tcmalloc":
        resolved["warmup"] = 99
    return Composed(resolved, resolved)


def elsewhere(values: Mapping[str, str]) -> Composed:
    """ipex=on sets warmup."""
    resolved = dict(by_hydra(values).resolved)
    return Composed(*[{**resolved, "warmup": 99} if values["ipex"] == "on" else resolved] * 2)


def unknown(values: Mapping[str, str]) -> Composed:
    """A reference that only OmegaConf can resolve."""
    composed = by_hydra(values)
    return Composed({**composed.written, "mlruns": "${oc.env:HOME}"}, composed.resolved)


def as_number(values: Mapping[str, str]) -> Composed:
    """A reference whose value has another type where it is referred to."""
    composed = by_hydra(values)
    return Composed({**composed.written, "limit": "${warmup}"}, {**composed.resolved, "limit": float(values["warmup"])})


@pytest.mark.parametrize("compose", [masked, elsewhere, unknown, as_number])
def test_where_one_part_depends_on_another_hydra_composes_every_combination(conf: Path, compose: Compose) -> None:
    assert check(CHOICES, conf, compose) >= len(combinations(CHOICES))


def test_an_added_cell_with_a_value_of_its_own_is_composed_with_it(conf: Path) -> None:
    hydra = Hydra()
    combiner = Combiner([CHOICES, {"batch_size": ["7"]}], hydra, [conf])
    added = {**combinations(CHOICES)[0], "batch_size": "7"}
    assert combiner(added) == by_hydra(added).resolved


def test_a_refusal_is_hydra_s_own(conf: Path) -> None:
    def refuses(values: Mapping[str, str]) -> Composed:
        if values["ipex"] == "on":
            raise RunnerError("ipex=on: no")
        return by_hydra(values)

    combiner = Combiner([{**CHOICES, "ipex": ("off", "nosuch", "on")}], refuses, [conf])
    with pytest.raises(RunnerError, match="ipex=on: no"):
        combiner({**combinations(CHOICES)[0], "ipex": "on"})


# Runs in a process of its own, because Hydra has one state per process.
REAL = """
import random, sys
from runner.commands import sweep
from runner.matrix.rules import combinations
import runner.sweep.run
from runner.config import schema
composed = []
typed_plain = schema.typed_plain
def compare(request, compose, launch):
    sweeper = compose.__closure__
    combiner = next(cell.cell_contents for cell in sweeper if type(cell.cell_contents).__name__ == "Combiner")
    hydra = combiner._compose
    def counted(values):
        composed.append(values)
        return hydra(values)
    combiner._compose = counted
    every = combinations(request.choices)
    configs = [compose([f"{key}={value}" for key, value in one.items()]) for one in every]
    print(len(every), len(composed), combiner._is_combining)
    for number in random.Random(1).sample(range(len(every)), 8):
        assert typed_plain(hydra(every[number]).resolved) == configs[number], every[number]
    return 0
runner.sweep.run.run_sweep = compare
sys.argv = ["runner"]
sys.exit(sweep.main(sys.argv[:0] + %r))
"""


@pytest.mark.slow
def test_the_shipped_axes_are_independent_of_each_other() -> None:
    words = [
        "-m", "model=tiny,bert_base_uncased", "allocator=ptmalloc,jemalloc", "ipex=off,on", "precision=fp32,bf16",
        "graph=eager,compile", "warmup=2,3", "scenario=inference,torchserve", "model.kwargs.x=1,2",
    ]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", REAL % words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    every, composed, is_combining = done.stdout.splitlines()[-1].split()
    assert (is_combining, int(composed) < int(every) / 10) == ("True", True)
