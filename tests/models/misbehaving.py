"""Models that go wrong, for the tests of failed cells; found through PYTHONPATH, as a user's own would be."""

from __future__ import annotations

import concurrent.futures
import importlib
import itertools
import os
import signal
import sys
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from runner.worker import models


class Step(nn.Module):
    def __init__(self, action: Any) -> None:
        super().__init__()
        self.action = action

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.action()
        return x


def behaves(batch_size: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """Nothing is wrong with it: for a cell that others are set against, or whose fault is not the model's."""
    return models.tiny(batch_size)


def marks_its_start(batch_size: int, mark: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A file with the worker's process id, once that has run the model often enough to be measuring."""
    calls = itertools.count(1)

    def action() -> None:
        if next(calls) == 50:  # neither the warm-up nor the reference, in a process of its own, takes so many
            Path(mark).write_text(str(os.getpid()))

    return _tiny_then(action)


def hangs(batch_size: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    return Step(lambda: time.sleep(600)), (torch.zeros(batch_size),)


def killed(batch_size: int, **kwargs: Any) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    return Step(lambda: os.kill(os.getpid(), signal.SIGKILL)), (torch.zeros(batch_size),)


def segfaults(batch_size: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    return Step(lambda: os.kill(os.getpid(), signal.SIGSEGV)), (torch.zeros(batch_size),)


def raises(batch_size: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    raise ValueError(f"no model of batch size {batch_size}")


def exits(batch_size: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    os._exit(0)


def _when_leaving(action: Callable[[], object]) -> None:
    """Do something when the worker leaves, which is not a regular exit."""
    result, leave = Path(sys.argv[1]).with_name("result.json"), os._exit

    def act_and_leave(status: int) -> NoReturn:
        if result.exists():  # not at the end of the process that computes the reference
            action()
        leave(status)

    os._exit = act_and_leave


def _at_the_end(change: Callable[[str], str]) -> None:
    """Change the text of the worker's result once that is written."""
    result = Path(sys.argv[1]).with_name("result.json")
    _when_leaving(lambda: result.write_text(change(result.read_text())))


def tears(batch_size: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    _at_the_end(lambda text: text[: len(text) // 2])
    return models.tiny(batch_size)


def comes_from_the_future(batch_size: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    _at_the_end(lambda text: text.replace('"format": ', '"format": 99', 1))
    return models.tiny(batch_size)


def sets_threads(batch_size: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    torch.set_num_threads(7)
    return nn.Identity(), (torch.zeros(batch_size),)


# -- transformations gone wrong: each patches the worker it runs in ------------------------------------


def _tiny(batch_size: int) -> Any:
    from runner.worker import models

    return models.tiny(batch_size)


def perturbed(batch_size: int) -> Any:
    """Weights 1 % off after the reference was taken."""
    from runner.worker import transform

    apply = transform._apply_memory_format

    def wrong(spec: Any, subject: Any) -> None:
        apply(spec, subject)
        for weight in subject.module.parameters():
            weight.mul_(1.01)

    transform._apply_memory_format = wrong
    return _tiny(batch_size)


def makes_nan(batch_size: int) -> Any:
    """One weight that is not a number after the reference was taken."""
    from runner.worker import transform

    apply = transform._apply_memory_format

    def wrong(spec: Any, subject: Any) -> None:
        apply(spec, subject)
        next(subject.module.parameters()).view(-1)[0] = float("nan")

    transform._apply_memory_format = wrong
    return _tiny(batch_size)


def uncalibrated(batch_size: int) -> Any:
    """int8 whose observers saw nothing."""
    from runner.worker import quantize

    quantize.calibrate = lambda module, calibration: None
    return _tiny(batch_size)


def ipex_does_nothing(batch_size: int) -> Any:
    """ipex.optimize that returns what it was given."""
    import intel_extension_for_pytorch as ipex

    ipex.optimize = lambda module, **_: module
    return _tiny(batch_size)


def leaves_out_streams(batch_size: int) -> Any:
    """A MultiStreamModule that is the module which it was to call."""
    import intel_extension_for_pytorch.cpu.runtime as runtime

    runtime.MultiStreamModule = lambda module, **_: module
    return _tiny(batch_size)


def has_one_stream(batch_size: int) -> Any:
    """A MultiStreamModule with one stream, which the caller's thread computes."""
    import intel_extension_for_pytorch.cpu.runtime as runtime

    original = runtime.MultiStreamModule
    runtime.MultiStreamModule = lambda module, **asked: original(module, **{**asked, "num_streams": 1})
    return _tiny(batch_size)


def crowds_its_streams(batch_size: int) -> Any:
    """A MultiStreamModule whose streams share the first core."""
    import intel_extension_for_pytorch.cpu.runtime as runtime

    first = min(os.sched_getaffinity(0))
    pool = runtime.CPUPool
    runtime.CPUPool = lambda cores: pool([first] * len(cores))
    return _tiny(batch_size)


def stays_fp32(batch_size: int) -> Any:
    """bf16 that is fp32."""
    from runner.worker import transform

    transform.DTYPES["bf16"] = torch.float32
    return _tiny(batch_size)


def autocasts_nothing(batch_size: int) -> Any:
    """torch.autocast that is off."""
    from runner.worker import autocast

    autocast.Autocast.forward = lambda self, *args, **kwargs: self.inner(*args, **kwargs)  # type: ignore[method-assign]
    return _tiny(batch_size)


def quantizes_nothing(batch_size: int) -> Any:
    """torch.ao's dynamic recipe that returns what it was given."""
    from torch.ao import quantization

    quantization.quantize_dynamic = lambda module, *_, **__: module
    return _tiny(batch_size)


def packs_no_weights(batch_size: int) -> Any:
    """IPEX's weight-only recipe that returns what it was given."""
    from intel_extension_for_pytorch import quantization

    quantization.convert = lambda module: module
    quantization.prepare = lambda module, *_, **__: module
    return _tiny(batch_size)


def observes_nothing(batch_size: int) -> Any:
    """An export that is not strict, in whose graph the quantizer of torch 2.8 finds no pattern."""
    export = torch.export.export_for_training

    def loosely(*args: Any, **kwargs: Any) -> Any:
        return export(*args, **{**kwargs, "strict": False})

    torch.export.export_for_training = loosely
    return _tiny(batch_size)


def is_not_compiled(batch_size: int) -> Any:
    """torch.compile that returns what it was given."""
    torch.compile = lambda module, **_: module  # type: ignore[assignment]
    return _tiny(batch_size)


def falls_back_to_eager(batch_size: int) -> Any:
    """torch.compile that gives up without a word."""
    compile_it = torch.compile
    torch.compile = lambda module, **_: compile_it(module, backend="eager", disable=False)  # type: ignore[assignment]
    return _tiny(batch_size)


def _freezing(value: bool, batch_size: int) -> Any:
    """The tiny model, under a torch.compile that freezes weights or doesn't, whatever was set."""
    compile_it = torch.compile

    def compile_otherwise(module: nn.Module, **options: Any) -> Any:
        importlib.import_module("torch._inductor.config").freezing = value  # type: ignore[attr-defined]
        return compile_it(module, **options)

    torch.compile = compile_otherwise  # type: ignore[assignment]
    return _tiny(batch_size)


def freezes_nothing(batch_size: int) -> Any:
    return _freezing(False, batch_size)


def freezes_unasked(batch_size: int) -> Any:
    return _freezing(True, batch_size)


class Turns(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.turn = module, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x) * 1.0 if self.turn else self.module(x)  # type: ignore[no-any-return]


def compiles_again(batch_size: int) -> Any:
    """Changes in the tenth call what its graph depends on."""
    module, inputs = _tiny(batch_size)
    turns, calls, compile_it = Turns(module), itertools.count(1), torch.compile

    def turn(*_: Any) -> None:
        turns.turn = int(next(calls) >= 10)

    def compile_and_turn(module: nn.Module, **options: Any) -> Any:
        compiled: Any = compile_it(module, **options)
        compiled.register_forward_pre_hook(turn)
        return compiled

    torch.compile = compile_and_turn  # type: ignore[assignment]
    return turns, inputs


def tunes_nothing(batch_size: int) -> Any:
    """torch.compile that ignores its mode."""
    compile_it = torch.compile
    torch.compile = lambda module, mode="", **options: compile_it(module, **options)  # type: ignore[assignment]
    return _tiny(batch_size)


def is_no_package(batch_size: int) -> Any:
    """A package that is empty, and a model in its place."""
    module, inputs = _tiny(batch_size)
    inductor: Any = torch._inductor
    inductor.aoti_compile_and_package = lambda _, package_path: zipfile.ZipFile(package_path, "w").close()
    inductor.aoti_load_package = lambda _: module
    return module, inputs


class LosesChannelsLast(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x.contiguous())  # type: ignore[no-any-return]


def loses_channels_last(batch_size: int) -> Any:
    """Activations that go back to channels first on the way."""
    module, inputs = _tiny(batch_size)
    return LosesChannelsLast(module), inputs


class OfOneModule(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x)  # type: ignore[no-any-return]


def channels_last_weights(batch_size: int) -> Any:
    """Weights that are not in the memory format that was asked for."""
    module, inputs = _tiny(batch_size)
    return OfOneModule(module).to(memory_format=torch.channels_last), inputs  # type: ignore[call-overload]


# -- lies: what is timed is not what is right ------------------------------------------------------------


def _answers(answer: Callable[[nn.Module, torch.Tensor], Any], batch_size: int) -> Any:
    """The tiny model, whose answer is another one's."""
    module, inputs = models.tiny(batch_size)

    class Answers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: torch.Tensor) -> Any:
            return answer(self.inner, x)

    return Answers(), inputs


def gives_up(batch_size: int) -> Any:
    """Zeros from the tenth call on: right in the warm-up, and wrong when it is timed."""
    calls = itertools.count(1)
    return _answers(lambda module, x: module(x) if next(calls) < 10 else torch.zeros(len(x), 10), batch_size)


def remembers(batch_size: int) -> Any:
    """Computes each answer once."""
    answers: dict[int, torch.Tensor] = {}

    def answer(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        if x.data_ptr() not in answers:
            answers[x.data_ptr()] = module(x)
        return answers[x.data_ptr()]

    return _answers(answer, batch_size)


def remembers_most(batch_size: int) -> Any:
    """Computes what comes before the last layer once for each input."""
    module, inputs = _tiny(batch_size)
    *before, last = module
    remembered: dict[int, torch.Tensor] = {}

    class RemembersMost(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.last = nn.Sequential(*before), last

        def forward(self, x: torch.Tensor) -> Any:
            if x.data_ptr() not in remembered:
                remembered[x.data_ptr()] = self.before(x)
            return self.last(remembered[x.data_ptr()])

    return RemembersMost(), inputs


def answers_late(batch_size: int) -> Any:
    """Returns before it has computed anything."""

    def answer(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        output = torch.zeros(len(x), 10)

        def work() -> None:
            with torch.inference_mode():
                output.copy_(module(x))

        threading.Timer(0.005, work).start()
        return output

    return _answers(answer, batch_size)


def promises(batch_size: int) -> Any:
    """Returns a future."""
    executors: list[concurrent.futures.Executor] = []

    def answer(module: nn.Module, x: torch.Tensor) -> Any:
        if not executors:
            executors.append(concurrent.futures.ThreadPoolExecutor(1))
        return executors[0].submit(module, x)

    return _answers(answer, batch_size)


def hides_its_scores(batch_size: int) -> Any:
    """In bf16 its small output is wrong altogether, beside a large one that is right."""

    def answer(module: nn.Module, x: torch.Tensor) -> Any:
        scores = module(x)
        return {"boxes": 1000 * scores, "scores": (scores + 1000) - 1000}

    return _answers(answer, batch_size)


def branches(batch_size: int) -> Any:
    """Takes another branch on the second input set, whose seed is odd."""
    module, (images,) = _answers(lambda module, x: module(x) if x.mean() > 0 else -module(x), batch_size)
    return module, (images.abs() * (-1 if torch.initial_seed() % 2 else 1),)


# -- less than float32, and state of the process that is not seen --------------------------------------


def changes_its_inputs(batch_size: int) -> Any:
    """Right outputs, and inputs that are half of what they were: eager relu does not scale them back."""

    def halves(inner: nn.Module, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = inner(x)
        x.mul_(0.5)
        return answer

    return _answers(halves, batch_size)


def draws(batch_size: int) -> Any:
    """A little noise, by which two right outputs differ."""
    return _answers(lambda inner, x: inner(x) + 1e-3 * torch.randn(batch_size, 10), batch_size)


def keeps_what_it_allocates(batch_size: int) -> Any:
    """A right output; 8 MB more of memory that is kept and used each time."""
    kept: list[torch.Tensor] = []

    def keeps(inner: nn.Module, x: torch.Tensor) -> Any:
        kept.append(torch.ones(2 * 10**6))
        return inner(x)

    return _answers(keeps, batch_size)


def spins(batch_size: int) -> Any:
    """A right output, and from the first call of the measuring process on a thread that never rests."""
    module, inputs = _tiny(batch_size)

    def spin() -> None:
        while True:
            pass

    def once(*_: Any) -> None:
        if not any(thread.name == "spins" for thread in threading.enumerate()):
            threading.Thread(target=spin, name="spins", daemon=True).start()

    module.register_forward_pre_hook(once)
    return module, inputs


def allows_bf32(batch_size: int) -> Any:
    """float32 that IPEX may compute in bfloat16."""
    import intel_extension_for_pytorch as ipex

    ipex.set_fp32_math_mode(mode=ipex.FP32MathMode.BF32, device="cpu")
    return _tiny(batch_size)


def demands_a_plain_python(batch_size: int) -> Any:
    """Nothing is wrong with it, unless Python traces or debugs."""
    if sys.flags.dev_mode or tracemalloc.is_tracing():
        raise RuntimeError("Python is not itself")
    return _tiny(batch_size)


# -- death during a capture ------------------------------------------------------------------------------


def _tiny_then(action: Any) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    module, inputs = models.tiny(2)
    return nn.Sequential(module, Step(action)), inputs


def dies_under_itt(batch_size: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """Killed in the first step that emits ITT ranges."""
    profiler: Any = torch._C._autograd

    def action() -> None:
        if "ITT" in str(profiler._profiler_type()):
            os.kill(os.getpid(), signal.SIGKILL)

    return _tiny_then(action)


def dies_in_the_second_process(batch_size: int, mark: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """The first process that ends leaves the mark; one that finds it is killed in its tenth call."""
    calls = itertools.count(1)

    def action() -> None:
        if next(calls) == 10:
            os.kill(os.getpid(), signal.SIGKILL)

    if Path(mark).exists():
        return _tiny_then(action)
    _when_leaving(Path(mark).touch)
    return models.tiny(batch_size)


def fails_once(batch_size: int, mark: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """Fails where it does not find the mark, and leaves it."""
    if not Path(mark).exists():
        Path(mark).touch()
        raise ValueError("not this time")
    return models.tiny(batch_size)


# -- faults of the machine ----------------------------------------------------------------------------


def fills_the_disk(batch_size: int) -> Any:
    """The second job to run it leaves no byte of the disk that the file in the variable DISK_FILLER is on."""
    full = Path(os.environ["DISK_FILLER"])
    first = full.with_suffix(".first")
    if not first.exists():
        first.write_text(str(os.getsid(0)))  # of a job: the reference is computed in a process of its own
    is_first = first.read_text() == str(os.getsid(0))

    def fill() -> None:
        if is_first or full.exists():
            return
        with full.open("wb", buffering=0) as rest:
            try:
                while True:
                    rest.write(bytes(2**20))
            except OSError:
                pass

    module, inputs = models.tiny(batch_size)
    return nn.Sequential(Step(fill), module), inputs


def devours(batch_size: int, group: str) -> Any:
    """Asks for more memory than the control group that it moves into may have."""
    held: list[bytearray] = []

    def devour() -> None:
        (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
        while True:
            held.append(bytearray(b"x" * 2**24))

    return Step(devour), (torch.zeros(batch_size),)


def ignores_signals(batch_size: int, mark: str) -> Any:
    def wait() -> None:
        if os.getsid(0) != os.getpid():
            return  # the reference is computed in a process of its own, which a signal to the worker does not reach
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Path(mark).touch()
        time.sleep(600)

    return Step(wait), (torch.zeros(batch_size),)


def fails_later(batch_size: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """Fails in its tenth call, when a server has answered requests with it."""
    calls = itertools.count(1)

    def action() -> None:
        if next(calls) == 10:
            raise ArithmeticError("ten is too many")

    return Step(action), (torch.zeros(batch_size, 4),)
