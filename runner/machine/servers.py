"""What a served cell needs beside torch: Java, the server's package, a load generator; tried, for their versions."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from runner.machine import execute
from runner.machine.host import version_of
from runner.machine.installation import SERVING_EXTRA
from runner.matrix.cell import Cell
from runner.protocol.errors import RunnerError

# TorchServe 0.12's frontend is compiled for it.
_LEAST_JAVA = 17


@dataclass(frozen=True)
class Tool:
    """One program or package."""

    name: str
    version: str | None
    """None when it is not here, or too old."""
    install: str
    """The line that installs it."""


@functools.cache
def java() -> Tool:
    """The Java runtime on PATH."""
    # Its version goes to stderr: openjdk version "17.0.15" 2025-04-15
    found = re.search(r'version "((\d+)[^"]*)"', execute.run_short(["java", "-version"]).err)
    is_new = found is not None and int(found[2]) >= _LEAST_JAVA
    return Tool(f"java {_LEAST_JAVA}", found[1] if found and is_new else None, "apt-get install default-jre-headless")


@functools.cache
def torchserve() -> Tool:
    """The Python package, which brings the frontend along."""
    return Tool("torchserve", version_of("torchserve"), SERVING_EXTRA)


@functools.cache
def ab() -> Tool:
    """apache-bench, which also warms up for the other generators."""
    found = re.search(r"ApacheBench, Version (\S+)", execute.run_short(["ab", "-V"]).out)
    return Tool("ab", found[1] if found else None, "apt-get install apache2-utils")


@functools.cache
def h2load() -> Tool:
    """nghttp2's load generator."""
    found = re.search(r"nghttp2/(\S+)", execute.run_short(["h2load", "--version"]).out)
    return Tool("h2load", found[1] if found else None, "apt-get install nghttp2-client")


def needed(cell: Cell) -> Mapping[str, Tool]:
    """Option -> tools of a cell: none in scenario=inference."""
    if not cell.scenario.is_served:
        return {}
    scenario = f"scenario={cell.scenario.name}"
    tools = {f"{scenario} (Java)": java(), scenario: torchserve(), "load=ab": ab()}
    return tools | ({"load=h2load": h2load()} if cell.load.name == "h2load" else {})


def require(cell: Cell) -> None:
    """Refuse a cell whose tools are not here.

    Raises:
        RunnerError: the first that is missing, with the line that installs it.
    """
    for option, tool in needed(cell).items():
        if tool.version is None:
            raise RunnerError(f"{option}: {tool.name} is not here; install it with: {tool.install}")


def versions(cell: Cell) -> dict[str, str]:
    """What a served cell's result depends on beside."""
    return {tool.name: str(tool.version) for tool in needed(cell).values()}
