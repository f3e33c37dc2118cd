"""What each setting may be: the first value out of range is refused in one sentence, before anything is launched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from runner.config import named_models, names, serving
from runner.config.captures import check as check_capture
from runner.config.sweep_options import AUTO, RACE, parse_shard
from runner.protocol.cell import ENTRIES
from runner.protocol.declaration import ABSENT, Declaration, as_text
from runner.protocol.errors import RunnerError

if TYPE_CHECKING:
    from runner.config.schema import Config

_MOST_ROUNDS = 10_000


def check_declared(key: str, value: Any, declaration: Declaration) -> None:
    """Refuse a value that its own declaration doesn't allow; null is always allowed here.

    Raises:
        RunnerError: the value is not one of the choices, has an unknown key, or is out of range.
    """
    for text in value if isinstance(value, (tuple, list)) else [value]:
        if declaration.choices and text is not None and text not in declaration.choices:
            raise RunnerError(f"{key}={text}: choose one of {', '.join(declaration.choices)}")
    if isinstance(value, Mapping) and declaration.keys:
        unknown = next((name for name in value if name not in declaration.keys), None)
        if unknown is not None:
            raise RunnerError(f"{key}.{unknown}: there is no such option; choose one of {', '.join(declaration.keys)}")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not declaration.unit:
        return
    least, above = declaration.least, declaration.above
    shown = f"{key}={as_text(value, declaration)}"
    # Written so that nan, which compares false with everything, is refused as well.
    if not ((above is None or value > above) and (least is None or value >= least)):
        bound = f"at least {least:g}" if above is None else f"above {above:g}"
        raise RunnerError(f"{shown}: it must be {bound} ({declaration.unit})")
    if value > declaration.most:
        raise RunnerError(f"{shown}: it must be at most {declaration.most} ({declaration.unit})")


def _check_where(where: Mapping[str, float], rounds: int | str) -> None:
    for key, limit in where.items():
        if not 0 < limit < float("inf"):
            raise RunnerError(f"where.{key}={limit}: it must be a number above 0")
    if where and rounds != RACE:
        raise RunnerError(f"where={dict(where)}: it limits what may win a race; add rounds={RACE}, or leave it out")


def check(config: Config) -> None:
    """Refuse the first value that is out of range, or that contradicts another.

    Raises:
        RunnerError: the message names the option, its value and what is valid.
    """
    from runner.config.schema import sweep_settings

    cell = config.cell
    for key, entry in ENTRIES.items():
        check_declared(key, entry.value(cell), entry.declaration)
    for key, declaration in sweep_settings().items():
        check_declared(key, getattr(config, key), declaration)
    serving.check(cell, config.server_port, config.capture)
    if config.rounds not in (AUTO, RACE) and (isinstance(config.rounds, str) or not 1 <= config.rounds <= _MOST_ROUNDS):
        raise RunnerError(
            f"rounds={config.rounds}: choose 1 to {_MOST_ROUNDS} (fresh processes per cell), {AUTO} or {RACE}"
        )
    _check_where(config.where, config.rounds)
    check_capture(config.capture)
    is_in_a_file = not named_models.is_named(cell.model.name)
    if is_in_a_file and cell.sequence_length is not None and config.sequence_length_of_model is None:
        raise RunnerError(
            f"sequence_length={cell.sequence_length}: model={cell.model.name} has no sequences; leave it out, or give "
            "the model's file a default sequence_length"
        )
    if cell.twin in ("", ABSENT):
        raise RunnerError(f"twin={cell.twin}: a twin needs a name of its own, as in twin=a,b; null for none")
    if config.shard is not None:
        parse_shard(config.shard)
    if config.tracking_uri is not None:
        names.check_address("tracking_uri", config.tracking_uri)
    names.check_target("model._target_", cell.model.target)
    names.check_model("model.name", cell.model.name)
    names.check_name("allocator.name", cell.allocator.name)
    names.check_name("torch.name", cell.torch.name)
    names.check_variables("allocator.env", cell.allocator.env)
    names.check_folder("mlruns", config.mlruns)
    if cell.twin is not None:
        names.check_name("twin", cell.twin)
    if cell.host is not None:
        names.check_name("host", cell.host)
