"""The parser of oneDNN's verbose log, oneDNN 2.0 to 3.13: each line is filed once, and none is dropped.

runner.capture.kernels says what the lines mean for an iteration.

Formats (oneDNN Developer Guide of each version, "Verbose Mode", and ``src/common/verbose.cpp``; logs of 18 versions are
in ``tests/data/onednn-verbose/versions``), where ``T`` is a timestamp, printed on request:

======== ========================================= ============================ ============================
version  a line begins                             columns are named by         a tensor
======== ========================================= ============================ ============================
2.0      ``dnnl_verbose,exec,``                    nothing: fixed               ``src_f32::blocked:ab:f0``
2.1-2.4  ``dnnl_verbose,[T,]exec,``                ``info,prim_template:``      as in 2.0
2.5-3.1  ``onednn_verbose,[T,]exec,``              ``info,prim_template:``      as in 2.0
3.2      as in 2.5                                 as in 2.5                    ``src_f32:a:blocked:ab::f0``
3.0-3.2  ``onednn_graph_verbose,exec,``            nothing: fixed
3.3-3.5  ``onednn_verbose,[T,]primitive,exec,``    ``primitive,info,template:`` as in 3.2
         ``onednn_verbose,[T,]graph,exec,``        ``graph,info,template:``
3.6-3.13 ``onednn_verbose,v1,[T,]primitive,exec,`` ``primitive,info,template:`` ``src:f32:a:blocked:ab::f0``
         ``onednn_verbose,v1,[T,]graph,exec,``     ``graph,info,template:``
======== ========================================= ============================ ============================
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from runner.capture.primitives import Executions, GraphPartition, Primitive, Tensor

# The primitives that do the arithmetic of a model.
COMPUTE = frozenset({"convolution", "deconvolution", "inner_product", "matmul", "rnn"})

# Below this share of an iteration's wall time, oneDNN's kernels say nothing about the iteration as a whole.
MOSTLY = 0.5

# Columns of the versions that print no template. Source for graphs: src/graph/utils/verbose.cpp of 3.2, and its log.
_PRIMITIVE = "operation,engine,primitive,implementation,prop_kind,memory_descriptors,attributes,auxiliary,problem_desc"
_GRAPH = "operation,engine,partition_id,partition_kind,op_names,data_formats,logical_tensors,fpmath_mode,backend"
_FIXED = {
    ("dnnl_verbose", "primitive"): [*_PRIMITIVE.split(","), "exec_time"],
    ("onednn_graph_verbose", "graph"): [*_GRAPH.split(","), "exec_time"],
}

_Columns = dict[tuple[str, str], list[str]]  # (first word of a line, component) -> names of columns

_HEADS = ("dnnl_verbose", "onednn_verbose", "onednn_graph_verbose")
# Longer lines are not read: no primitive has that many post-ops, and patterns would take long to search them.
_LONGEST = 1 << 15
# The characters of a time or a timestamp, with the end of its line; longer ones are looked at closely.
_LONGEST_TIME = 40
# No primitive takes this many ms.
_MOST_MS = 1e12
_KIND = re.compile(r"[a-z0-9_]{1,60}")
_MARKER = re.compile(r"#### step (\d{1,9}) (\S+)")
# A time as printf and C++ streams print it; float() would also take the "1." of a torn line, "nan" and "1_0".
_TIME = re.compile(r"\d+(\.\d+)?(e[+-]\d+)?")
_DTYPE = r"undef|boolean|bf16|e8m0|[fsu]\d+(?:_e\dm\d)?"


@dataclass
class Log:
    """A parsed log; each line is in exactly one of the fields that ``lines`` adds up."""

    primitives: Executions = field(default_factory=Executions)
    graphs: list[GraphPartition] = field(default_factory=list)
    """The executed partitions; their time repeats that of the primitives in them."""
    created: dict[str, int] = field(default_factory=dict)
    """Outcome of a creation (``cache_hit``, ``cache_miss``, ``dispatch`` for an implementation that was refused,
    ``check``) -> number of lines; the prefix is ``graph:`` for partitions, ``nested:`` for primitives of primitives."""
    info: list[str] = field(default_factory=list)
    """Lines about the library, the machine and the columns."""
    messages: list[str] = field(default_factory=list)
    """Errors, warnings, failed checks of an execution, and debug output."""
    unparsed: list[str] = field(default_factory=list)
    """oneDNN's lines that could not be read: torn, glued to other text, or with more or fewer columns than named."""
    markers: int = 0
    """The number of ``#### step`` lines."""
    others: int = 0
    """The number of lines that are not oneDNN's."""
    versions: list[str] = field(default_factory=list)
    """oneDNN's versions (``3.7.1``), in the order of the info lines."""
    isa: list[str] = field(default_factory=list)
    """Instruction sets (``Intel AVX-512 with Intel DL Boost``), in the order of the info lines."""

    @property
    def lines(self) -> int:
        """The number of lines that were read."""
        stored = len(self.primitives) + len(self.graphs) + len(self.info) + len(self.messages) + len(self.unparsed)
        return stored + sum(self.created.values()) + self.markers + self.others


def parse(lines: Iterable[str]) -> Log:
    """Read a verbose log; a line ``#### step <i> <copy>`` starts iteration i, logged by that copy of oneDNN.

    Args:
        lines: with or without their ends; if they have them, a line of oneDNN's that lacks its end was cut off.
    """
    log = Log()
    filed = _Filed(log)
    execution_of, add = filed.executions.get, log.primitives.add
    have_ends = False
    for raw in lines:
        # Nearly all lines are another execution of what was read before: all but their last word is the same.
        beginning, _, last = raw.rpartition(",")
        if len(last) <= _LONGEST_TIME:
            which, timestamp_s = execution_of(beginning), None
            if which is None and filed.stamped and beginning.startswith(filed.stamped):
                stamp, _, rest = beginning[len(filed.stamped) :].partition(",")
                if len(stamp) <= _LONGEST_TIME and _TIME.fullmatch(stamp):
                    which, timestamp_s = execution_of(filed.stamped + rest), float(stamp) / 1e3
            if which is not None:
                time = last.rstrip("\r\n")
                if (time != last or not have_ends) and _TIME.fullmatch(time) and (ms := float(time)) <= _MOST_MS:
                    have_ends = have_ends or time != last
                    add(which, ms / 1e3, timestamp_s)
                    continue
        line = raw.rstrip("\r\n")
        is_cut_off = have_ends and raw == line
        have_ends = have_ends or raw != line
        if len(line) > _LONGEST:
            log.unparsed.append(f"{line[:80]}...")
        elif marker := _MARKER.fullmatch(line):
            log.primitives.begin(int(marker[1]), marker[2])
            filed.step, filed.copy = int(marker[1]), marker[2]
            log.markers += 1
        elif not any(f"{head}," in line or line == head for head in _HEADS):
            log.others += 1
        elif is_cut_off:  # what is left of its time is another number
            log.unparsed.append(line)
        else:
            try:
                filed.file(line)
            except (LookupError, ValueError):
                log.unparsed.append(line)
    return log


class _Filed:
    """Files the lines of one log, and remembers how executions begin."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._columns: _Columns = dict(_FIXED)
        self.step, self.copy = 0, ""
        """Those of the last marker."""
        self.executions: dict[str, int] = {}
        """A line without its timestamp and its last word, the time -> its primitive's index in Executions.distinct."""
        self.stamped = ""
        """What stands before a timestamp; empty before the first one."""

    def file(self, line: str) -> None:
        """Put one of oneDNN's lines where it belongs.

        Raises:
            LookupError, ValueError: the line can't be read; nothing was filed.
        """
        log, columns = self._log, self._columns
        head, *words = line.split(",")
        if head not in _HEADS:
            raise ValueError("glued to other text")
        begins = f"{head},"
        if words[0] == "v1":
            head += words.pop(0)
            begins += "v1,"
        timestamp_s = float(words.pop(0)) / 1e3 if _TIME.fullmatch(words[0]) else None
        said = [*words]
        component = "graph" if head == "onednn_graph_verbose" else "primitive"
        if words[0] in ("primitive", "graph", "ukernel", "common"):
            component = words.pop(0)
        operation, _, outcome = words[0].partition(":")
        if operation == "info":
            if _info(log, ",".join(words[1:]), columns, (head, component)):
                self.executions.clear()
            log.info.append(line)
        elif operation in ("error", "warn", "debuginfo") or (operation == "exec" and outcome):
            log.messages.append(line)
        elif operation in ("create", "create_nested", "compile") and outcome:
            # These two give a reason in free text, and end in the line of oneDNN's source that prints it.
            if outcome not in ("dispatch", "check"):
                _row(words, columns[head, component])
            elif not re.search(r":\d+$", words[-1]):
                raise ValueError("torn")
            key = {"create_nested": "nested:", "compile": "graph:"}.get(operation, "") + outcome
            log.created[key] = log.created.get(key, 0) + 1
        elif operation == "exec":
            row = _row(words, columns[head, component])
            if component == "graph":
                log.graphs.append(_graph(row, self.step, self.copy, timestamp_s))
                return
            primitive = _primitive(row)
            log.primitives.add(len(log.primitives.distinct), primitive.seconds, timestamp_s)
            log.primitives.distinct.append(primitive)
            if columns[head, component][-1] == "exec_time" and len(line) < _LONGEST - 2 * _LONGEST_TIME:
                self.executions[begins + ",".join(said[:-1])] = len(log.primitives.distinct) - 1
                if timestamp_s is not None:
                    self.stamped = begins
        else:
            raise ValueError(operation)


def _info(log: Log, text: str, columns: _Columns, kind: tuple[str, str]) -> bool:
    """Take from a line of information what it tells; returns whether it names columns."""
    if template := re.fullmatch(r"(?:prim_)?template:(.*)", text):
        # The template lists the timestamp among the columns; lines have it before the component.
        columns[kind] = [name for name in template[1].split(",") if name != "timestamp"]
        return True
    if version := re.fullmatch(r"oneDNN v(\d[\w.-]*) \(commit .+\)", text):
        log.versions.append(version[1])
    elif text.startswith("cpu,isa:"):
        log.isa.append(text.removeprefix("cpu,isa:"))
    return False


def _row(words: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    """Column -> text.

    Raises:
        ValueError: there are more or fewer words than columns (oneDNN puts no comma inside a field), or the time is not
            a number.
    """
    if "partition_id" in columns and "scratchpad" not in columns:
        # 3.13 prints ``scratchpad:library:1472`` for graphs and leaves it out of their template.
        words = [word for word in words if not word.startswith("scratchpad:")]
    row = dict(zip(columns, words, strict=True))
    if not _TIME.fullmatch(row["exec_time"]) or float(row["exec_time"]) > _MOST_MS:
        raise ValueError("exec_time")
    return row


def _primitive(row: Mapping[str, str]) -> Primitive:
    if not _KIND.fullmatch(row["primitive"]):  # names metrics
        raise ValueError("primitive")
    return Primitive(
        step=0,
        copy="",
        engine=row["engine"],
        kind=row["primitive"],
        implementation=row["implementation"],
        prop_kind=row["prop_kind"],
        tensors=_tensors(row["memory_descriptors"]),
        attributes=row["attributes"].strip(),
        post_ops=_post_ops(row["attributes"]),
        auxiliary=row["auxiliary"],
        shape=row["problem_desc"],
        seconds=float(row["exec_time"]) / 1e3,
        timestamp_s=None,
    )


def _graph(row: Mapping[str, str], step: int, copy: str, timestamp_s: float | None) -> GraphPartition:
    return GraphPartition(
        step=step,
        copy=copy,
        engine=row["engine"],
        kind=row["partition_kind"],
        operations=tuple(row["op_names"].split(";")),
        implementation=row.get("implementation", ""),
        backend=row["backend"],
        seconds=float(row["exec_time"]) / 1e3,
        timestamp_s=timestamp_s,
    )


def _tensors(descriptors: str) -> dict[str, Tensor]:
    """The tensors of a line; each descriptor tells its spelling, because dnnl_sgemm's is still the old one in 3.10."""
    tensors: dict[str, Tensor] = {}
    repeats: dict[str, int] = {}
    for descriptor in descriptors.split():
        # name:dtype:flags:kind:tag:strides:extra, or name_dtype:flags:kind:tag[:strides]:extra
        name, *parts = descriptor.split(":")
        if not re.fullmatch(_DTYPE, parts[0]):
            old = re.fullmatch(rf"(.+?)_({_DTYPE})", name)
            if not old:
                raise ValueError(descriptor)
            name, parts = old[1], [old[2], *parts]
        repeats[name] = repeats.get(name, -1) + 1
        tensors[f"{name}_{repeats[name]}" if repeats[name] else name] = Tensor(
            parts[0], parts[3] if len(parts) > 3 else ""
        )
    return tensors


def _post_ops(attributes: str) -> tuple[str, ...]:
    """The post-ops in ``attr-post-ops:sum:0.5+eltwise_relu`` or, before 2.3, ``post_ops:'sum:0.5;eltwise_relu;'``."""
    match = re.search(r"attr-post-ops:(\S+)|post_ops:'([^']*)'", attributes)
    entries = re.split(r"[+;]", match[1] or match[2] or "") if match else []
    # A scale such as 1e+10 has a plus as well, and is followed by a number.
    return tuple(entry.partition(":")[0] for entry in entries if entry[:1].isalpha())
