"""The tools that a served cell needs besides torch: Java, the server's package, load generators, and their versions."""

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

# TorchServe 0.12's frontend is compiled for Java 17.
_LEAST_JAVA = 17


@dataclass(frozen=True)
class Tool:
    """A program or a package."""

    name: str
    version: str | None
    """The version; None if the tool is not installed or too old."""
    install: str
    """The command line that installs the tool."""


@functools.cache
def java() -> Tool:
    """The Java runtime on PATH."""
    # The version goes to stderr: openjdk version "17.0.15" 2025-04-15
    version = re.search(r'version "((\d+)[^"]*)"', execute.run_short(["java", "-version"]).err)
    if version and int(version[2]) < _LEAST_JAVA:
        version = None
    return Tool(f"java {_LEAST_JAVA}", version[1] if version else None, "apt-get install default-jre-headless")


@functools.cache
def torchserve() -> Tool:
    """TorchServe's Python package, which includes the frontend."""
    return Tool("torchserve", version_of("torchserve"), SERVING_EXTRA)


@functools.cache
def ab() -> Tool:
    """ApacheBench, which also sends the warm-up requests for the other load generators."""
    version = re.search(r"ApacheBench, Version (\S+)", execute.run_short(["ab", "-V"]).out)
    return Tool("ab", version[1] if version else None, "apt-get install apache2-utils")


@functools.cache
def h2load() -> Tool:
    """The load generator of nghttp2."""
    version = re.search(r"nghttp2/(\S+)", execute.run_short(["h2load", "--version"]).out)
    return Tool("h2load", version[1] if version else None, "apt-get install nghttp2-client")


def tools_of(cell: Cell) -> Mapping[str, Tool]:
    """Option -> tool that the cell needs for it; empty in scenario=inference."""
    if not cell.scenario.is_served:
        return {}
    scenario = f"scenario={cell.scenario.name}"
    tools = {f"{scenario} (Java)": java(), scenario: torchserve(), "load=ab": ab()}
    return tools | ({"load=h2load": h2load()} if cell.load.name == "h2load" else {})


def require(cell: Cell) -> None:
    """Refuse a cell whose tools are not installed.

    Raises:
        RunnerError: a tool is missing; the message has the command line that installs the first one.
    """
    for option, tool in tools_of(cell).items():
        if tool.version is None:
            raise RunnerError(f"{option}: {tool.name} is not installed; install it with: {tool.install}")


def versions(cell: Cell) -> dict[str, str]:
    """Name -> version of the tools that a served cell's result depends on."""
    return {tool.name: str(tool.version) for tool in tools_of(cell).values()}
