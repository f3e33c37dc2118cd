"""A disk that is full: told before a job is lost to it, and never taken for the job's own fault."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.protocol.errors import StorageError

# A job with all captures leaves some 20 MB in its folder and once more in MLflow's artifacts.
LEAST_FREE_BYTES = 64 * 2**20

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


def check(folder: Path) -> None:
    """
    Raises:
        StorageError: a job's files would not fit.
    """
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE_BYTES:
        needed = f"{LEAST_FREE_BYTES / 2**20:.0f} MB"
        raise StorageError(f"{folder}: {free / 2**20:.1f} MB are free and a job wants {needed}; make room")


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk, and not the job, is at fault."""
    return isinstance(error, OSError) and error.errno in _FULL


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """
    Raises:
        StorageError: instead of the OSError of a disk that takes no more.
    """
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise StorageError(f"{folder}: can't be written ({error.strerror}); make room") from error
