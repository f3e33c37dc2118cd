"""What sweeps differ in besides their axes, and what changes their times: host, versions, settings. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from runner.analysis import hosts
from runner.protocol.cell import ABSENT, owner_of
from runner.protocol.errors import RunnerError
from runner.protocol.torch_build import DISTRIBUTIONS
from runner.results.cells import Cells, Origin

# Packages that do not run in a measured iteration.
_OUTSIDE = {"mlflow", "hydra-core", "numpy"}
HOST, VERSIONS, SETTINGS = "host", "versions", "settings"


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same in all sweeps."""

    kind: str
    """The kind of difference: HOST, VERSIONS or SETTINGS."""
    name: str
    """What differs: ``host_id``, ``torch``, ``warmup``; ``allocator.env of jemalloc`` for what follows an axis."""
    values: Mapping[str, str]
    """Sweep -> value."""

    @property
    def is_of_build(self) -> bool:
        """Whether it is the version of a package that belongs to a torch build."""
        return self.kind == VERSIONS and self.name in DISTRIBUTIONS

    @property
    def is_of_host(self) -> bool:
        """Whether it follows from the host, as the kernel and libc do."""
        return self.kind == HOST or (self.kind == VERSIONS and self.name == "libc")

    @property
    def text(self) -> str:
        """The difference in words, like ``torch 2.8.0 (20261123-150259-2dc7) and 2.9.0 (...)``."""
        sweeps: dict[str, list[str]] = {}
        for sweep, value in self.values.items():
            sweeps.setdefault(value, []).append(sweep)
        texts = [
            f"{value} ({names[0]}{f' and {len(names) - 1} more' if names[1:] else ''})"
            for value, names in sweeps.items()
        ]
        return f"{self.name} {' and '.join(texts)}"


def differences(cells: Cells) -> list[Difference]:
    """Everything that differs between sweeps: hosts first, then versions, then settings."""
    origins = cells.origins
    of_sweeps = _named(HOST, origins, lambda origin: {"host_id": origin.host_id, **origin.state})
    of_sweeps += _named(VERSIONS, origins, lambda o: {k: v for k, v in o.versions.items() if k not in _OUTSIDE})
    return of_sweeps + _settings(cells)


def _named(kind: str, origins: Sequence[Origin], of: Callable[[Origin], Mapping[str, str]]) -> list[Difference]:
    tables = {origin.sweep: of(origin) for origin in origins}
    names = dict.fromkeys(name for table in tables.values() for name in table)
    values = {name: {sweep: table.get(name, ABSENT) for sweep, table in tables.items()} for name in names}
    return [Difference(kind, name, value) for name, value in values.items() if len(set(value.values())) > 1]


def _settings(cells: Cells) -> list[Difference]:
    """Settings whose values differ between sweeps; those of an axis's value, between the sweeps that have it."""
    # (setting, value of its axis) -> sweep -> its values there.
    values_of: dict[tuple[str, str], dict[str, set[str]]] = {}
    names = dict.fromkeys(name for row in cells.rows for name in row.settings)
    for name in names:
        axis = owner_of(name)
        if axis == "model":
            continue  # another model is other work, which is ranked separately
        for row in cells.rows:
            owner = row.axes.get(axis, "") if axis else ""
            values = values_of.setdefault((name, owner), {}).setdefault(row.sweep, set())
            values.add(row.settings.get(name, ABSENT))
    different = []
    for (name, owner), by_sweep in values_of.items():
        texts = {sweep: ",".join(sorted(values)) or "empty" for sweep, values in by_sweep.items()}
        if len(set(texts.values())) > 1:
            different.append(Difference(SETTINGS, f"{name} of {owner}" if owner and "." in name else name, texts))
    return different


def refuse_mixing(cells: Cells, allow: Sequence[str]) -> None:
    """Let only sweeps through whose times differ by the axes alone, or by differences of the kinds in ``allow``.

    Where the cells name their hosts, the host is an axis, and what follows from it is no further difference.

    Raises:
        RunnerError: the message names every difference, and the option that allows it.
    """
    are_named = bool(hosts.names_of(cells))
    refused = [
        difference
        for difference in differences(cells)
        if difference.kind not in allow and not (are_named and difference.is_of_host)
    ]
    if refused:
        kinds = list(dict.fromkeys([*allow, *(difference.kind for difference in refused)]))
        raise RunnerError(
            f"the sweeps differ in more than their axes: {'; '.join(difference.text for difference in refused)}. "
            f"Compare them one by one, or add --allow {','.join(kinds)}"
        )
