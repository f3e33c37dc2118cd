"""A team's server as docs/server.md has it: MLflow on a real PostgreSQL, with names, passwords and permissions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import requests
from mlflow.tracking import MlflowClient

from benchmarks.servers import ADMIN, PASSWORD, Server, free_port, has_postgres, postgres
from tests.conftest import ask
from tests.test_faults import SMALL

pytestmark = [
    pytest.mark.slow,
    pytest.mark.integration,
    pytest.mark.skipif(not has_postgres(), reason="not installed: postgresql (see make test)"),
]

OTHER = {"MLFLOW_TRACKING_USERNAME": "guest", "MLFLOW_TRACKING_PASSWORD": "the-password-of-a-guest"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    # PostgreSQL has a user of its own, who can't enter the folders of these tests.
    with TemporaryDirectory(prefix="runner-server-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with postgres(folder / "postgres") as database:
            one = Server(folder, free_port(), database, with_password=True)
            try:
                yield one
            finally:
                one.end()


@pytest.fixture(scope="module")
def guest(server: Server) -> Mapping[str, str]:
    """The environment of a user who may read what others recorded, and make experiments of his own."""
    made = requests.post(
        f"{server.uri}/api/2.0/mlflow/users/create",
        auth=("admin", PASSWORD),
        json={"username": OTHER["MLFLOW_TRACKING_USERNAME"], "password": OTHER["MLFLOW_TRACKING_PASSWORD"]},
        timeout=30,
    )
    assert made.status_code == 200, made.text
    return OTHER


def test_a_team_records_reads_and_is_kept_from_what_is_not_its_own(
    server: Server, guest: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = f"tracking_uri={server.uri}"
    stranger = ask("-m", *SMALL, f"mlruns={tmp_path / 'none'}", there)
    assert stranger.status == 2
    assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in stranger.err
    assert not (tmp_path / "none" / "sweeps").exists()

    ran = ask("-m", *SMALL, "ipex=off,on", "rounds=2", f"mlruns={tmp_path / 'own'}", there, env=ADMIN)
    assert ran.status == 0, ran.out + ran.err
    assert PASSWORD not in ran.out + ran.err
    kept = [file for file in ran.sweep.rglob("*") if file.is_file()]
    assert not [file for file in kept if PASSWORD.encode() in file.read_bytes()]
    for name, value in ADMIN.items():
        monkeypatch.setenv(name, value)
    client = MlflowClient(tracking_uri=server.uri)
    runs = client.search_runs(["1"], f"tags.sweep_id = '{ran.sweep.name}'")
    assert sorted((run.data.tags["kind"], run.info.status) for run in runs) == [
        ("cell", "FINISHED"), ("cell", "FINISHED"), ("sweep", "FINISHED"),
    ]  # fmt: skip

    # Whoever may read takes it home, and reads it there.
    home = tmp_path / "home"
    pulled = ask("pull", ran.sweep.name, f"--mlruns={home}", "--tracking-uri", server.uri, env=guest)
    assert pulled.status == 0, pulled.out + pulled.err
    compared = ask("compare", f"--mlruns={home}")
    assert compared.status == 0, compared.err
    # And records nothing among what is others'.
    refused = ask("import", str(ran.sweep), f"--mlruns={tmp_path / 'own'}", "--tracking-uri", server.uri, env=guest)
    assert refused.status != 0
    assert "does not let this user do that" in refused.err + refused.out
