"""The files around the code, for people and programs: what they name exists, and they run what the README says."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner import commands
from tests.conftest import ROOT, ask

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomllib")

GITHUB = ROOT / ".github"
TEMPLATES = sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml"))


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def instructions(name: str) -> list[str]:
    """What follows this word in the Dockerfile, one text per instruction."""
    joined = re.sub(r"\\\n", " ", read("Dockerfile"))
    return [line.partition(" ")[2] for line in joined.splitlines() if line.startswith(f"{name} ")]


def runner_lines(text: str) -> list[list[str]]:
    """The words after ``python -m runner`` of each such command that a text has in backticks or on its own line."""
    found = re.findall(r"(?:`|^)python -m runner ?([^`\n]*)", text, re.M)
    return [shlex.split(words) for words in dict.fromkeys(found)]


def assert_makes(command: str) -> None:
    """Fail unless the command is make with a target of the Makefile."""
    words = shlex.split(command)
    assert words[0] == "make", command
    done = subprocess.run([*words, "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_dockerfile_copies_what_exists_and_sets_up_by_make() -> None:
    [base] = instructions("FROM")
    assert "/" not in base  # no registry is named
    *sources, whole = [source for copied in instructions("COPY") for source in shlex.split(copied)[:-1]]
    assert whole == "."
    for source in sources:
        assert (ROOT / source).exists(), source
    [setup] = [command for command in instructions("RUN") if not command.startswith("apt-get")]
    assert_makes(setup)


def test_the_dockerfile_copies_all_that_the_set_up_reads_before_it() -> None:
    [needed] = re.findall(r"^\$\(READY\): (.*)$", read("Makefile"), re.M)
    sources = {source for copied in instructions("COPY")[:-1] for source in shlex.split(copied)[:-1]}
    assert {name.partition("/")[0] for name in needed.split()} <= sources


def test_a_container_runs_the_runner() -> None:
    [entry], [words] = instructions("ENTRYPOINT"), instructions("CMD")
    assert json.loads(entry)[1:] == ["-m", "runner"]
    assert ask(*json.loads(words)).status == 0


def test_the_dev_container_is_built_from_the_dockerfile_and_set_up_by_make() -> None:
    file = ROOT / ".devcontainer/devcontainer.json"
    container = json.loads(file.read_text(encoding="utf-8"))
    assert (file.parent / container["build"]["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert (file.parent / container["build"]["context"]).resolve() == ROOT
    assert_makes(container["postCreateCommand"])


def test_each_hook_before_a_commit_is_a_tool_of_the_projects_own_environment() -> None:
    dev = tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"]["dev"]
    tools = {re.split(r"[><=]", need)[0] for need in dev}
    [repository] = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        tool = shlex.split(hook["entry"])[0]
        assert Path(tool).parent == Path(".venv/bin")
        assert Path(tool).name in tools
        assert re.search(rf"^\t{re.escape(tool)}\b", read("Makefile"), re.M)  # `make test` runs it too


def test_the_workflow_runs_the_readmes_test_command() -> None:
    workflow: dict[Any, Any] = yaml.safe_load((GITHUB / "workflows/test.yml").read_text(encoding="utf-8"))
    # YAML 1.1 reads the key `on` as true.
    assert set(workflow[True]) == {"push", "pull_request"}
    assert set(workflow["jobs"]) == {"test", "ray"}
    last = workflow["jobs"]["test"]["steps"][-1]["run"]
    assert last == read(".ci/run").splitlines()[-1]
    assert re.search(rf"^{re.escape(last)}\b", read("README.md"), re.M)


def test_the_workflow_has_the_system_of_the_dockerfile() -> None:
    jobs = yaml.safe_load((GITHUB / "workflows/test.yml").read_text(encoding="utf-8"))["jobs"]
    for job in jobs.values():
        assert job["container"]["image"] == instructions("FROM")[0]
        [install] = re.findall(r"apt-get install.*", job["steps"][0]["run"])
        assert install in instructions("RUN")[0]


def test_the_workflow_tests_ray_as_a_contributor_does() -> None:
    steps = yaml.safe_load((GITHUB / "workflows/test.yml").read_text(encoding="utf-8"))["jobs"]["ray"]["steps"]
    contributing = read("CONTRIBUTING.md")
    for step in steps[-2:]:
        assert step["run"].replace("python3 ", "python ") in contributing


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_an_issue_template_asks_questions_that_differ(path: Path) -> None:
    template = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.stem == "config":
        assert set(template) == {"blank_issues_enabled"}
        return
    assert {"name", "description", "body"} <= set(template)
    assert len({field["id"] for field in template["body"]}) == len(template["body"])
    for words in runner_lines(re.sub(r'"What this prints: (.*)"', r"`\1`", path.read_text(encoding="utf-8"))):
        assert words[0] in commands.COMMANDS


def test_the_pull_request_template_names_files_that_exist() -> None:
    text = (GITHUB / "PULL_REQUEST_TEMPLATE.md").read_text(encoding="utf-8")
    for name in re.findall(r"[\w/]+\.md", text):
        assert name == "report.md" or (ROOT / name).is_file(), name
    [command] = re.findall(r"`(make [^`]*)`", text)
    assert_makes(command)


@pytest.mark.parametrize("words", runner_lines(read("llms.txt")), ids=" ".join)
def test_each_command_of_llms_is_understood(words: list[str], tmp_path: Path) -> None:
    if words[0] in commands.COMMANDS:
        ran = ask(words[0], "--help")
        assert ran.status == 0
        for option in [word for word in words if word.startswith("--")]:
            assert option in ran.out
    else:
        nothing_runs = [] if words == ["--help"] else [f"mlruns={tmp_path}", "--dry-run"]
        ran = ask(*dict.fromkeys([*words, *nothing_runs]))
        assert ran.status == 0, ran.err


def test_a_docker_build_gets_no_file_that_git_ignores() -> None:
    patterns = {f"**/{line.rstrip('/')}" for line in read(".gitignore").splitlines()}
    assert patterns == set(read(".dockerignore").splitlines())
