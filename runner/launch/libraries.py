"""The real files of the allocator's and OpenMP's shared libraries on this machine.

Both launchers look for the exact name ``lib<stem>.so``. If it is missing, as on Debian, which ships
``libjemalloc.so.2`` only, they fall back to the default allocator with exit status 0. So the runner finds the file
itself, refuses a cell without one, and gives the launcher a link with the expected name.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from runner.machine.installation import IPEX_EXTRA
from runner.protocol.cell import Cell
from runner.protocol.errors import LibraryMissingError

# stem -> command line that installs the library
INSTALL = {
    "jemalloc": "apt-get install libjemalloc2",
    "mimalloc": "apt-get install libmimalloc2.0",
    "tcmalloc": "apt-get install libgoogle-perftools4",
    "tcmalloc_minimal": "apt-get install libtcmalloc-minimal4",
    "iomp5": IPEX_EXTRA,
}


def search_path(caller: Mapping[str, str], python: str) -> tuple[Path, ...]:
    """The folders to search: those of the launchers in their order, then the multi-arch ones of Debian and Fedora."""
    own = [Path(python).parent.parent]
    own += [Path(caller[name]) for name in ("CONDA_PREFIX", "VIRTUAL_ENV") if caller.get(name)]
    system = ["/usr/local/lib", "/usr/local/lib64", "/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/lib64"]
    home = [Path(caller["HOME"]) / ".local"] if caller.get("HOME") else []
    # What the runner is installed with serves a worker of another torch build too.
    runners = [Path(sys.executable).parent.parent]
    folders = [prefix / "lib" for prefix in own + home + runners] + [Path(folder) for folder in system]
    return tuple(dict.fromkeys(folders))


def find(stem: str, folders: tuple[Path, ...]) -> Path | None:
    """The real file of ``lib<stem>.so`` or of its highest version ``lib<stem>.so.N``; None if no folder has it.

    ``libtcmalloc_minimal.so.4`` is another library, and is not taken for ``libtcmalloc.so``.
    """
    name = re.compile(rf"lib{re.escape(stem)}\.so(?P<version>(\.\d+)*)")
    for folder in folders:
        versions = []
        for file in folder.glob(f"lib{stem}.so*"):
            match = name.fullmatch(file.name)
            if match and file.exists():
                versions.append(([int(n) for n in match["version"].split(".")[1:]], file))
        if versions:
            return max(versions)[1].resolve()
    return None


def find_for_cell(cell: Cell, folders: tuple[Path, ...]) -> dict[str, Path]:
    """Find the libraries that must be preloaded for ``cell``: stem -> real file, the allocator first.

    Raises:
        LibraryMissingError: a library is not installed; the message has the command line that installs it.
    """
    stems = []
    if cell.allocator.library != "glibc":
        stems.append((f"allocator={cell.allocator.name}", cell.allocator.library))
    if cell.openmp == "intel":
        stems.append((f"openmp={cell.openmp}", "iomp5"))
    files = {}
    for option, stem in stems:
        file = find(stem, folders)
        if file is None:
            raise LibraryMissingError(
                f"{option}: lib{stem}.so is not in any of {', '.join(map(str, folders))}; "
                f"install it with: {INSTALL[stem]}"
            )
        files[stem] = file
    return files
