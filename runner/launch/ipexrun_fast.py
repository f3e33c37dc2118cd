"""Run the installed IPEX launcher unchanged, without the 13 s of importing torch and IPEX.

The launcher's modules need neither, but importing them by name imports their package first. So the packages on the
way are replaced by empty package objects with the right ``__path__``. This file is run as a script by its path, and
takes the arguments of ``ipexrun``. If the launcher can't be imported this way (as in another IPEX version), the plain
``ipexrun`` is started instead, with a line on stderr that says so.
"""

import importlib.machinery
import os
import sys
import types
from pathlib import Path
from typing import Any

PACKAGE = "intel_extension_for_pytorch"


def _empty_package(name: str, path: Path) -> None:
    module = types.ModuleType(name)
    module.__path__ = [str(path)]
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    sys.modules[name] = module


def _installed() -> Path:
    for entry in sys.path[1:]:
        folder = Path(entry) / PACKAGE
        if (folder / "launcher.py").is_file():
            return folder
    sys.exit(f"{PACKAGE} is not installed for {sys.executable}; choose launcher=xeon or launcher=none")


def main() -> Any:
    """Call the installed launcher's main() and return what it returns."""
    folder = _installed()
    _empty_package(PACKAGE, folder)
    for name in ("cpu", "xpu", "utils"):
        _empty_package(f"{PACKAGE}.{name}", folder / name)
    try:
        from intel_extension_for_pytorch.launcher import main as launcher_main
    except (ImportError, AttributeError) as error:
        print(f"ipexrun_fast: {type(error).__name__}: {error}; starting the plain ipexrun", file=sys.stderr, flush=True)
        plain = str(Path(sys.executable).with_name("ipexrun"))
        os.execv(plain, [plain, *sys.argv[1:]])
    if "torch" in sys.modules:
        print(
            "ipexrun_fast: the launcher imported torch after all, so that it is not faster than the plain ipexrun",
            file=sys.stderr,
        )
    return launcher_main()


if __name__ == "__main__":
    sys.exit(main())
