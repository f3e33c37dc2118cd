"""``python -m runner ui``: MLflow over these results, on the loopback interface, opened on the newest sweep."""

from __future__ import annotations

import argparse
import socket
import threading
import time
import webbrowser
from pathlib import Path

from runner.commands.options import add_mlruns, make_parser
from runner.protocol.errors import RunnerError
from runner.tracking import connection
from runner.tracking.store import Store

_DEFAULT_PORT = 5000


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("ui")
    parser.add_argument(
        "--port",
        metavar="N",
        type=int,
        default=_DEFAULT_PORT,
        help="listen on this port of 127.0.0.1 (default: %(default)s)",
    )
    parser.add_argument("--open", action="store_true", help="open the newest sweep in a browser as well")
    add_mlruns(parser)
    return parser


def main(arguments: list[str]) -> int:
    """Serve MLflow's pages until Ctrl-C."""
    options = _parser().parse_args(arguments)
    if not 1 <= options.port < 1 << 16:
        raise RunnerError(f"--port {options.port}: a port is a number from 1 to 65535")
    store = Store(Path(options.mlruns))
    if not (store.root / "mlflow.db").is_file():
        raise RunnerError(f"--mlruns={options.mlruns}: there is no mlflow.db in it; run a sweep first (make sweep)")
    _check_free(options.port)
    with store.translated_errors():
        links = store.last_pages()
    address = f"http://{connection.UI_HOST}:{options.port}"
    print(f"{address}  opens on the newest sweep; Ctrl-C ends it", flush=True)
    for name, link in links.items():
        print(f"- {name}\n  {link.replace(connection.UI_ADDRESS, address)}", flush=True)
    if options.open:
        threading.Thread(target=_open, args=(options.port, address), daemon=True).start()
    first = next(iter(links.values()), f"{connection.UI_ADDRESS}/#/experiments")
    store.serve(options.port, first.removeprefix(f"{connection.UI_ADDRESS}/"))
    return 0


def _check_free(port: int) -> None:
    """Refuse a port that another program listens on.

    Raises:
        RunnerError: it can't be listened on; the message says what to do.
    """
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((connection.UI_HOST, port))
        except OSError as error:
            raise RunnerError(
                f"--port {port}: can't be used ({error.strerror}); end the program that listens on it, or choose "
                f"another port: --port {port + 1 if port < (1 << 16) - 1 else port - 1}"
            ) from error


def _open(port: int, address: str) -> None:
    """Open the address in the user's browser as soon as something answers there."""
    for _ in range(600):
        with socket.socket() as client:
            if client.connect_ex((connection.UI_HOST, port)) == 0:
                webbrowser.open(address)
                return
        time.sleep(0.1)
