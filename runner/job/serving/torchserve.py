"""TorchServe 0.12: its files, its command line, its management API and its metrics log.

Java is started directly, so that the process that the runner starts is the server. The script ``torchserve`` would be a
parent that leaves Java behind. Sources: TorchServe's docs/configuration.md, docs/management_api.md, docs/metrics.md.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from statistics import fmean
from xml.sax.saxutils import quoteattr

from runner.job.serving.load import CONTENT_TYPE
from runner.job.serving.server import ServingError, Site
from runner.machine.installation import PROJECT
from runner.protocol import stored
from runner.protocol.stored import FormatError

_MODEL, _ARCHIVE = "cell", "cell.mar"
_HOST = "127.0.0.1"
_ANSWER = Path("the server's answer")
_INFERENCE, _MANAGEMENT, _METRICS, _GRPC_INFERENCE, _GRPC_MANAGEMENT = range(5)

# 2026-11-24T01:02:03,004 - PredictionTime.ms:5.1|#ModelName:cell,Level:Model|#hostname:h,requestID:i,j,timestamp:1
_LINE = re.compile(
    r" - (?P<name>QueueTime|HandlerTime|PredictionTime)\.\w+:(?P<value>-?\d{1,20}(\.\d{1,20})?(E-?\d{1,3})?)\|#"
)
_FIRST_REQUEST = re.compile(r"requestID:([^,]+),")
_LOGS = ("ts_metrics.log", "model_metrics.log")

# By default TorchServe writes a dozen lines per request into three places, and a job would keep them all. Ours keeps
# metrics, the worker's output and warnings only.
_FILE = """
  <File name="{name}" fileName={file}><PatternLayout pattern="{pattern}"/></File>"""
_LOGGER = """
  <Logger name="{logger}" level="all" additivity="false"><AppenderRef ref="{name}"/></Logger>"""
_FILES = {"TS_METRICS": "ts_metrics", "MODEL_METRICS": "model_metrics", "MODEL_LOG": "model_log"}


def log_configuration(folder: Path) -> str:
    """The content of log4j2.xml: metrics and the worker's output go to files in ``folder``, warnings to stdout."""
    plain = "%d{ISO8601} - %m%n"
    # In Log4j's configuration ${...} is replaced; a second dollar sign keeps the first.
    paths = {name: quoteattr(str(folder / f"{name}.log").replace("${", "$${")) for name in _FILES.values()}
    files = "".join(_FILE.format(name=name, file=file, pattern=plain) for name, file in paths.items())
    loggers = "".join(_LOGGER.format(logger=logger, name=name) for logger, name in _FILES.items())
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Configuration>
 <Appenders>{files}
  <Console name="console" target="SYSTEM_OUT"><PatternLayout pattern="%d{{ISO8601}} [%-5p] %c - %m%n"/></Console>
 </Appenders>
 <Loggers>{loggers}
  <Root level="warn"><AppenderRef ref="console"/></Root>
 </Loggers>
</Configuration>
"""


def properties(site: Site) -> str:
    """The content of config.properties.

    The server gets its own ports on loopback, takes nothing from the environment, and logs no metrics of the system.
    """
    ports, cell = site.ports, site.cell
    lines = {
        "inference_address": f"http://{_HOST}:{ports[_INFERENCE]}",
        "management_address": f"http://{_HOST}:{ports[_MANAGEMENT]}",
        "metrics_address": f"http://{_HOST}:{ports[_METRICS]}",
        "grpc_inference_port": ports[_GRPC_INFERENCE],
        "grpc_management_port": ports[_GRPC_MANAGEMENT],
        # This number is only part of the name of the worker's socket, which is in the private folder.
        "initial_worker_port": 9000,
        "model_store": site.private / "store",
        "default_response_timeout": int(site.timeout_s) + 1,
        # No request is turned away because others wait: its latency shows the waiting.
        "job_queue_size": max(1000, cell.scenario.requests or 0),
        "max_request_size": 1 << 30,
        "model_metrics_auto_detect": "true",
        "disable_system_metrics": "true",
        "enable_envvars_config": "false",
        "disable_token_authorization": "true",
        "enable_model_api": "true",
        "ipex_enable": str(cell.uses_ipex).lower(),
        "cpu_launcher_enable": "true",
        "cpu_launcher_args": " ".join(site.launcher_args),
    }
    return "".join(f"{key}={_java_value(str(value))}\n" for key, value in lines.items())


def _java_value(text: str) -> str:
    """A value as java.util.Properties.load() reads it: the file is in ISO 8859-1, and a backslash begins an escape."""
    units = memoryview(text.encode("utf-16-le", errors="surrogatepass")).cast("H")
    escaped = "".join(_java_character(unit) for unit in units)
    return f"\\{escaped}" if escaped.startswith(" ") else escaped


def _java_character(unit: int) -> str:
    """A unit of UTF-16."""
    character = chr(unit)
    return "\\\\" if character == "\\" else character if " " <= character <= "~" else f"\\u{unit:04x}"


def manifest() -> str:
    """The content of MAR-INF/MANIFEST.json; the handler is a module of ours that is found by PYTHONPATH."""
    model = {"modelName": _MODEL, "modelVersion": "1.0", "handler": "runner.worker.serve"}
    return json.dumps({"createdOn": "", "runtime": "python", "model": model, "archiverVersion": "0.12.0"})


def times(log: str, requests: int, batches: int) -> dict[str, float]:
    """Means: ``serving/queue_ms`` over the last requests, ``handler_ms`` and ``predict_ms`` over the last batches.

    A figure is left out if the log has fewer requests or batches, or a time below 0, for which the server's clock was
    set. The last request in the log is the order to end, the only one after the measured requests that waited in the
    queue. Orders have no HandlerTime, and no request in common with a batch that has one.
    """
    logged: dict[str, list[tuple[str, float]]] = {"QueueTime": [], "HandlerTime": [], "PredictionTime": []}
    for line in log.splitlines():
        if match := _LINE.search(line):
            first = _FIRST_REQUEST.search(line)
            logged[match["name"]].append((first[1] if first else "", float(match["value"])))
    handled = logged["HandlerTime"][-batches:] if batches else []
    measured = {request for request, _ in handled}
    means = {
        "serving/queue_ms": ([value for _, value in logged["QueueTime"][-requests - 1 : -1]], requests),
        "serving/handler_ms": ([value for _, value in handled], batches),
        "serving/predict_ms": ([value for request, value in logged["PredictionTime"] if request in measured], batches),
    }
    return {name: fmean(values) for name, (values, wanted) in means.items() if len(values) == wanted > 0 <= min(values)}


def reason(log: str) -> str | None:
    """The line of a log that says why the server or its worker ended."""
    for pattern in (
        r"Fatal Python error: [^\n]*",
        r"exitcode: -\d+",
        r"(?:java\.[\w.]*)?BindException[^\n]*|Address already in use[^\n]*|Failed to bind[^\n]*",
        r"(?:Could not find or load main class|Error occurred during initialization of VM|OutOfMemoryError)[^\n]*",
    ):
        if match := re.search(pattern, log):
            return match[0].strip()
    return None


class TorchServe:
    """TorchServe as a runner.job.serving.server.Server."""

    def write(self, site: Site) -> None:
        """Write config.properties, log4j2.xml and the model archive, a .mar file, which is a zip archive."""
        (site.private / "config.properties").write_text(properties(site), encoding="utf-8")
        (site.logs / "config.properties").write_text(properties(site), encoding="utf-8")
        (site.private / "log4j2.xml").write_text(log_configuration(site.logs), encoding="utf-8")
        store = site.private / "store"
        store.mkdir()
        (site.private / "tmp").mkdir()
        with zipfile.ZipFile(store / _ARCHIVE, "w") as archive:
            archive.writestr("MAR-INF/MANIFEST.json", manifest())
            archive.writestr("job.json", json.dumps(asdict(site.job)))

    def command(self, site: Site) -> Sequence[str]:
        """The command line of Java, as the torchserve script would write it."""
        home = Path(str(metadata.distribution("torchserve").locate_file("")))
        return [
            "java",
            f"-Dmodel_server_home={home}",
            f"-Djava.io.tmpdir={site.private / 'tmp'}",
            f"-Dlog4j.configurationFile=file://{site.private / 'log4j2.xml'}",
            "-Xmx1g",
            "-cp",
            f"{home}/ts/frontend/*",
            "org.pytorch.serve.ModelServer",
            *("--python", site.python),
            *("-f", str(site.private / "config.properties")),
            *("-s", str(site.private / "store")),
            "-ncs",
            "--disable-token-auth",
            "--enable-model-api",
        ]

    def environment(self, site: Site) -> Mapping[str, str]:
        """The variables by which TorchServe finds ``python`` (PATH) and our handler (PYTHONPATH)."""
        inherited = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
        paths = [str(path) for path in (PROJECT, *(Path(caller).resolve() for caller in inherited))]
        return {
            "PATH": os.pathsep.join([str(Path(site.python).parent), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": os.pathsep.join(paths),
            # It would write there if it did not follow our log4j2.xml.
            "LOG_LOCATION": str(site.logs),
            "METRICS_LOCATION": str(site.logs),
            "TEMP": str(site.private / "tmp"),
            # Java takes the encoding of paths from the locale: it is the caller's, as the one name that decides it.
            "LC_ALL": next(filter(None, map(os.environ.get, ("LC_ALL", "LC_CTYPE", "LANG"))), "C"),
        }

    def is_up(self, site: Site) -> bool:
        """Whether /ping answers "Healthy"."""
        try:
            status, text = _ask(site, _INFERENCE, "GET", "/ping", timeout_s=5)
        except ServingError:
            return False
        return status == 200 and "Healthy" in text

    def start_worker(self, site: Site) -> int:
        """Register the archive; TorchServe answers when the worker has loaded it or has failed to."""
        cell = site.cell
        options = {
            "url": _ARCHIVE,
            "model_name": _MODEL,
            "batch_size": cell.batch_size,
            "max_batch_delay": cell.scenario.max_batch_delay_ms,
            "initial_workers": 1,
            "synchronous": "true",
            "response_timeout": int(site.timeout_s) + 1,
            "startup_timeout": int(site.timeout_s) + 1,
        }
        query = "&".join(f"{key}={value}" for key, value in options.items())
        status, text = _ask(site, _MANAGEMENT, "POST", f"/models?{query}", timeout_s=site.remaining_s)
        if status != 200:
            raise ServingError(f"TorchServe did not load the model ({status}: {_message(text)})")
        status, text = _ask(site, _MANAGEMENT, "GET", f"/models/{_MODEL}", timeout_s=site.remaining_s)
        try:
            workers = stored.parse_json(_ANSWER, text)[0]["workers"]
            [pid] = [int(worker["pid"]) for worker in workers if worker["status"] == "READY"]
        except (FormatError, ValueError, KeyError, IndexError, TypeError) as error:
            raise ServingError(f"TorchServe has no worker READY ({status}: {text[:200]})") from error
        return pid

    def url(self, site: Site) -> str:
        """The address of the model in the inference API."""
        return f"http://{_HOST}:{site.ports[_INFERENCE]}/predictions/{_MODEL}"

    def order(self, site: Site, body: bytes) -> None:
        """Post an order like a request; nothing else is sent meanwhile, so that it is a batch by itself."""
        status, text = _ask(site, _INFERENCE, "POST", f"/predictions/{_MODEL}", body, timeout_s=site.remaining_s)
        if status != 200:
            raise ServingError(f"the worker did not answer {body.decode()!r} ({status}: {_message(text)})")

    def figures(self, site: Site, requests: int, batches: int) -> Mapping[str, float]:
        """TorchServe's metrics, read from its logs."""
        files = [site.logs / name for name in _LOGS]
        log = "".join(stored.read_text(file, errors="replace") for file in files if file.exists())
        return times(log, requests, batches)

    def failure_reason(self, site: Site) -> str | None:
        """The line that says why it failed, in the worker's output or else in the server's."""
        for file in (site.logs / "model_log.log", site.logs.parent / "stdout.log"):
            if line := reason(stored.log_text(file)):
                return f"{line} (see {file.relative_to(site.logs.parent)})"
        return None


def _ask(
    site: Site, port: int, method: str, path: str, body: bytes | None = None, *, timeout_s: float
) -> tuple[int, str]:
    """Make one HTTP request on loopback; returns (status, text).

    Raises:
        ServingError: there is no answer, or it breaks off.
    """
    connection = http.client.HTTPConnection(_HOST, site.ports[port], timeout=timeout_s)
    try:
        connection.request(method, path, body, {"Content-Type": CONTENT_TYPE} if body is not None else {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (http.client.HTTPException, OSError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise ServingError(f"TorchServe did not answer {method} {path.partition('?')[0]} ({problem})") from error
    finally:
        connection.close()


def _message(text: str) -> str:
    """TorchServe's own error message, in one line."""
    with contextlib.suppress(FormatError, KeyError, TypeError):
        text = str(stored.parse_json(_ANSWER, text)["message"])
    return " ".join(text.split())[:300]
