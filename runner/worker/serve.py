"""The handler that TorchServe loads into its backend worker: the cell's model behind requests.

A request's body is one sample: its tensors as they were built (float32, contiguous), one after the other. Two bodies
are orders (``runner.protocol.jobfile``): BEGIN reads the counters, END reads them again, proves what ran and writes the
result.
TorchServe requires exactly one class in this module, with initialize() and handle().
"""

from __future__ import annotations

import time

_STARTED = time.monotonic()

import math  # noqa: E402 - the clock comes first, as in __main__
import os  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from statistics import fmean  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402

from runner.protocol.evidence import ServingEvidence  # noqa: E402
from runner.protocol.jobfile import BEGIN, END, read_spec  # noqa: E402
from runner.protocol.resultfile import ResultFile, WorkerResult, onednn_log  # noqa: E402
from runner.worker import captures, graphs, measure, stages, surroundings, watch  # noqa: E402
from runner.worker.call import copied, flat  # noqa: E402
from runner.worker.distance import Observation  # noqa: E402
from runner.worker.outputs import plain  # noqa: E402
from runner.worker.phases import Phases  # noqa: E402
from runner.worker.transform import inputs  # noqa: E402

_IMPORT_S = time.monotonic() - _STARTED

_itt_api: Any = torch.profiler.itt  # torch's stubs don't type it


class Handler:
    """One worker's model, and what it counts of the requests it answers."""

    def initialize(self, context: Any) -> None:
        """Build, transform and warm up the model of the archive's job file; called by TorchServe, once.

        Raises:
            Exception: whatever went wrong; the result file says it.
        """
        self._spec = read_spec(Path(context.system_properties["model_dir"]) / "job.json")
        self._file = ResultFile(Path(self._spec.result_path), self._spec, _STARTED)
        watch.mark_crashes()
        watch.die_with(self._spec.runner_pid)
        self._phases = Phases()
        self._phases.seconds["import"] = _IMPORT_S
        self._own_reference = stages.own_reference(self._file.path.parent)
        try:
            self._prepare()
        except Exception as error:
            self._fail(error)
            raise

    def _prepare(self) -> None:
        spec = self._spec
        with self._phases("reference"):
            self._reference = stages.reference_in_child(spec, self._file.path.parent)
        watch.say_where_it_hangs(spec.deadline_s)
        _, self._samples = stages.build(spec, spec.cell.seed)
        for tensor in self._samples.tensors():
            if tensor.dim() == 0 or tensor.shape[0] != spec.cell.batch_size:
                raise ValueError(
                    f"scenario=torchserve: an input of shape {list(tensor.shape)} has no batch of "
                    f"{spec.cell.batch_size} in its first dimension, so that it can't be put together from requests"
                )
        self._subject = stages.prepare(spec, spec.instances[0], self._phases, self._reference)
        with torch.inference_mode(), self._phases("warmup"):
            for _ in range(2):  # TorchScript and IPEX prepare themselves in the first two calls
                plain(self._subject.call(self._subject.module))
        self._begin()
        Path(spec.request).write_bytes(self._encode(0))

    def handle(self, rows: Sequence[dict[str, Any]], context: Any) -> list[Any]:
        """Answer each request of a batch; called by TorchServe.

        Raises:
            Exception: whatever went wrong with an order: TorchServe answers 503, and the result file says why. A
                request that can't be answered ends the worker.
        """
        start = time.perf_counter()
        # By itself TorchServe leaves the phrase of "HTTP/1.1 200 OK" out, and h2load then sees no status.
        context.set_all_response_status(200, "OK")
        bodies = [row["body"] for row in rows]
        order = bytes(bodies[0]) if len(bodies) == 1 and len(bodies[0]) <= len(BEGIN) else b""
        try:
            if order in (BEGIN, END):
                self._begin() if order == BEGIN else self._end()
                return ["done"]
            answers = self._answer(bodies)
        except Exception as error:
            self._fail(error)
            if order not in (BEGIN, END):
                # Nothing can be measured any more, and ab waits for some answers until its time is over where others
                # were 503. The runner ends the load with the worker.
                watch.end_this_process()
            raise
        context.metrics.add_time("HandlerTime", round(1e3 * (time.perf_counter() - start), 2), None, "ms")
        return answers

    def _answer(self, bodies: Sequence[bytearray]) -> list[dict[str, int]]:
        """For each sample, where its first output is largest: what a classifier's client asks for."""
        _itt_api.range_push("preprocess")
        call = inputs(self._spec, self._decode(bodies))
        _itt_api.range_pop()
        start = time.perf_counter()
        _itt_api.range_push("inference")
        with torch.inference_mode():
            output = call(self._subject.module)
        _itt_api.range_pop()
        self._inference_s.append(time.perf_counter() - start)
        self._batches.append(len(bodies))
        first = flat(plain(output))[0]
        return [{"argmax": int(row)} for row in first.reshape(len(bodies), -1).argmax(1)]

    def _encode(self, number: int) -> bytes:
        """The body of the request for one of the example samples."""
        rows = (tensor[number].reshape(-1).contiguous() for tensor in self._samples.tensors())
        return b"".join(row.view(torch.uint8).numpy().tobytes() for row in rows)

    def _decode(self, bodies: Sequence[bytearray]) -> Any:
        """The call for a batch of bodies: tensors like those that the model's callable builds."""
        offset, stacked = 0, []
        for like in self._samples.tensors():
            shape = like.shape[1:]
            count = math.prod(shape)
            rows = [torch.frombuffer(body, dtype=like.dtype, count=count, offset=offset) for body in bodies]
            stacked.append(torch.stack(rows).reshape(len(bodies), *shape))
            offset += count * like.element_size()
        if any(len(body) != offset for body in bodies):
            raise ValueError(f"a request must have {offset} bytes, the tensors of one sample")
        return self._samples.with_tensors(stacked)

    def _begin(self) -> None:
        """Start counting."""
        spec = self._spec
        self._inference_s: list[float] = []
        self._batches: list[int] = []
        self._graphs_before = graphs.graphs_so_far()
        self._counted = measure.OpenWindow(
            spec.runner_pid, surroundings.cpus_to_watch(spec.instances[0], spec.instances)
        )

    def _end(self) -> None:
        """Stop counting, write what was counted, prove what ran on the path of requests, take the captures."""
        window = self._counted.close()
        self._subject.making.in_window = graphs.graphs_so_far() - self._graphs_before
        self._phases.seconds["measure"] = window.wall_s
        spec, subject, folder = self._spec, self._subject, self._file.path.parent
        result = WorkerResult(
            cell_id=spec.cell_id,
            round=spec.round,
            window=window,
            phases_s=self._phases.seconds,
            started_at_s=_STARTED,
        )
        self._file.keep(result)
        serving = ServingEvidence(
            requests=sum(self._batches),
            batches=len(self._batches),
            batch_sizes={str(size): self._batches.count(size) for size in sorted(set(self._batches))},
            inference_s=fmean(self._inference_s) if self._inference_s else None,
            started_by=Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode().split("\0")[:-1],
        )
        subject.call = inputs(spec, self._decode([bytearray(self._encode(i)) for i in range(spec.cell.batch_size)]))
        with torch.inference_mode():
            observations = [Observation("an iteration after the load", 0, copied(subject.call(subject.module)))]
            log = folder / onednn_log(0)
            proven = stages.prove(result, spec, subject, observations, self._reference, log, self._phases, serving)
            self._file.keep(proven)
            captures.run(lambda: subject.call(subject.module), spec, folder)
        self._own_reference.unlink(missing_ok=True)

    def _fail(self, error: Exception) -> None:
        """Write the error to the result file, where the runner reads it; the first one stays."""
        traceback.print_exc()
        self._own_reference.unlink(missing_ok=True)
        # A server starts another worker in place of one that died, whose result is the one to read.
        if self._file.kept is not None or not self._file.path.exists():
            self._file.fail(error)
