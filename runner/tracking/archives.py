"""The files of a job as one artifact of its sweep's run, from which its folder can be made again on another machine.

A server gets one file per job instead of a dozen: each costs it a request. What the archive holds is data: JSON, logs,
tables and traces, and nothing that is unpickled.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from runner.protocol.errors import RunnerError
from runner.results.ledger import CELL_FILE
from runner.tracking.connection import Connection

# The folder of the archives among a sweep's artifacts.
FOLDER = "jobs"
_SUFFIX = ".tar.gz"
# More than this is no job's.
_MOST_BYTES = 4 << 30


def upload(mlflow: Connection, run_id: str, sweep: Path, job: Path) -> None:
    """Upload the folder of a round or of the captures, with the entry of its cell.

    Args:
        run_id: the sweep's run.
        sweep: the sweep's folder.
        job: the job's folder in it.
    """
    with tempfile.TemporaryDirectory(prefix="runner-archive-") as temporary:
        archive = Path(temporary) / f"{job.name}{_SUFFIX}"
        with tarfile.open(archive, "w:gz", compresslevel=6) as packed:
            for file in [job.parent / CELL_FILE, *_files(job)]:
                packed.add(file, str(file.relative_to(sweep)), recursive=False)
        mlflow.client.log_artifact(run_id, str(archive), f"{FOLDER}/{job.parent.name}")


def _files(folder: Path) -> Iterator[Path]:
    """The regular files below a folder, without links and hidden ones."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _files(path)
        elif path.is_file():
            yield path


def unpack(archive: Path, sweep: Path) -> None:
    """Make the folder of a job again.

    Raises:
        RunnerError: the archive is damaged, or holds something other than files of a cell.
    """
    try:
        with tarfile.open(archive, "r:gz") as packed:
            left = _MOST_BYTES
            for member in packed:
                path = PurePosixPath(member.name)
                left -= member.size
                is_inside = path.parts[:1] == ("cells",) and ".." not in path.parts and not path.is_absolute()
                content = packed.extractfile(member) if member.isreg() else None
                if content is None or not is_inside or left < 0:
                    raise RunnerError(f"{archive.name}: {member.name[:200]!r} is no file of a cell")
                target = sweep / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.read())
    except (tarfile.TarError, EOFError, OSError) as error:
        raise RunnerError(f"{archive.name} can't be unpacked: {error}") from error


def is_one(file: Path) -> bool:
    """Whether a downloaded file is an archive of a job."""
    return file.name.endswith(_SUFFIX)
