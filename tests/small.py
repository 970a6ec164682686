"""Small graphs written as text, the stages up to a plan, and plain runs in ONNX Runtime."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import graphs
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from edgec.assign import assign
from edgec.canonicalise import canonicalise
from edgec.graphs import save as write
from edgec.load import load
from edgec.partition import partition
from edgec.target import load_target, stacks
from edgec.types import Graph, Part, Plan, Policy, Runtime, Target

Array = np.ndarray
TARGETS = ("x86-vnni", "x86-avx2", "aarch64-dotprod", "generic")


def model(text: str, opset: int = 17, more: str = "", **weights: Array) -> ir.Model:
    """A model from ONNX's text form; `[name] y = Op (x)` names a node. Weights by name."""
    head = f'<ir_version: 8, opset_import: ["" : {opset}{more}]>\n'
    proto = onnx.parser.parse_model(head + text)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()
    )
    return ir.from_proto(proto)


def save(made: ir.Model, path: Path) -> Path:
    ir.save(made, path)
    return path


def graph(made: ir.Model) -> Graph:
    """A graph as `load` gives it."""
    return Graph(model=made, source="small.onnx", digest=lambda: "0" * 64, bytes=1)


def canonical(made: ir.Model) -> Graph:
    return canonicalise(graph(made), {})


@functools.cache
def fixture(name: str) -> Graph:
    """The canonical graph of a fixture; shared, so not to be changed."""
    return canonicalise(load(graphs.path(name)), {})


@functools.cache
def parts(name: str) -> tuple[Part, ...]:
    return partition(fixture(name))


@functools.cache
def target(name: str, backend: str = "onnxruntime") -> Target:
    """A row with its runtimes of one backend alone, as `--backend` narrows it."""
    for stack in stacks(name):
        row = load_target(name, stack)
        if found := tuple(one for one in row.runtimes if one.backend == backend):
            return replace(row, runtimes=found)
    raise LookupError(f"{name} has no {backend}")


def runtime(name: str, backend: str = "onnxruntime") -> Runtime:
    return target(name, backend).runtimes[0]


def plan(
    found: Graph,
    name: str,
    policy: Policy | None = None,
    *,
    data: bool = True,
    backend: str = "onnxruntime",
) -> Plan:
    row = target(name, backend)
    return assign(found, partition(found), policy or Policy(), row, data=data)


def run(
    made: ir.Model | Path,
    feeds: Mapping[str, Array],
    wanted: Sequence[str] | None = None,
    *,
    level: str = "ORT_DISABLE_ALL",
    disabled: Sequence[str] = (),
) -> dict[str, Array]:
    """Run a model on one thread; by default exactly as it stands."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    with tempfile.TemporaryDirectory() as folder:
        path = made if isinstance(made, Path) else Path(folder) / "model.onnx"
        if not isinstance(made, Path):
            write(made.clone(), path)
        session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], disabled_optimizers=set(disabled)
        )
    takes = {value.name for value in session.get_inputs()}
    names = list(wanted or [value.name for value in session.get_outputs()])
    arrays = session.run(names, {name: feeds[name] for name in takes})
    return dict(zip(names, arrays, strict=True))


def exposed(found: ir.Model, names: Sequence[str]) -> ir.Model:
    """A copy whose outputs are the named values."""
    copy = found.clone()
    values = ir.convenience.create_value_mapping(copy.graph, include_subgraphs=False)
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(values[name] for name in names)
    return copy


def ops(made: ir.Model) -> list[str]:
    return [node.op_type for node in made.graph]


def node(made: ir.Model, name: str) -> ir.Node:
    return next(one for one in made.graph if one.name == name)


def normal(seed: int, *shape: int, spread: float = 1.0) -> Array:
    return np.random.default_rng(seed).normal(0, spread, shape).astype(np.float32)


def sqnr(reference: Array, other: Array) -> float:
    """In dB."""
    x, y = reference.astype(np.float64), other.astype(np.float64)
    return float(10 * np.log10((x**2).sum() / max(((x - y) ** 2).sum(), 1e-300)))
