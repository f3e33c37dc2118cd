"""Where Hydra finds our YAML and how it reads it: ``off``, ``on``, ``yes`` and ``no`` are the words they are.

Hydra has one reader per scheme and keeps its own for ``file://``, so ours has the scheme ``yaml12://``: the search path
is rewritten to it, and the folders of experiments come after conf/, the user's own before the shipped ones. A file of
the user's own may not have the name of one in conf/.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runner.config import named_models, names, yaml_guard
from runner.machine import installation
from runner.protocol import stored
from runner.protocol.errors import RunnerError

_SCHEME = "yaml12"
_NAMED_MODELS = "models"
_SUFFIX = ".yaml"
_HEADER = re.compile(r"#\s*@")


class Yaml12Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the booleans and numbers of YAML 1.2 (true, 1e3, 0o17; 1:30 is text), and no duplicate
    keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse duplicate keys: PyYAML would keep the last."""
        keys = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in keys:
                    problem = f"the key {key.value} is there twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                keys.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """First character of a plain scalar -> the tags it may have, without YAML 1.1's booleans, numbers and dates."""
    replaced = {f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "timestamp")}
    return {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in replaced]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


Yaml12Loader.yaml_implicit_resolvers = _resolvers()
Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
# https://yaml.org/spec/1.2.2/#1032-tag-resolution, with at least a point or an exponent: the rest are integers.
Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)
# As in 10.3.2 of the same, with underscores between digits, which Hydra reads on the command line as well.
Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^(?:[-+]?[0-9](?:_?[0-9])*|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789")
)


def _integer(loader: Yaml12Loader, node: yaml.ScalarNode) -> int:
    """The number; 017 is seventeen, where YAML 1.1 has fifteen."""
    text = str(loader.construct_scalar(node))
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


Yaml12Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def load(text: str) -> Any:
    """The value in a YAML file.

    Raises:
        RunnerError: it is larger or nests deeper than any configuration, or its aliases make it so.
        yaml.YAMLError: it is not YAML.
    """
    loader = Yaml12Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        yaml_guard.check(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


class Yaml12Source(ConfigSource):  # type: ignore[misc]  # Hydra's plugins are untyped
    """One folder of YAML files."""

    @staticmethod
    def scheme() -> str:
        """The scheme of those paths in the search path that this class reads."""
        return _SCHEME

    def _full_path(self, config_path: str) -> Path:
        return Path(self.path, config_path)

    def _file(self, config_path: str) -> Path:
        return self._full_path(config_path if config_path.endswith(_SUFFIX) else config_path + _SUFFIX)

    def available(self) -> bool:
        """Whether the folder is there."""
        return self.is_group("")

    def is_group(self, config_path: str) -> bool:
        """Whether this is a folder below the source's own."""
        return self._full_path(config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        """Whether this is a YAML file, named with its suffix or without."""
        return self._file(config_path).is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Names of the groups and of the configurations (without their suffix) in a group."""
        entries = [entry for entry in self._full_path(config_path).iterdir() if not entry.name.startswith("__")]
        groups = {entry.name for entry in entries if entry.is_dir()}
        configs = {entry.stem for entry in entries if entry.suffix == _SUFFIX and entry.is_file()}
        kinds = {ObjectType.GROUP: groups, ObjectType.CONFIG: configs, None: groups | configs}
        return sorted(kinds[results_filter])

    def load_config(self, config_path: str) -> ConfigResult:
        """Read one YAML file.

        Raises:
            ConfigLoadError: there is no such file.
            RunnerError: it can't be read, or another file has its name; the message names the file and the problem.
        """
        path = self._file(config_path).resolve()
        if not path.is_file():
            raise ConfigLoadError(f"Config not found : {path}")
        self._check_unique(config_path, path)
        text = stored.read_text(path, yaml_guard.MOST_BYTES)
        try:
            value = load(text) or {}
            if not isinstance(value, Mapping):
                raise RunnerError(f"{path} must hold a mapping of keys to values, not {type(value).__name__}")
            # Hydra's own part has texts of several lines.
            names.check_values("", {key: part for key, part in value.items() if key != "hydra"})
            config, header = OmegaConf.create(dict(value)), {"package": _package(text)}
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            problem = ascii(" ".join(str(getattr(error, "problem", None) or error).split()))[1:-1][:300]
            raise RunnerError(f"{path} is not YAML{where}: {problem}") from error
        except RecursionError as error:
            raise RunnerError(f"{path} nests too deeply") from error
        except (RunnerError, OmegaConfBaseException, ValueError, LookupError, TypeError, AttributeError) as error:
            # PyYAML raises any of the last four for a value that its tag does not fit, like !!int x.
            sentence = " ".join(str(error).split())[:1000]
            raise RunnerError(sentence if str(path) in sentence else f"{path}: {sentence}") from error
        return ConfigResult(config=config, path=self.full_path(), provider=self.provider, header=header)

    def _check_unique(self, config_path: str, path: Path) -> None:
        """Refuse a value of an axis that conf/ and a folder of the user's own both have.

        Results say ``model=resnet50``, and comparisons match cells by that name: it has one meaning.

        Raises:
            RunnerError: there are two such files; the message names both.
        """
        if Path(self.path) != installation.CONF or "/" not in config_path:
            return
        for folder in installation.own_folders():
            own = folder / path.relative_to(installation.CONF.resolve())
            if own.is_file() and not own.samefile(path):
                option = f"{config_path.rpartition('/')[0]}={path.stem}"
                raise RunnerError(f"{option}: both {own} and {path} have this name; rename yours")


class NamedModelSource(ConfigSource):  # type: ignore[misc]
    """The models in one word, as if each were a YAML file of the group ``model``."""

    _PREFIX = f"{named_models.GROUP}/"

    @staticmethod
    def scheme() -> str:
        """The scheme of the one path in the search path that this class reads."""
        return _NAMED_MODELS

    def available(self) -> bool:
        """Whether there is such a source: always."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Whether this is a group: it only adds values to one of another source."""
        return False

    def is_config(self, config_path: str) -> bool:
        """Whether this is a model in one word."""
        return config_path.startswith(self._PREFIX) and named_models.is_named(config_path.removeprefix(self._PREFIX))

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Its values, which can't be listed."""
        return []

    def load_config(self, config_path: str) -> ConfigResult:
        """Make the configuration of a model in one word.

        Raises:
            RunnerError: there is no such model.
        """
        config = OmegaConf.create(named_models.config_of(config_path.removeprefix(self._PREFIX)))
        return ConfigResult(config=config, path=self.full_path(), provider=self.provider, header={"package": None})


def _package(text: str) -> str | None:
    """The package that a ``# @package`` line names at the top of a file, above its first comment.

    Raises:
        ValueError: the line has something other than one name.
    """
    lines = (line.strip() for line in text.splitlines())
    for header in itertools.takewhile(_HEADER.match, filter(None, lines)):
        key, *rest = header.lstrip("# ").split()
        if key == "@package":
            if len(rest) != 1:
                raise ValueError(f"@package needs one name, like _global_, not {' '.join(rest)!r}")
            return rest[0]
    return None


class OurFolders(SearchPathPlugin):  # type: ignore[misc]
    """conf/ first, then the user's own folders, the experiments that are shipped, and the models in one word."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra each time it makes a search path."""
        for element in search_path.get_path():
            if element.provider == "main" and "://" not in element.path:
                element.path = f"{_SCHEME}://{element.path}"
        for folder in installation.own_folders():
            search_path.append("own", f"{_SCHEME}://{folder}")
        search_path.append("experiments", f"{_SCHEME}://{installation.EXPERIMENTS}")
        search_path.append("models", f"{_NAMED_MODELS}://")
