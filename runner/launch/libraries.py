"""Where the allocator's and OpenMP's shared libraries really are on this machine.

Both launchers look for the exact name ``lib<stem>.so`` and fall back to the default allocator with
exit 0 when it is missing, as on Debian, which ships ``libjemalloc.so.2`` only. So the runner finds
the file itself, refuses a cell without one, and puts a link of the expected name before the launcher.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from runner.machine.installation import IPEX_EXTRA
from runner.matrix.cell import Cell
from runner.protocol.errors import LibraryMissingError

# stem -> what installs it
INSTALL = {
    "jemalloc": "apt-get install libjemalloc2",
    "tcmalloc": "apt-get install libgoogle-perftools4",
    "iomp5": IPEX_EXTRA,
}


def search_path(caller: Mapping[str, str], python: str) -> tuple[Path, ...]:
    """Folders in the launchers' order, then the multi-arch ones of Debian and Fedora."""
    own = [Path(python).parent.parent]
    own += [Path(caller[name]) for name in ("CONDA_PREFIX", "VIRTUAL_ENV") if caller.get(name)]
    system = ["/usr/local/lib", "/usr/local/lib64", "/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/lib64"]
    home = [Path(caller["HOME"]) / ".local"] if caller.get("HOME") else []
    folders = [prefix / "lib" for prefix in own + home] + [Path(folder) for folder in system]
    return tuple(dict.fromkeys(folders))


def find(stem: str, folders: tuple[Path, ...]) -> Path | None:
    """The real file of ``lib<stem>.so`` or its highest version ``lib<stem>.so.N``; None when no folder has it.

    ``libtcmalloc_minimal.so.4`` is another library and is not taken for ``libtcmalloc.so``.
    """
    name = re.compile(rf"lib{re.escape(stem)}\.so(?P<version>(\.\d+)*)")
    for folder in folders:
        found = []
        for file in folder.glob(f"lib{stem}.so*"):
            match = name.fullmatch(file.name)
            if match and file.exists():
                found.append(([int(n) for n in match["version"].split(".")[1:]], file))
        if found:
            return max(found)[1].resolve()
    return None


def for_cell(cell: Cell, folders: tuple[Path, ...]) -> dict[str, Path]:
    """The libraries that must be preloaded for ``cell``: stem -> real file, allocator first.

    Raises:
        LibraryMissingError: one is not installed; the message has the line that installs it.
    """
    wanted = []
    if cell.allocator.library != "glibc":
        wanted.append((f"allocator={cell.allocator.name}", cell.allocator.library))
    if cell.openmp == "intel":
        wanted.append((f"openmp={cell.openmp}", "iomp5"))
    found = {}
    for option, stem in wanted:
        file = find(stem, folders)
        if file is None:
            raise LibraryMissingError(
                f"{option}: lib{stem}.so is in none of {', '.join(map(str, folders))}; install it with: {INSTALL[stem]}"
            )
        found[stem] = file
    return found
