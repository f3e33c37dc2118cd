"""MLflow's pages as ``python -m runner ui`` serves them: its own server in one process, and where it opens.

MLflow has no settings for what its pages show first: each browser keeps that (localStorage), and a new one gets the
pages for generative AI, an assistant over a quarter of the screen, and a notice about telemetry, which is off here. So
the first page sets these once, before MLflow reads them, where the browser has no choice of its own.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from runner.tracking import connection  # first: it sets what MLflow reads when it is imported

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import HTMLResponse

# Key of MLflow 3.17 in localStorage -> its value, as JSON.
_FIRST_CHOICES = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.telemetry.info.alert.dismissed_v1": "true",
}
_HEAD = "<head>"
_SCRIPT = """<script>
for (const [key, value] of Object.entries(CHOICES)) {
  if (localStorage.getItem(key) === null) localStorage.setItem(key, value);
}
if (!location.hash) location.replace(PAGE);
</script>"""


def first_page(page: str, link: str) -> str:
    """MLflow's page, which goes to a link of its own if it is opened without one.

    Args:
        page: the HTML of MLflow's page.
        link: where to go, such as ``#/experiments/1``.
    """
    script = _SCRIPT.replace("CHOICES", json.dumps(_FIRST_CHOICES)).replace("PAGE", json.dumps(link))
    return page.replace(_HEAD, _HEAD + script, 1)


def serve(uri: str, port: int, link: str) -> None:
    """Serve MLflow's pages on the loopback interface until SIGINT or SIGTERM.

    Args:
        uri: the tracking URI of the database.
        port: the TCP port.
        link: where the pages open, such as ``#/experiments/1``.
    """
    os.environ["MLFLOW_TRACKING_URI"] = os.environ["MLFLOW_REGISTRY_URI"] = uri
    # Of the GenAI features, whose processes would be ten more.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    warnings.simplefilter("ignore")  # on what MLflow's server uses
    from mlflow.server import constants

    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = os.environ[constants.REGISTRY_STORE_URI_ENV_VAR] = uri

    import mlflow.server
    import uvicorn
    from mlflow.server.fastapi_app import app
    from starlette.responses import HTMLResponse
    from starlette.routing import Route

    page = first_page(Path(mlflow.server.app.static_folder or "", "index.html").read_text(encoding="utf-8"), link)

    def answer(request: Request) -> HTMLResponse:
        return HTMLResponse(page, headers={"Cache-Control": "no-cache"})

    app.router.routes.insert(0, Route("/", answer))
    uvicorn.run(app, host=connection.UI_HOST, port=port, log_level="warning")
