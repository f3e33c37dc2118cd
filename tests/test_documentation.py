"""Every command of the README and of docs/ is run as it stands, on a tiny workload, and every link leads somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import ROOT, Runner, ask
from tests.test_project_files import assert_makes

README = ROOT / "README.md"
# Recorded facts and reasons, whose commands are those of their day.
HISTORY = {"decisions.md"}
PAGES = [README, *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name not in HISTORY)]
LINKED = sorted(page for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "llms.txt") for page in ROOT.glob(pattern))


def lines(page: Path) -> list[str]:
    """The command lines in a page's ``sh`` blocks, without comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    return [line.split("   #")[0].split("  #")[0].strip() for block in blocks for line in block.splitlines()]


ALL = {line for page in PAGES for line in lines(page)}
MAKE = sorted(line for line in ALL if line.startswith("make "))
# These have tests of their own: commands, experiments and models in one word (tests/sweep/test_experiments.py), and
# other torch builds (tests/sweep/test_torch_builds.py).
COMMANDS = "ui|doctor|peak|compare|resume|list|show|delete|import|explain|completion|torch|fleet|pull|--version"
APART = re.compile(rf" ({COMMANDS})( |$)|[ +]experiment=| torch=|model=\S*[:/]")
SWEEPS = sorted(line for line in ALL if line.startswith("python -m runner") and not APART.search(line))


def test_the_readme_has_its_two_set_up_commands() -> None:
    assert {"make sweep", "make test"} <= set(lines(README))


def test_the_readme_is_short_and_leads_on() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert len(set(re.findall(r"\]\((https://[^)]+)\)", text))) >= 8
    assert {page.name for page in PAGES[1:]} == set(re.findall(r"\]\(docs/(\w+\.md)\)", text)) - HISTORY


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_each_link_and_picture_is_there(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http", "#")):
            continue
        name, _, heading = target.partition("#")
        file = page.parent / name
        assert file.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.M)
            assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, target


@pytest.mark.parametrize("line", MAKE)
def test_each_make_line_is_a_target(line: str) -> None:
    assert_makes(line)


@pytest.mark.slow
@pytest.mark.parametrize("line", SWEEPS)
def test_each_sweep_runs(run_cli: Runner, line: str) -> None:
    words = shlex.split(line)[3:]
    if {"--help", "--cfg", "--dry-run"} & set(words):
        ran = ask(*words)
    else:
        # As it stands but for the work: its own number of rounds or requests would take an hour.
        words = [word for word in words if not word.startswith(("rounds=", "scenario.requests="))]
        tiny = ["warmup=1", "rounds=1"]
        if "model=bert_base_uncased" in words:
            # Narrow as well: a CPU without instructions for bfloat16 takes seconds for a layer as wide as BERT's.
            tiny += [
                f"+model.kwargs.{size}" for size in ("num_hidden_layers=1", "hidden_size=64", "num_attention_heads=2")
            ]
        else:
            tiny += ["model=tiny", "batch_size=2"]
        if "scenario=torchserve" in words:
            tiny += ["scenario.requests=40", "scenario.concurrency=4"]
        else:
            tiny += ["iterations=3"]
        if not any(word.startswith("capture=") for word in words):
            tiny += ["capture=[]"]
        ran = run_cli(*words, *tiny)
    assert ran.status == 0, ran.out + ran.err
