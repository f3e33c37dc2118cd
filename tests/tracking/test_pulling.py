"""Sweeps that come home from a server: their folders are made again, and everything works on them as before."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from benchmarks.servers import Server, free_port
from runner.protocol.errors import RunnerError
from runner.results.cells import read
from runner.tracking import archives
from tests.conftest import ask
from tests.test_faults import SMALL


@pytest.mark.slow
def test_a_sweep_comes_home_whole_and_goes_on(tmp_path: Path) -> None:
    server = Server(tmp_path, free_port())
    try:
        there, here = tmp_path / "there", tmp_path / "here"
        words = ["-m", *SMALL, "ipex=off,on", "rounds=2", f"mlruns={there}", f"tracking_uri={server.uri}"]
        ran = ask(*words)
        assert ran.status == 0, ran.out + ran.err
        pulled = ask("pull", ran.sweep.name[:15], f"--mlruns={here}", "--tracking-uri", server.uri)
        assert pulled.status == 0, pulled.out + pulled.err
        sweep = here / "sweeps" / ran.sweep.name

        def files(folder: Path) -> dict[str, bytes]:
            kept = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
            cells = {str(path.relative_to(folder)): path.read_bytes() for path in kept}
            # What Hydra notes of each job, and what the recorder makes for a database, stays there.
            return {name: text for name, text in cells.items() if not name.startswith("hydra/")}

        assert files(sweep) == files(ran.sweep)
        assert len(read([sweep]).rows) == 2
        compared = ask("compare", f"--mlruns={here}")
        assert compared.status == 0, compared.err
        resumed = ask("resume", sweep.name, f"--mlruns={here}", "rounds=3")
        assert resumed.status == 0, resumed.out + resumed.err
        assert len(list(sweep.glob("cells/*/round-*/outcome.json"))) == 6
        missing = ask("pull", "nobody", f"--mlruns={here}", "--tracking-uri", server.uri)
        assert missing.status == 2
        assert "the server has no sweep whose name begins so" in missing.err
    finally:
        server.end()


def archive_of(tmp_path: Path, name: str, **change: object) -> Path:
    file = tmp_path / "round-0.tar.gz"
    with tarfile.open(file, "w:gz") as packed:
        member = tarfile.TarInfo(name)
        member.size = 3
        for key, value in change.items():
            setattr(member, key, value)
        packed.addfile(member, io.BytesIO(b"abc"))
    return file


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("../outside", {}),
        ("cells/../../outside", {}),
        ("/etc/outside", {}),
        ("sweep.json", {}),
        ("cells/a/link", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0}),
    ],
)
def test_an_archive_that_would_write_elsewhere_is_refused(tmp_path: Path, name: str, change: dict[str, object]) -> None:
    sweep = tmp_path / "sweeps" / "s"
    with pytest.raises(RunnerError, match="is no file of a cell"):
        archives.unpack(archive_of(tmp_path, name, **change), sweep)
    assert not list(tmp_path.rglob("outside"))


def test_a_damaged_archive_is_refused_in_a_sentence(tmp_path: Path) -> None:
    whole = archive_of(tmp_path, "cells/a/file")
    archives.unpack(whole, tmp_path / "s")
    assert (tmp_path / "s/cells/a/file").read_bytes() == b"abc"
    whole.write_bytes(whole.read_bytes()[:20])
    with pytest.raises(RunnerError, match="can't be unpacked"):
        archives.unpack(whole, tmp_path / "s")
