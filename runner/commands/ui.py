"""``python -m runner ui``: MLflow over these results, on the loopback interface, with two processes."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from runner.commands.options import add_mlruns, make_parser
from runner.protocol.errors import RunnerError
from runner.tracking.store import Store


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("ui")
    parser.add_argument(
        "--port", metavar="N", type=int, default=5000, help="listen on this port of 127.0.0.1 (default: %(default)s)"
    )
    add_mlruns(parser)
    return parser


def main(arguments: list[str]) -> int:
    """Become the MLflow server; returns only when it can't start."""
    options = _parser().parse_args(arguments)
    if not 1 <= options.port < 1 << 16:
        raise RunnerError(f"--port {options.port}: a port is a number from 1 to 65535")
    store = Store(Path(options.mlruns))
    if not (store.root / "mlflow.db").is_file():
        raise RunnerError(
            f"--mlruns={options.mlruns}: no mlflow.db is in it; run a sweep first: python -m runner -m ipex=off,on"
        )
    # Without the job execution of the GenAI features the server is two processes instead of fourteen.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    argv = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri]
    argv += ["--host", "127.0.0.1", "--port", str(options.port), "--workers", "1"]
    print(f"http://127.0.0.1:{options.port}  (Ctrl-C ends it)", flush=True)
    os.execve(sys.executable, argv, environment)
