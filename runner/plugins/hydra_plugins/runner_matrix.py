"""Hydra's view of a sweep: the sweeper ``matrix``.

Hydra looks for plugins in the namespace package ``hydra_plugins``; ``runner.commands.sweep`` puts the folder above this
one on sys.path. Everything that decides something is in ``runner.sweep``.
"""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from runner.config import choices, combining, names, override_text, schema, sweep_options
from runner.machine import installation
from runner.protocol.cell import AXES
from runner.protocol.errors import RunnerError

# Hydra imports every plugin for every command line, also for one that it refuses or only shows: what plans and runs
# a sweep is imported when there is one.
if TYPE_CHECKING:
    from runner.results.outcome import CaptureOutcome, Outcome
    from runner.sweep import planning

# As conf/config.yaml has it.
_SUBDIR = "hydra/${hydra.job.num}"
# Hydra's own launcher, which runs a job in the calling process. Others place jobs on other hosts, or several at a time.
_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


class _ComposedAhead:
    """Hydra's loader of configurations, which keeps one that was composed before Hydra's launcher asks for it.

    Composing takes a third of a second, in which the job before can import its torch.
    """

    def __init__(self, loader: ConfigLoader) -> None:
        self._loader = loader
        self._words: list[str] = []
        self._composed: DictConfig | None = None

    def compose(self, config: DictConfig, overrides: list[str]) -> None:
        """Compose the configuration that is probably asked for next; once, however often this is called.

        An error is left to the launch of the job that it belongs to.
        """
        if overrides != self._words:
            self._words, self._composed = overrides, None
            with contextlib.suppress(Exception):
                self._composed = self._loader.load_sweep_config(config, overrides)

    def load_sweep_config(self, config: DictConfig, overrides: list[str]) -> DictConfig:
        """The composed configuration of a job, as Hydra's loader would return it."""
        is_this, composed = overrides == self._words, self._composed
        self._words, self._composed = [], None  # a job changes its configuration: it is nobody else's
        return composed if is_this and composed is not None else self._loader.load_sweep_config(config, overrides)


class MatrixSweeper(Sweeper):  # type: ignore[misc]  # Hydra's plugins are untyped
    """Expands the matrix and hands it to runner.sweep.run."""

    def __init__(
        self,
        params: DictConfig | None = None,
        exclude: Sequence[Any] = (),
        include: Sequence[Any] = (),
    ) -> None:
        self.params, self.exclude, self.include = params, exclude, include

    config: DictConfig
    ahead: _ComposedAhead
    task: Any
    """What Hydra runs for each job; the exit status of the sweep is left on it."""
    launcher: Launcher
    hydra_context: HydraContext

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before sweep()."""
        self.hydra_context, self.config, self.task = hydra_context, config, task_function
        self.ahead = _ComposedAhead(hydra_context.config_loader)
        if config.hydra.launcher._target_ != _LAUNCHER:
            raise RunnerError(
                f"hydra/launcher={config.hydra.runtime.choices['hydra/launcher']}: the jobs of a sweep run on the host "
                "that plans it, one after another, because two at once would measure each other and one elsewhere "
                "would be filed under the wrong machine; leave it out, and start one sweep per machine"
            )
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=HydraContext(config_loader=self.ahead, callbacks=hydra_context.callbacks),
            task_function=task_function,
            config=config,
        )

    def sweep(self, arguments: list[str]) -> int:
        """Run the matrix that ``arguments`` (overrides) and hydra.sweeper.params span."""
        from runner.sweep import planning, resume, run

        names.check_values("", OmegaConf.to_container(without_hydra(self.config), resolve=True))
        directory = self._directory()
        if self.config.resume and not directory.exists():
            directory = resume.newest_sweep_of(Path(self.config.mlruns), sys.argv[1:]) or directory
        with read_write(self.config.hydra.sweep):
            # Resolved once: every job must see the same folder, wherever its process runs.
            self.config.hydra.sweep.dir = str(directory)
        request = planning.SweepRequest(
            choices=self._choices(arguments),
            exclude=_plain(self.exclude),
            include=_plain(self.include),
            directory=directory,
            sweep_id=directory.name,
            experiment=_experiment(self.config.hydra.runtime.choices.get("experiment")),
            resolved=OmegaConf.to_yaml(
                {"config": without_hydra(self.config), "hydra": {"sweeper": self.config.hydra.sweeper}}
            ),
            notes=self._notes(),
            shard=sweep_options.parse_shard(str(self.config.shard)) if self.config.shard else (1, 1),
        )
        self.task.exit_status = run.run_sweep(request, self._composer(request), self)
        return int(self.task.exit_status)

    def _notes(self) -> list[str]:
        """A note on what launcher=auto chose, if that is not ipexrun."""
        if self.config.hydra.runtime.choices.launcher != "auto" or self.config.launcher.name == "ipexrun":
            return []
        return [f"launcher={self.config.launcher.name}: ipexrun comes with IPEX; to have it: {installation.IPEX_EXTRA}"]

    def _directory(self) -> Path:
        """The sweep's folder, in which every job leaves its files: it must be directly below the store's."""
        mlruns, hydra = str(self.config.mlruns), self.config.hydra
        names.check_folder("mlruns", mlruns)
        directory = Path(str(hydra.sweep.dir)).absolute()
        try:
            is_inside = directory.resolve().parent == (Path(mlruns) / "sweeps").resolve()
        except (OSError, RuntimeError):  # resolve() raises the latter for links in a circle
            is_inside = False
        if not is_inside or not names.NAME.fullmatch(directory.name):
            raise RunnerError(
                f"hydra.sweep.dir={hydra.sweep.dir}: it must be a name directly below mlruns/sweeps; leave it "
                "out, or choose another store with mlruns=..."
            )
        if OmegaConf.to_container(hydra.sweep, resolve=False)["subdir"] != _SUBDIR:
            raise RunnerError("hydra.sweep.subdir: Hydra's own files stay in the sweep's folder; leave it out")
        if hydra.output_subdir is not None and not names.NAME.fullmatch(str(hydra.output_subdir).removeprefix(".")):
            raise RunnerError(f"hydra.output_subdir={hydra.output_subdir}: it must be a name, or null")
        if hydra.job.chdir:
            raise RunnerError("hydra.job.chdir=true: jobs find the store from where the sweep started; leave it out")
        return directory

    def _choices(self, arguments: Sequence[str]) -> dict[str, list[str]]:
        """Override key -> its values as override text. The command line replaces YAML's values of the same key."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        values_of: dict[str, list[str]] = {}
        for override in [*self._from_params(parser), *parser.parse_overrides(list(arguments))]:
            key, values = _expanded(override)
            if key.lstrip("+~").partition(".")[0] == "sweep":
                raise RunnerError(f"{key}: the runner fills it in for each job; leave it out")
            values_of[key] = values
            if len(values) > 1 and key.lstrip("+").partition(".")[0] in schema.ONE_VALUE:
                raise RunnerError(
                    f"{key}={','.join(values)}: a sweep takes one value of {key.lstrip('+')}; run one sweep for each"
                )
            if isinstance(override.value(), list) and key.lstrip("+") in AXES:
                several = ",".join(map(str, override.value()))
                raise RunnerError(f"{override.input_line}: write several values with commas: {key}={several}")
        return values_of

    def _from_params(self, parser: OverridesParser) -> list[Override]:
        """The overrides that hydra.sweeper.params stands for.

        An element of a list is a value, whatever characters it has; a single text is Hydra's own, ``a,b``.

        Raises:
            RunnerError: a value can't be read; the message names the experiment's file, the key and the value.
        """
        overrides: list[Override] = []
        for key, value in (_plain(self.params) or {}).items():
            where = f"{self._experiment_file()}hydra.sweeper.params.{key}"
            if isinstance(value, Mapping):
                raise RunnerError(f"{where}: {value!r} must be a value or a list of values")
            if isinstance(value, (list, tuple)) and not value:
                raise RunnerError(f"{where}: the list is empty; leave the key out or name a value")
            try:
                overrides += parser.parse_overrides(choices.as_hydra_wants([f"{key}={_as_text(value)}"]))
            except (HydraException, RunnerError) as error:
                raise RunnerError(_params_problem(where, value, error)) from error
        return overrides

    def _experiment_file(self) -> str:
        """The path of the experiment's file, as the beginning of a message; empty without an experiment."""
        name = self.config.hydra.runtime.choices.get("experiment")
        files = choices.files_of(choices.GROUP, installation.search_path())
        return f"{files[name]}: " if name in files else ""

    def _composer(self, request: planning.SweepRequest) -> Callable[[Sequence[str]], schema.Config]:
        """What composes the configuration of each cell, from its overrides."""
        rules = [rule for rule in request.include if isinstance(rule, Mapping)]  # others are refused by the planner
        spans = [request.choices, *(_as_choices(rule) for rule in rules)]
        combined = combining.Combiner(spans, self._compose, installation.search_path())

        def compose(overrides: Sequence[str]) -> schema.Config:
            pairs = (word.partition("=") for word in overrides)
            return schema.typed_plain(combined({key: value for key, _, value in pairs}))

        return compose

    def _compose(self, overrides: Mapping[str, str]) -> combining.Composed:
        words = [f"{key}={value}" for key, value in overrides.items()]
        composed = without_hydra(self.hydra_context.config_loader.load_sweep_config(self.config, words))
        return combining.Composed(schema.written(composed), schema.resolved(composed))

    def prepare(self, overrides: Sequence[str]) -> None:
        """Compose a job before it is launched, see `sweep.loop.Jobs`."""
        self.ahead.compose(self.config, list(overrides))

    def launch(self, overrides: Sequence[str], number: int) -> Outcome | CaptureOutcome:
        """Let Hydra run a job, see `sweep.loop.Jobs`."""
        returned: Sequence[JobReturn] = self.launcher.launch([list(overrides)], initial_job_idx=number)
        # A job that raised is a fault of the runner itself or of its disk, which main() explains: the line that Hydra
        # prints before it raises would stand above the explanation.
        with contextlib.redirect_stderr(io.StringIO()):
            return returned[0].return_value


def _experiment(choice: Any) -> str:
    """The name of the sweep's experiment in MLflow: the experiment file's, with its folder if it is in one."""
    name = str(choice or "adhoc")
    for part in name.split("/"):
        names.check_name("experiment", part)
    return name


def without_hydra(composed: DictConfig) -> DictConfig:
    """The application's part of a composed configuration, as Hydra hands it to a task."""
    task = copy.deepcopy(composed)
    with read_write(task), open_dict(task):
        task.pop("hydra", None)
    return task


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _as_choices(rule: Mapping[str, Any]) -> dict[str, list[str]]:
    """A rule of hydra.sweeper.include as the planner spans it."""
    spans = ((key, value if isinstance(value, (list, tuple)) else [value]) for key, value in rule.items())
    return {str(key): list(map(override_text.text_of, values)) for key, values in spans}


def _as_text(value: Any) -> str:
    """A value of hydra.sweeper.params as the text after the equals sign."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(override_text.text_of, value))
    return value if isinstance(value, str) else override_text.text_of(value)


def _params_problem(where: str, value: Any, error: Exception) -> str:
    if isinstance(value, str):
        return f"{where}: {value!r} can't be read as Hydra's text; write a list if it is one value: [{value!r}]"
    return f"{where}: {value!r} can't be read: {' '.join(str(error).split())}"


def _expanded(override: Override) -> tuple[str, list[str]]:
    if override.type == OverrideType.DEL:
        return f"~{override.key_or_group}", [override.get_value_element_as_str()]
    key = override.get_key_element()
    if override.is_sweep_override():
        if not override.is_discrete_sweep():
            raise HydraException(
                f"{override.input_line}: list the values with commas or choice(); intervals have no cells"
            )
        from runner.sweep import planning

        texts = itertools.islice(override.sweep_string_iterator(), planning.MOST_CELLS + 1)
        values = list(map(override_text.plain, texts))
        if len(values) > planning.MOST_CELLS:
            raise RunnerError(f"{override.input_line}: it has more than {planning.MOST_CELLS} values; name fewer")
        return key, values
    return key, [override_text.plain(override.get_value_element_as_str())]
