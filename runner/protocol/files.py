"""The bytes and the text of a stored file, bounded: a file that is too large, not regular or not text is refused.

The bytes have no meaning here; runner.protocol.strict_json and runner.protocol.stored make values of them.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import zlib
from pathlib import Path

from runner.protocol.errors import FormatError

# A larger file is refused and not read. The result of a million iterations has 25 MB.
LIMIT_BYTES = 256 * 2**20
# How much of a long log is read at its beginning and at its end.
LOG_BYTES = 2**20


def read_bytes(path: Path, limit: int = LIMIT_BYTES) -> bytes:
    """The whole file.

    Raises:
        FormatError: it can't be read, is not a regular file, or has more than ``limit`` bytes.
    """
    try:
        # Opening a FIFO would wait for its other end.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - a descriptor
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise FormatError(f"{path} is not a regular file")
            size = os.fstat(file.fileno()).st_size
            data = file.read(limit + 1) if size <= limit else b""
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from error
    if max(size, len(data)) > limit:  # a file that grows has more than its size said
        raise FormatError(f"{path} is larger than {limit / 2**20:g} MiB, which no file of this kind is")
    return data


def read_text(path: Path, limit: int = LIMIT_BYTES, errors: str = "strict") -> str:
    """The whole file as UTF-8.

    Raises:
        FormatError: see `read_bytes`; or it is not UTF-8, unless ``errors`` says otherwise.
    """
    try:
        return read_bytes(path, limit).decode(errors=errors)
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} can't be read: it is not UTF-8 at byte {error.start}") from error


def read_gzip(path: Path, limit: int = LIMIT_BYTES) -> bytes:
    """The unpacked bytes of a gzip file.

    Raises:
        FormatError: it can't be read, or holds more than ``limit`` bytes.
    """
    packed = read_bytes(path, limit)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            data = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"{path} can't be read: {error}") from error
    if len(data) > limit:
        raise FormatError(f"{path} holds more than {limit / 2**20:g} MiB, which no file of this kind does")
    return data


def log_text(path: Path) -> str:
    """A log: all of it, or the beginning and the end of a long one; empty when it is missing."""
    try:
        with path.open("rb") as file:
            data = file.read(LOG_BYTES)
            size = os.fstat(file.fileno()).st_size
            if size > len(data):
                file.seek(max(len(data), size - LOG_BYTES))
                data += b"\n" + file.read(LOG_BYTES)
    except OSError:
        return ""
    return data.decode(errors="replace")
