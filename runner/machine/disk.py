"""A full disk: it is noticed before a job is lost to it, and never taken for a fault of the job."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.protocol.errors import StorageError

# A job with all captures leaves about 20 MB in its folder, and as much in MLflow's artifacts.
LEAST_FREE_BYTES = 64 * 2**20

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


def check(folder: Path) -> None:
    """Refuse to go on if the files of a job would not fit.

    Raises:
        StorageError: the disk has too little space; the message says how much is free and how much a job needs.
    """
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE_BYTES:
        needed = f"{LEAST_FREE_BYTES / 2**20:.0f} MB"
        raise StorageError(f"{folder}: {free / 2**20:.1f} MB are free, and a job needs {needed}; make room there")


def is_full(error: BaseException) -> bool:
    """Whether an error is the disk's fault and not the job's."""
    return isinstance(error, OSError) and error.errno in _FULL


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Report a disk that takes no more as a StorageError.

    Raises:
        StorageError: the block failed because of the disk; it replaces the OSError.
    """
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise StorageError(f"{folder}: it can't be written ({error.strerror}); make room there") from error
