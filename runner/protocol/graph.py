"""The axis ``graph``: what becomes of a model before it is called. Standard library only, as runner.protocol.cell."""

from __future__ import annotations

from dataclasses import dataclass

from runner.protocol.declaration import setting


@dataclass(frozen=True)
class Graph:
    """Whether operators run one by one or as a graph."""

    name: str
    fullgraph: bool = setting("For torch.compile: whether a graph break fails the cell.", True)
    compile_cache: str = setting(
        "Inductor's cache: cold is empty, warm has what the cell's processes left.", "cold", choices=("cold", "warm")
    )

    @property
    def is_inductor(self) -> bool:
        """Whether inductor generates its code, which needs a C++ compiler."""
        return self.name in ("compile", "compile_freezing", "max_autotune", "aot")

    @property
    def is_package(self) -> bool:
        """Whether its code is called from C++, in a package of AOTInductor."""
        return self.name == "aot"

    @property
    def is_frozen(self) -> bool:
        """Whether inductor makes the weights constants of the code, and packs them for their kernels."""
        return self.name in ("compile_freezing", "max_autotune")
