"""The saved views of MLflow's UI in a real browser: the text that a person sees behind each link of a sweep."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest
from mlflow.entities import Run

from tests.conftest import ROOT, Ran
from tests.sweep.test_sweep import runs_of

pytestmark = pytest.mark.slow

Page = Callable[[str], "list[str]"]


class Text(HTMLParser):
    """The texts of a page, and the addresses of its pictures, in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.unseen += tag in ("script", "style")
        if tag == "img":
            self.texts.append(dict(attrs).get("src") or "")

    def handle_endtag(self, tag: str) -> None:
        self.unseen -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if data.strip() and not self.unseen:
            self.texts.append(" ".join(data.split()))


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium")
    if found is None and not os.environ.get("CI"):
        pytest.skip("chromium is not here; install it with: apt-get install chromium")
    assert found, "chromium is not here, and `make test` installs it"
    return found


@pytest.fixture(scope="module")
def ui(main_job: Ran, faults: Ran, mlruns: Path) -> Iterator[str]:
    """The address of ``python -m runner ui`` over both sweeps."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    words = [sys.executable, "-m", "runner", "ui", "--mlruns", str(mlruns), "--port", str(port)]
    server = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, 9)
        server.wait()


@pytest.fixture(scope="module")
def page(chromium: str, ui: str, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The texts of the page behind a printed link, once it has loaded all it asks for."""
    words = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=3000,3000",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}", "--virtual-time-budget=60000", "--dump-dom",
    ]  # fmt: skip

    def texts(link: str) -> list[str]:
        done = subprocess.run(
            [*words, link.replace("http://127.0.0.1:5000", ui)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=120, check=True,
        )  # fmt: skip
        reader = Text()
        reader.feed(done.stdout)
        return reader.texts

    return texts


def links_of(ran: Ran) -> dict[str, str]:
    """What the end of the sweep says of each link -> the link."""
    return dict(re.findall(r"^- (\S.*)\n  (http://127\.0\.0\.1:5000/\S+)$", ran.out, re.M))


def cells_of(mlruns: Path, ran: Ran) -> list[Run]:
    return runs_of(mlruns, ran.sweep)[2]


def in_order(texts: list[str], names: list[str]) -> list[str]:
    """Those of the texts that are one of the names, each once, in the order of the page."""
    return list(dict.fromkeys(text for text in texts if text in names))


def test_the_view_of_a_sweep_shows_its_cells_fastest_first(main_job: Ran, mlruns: Path, page: Page) -> None:
    texts = page(links_of(main_job)["cells with the right output, fastest first"])
    cells = sorted(cells_of(mlruns, main_job), key=lambda run: run.data.metrics["latency/p50_ms"])
    names = [str(run.info.run_name) for run in cells]
    assert in_order(texts, names) == names
    assert {"latency/p50_ms", "latency/speedup", "allocator", "ipex", "difference", "main_cause", "evidence"} <= set(
        texts
    )
    assert f"{main_job.sweep.name}: fastest first, right output only" in texts


def test_the_ui_opens_on_the_newest_sweep_and_nothing_of_mlflows_own_is_in_the_way(
    main_job: Ran, mlruns: Path, ui: str, page: Page
) -> None:
    client = runs_of(mlruns, main_job.sweep)[0]
    experiments = [found.experiment_id for found in client.search_experiments()]
    sweeps = client.search_runs(experiments, "tags.kind = 'sweep' and attributes.status != 'RUNNING'")
    with socket.socket() as other:  # this machine alone is answered, by the one address
        assert other.connect_ex(("127.0.0.2", int(ui.rpartition(":")[2]))) != 0
    newest = max(sweeps, key=lambda run: run.info.start_time)
    texts = page("http://127.0.0.1:5000/")
    assert any(text.startswith(f"{newest.data.tags['sweep_id']}: ") for text in texts)
    # The assistant's panel, the notice and the page for beginners.
    others = ("Ask questions about your", "Information about UI telemetry", "Welcome to MLflow")
    assert not [text for text in texts if text.startswith(others)]


def test_the_page_of_a_sweep_says_what_was_measured_and_what_came_out_of_it(
    main_job: Ran, mlruns: Path, page: Page
) -> None:
    _, parent, _ = runs_of(mlruns, main_job.sweep)
    texts = page(f"http://127.0.0.1:5000/#/experiments/{parent.info.experiment_id}/runs/{parent.info.run_id}")
    measured = next(line for line in main_job.out.splitlines() if " · torch " in line)
    assert measured in texts
    assert f"get-artifact?path=comparison_small.png&run_uuid={parent.info.run_id}" in texts
    assert "cells with the right output, fastest first" in texts


def test_latency_comes_first_on_the_page_of_a_cell_and_where_two_cells_are_compared(
    main_job: Ran, mlruns: Path, page: Page
) -> None:
    first, second = cells_of(mlruns, main_job)[:2]
    experiment = first.info.experiment_id
    texts = page(f"http://127.0.0.1:5000/#/experiments/{experiment}/runs/{first.info.run_id}")
    assert in_order(texts, list(first.data.metrics))[0] == "latency/p50_ms"
    runs, experiments = (quote(json.dumps(ids)) for ids in ([first.info.run_id, second.info.run_id], [experiment]))
    texts = page(f"http://127.0.0.1:5000/#/compare-runs?runs={runs}&experiments={experiments}")
    assert in_order(texts, list(first.data.metrics))[0] == "latency/p50_ms"


def test_the_view_of_all_sweeps_shows_their_cells_fastest_first(main_job: Ran, mlruns: Path, page: Page) -> None:
    texts = page(links_of(main_job)["all sweeps of this experiment"])
    client, parent, _ = runs_of(mlruns, main_job.sweep)
    cells = client.search_runs(
        [parent.info.experiment_id], "tags.ranked = 'yes'", order_by=["metrics.`latency/p50_ms`"]
    )
    names = [str(run.info.run_name) for run in cells]
    assert len(names) >= 5
    # Of many, what fits on a page of that height.
    assert [text for text in texts if text in names][:20] == names[:20]


def test_the_charts_are_drawn_of_every_cell_with_the_right_output(main_job: Ran, mlruns: Path, page: Page) -> None:
    [link] = [link for says, link in links_of(main_job).items() if says.startswith("charts: ")]
    texts = page(link)
    for title in (
        "Axes against latency", "Parallel Coordinates", "Trade-offs", "latency/p50_ms vs. memory/rss_peak_mb",
        "quality/rel_l2 vs. throughput/samples_per_s", "Median, tail and spread of latency", "latency/p90_ms",
        "latency/cv_pct",
    ):  # fmt: skip
        assert title in texts
    # Once in the list of runs, and again in what is drawn.
    for run in cells_of(mlruns, main_job):
        assert texts.count(str(run.info.run_name)) >= 2


def test_wrong_and_failed_cells_have_a_view_of_their_own_with_the_reasons(
    faults: Ran, mlruns: Path, page: Page
) -> None:
    texts = page(links_of(faults)["failed cells, and cells with the wrong output"])
    cells = cells_of(mlruns, faults)
    shown = {str(run.info.run_name) for run in cells} & set(texts)
    assert shown == {str(run.info.run_name) for run in cells if run.data.tags["ranked"] == "no"}
    assert {"quality", "failure"} <= set(texts)
    for run in cells:
        if run.info.run_name in shown:
            reason = run.data.tags.get("failure") or run.data.tags["quality"]
            assert " ".join(reason.split()) in texts


def test_the_tables_of_two_cells_stand_side_by_side(main_job: Ran, mlruns: Path, page: Page) -> None:
    [link] = [link for says, link in links_of(main_job).items() if "compareRunsMode=ARTIFACT" in link]
    texts = page(link)
    assert {str(run.info.run_name) for run in cells_of(mlruns, main_job)} <= set(texts)
    assert "itt/by_op.json" in texts
