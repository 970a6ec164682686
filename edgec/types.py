"""The nouns that the stages exchange. All frozen; every state has a name.

What the stages behind a plan make stands in `results`.

Shapes are tuples of int (fixed) or str (a symbolic dimension). Values are known by their canonical
id, which is the name that the value has in the canonical graph (see `canonicalise`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgec.runtime.goals import Goal

Feeds = dict[str, np.ndarray]  # arrays by the name of the graph input


class Kind(StrEnum):
    """What a part is made of; the defaults of a target are given per kind."""

    CNN = "cnn"
    TRANSFORMER = "transformer"
    RECURRENT = "recurrent"
    MLP = "mlp"
    FUSION = "fusion"
    GLUE = "glue"


class Modality(StrEnum):
    """What a part looks at, guessed from the graph inputs that it depends on."""

    VISION = "vision"
    TEXT = "text"
    AUDIO = "audio"
    MIXED = "mixed"
    UNKNOWN = "unknown"


class Scheme(StrEnum):
    """The numbers that a node computes with. KEPT: as the source model came, already quantized."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT8 = "float8"
    INT8_STATIC = "int8_static"
    INT8_DYNAMIC = "int8_dynamic"
    INT8_WEIGHT_ONLY = "int8_weight_only"
    INT4_WEIGHT_ONLY = "int4_weight_only"
    KEPT = "kept"


class Method(StrEnum):
    """How a range follows from the statistics of a value."""

    MINMAX = "minmax"
    MOVING_AVERAGE = "moving_average"
    PERCENTILE = "percentile"
    MSE = "mse"
    ENTROPY = "entropy"


class Hint(StrEnum):
    """What an engine is tuned for: one request at a time, or many at once."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"


class Joining(StrEnum):
    """How parts of one backend and device become engines."""

    TOGETHER = "together"
    PER_PART = "per-part"


@dataclass(frozen=True)
class Extent:
    """The sizes of a dimension that varies: the least, the usual and the largest."""

    low: int
    typical: int
    high: int


@dataclass(frozen=True)
class Rewrite:
    """One rewrite, how often it was applied, and why it was switched off, if it was.

    `nodes`: where alone it was switched off; none: everywhere. `evidence`: what proves it here.
    `runtime`: for which alone it is made; empty: for all, as canonical ones are.
    """

    rule: str
    count: int
    failure: str = ""
    nodes: tuple[str, ...] = ()
    evidence: str = ""
    runtime: str = ""


@dataclass(frozen=True)
class Range:
    """Bounds of one dimension, both included; equal bounds mean a fixed dimension."""

    low: int
    high: int


@dataclass(frozen=True)
class Graph:
    """A canonical model: nodes named, values typed where they can be, weights left on disk."""

    model: ir.Model
    source: str
    digest: Callable[[], str]
    bytes: int
    shapes: Mapping[str, tuple[Range, ...]] = field(default_factory=dict)
    rewrites: tuple[Rewrite, ...] = ()
    custom_ops: frozenset[str] = frozenset()  # of the source model, domain::name

    @property
    def sha256(self) -> str:
        """The hash of the source file and its weights, computed when it is first asked for."""
        return self.digest()


@dataclass(frozen=True)
class Part:
    """A convex subnetwork: the unit of policy, calibration and verification.

    `inputs` and `outputs` are canonical value ids; `nodes` are node names in topological order.
    `macs` counts multiply-accumulates of weighted ops for one sample (0 where shapes are unknown).
    """

    name: str
    kind: Kind
    modality: Modality
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]
    macs: int
    weight_bytes: int
    reason: str


@dataclass(frozen=True)
class Decision:
    """What one node becomes, and why. `evidence` is a table row, a measurement or a message.

    `smooth`: whether the channels of its input are evened out before they are quantized.
    """

    node: str
    op_type: str
    part: str
    scheme: Scheme
    backend: str
    device: str
    reason: str
    evidence: str
    smooth: bool = False


@dataclass(frozen=True)
class Recovery:
    """How INT8 of a part is kept close to float, without training and at no cost at run time.

    `method`: how ranges follow from statistics; `values`: other methods, by value. `bias`: the mean
    error of weights is taken out of biases. `smoothing`: SmoothQuant's migration strength; 0: none.
    `gptq`: weights are rounded by the second moments of their inputs, not to nearest. `mask_aware`:
    masked attention scores have the range of the scores alone.
    """

    method: Method = Method.MINMAX
    values: Mapping[str, Method] = field(default_factory=dict)
    bias: bool = True
    smoothing: float = 0.8
    gptq: bool = False
    mask_aware: bool = True


@dataclass(frozen=True)
class RecoveryPlan:
    """What may be tried on a part, each in the order of preference; see `Recovery`."""

    methods: tuple[Method, ...] = (Method.MINMAX,)
    values: Mapping[str, Method] = field(default_factory=dict)
    bias: bool = True
    strengths: tuple[float, ...] = (0.8, 0.7, 0.9)
    gptq: bool = True
    mask_aware: bool = True


@dataclass(frozen=True)
class Gain:
    """What a stage of recovery did to the SQNR of a part's worst output, on calibration samples."""

    part: str
    stage: str
    before_db: float
    after_db: float
    kept: bool


@dataclass(frozen=True)
class Revision:
    """A change of plan: to another scheme or another runtime, because a check said so.

    `measured` holds figures that differ between runs (times); `reason` never does. `runtime`: where
    the part moved to, or empty where it stayed.
    """

    part: str
    before: Scheme
    after: Scheme
    reason: str
    nodes: tuple[str, ...] = ()
    measured: str = ""
    runtime: str = ""


@dataclass(frozen=True)
class Plan:
    """A decision for every node, and how it came about.

    `runtimes`: the name of the runtime that each part is built for; `schemes`: what each part has
    there; `ladders`: what it may still fall back to there, safest last; `spares`: the runtimes that
    it may still move to, with their ladders; `pinned`: nodes that a revision keeps in float, with
    the reason.
    """

    parts: tuple[Part, ...]
    decisions: Mapping[str, Decision]
    runtimes: Mapping[str, str]
    schemes: Mapping[str, Scheme]
    ladders: Mapping[str, tuple[Scheme, ...]]
    spares: Mapping[str, Mapping[str, tuple[Scheme, ...]]]
    recovery: Mapping[str, RecoveryPlan]
    joining: Joining = Joining.TOGETHER
    pinned: Mapping[str, str] = field(default_factory=dict)
    revisions: tuple[Revision, ...] = ()


@dataclass(frozen=True)
class Placement:
    """Where Q/DQ go in a graph, by canonical id; what calibration has to observe follows from it.

    `values`: values that get a grid from their own range; `follows`: values that take over the
    grid of another; `absorbed`: activations whose clamp the grid of their output implies;
    `means`: values whose mean per channel bias correction needs; `extents`: values whose extremes
    per channel smoothing needs; `masked`: attention scores behind a mask, by the scores before it.
    """

    values: frozenset[str]
    follows: Mapping[str, str]
    absorbed: frozenset[str]
    means: frozenset[str]
    extents: frozenset[str]
    masked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Override:
    """What a policy wants for a part, an op type, nodes or values by name (glob). None: not stated.

    `runtime`: of the target's runtimes, the one that a part has to be built for. `methods`,
    `bias`, `strengths`, `gptq`, `mask_aware`: see `RecoveryPlan`.
    """

    pattern: str
    scheme: Scheme | None = None
    runtime: str | None = None
    methods: tuple[Method, ...] | None = None
    bias: bool | None = None
    strengths: tuple[float, ...] | None = None
    gptq: bool | None = None
    mask_aware: bool | None = None


@dataclass(frozen=True)
class Limits:
    """What a build accepts. Each may be switched off by None."""

    part_sqnr_db: float | None = 12.0
    cosine: float | None = 0.97


@dataclass(frozen=True)
class Policy:
    """What the user wants. The most specific override wins: node, then op type, then part.

    `names`: what a part is called, by the name that it would have; `goals`: what a build is to
    reach.
    """

    parts: tuple[Override, ...] = ()
    ops: tuple[Override, ...] = ()
    nodes: tuple[Override, ...] = ()
    values: tuple[Override, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()
    joining: Joining = Joining.TOGETHER
    hint: Hint = Hint.LATENCY
    goals: tuple[Goal, ...] = ()
    source: str = "defaults"


@dataclass(frozen=True)
class Grid:
    """How a target wants numbers. Weights are always symmetric."""

    activations: str
    symmetric_activations: bool
    weights: str
    per_channel: bool
    reduce_range: bool
    source: str
    confidence: str


@dataclass(frozen=True)
class Ladder:
    """For one kind of part: schemes from the fastest to the safest, with and without data.

    `int8_ops` are the op types that static INT8 covers in such a part. `speed`: what a scheme is
    expected to reach, in times of FP32 ONNX Runtime on the same CPU; it ranks runtimes where
    nothing can be measured. `smooth`: whether the inputs of matrix products are smoothed, which
    suits dense channels and harms sparse ones.
    """

    with_data: tuple[Scheme, ...]
    without_data: tuple[Scheme, ...]
    int8_ops: frozenset[str]
    speed: Mapping[Scheme, float]
    smooth: bool
    reason: str
    source: str
    confidence: str


class Support(StrEnum):
    """Whether a runtime has an op at all."""

    YES = "yes"
    LIMITS = "limits"
    NO = "no"


@dataclass(frozen=True)
class OpLimits:
    """What a runtime asks of an op's nodes: ranks of values, values of attributes, constants.

    `constants_below`: by the index of an input, what a constant there stays below.
    """

    ranks: tuple[int, ...] = ()
    attributes: Mapping[str, tuple[str | float, ...]] = field(default_factory=dict)
    constants_below: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class OpRule:
    """What a runtime can do with one op type: the schemes, and how it passes ranges on.

    `follows`: the op moves or selects values, so that it runs on its input's grid.
    `float_output`: INT8 in and float out is one kernel. `fused`: an activation that the kernel of
    the convolution before it computes. `dynamic_inputs`: how many inputs a product needs at least
    for dynamic INT8; with fewer, its activations stay in float. `dtypes`: the float types in which
    it computes; empty: all of the runtime. `from_float`: a sum that INT8 products read gains by
    INT8 where float ops made what it adds, see `edgec.sums`.
    """

    op_type: str
    schemes: frozenset[Scheme]
    follows: bool
    float_output: bool
    dynamic_inputs: int
    note: str
    fused: bool = False
    from_float: bool = False
    support: Support = Support.YES
    limits: OpLimits = OpLimits()
    dtypes: tuple[str, ...] = ()
    source: str = ""
    confidence: str = ""


class Pace(StrEnum):
    """How fast hardware computes with a type: the class, not a figure."""

    NONE = "none"
    SLOW = "slow"
    PLAIN = "plain"
    FAST = "fast"
    MATRIX = "matrix"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Dtype:
    """What a processor makes of a type of numbers."""

    name: str
    speed: Pace
    note: str
    source: str
    confidence: str


@dataclass(frozen=True)
class Hardware:
    """A unit of a device: cpu, gpu, npu, dla or memory. `facts` are its figures by key."""

    name: str
    facts: Mapping[str, object]
    dtypes: Mapping[str, Dtype]
    source: str
    confidence: str


@dataclass(frozen=True)
class Toolchain:
    """What makes and runs a runtime's engines. An empty name: the table states none.

    `built_on`: host or device; `quantization`: explicit (Q/DQ) or implicit (a calibration cache),
    the preferred first; `strongly_typed`: never, optional or always.
    """

    name: str = ""
    version: str = ""
    built_on: str = "host"
    quantization: tuple[str, ...] = ("explicit",)
    strongly_typed: str = "never"
    source: str = ""
    confidence: str = ""


@dataclass(frozen=True)
class Substitute:
    """What a scheme becomes that a runtime does not have."""

    with_data: Scheme
    without_data: Scheme
    reason: str
    source: str
    confidence: str


@dataclass(frozen=True)
class Bug:
    """A known bug of a runtime in one op, where its attributes are as told.

    `op_type`: after its domain and a dot, where that is not ONNX's own; `detour`: "expand" writes
    the op out in simpler ones; "half" computes it in float16; "avoid" runs it elsewhere.
    """

    name: str
    op_type: str
    attributes: Mapping[str, tuple[str | float, ...]]
    effect: str
    detour: str
    source: str
    confidence: str


@dataclass(frozen=True)
class Bounds:
    """What a runtime asks of all that it is given. Zero and empty: no bound.

    `loadables`: pieces that one core takes; `ranks` of the values that go in and out;
    `only_listed`: what the op table does not list is not supported; `standard_ops`: ops of ONNX's
    own domain alone; `engine_bytes`: weights, as the source has them, that an engine may hold.
    """

    loadables: int = 0
    ranks: tuple[int, ...] = ()
    max_batch: int = 0
    max_dimension: int = 0
    engine_bytes: int = 0
    only_listed: bool = False
    standard_ops: bool = False
    source: str = ""
    confidence: str = ""


@dataclass(frozen=True)
class Stack:
    """The software of a device: versions, and the container image that has them."""

    name: str
    python: str
    packages: Mapping[str, str]
    image: str
    note: str
    source: str
    confidence: str


@dataclass(frozen=True)
class Runtime:
    """A backend on one device of a target: what it accepts, and what it is good at.

    `precision`: what its float ops compute with; `static_shapes`: it takes fixed dimensions only;
    `compressed_dynamic`: it quantizes activations by itself where weights are INT8, so that dynamic
    INT8 is emitted as INT8 weights; `wrong_dense_chains`: its code generator spoils INT8 products
    in a row, so that it is switched off for engines that have them; `unpack_weights`: engines with
    INT8 weights alone unpack them once, to float; `group_sums`: it normalises groups between INT8
    nodes faster from their sums; `settings` go to the opener. `dtypes`: what its
    hardware computes with; `refused`: schemes that it therefore cannot have, with the reason;
    `instead`: what schemes become that it does not have; `unsupported`: ops that it lacks, with the
    source; `tolerates`: the newest opset that it takes of a model that cannot sink to `max_opset`;
    `natives`: custom ops that it has native kernels for.
    """

    name: str
    backend: str
    device: str
    max_opset: int
    max_ir: int
    precision: Scheme
    static_shapes: bool
    compressed_dynamic: bool
    wrong_dense_chains: bool
    unpack_weights: bool
    group_sums: bool
    settings: Mapping[str, object]
    grid: Grid
    ops: Mapping[str, OpRule]
    ladders: Mapping[Kind, Ladder]
    source: str
    confidence: str
    toolchain: Toolchain = Toolchain()
    limits: Bounds = Bounds()
    dtypes: Mapping[str, Dtype] = field(default_factory=dict)
    refused: Mapping[Scheme, str] = field(default_factory=dict)
    instead: Mapping[Scheme, Substitute] = field(default_factory=dict)
    unsupported: Mapping[str, str] = field(default_factory=dict)
    bugs: tuple[Bug, ...] = ()
    tolerates: int = 0
    natives: Mapping[str, KernelChoice] = field(default_factory=dict)


@dataclass(frozen=True)
class KernelChoice:
    """What computes a custom op (domain::name): a native kernel or the reference; see `Revision`.

    `files`: what was compiled; `plugin`: see `edgec.runtime.tensorrt_plugins`.
    """

    op: str
    runtime: str
    native: bool
    reason: str
    measured: str = ""
    files: tuple[Path, ...] = ()
    backend: str = ""
    plugin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """What one device with one software stack can do: its runtimes, the preferred first.

    `offloads`: runtimes to which a policy alone moves a part; `goals`: limits that the device sets.
    """

    name: str
    summary: str
    arch: str
    requires: tuple[frozenset[str], ...]
    stack: str
    runtimes: tuple[Runtime, ...]
    here: bool
    verified: str
    software: Stack
    hardware: Mapping[str, Hardware] = field(default_factory=dict)
    offloads: tuple[Runtime, ...] = ()
    goals: Mapping[str, object] = field(default_factory=dict)

    def runtime(self, name: str) -> Runtime:
        """The runtime called `name`. Raises KeyError where the stack has none."""
        return {one.name: one for one in self.runtimes}[name]


@dataclass(frozen=True)
class Histogram:
    """How often a value fell where: counts[i] is of bin b = first + i.

    Bin b >= 0 holds x with b <= x / width < b + 1; below zero it is the mirror image: bin -1 - m
    holds x with m <= -x / width < m + 1. The width is 2**exponent, the finest at which all finite
    numbers fall into the bins from -2048 to 2047, so that counts follow from the numbers alone, not
    from their order; `counts` int64 [bins] begins and ends with a bin in use. See
    `edgec.histogram`.
    """

    exponent: int
    first: int
    counts: np.ndarray

    @property
    def width(self) -> float:
        """The width of a bin, in the value's units."""
        return float(2.0**self.exponent)


@dataclass(frozen=True)
class ValueStatistics:
    """What was seen of one canonical value; NaN and infinities are counted and left out.

    `low` > `high`: its range was not asked for, or no number was ever seen. `seen`: samples in
    which there was a number; `mean_low`, `mean_high`: over these, the average of each sample's own
    extremes. `channel_mean`: E[x] per channel (axis 1), over the `channel_seen` samples (int64) in
    which it was a number; `channel_low`, `channel_high`: the extremes per channel (last axis);
    float64 [channels].
    """

    low: float = math.inf
    high: float = -math.inf
    seen: int = 0
    mean_low: float = 0.0
    mean_high: float = 0.0
    nans: int = 0
    infinities: int = 0
    histogram: Histogram | None = None
    channel_mean: np.ndarray | None = None
    channel_seen: np.ndarray | None = None
    channel_low: np.ndarray | None = None
    channel_high: np.ndarray | None = None


@dataclass(frozen=True)
class Statistics:
    """The asset of a calibration: per canonical value, over samples that are known by digest."""

    values: Mapping[str, ValueStatistics] = field(default_factory=dict)
    samples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Effort:
    """What a calibration took: runs of the model, seconds, CPU seconds, the peak of memory.

    `counter` says who counted, and why it was not the native code if it was not.
    """

    runs: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    counter: str = "nothing to count"
