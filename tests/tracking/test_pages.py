"""The first page of MLflow as ``ui`` serves it, and what the views and descriptions are made of."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import mlflow

from runner.tracking import pages, views
from tests.conftest import ask

SWEEP = "20260101-000000-abcd"
BUILD = Path(mlflow.__file__).parent / "server/js/build"


def test_the_first_page_is_mlflows_own_with_one_script_before_all_others() -> None:
    own = (BUILD / "index.html").read_text(encoding="utf-8")
    page = pages.first_page(own, "#/experiments/1")
    script = re.findall(r"<script>.*?</script>", page, re.S)[0]
    assert page.replace(script, "", 1) == own
    assert page.index(script) < page.index("<script ")
    assert 'location.replace("#/experiments/1")' in script


def test_what_the_first_page_chooses_are_keys_that_mlflow_reads() -> None:
    script = "".join(file.read_text(encoding="utf-8") for file in (BUILD / "static/js").glob("main.*.js"))
    page = pages.first_page("<head>", "#/")
    chosen = re.findall(r'"(mlflow\.[^"]*)_v1": ', page)
    assert chosen
    for key in chosen:
        assert f'"{key}"' in script


def test_the_pages_of_a_sweep_are_those_whose_views_are_saved() -> None:
    tags = {f"{views.TAG}{key}": "{}" for key in (SWEEP, f"{SWEEP}-charts", "matrix", "another")}
    saved = {view.key: view.link("http://h/#/experiments/7") for view in views.saved_views(SWEEP, tags)}
    assert list(saved) == [SWEEP, f"{SWEEP}-charts", "matrix"]
    assert saved[f"{SWEEP}-charts"].endswith("&compareRunsMode=CHART")
    assert views.saved_views("20260101-000000-beef", tags) == []


def test_pages_in_a_description_hold_wherever_the_ui_is_served() -> None:
    links = {"the report": "http://127.0.0.1:5000/#/experiments/7/runs/1f/artifacts/report.html"}
    assert views.page_list(links) == "- [the report](#/experiments/7/runs/1f/artifacts/report.html)"


def test_a_port_that_another_program_uses_is_refused_with_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ran = ask("ui", "--port", str(port), "--mlruns", str(tmp_path))
    assert ran.status == 2
    assert f"--port {port}: can't be used" in ran.err
    assert "choose another port" in ran.err
