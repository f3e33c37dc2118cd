"""A PostgreSQL and an MLflow server of one's own: real ones, for benchmarks and tests, gone when they are done."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The administrator's, of every server that this process starts.
PASSWORD = secrets.token_hex(12)
ADMIN = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD}


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Server:
    """An MLflow server over a folder, which answers as soon as this returns.

    Args:
        folder: of its log, its artifacts and, without another database, its SQLite file.
        port: where it listens on this machine.
        database: SQLAlchemy's address of another database.
        with_password: whether it asks for a name and a password, by the configuration of docs/server.md.
        workers: its processes.

    Raises:
        TimeoutError: it did not answer within 90 s; the message has the end of its log.
    """

    def __init__(
        self, folder: Path, port: int, database: str = "", with_password: bool = False, workers: int = 1
    ) -> None:
        self.uri = f"http://127.0.0.1:{port}"
        words = ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
        words += ["--backend-store-uri", database or f"sqlite:///{folder}/server.db"]
        words += ["--artifacts-destination", str(folder / "artifacts")]
        env = {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        }
        if with_password:
            words += ["--app-name", "basic-auth"]
            env |= authentication(folder)
        log = folder / "server.log"
        with log.open("a") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *words],
                env={**os.environ, **env}, cwd=folder, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        try:
            wait_for(lambda: answers(f"{self.uri}/health"), 90, "the MLflow server", log)
        except TimeoutError:
            self.end()
            raise

    def end(self) -> None:
        """Kill it; what it has answered is written."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def authentication(folder: Path) -> Mapping[str, str]:
    """The environment of a server that asks for passwords: the configuration in docs/server, its users in a folder."""
    shipped = (ROOT / "docs/server/basic_auth.ini").read_text(encoding="utf-8")
    (folder / "basic_auth.ini").write_text(shipped.replace("basic_auth.db", f"{folder}/basic_auth.db"))
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "basic_auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
    }


def has_postgres() -> bool:
    """Whether a PostgreSQL is installed where Debian puts it."""
    return bool(_programs())


def _programs() -> list[Path]:
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL over a new folder, with an empty database; yields SQLAlchemy's address of that database.

    Raises:
        FileNotFoundError: PostgreSQL is not installed.
        TimeoutError: it did not start within 30 s.
    """
    if not has_postgres():
        raise FileNotFoundError("PostgreSQL is not installed: apt-get install postgresql")
    programs = _programs()[-1]
    folder.mkdir(parents=True)
    # PostgreSQL refuses to run as root.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres")
    data, port, log = folder / "data", free_port(), folder / "log"
    made = [str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "mlflow", "--locale=C", "-E", "UTF8"]
    subprocess.run([*as_user, *made], cwd=folder, check=True, capture_output=True)
    words = ["-D", str(data), "-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1"]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*as_user, str(programs / "postgres"), *words], cwd=folder, stdout=file, stderr=file, start_new_session=True
        )
    try:
        ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        wait_for(lambda: subprocess.run(ready, check=False).returncode == 0, 30, "PostgreSQL", log)
        make = [str(programs / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "mlflow", "mlflow"]
        subprocess.run(make, check=True, capture_output=True)
        yield f"postgresql+psycopg://mlflow@127.0.0.1:{port}/mlflow"
    finally:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((data / "postmaster.pid").read_text().splitlines()[0]), signal.SIGINT)
        process.wait(timeout=30)


def wait_for(happened: Callable[[], bool], timeout_s: float, what: str, log: Path) -> None:
    """Wait until something is there.

    Raises:
        TimeoutError: it was not in time; the message has the end of its log.
    """
    deadline = time.monotonic() + timeout_s
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not start in {timeout_s:g} s:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def answers(address: str) -> bool:
    """Whether a server answers at an address."""
    try:
        urllib.request.urlopen(address, timeout=2).close()  # noqa: S310 - a server of ours
    except OSError:
        return False
    return True
