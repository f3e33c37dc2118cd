"""What a worker read back about itself after the timed loop: what the gate compares with what was asked.

Every field must be in a result file. What could not be observed is null there and None here; nothing has a default,
so that evidence without one of its fields is refused with the name of the field, and never taken for what was asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runner.protocol.stored import Count, Duration, Figure
from runner.protocol.verdicts import Word

# The value of an allocator's setting, in the type that the allocator itself has for it.
Setting = bool | int | str


@dataclass(frozen=True)
class AllocatorEvidence:
    """The allocator whose memory functions are live in this process, and its settings."""

    malloc: str | None
    """The file that owns the live ``malloc`` symbol; None if no library defines it."""
    free: str | None
    """The file that owns the live ``free`` symbol; None if no library defines it."""
    posix_memalign: str | None
    """The file that owns the live ``posix_memalign`` symbol; None if no library defines it."""
    answers: Mapping[str, str | None]
    """Allocator -> the version that the file which owns ``malloc`` gives for it, by functions that no other allocator
    has; None where that file has no such functions."""
    jemalloc: Mapping[str, Setting | None] | None
    """Effective settings by their mallctl(3) names, None where one can't be read; None if jemalloc is not live."""
    tcmalloc: Mapping[str, Setting | None] | None
    """Effective settings by their names in gperftools, None where one can't be read; None if tcmalloc is not live."""
    owns_tensors: bool | None
    """Whether the storage of a new tensor is this allocator's: torch may have another one built in; None if this
    allocator can't say."""
    glibc_maps_large_blocks: bool | None
    """Whether malloc serves a block of 2 GiB by a fresh mmap; None if glibc is not live or it could not be tried."""
    mapped: list[str]
    """Files of other allocators that are mapped into the process: being mapped does not make one live."""


@dataclass(frozen=True)
class OpenMPEvidence:
    """Which OpenMP library is live, and how many threads it gives."""

    owner: str | None
    """The file that owns ``omp_get_num_threads``; None if no library defines it."""
    torch_threads: Count
    """Threads that torch uses inside an operator."""
    max_threads: Count | None
    """What ``omp_get_max_threads`` returns; None if no library defines it."""


@dataclass(frozen=True)
class ThreadAffinity:
    """Threads of the process that may run on the same CPUs."""

    cpus: list[Count] | None
    """Logical CPUs that these threads may run on; None if the kernel did not say."""
    threads: Count
    """The number of these threads."""


@dataclass(frozen=True)
class AffinityEvidence:
    """Where the process may run and where its memory may lie."""

    allowed: list[Count]
    """Logical CPUs that the main thread may run on."""
    threads: list[ThreadAffinity]
    """All threads of the process, one entry per distinct set of CPUs."""
    memory_nodes_allowed: str | None
    """NUMA nodes in the kernel's list format (``0-1``); None if the kernel did not say."""
    memory_policy: str | None
    """The policy of the stack's mapping (``bind:0``, ``default``); None if the kernel has no numa_maps."""


@dataclass(frozen=True)
class IpexEvidence:
    """What Intel Extension for PyTorch (IPEX) did to the model."""

    imported: bool
    """Whether IPEX is in this process: it changes operators by being imported."""
    version: str | None
    """IPEX's version; None if it is not imported."""
    modules_replaced: Count
    """Modules of the model whose class is IPEX's own."""
    modules_by_type: Mapping[str, Count]
    """Modules of the model whose class is IPEX's own, by the name of the class."""


@dataclass(frozen=True)
class ThreadsAtWork:
    """Threads that worked in iterations and may run on the same CPUs."""

    cpus: list[Count] | None
    """Logical CPUs that these threads may run on; None if the kernel did not say."""
    cpu_s: Duration
    """Seconds of CPU time that they used per iteration."""


@dataclass(frozen=True)
class StreamsEvidence:
    """The streams of IPEX's MultiStreamModule, and what worked in a few iterations after the timed loop."""

    number: Count
    """Streams, by the module's own account."""
    pools: list[list[Count]]
    """The logical CPUs of each stream's pool."""
    caller_s: Duration
    """Seconds of CPU time per iteration that the thread used which calls the module."""
    threads: list[ThreadsAtWork]
    """All other threads that worked, one entry per distinct set of CPUs."""


@dataclass(frozen=True)
class PrecisionEvidence:
    """What was done to the model so that it computes in its precision, besides casting tensors."""

    recipe: str | None
    """The recipe, like ``torch.autocast(bfloat16)`` or ``torch.ao quantize_dynamic``, with the version of its package
    where that is not torch; None if only tensors were cast."""
    layers: Count
    """The model's layers of the kinds that the recipe quantizes; 0 if it quantizes none."""
    quantized: Mapping[str, Count]
    """What the recipe put into the model, by its name: layers of a quantized class, weights of such a class with the
    dtype that they hold, quantizing nodes of an exported graph; IPEX's static recipe puts nothing there before it is
    traced."""


class GraphKind(Word):
    """What kind of module was called."""

    EAGER = "eager"
    TORCHSCRIPT_INSIDE = "torchscript inside"
    """An eager module of which a part is TorchScript."""
    TORCHSCRIPT = "torchscript"
    COMPILE = "compile"
    """A module of torch.compile."""
    PACKAGE = "package"
    """A package of AOTInductor, which was loaded."""


@dataclass(frozen=True)
class GraphEvidence:
    """Whether the model runs operator by operator or as a graph."""

    kind: GraphKind
    """What the module turned out to be."""
    frozen: bool | None
    """Whether weights are constants of the graph, or of the code that was generated from it; None if the module is
    neither TorchScript nor compiled."""
    nodes: Mapping[str, Count] | None
    """Nodes by kind of the graph that ran last; None if the module is not TorchScript."""
    compiler: str | None
    """The backend that torch.compile called (``inductor``, ``ipex``); None if it called none."""
    graphs: list[Count] | None
    """The number of operations in each graph that torch.compile handed over; None if the module is not compiled."""
    graph_breaks: Count | None
    """How often torch.compile had to leave the graph; None if the module is not compiled."""
    cache_hits: Count | None
    """Graphs that came out of inductor's cache; None if the module is not compiled."""
    cached_files: Count
    """Files that inductor's cache had when the process began."""
    compiled_in_window: Count | None
    """Graphs that torch.compile made while the iterations were timed; None if nobody counted."""
    autotuned: Mapping[str, Count] | None
    """Kernel -> the products of matrices for which it was the fastest of several that were measured; None if the module
    is not compiled."""
    objects: list[str] | None
    """Shared objects of the package that are mapped into the process, by their paths; None if the module is none."""


@dataclass(frozen=True)
class TensorsEvidence:
    """Some tensors of the call, counted by their properties."""

    dtypes: Mapping[str, Count]
    """Tensors by dtype (``float32``)."""
    memory_formats: Mapping[str, Count]
    """Tensors of four dimensions by memory format (``channels_first``, ``channels_last``, ``either``, ``strided``)."""
    shapes: list[list[Count]] | None
    """The shape of each tensor, in order; None for weights, of which there may be hundreds."""


@dataclass(frozen=True)
class CallEvidence:
    """The tensors of one call of the model."""

    samples: Count | None
    """The number of samples in the inputs, as the model's callable counts them; None if it does not say."""
    lengths: list[Count]
    """The length of each list of tensors among the inputs, and the number of sequences in each packed one."""
    inputs: TensorsEvidence
    """What the model was given."""
    weights: TensorsEvidence
    """The model's parameters, as they were before the module became a graph."""
    outputs: TensorsEvidence
    """What the model returned."""


@dataclass(frozen=True)
class ComputeOperator:
    """Calls of one operator that computes, with the same dtype and layout."""

    name: str
    """The operator's name, as torch's profiler has it."""
    dtype: str | None
    """The dtype of its first tensor; None if the profiler did not record one."""
    layout: str | None
    """The memory format of its first tensor; None if that does not have four dimensions or was not recorded."""
    count: Count
    """The number of calls in one iteration."""
    time_s: Duration
    """Seconds that these calls took together, profiler included."""
    flop: Figure | None
    """Floating-point operations of these calls; None if they don't follow from the shapes that the profiler has."""


@dataclass(frozen=True)
class OperatorEvidence:
    """The operators of one iteration under torch's profiler."""

    compute: list[ComputeOperator]
    """Operators that do the arithmetic of a model, those that took longest first."""
    left_out: Count
    """Ranges that the profiler's trace has and nobody can read, because torch did not escape their labels."""
    image_layouts: Mapping[str, Count]
    """Operators on images by the memory format of their first tensor."""
    compiled_regions: Count
    """Regions of torch.compile that ran."""


@dataclass(frozen=True)
class VersionEvidence:
    """The versions that ran."""

    python: str
    """Python's version."""
    torch: str
    """torch's version, with the suffix of its build."""
    cpu_capability: str
    """The instructions that torch's own kernels use (``AVX512``)."""


@dataclass(frozen=True)
class BuildEvidence:
    """The torch build that ran, and where it lies."""

    prefix: str
    """``sys.prefix``: the folder of the environment, links resolved."""
    torch_folder: str | None
    """The real path of the folder from which torch was imported; None if torch has none."""
    libraries: list[str]
    """Every ``libtorch_cpu.so`` that is mapped into the process, by its real path."""
    git: str | None
    """The git commit that torch was built from; None if it does not say."""
    onednn: str | None
    """The version of torch's oneDNN (``3.7.1``); None if it was built without."""
    mkl: str | None
    """The version of torch's MKL (``2024.2``); None if it was built without."""
    settings: str
    """What torch says about how it was built (``torch.__config__.show()``), in one line."""
    packages: Mapping[str, str]
    """Version of each package of runner.protocol.torch_build.DISTRIBUTIONS that this process would import."""


@dataclass(frozen=True)
class ModelEvidence:
    """The model before anything was done to it, in a few numbers that another torch build can be held to."""

    weights: str
    """The hash of its parameters, whatever their names and order."""
    inputs: list[list[Figure]]
    """The projections of each tensor of every input set, as it was built: see runner.worker.fingerprint."""
    outputs: list[list[Figure]]
    """The projections of each tensor that it computes from them in fp32."""


@dataclass(frozen=True)
class ServingEvidence:
    """What a worker behind a server counted of the load that was measured."""

    requests: Count
    """Requests that this worker answered."""
    batches: Count
    """Calls of the model that answered them."""
    batch_sizes: Mapping[str, Count]
    """Calls by the number of requests in them, which is a text because it is a key."""
    inference_s: Duration | None
    """Mean seconds per call of the model; None if there was no call."""
    started_by: list[str]
    """The command line of the process that started this worker."""


@dataclass(frozen=True)
class Evidence:
    """Everything that a worker can prove about itself."""

    graph: GraphEvidence
    """Whether the model ran as a graph."""
    operators: OperatorEvidence | None
    """The operators that ran; None if the profiler failed or left nothing that can be read."""
    reference_layouts: Mapping[str, Count]
    """Operators on images of the fp32 eager reference by the memory format of their first tensor: what the model does
    by itself where nothing was converted."""
    precision: PrecisionEvidence
    """What was done to the model for its precision, besides casting tensors."""
    allocator: AllocatorEvidence
    """The allocator that is live."""
    openmp: OpenMPEvidence
    """Which OpenMP library is live."""
    affinity: AffinityEvidence
    """Where the process may run."""
    ipex: IpexEvidence
    """What IPEX did."""
    streams: StreamsEvidence | None
    """The streams that computed parts of the batch; None if the module that was called is no MultiStreamModule."""
    tensors: CallEvidence
    """Inputs, weights and outputs."""
    grad_mode: str
    """The mode of gradients in which the model was called (``inference_mode``), or ``gradients recorded``, if its
    output shows that the model turned them on."""
    float32_matmul_precision: str | None
    """torch.get_float32_matmul_precision(): anything but ``highest`` allows bfloat16 inside float32 products; None if
    torch refuses to say, because one of the settings that replace it was set."""
    float32_settings: Mapping[str, str]
    """Setting -> value, for all others that can allow less than float32 inside float32 operations, in torch and in
    IPEX; one that this version does not have is not named."""
    environment: Mapping[str, str]
    """Environment variables that tune allocators, OpenMP, oneDNN or torch: see runner.protocol.jobfile.TUNING."""
    inherited: Mapping[str, str]
    """What this process inherited that an ordinary one has not (``nice``, limits): see runner.protocol.inherited."""
    process_state: Mapping[str, str]
    """What the model's code has changed of the inherited, which tools trace this process, and which processes of its
    own compute for it: see runner.worker.process_state; most often empty."""
    transparent_hugepages: str | None
    """The kernel's mode (``always``, ``madvise``, ``never``); None if the kernel has none."""
    versions: VersionEvidence
    """The versions that ran."""
    build: BuildEvidence
    """The torch build that ran."""
    model: ModelEvidence
    """What the model is, by its fp32 reference."""
    argv: list[str]
    """The command line of this process."""
    pid: Count
    """The number of this process."""
    serving: ServingEvidence | None
    """What a worker behind a server counted; None if the worker called the model itself."""

    @property
    def calls(self) -> int:
        """The calls of the model in an iteration: one per stream, or one."""
        return 1 if self.streams is None else max(self.streams.number, 1)


@dataclass(frozen=True)
class Quality:
    """How far a model's outputs are from the same model's in fp32, eager, on the same inputs: the worst decides."""

    comparable: bool
    """Whether the two outputs have the same shapes and hold numbers; every figure is None if not."""
    why: str | None
    """Why they can't be compared, in one sentence; None if they can."""
    finite: bool | None
    """Whether neither has nan, nor inf where the other has not the same; None if they can't be compared."""
    tensors: Count
    """The number of tensors that were compared, per output."""
    outputs: Count
    """The number of outputs that were compared: of different iterations, and of every input set."""
    reference_operators: Count
    """Operators that compute in one iteration of the reference; 0 also where they were not counted."""
    reference_flop: Figure | None
    """Floating-point operations in one iteration of the reference; None where not all of them can be counted."""
    reference_elements: Count
    """Numbers that an iteration must move at least: inputs, outputs and the weights of operators that compute, each
    once; 0 also where they were not counted."""
    dtypes: list[str]
    """The dtypes of the output's tensors."""
    max_abs_err: Figure | None
    """The largest absolute difference of two values; None if it is not finite."""
    rel_l2: Figure | None
    """The norm of the difference over the norm of the reference, of the tensor or the sample in which it is largest;
    None if it is not finite."""
    cosine: Figure | None
    """The cosine of the angle between the two, of the tensor in which it is smallest; None if it is not finite."""
    top1_match_pct: Figure | None
    """Percent of positions whose largest value over the last dimension has the same index, of the first tensor with
    two or three dimensions, in the output where it is smallest; None if there is no such tensor."""
    worst: Mapping[str, str]
    """Figure -> the place in the outputs that decided it (``sample 3 of output['score'] in the last timed
    iteration``); ``finite`` -> the place of a nan or inf that is wrong."""
