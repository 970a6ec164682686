"""ONNX Runtime's CPU provider: the engine is the quantized ONNX file, or its `.ort` form."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from edgec.backends.onnxruntime import group_sums
from edgec.backends.onnxruntime.audit import INT8_OPS, NCHWC, Found, Names, audit, count, planned
from edgec.backends.onnxruntime.cut import cut
from edgec.backends.onnxruntime.ort_format import MOST_BYTES, convert, files, form
from edgec.backends.onnxruntime.pools import PROPAGATION, pools_float
from edgec.backends.onnxruntime.products import FUSION, adds_to_int8
from edgec.errors import EmitError, UnsupportedError
from edgec.graphs import QUANTIZERS, is_constant, save
from edgec.isolate import call
from edgec.kernels.native import level
from edgec.results import Artifact, Engine
from edgec.runtime.onnxruntime_settings import parse
from edgec.types import Decision, Part, Scheme

# DequantizeLinear of weights is folded when the engine is opened, and stays where it is otherwise.
NATIVE = "holds native kernels of custom ops, which edgec run and load ask leave for: --native-code"
FREE = "normalisations compute in float and would in 8 bits with a batch of 1: fix it by --shape"
UNPACK = {"session.disable_quant_qdq": "1"}


class Backend:
    """Saves the engine, opens it in a subprocess, and reads the optimised graph back."""

    def emit(
        self, engine: Engine, decisions: Mapping[str, Decision], into: Path, threads: int
    ) -> Artifact:
        """See `backends.Backend`."""
        summed = free = 0
        if engine.runtime.group_sums:
            model = engine.model.clone()
            summed, free = group_sums.apply(model, _between_parts(engine, decisions))
            engine = replace(engine, model=model)
        chosen, wishes = form(engine.runtime.settings)
        if chosen == "onnx" and engine.runtime.unpack_weights and _only_weights(engine.model):
            config = wishes.get("config", {})
            wishes["config"] = {**(config if isinstance(config, dict) else {}), **UNPACK}
        without = [PROPAGATION] if summed or pools_float(engine.model) else []
        without += [FUSION] if adds_to_int8(engine.model) else []
        if without:
            disabled = wishes.get("disabled_optimizers", [])
            known = list(disabled) if isinstance(disabled, list) else []
            wishes["disabled_optimizers"] = [*known, *without]
        if libraries := _libraries(engine, into):
            wishes["kernels"] = [one.name for one in libraries]
            wishes["kernels_need"] = list(level(engine.target)[1])
        emitted = count(engine.model, fused=False)
        wanted = planned(engine, decisions, emitted)
        path = into / f"{engine.name}.onnx"
        if chosen == "ort":
            _check_size(engine)
        if summed:
            group_sums.forget_shapes(engine.model)
        path, *data_files = save(engine.model, path)
        nodes = frozenset(str(node.name) for node in engine.model.graph)
        optimised, settings, notes = _open(path, wishes, chosen, threads, nodes)
        side_files: tuple[Path, ...] = ()
        if chosen == "ort":
            path, *data_files = files(path)[:1]
            side_files = files(path)[1:]
        return Artifact(
            engine=engine.name,
            backend=engine.runtime.backend,
            device=engine.runtime.device,
            path=path,
            data_files=(*data_files, *libraries),
            parts=engine.parts,
            inputs=engine.inputs,
            outputs=engine.outputs,
            settings=settings,
            planned=wanted.counts,
            emitted=emitted.counts,
            optimised=optimised.counts,
            misplaced=_misplaced(decisions, wanted, emitted, optimised),
            notes=(
                *notes,
                *_remarks(engine.name, optimised, path, settings),
                *([f"{engine.name} {NATIVE}"] if libraries else []),
                *([f"{engine.name}: {free} {FREE}"] if free else []),
            ),
            side_files=side_files,
        )

    def cut(self, artifact: Artifact, part: Part, into: Path) -> Path:
        """See `backends.Backend`. UnsupportedError: a `.ort` file without the ONNX it came from."""
        source = artifact.path.with_suffix(".onnx")
        if not source.is_file():
            raise UnsupportedError(
                f"no part can be taken out of {artifact.path.name}: its graph is optimised already",
                hint="compare the parts of a bundle that was built without --format ort",
            )
        path = into / f"{part.name}.built.onnx"
        save(cut(ir.load(source), part.inputs, part.outputs), path)
        for name in parse(artifact.settings).kernels:
            if not (into / name).exists():
                shutil.copyfile(source.parent / name, into / name)
        return path


def _libraries(engine: Engine, into: Path) -> list[Path]:
    """The native kernels that the engine's nodes need, copied to where it goes."""
    used = {f"{node.domain}::{node.op_type}" for node in engine.model.graph.all_nodes()}
    natives = engine.runtime.natives
    found = [file for key in sorted(used & set(natives)) for file in natives[key].files]
    files = list(dict.fromkeys(found))  # one library may hold several ops
    for file in files:
        if file.parent != into:
            shutil.copyfile(file, into / file.name)
    return [into / file.name for file in files]


def _between_parts(engine: Engine, decisions: Mapping[str, Decision]) -> frozenset[str]:
    """Values that one part hands to another, under whose names parts are cut out of the engine."""
    part = {node: decisions[str(node.name)].part for node in engine.source.graph}
    return frozenset(
        str(value.name)
        for node in part
        for value in node.outputs
        if any(part.get(use.node, part[node]) != part[node] for use in value.uses())
    )


def _only_weights(model: ir.Model) -> bool:
    """Whether all that is INT8 are constants: unpacking then undoes no arithmetic in INT8."""
    return not any(
        node.op_type in INT8_OPS | QUANTIZERS
        and not (node.op_type == "DequantizeLinear" and is_constant(node.inputs[0]))
        for node in model.graph.all_nodes()
    )


def _misplaced(
    decisions: Mapping[str, Decision], wanted: Found, emitted: Found, optimised: Found
) -> tuple[str, ...]:
    """Nodes that were to be INT8 and are not, or the reverse; not those that are kept."""
    found = (optimised.float | emitted.float) & wanted.int8
    found |= (optimised.int8 | emitted.int8) & wanted.float
    return tuple(sorted(n for n in found if decisions[n].scheme is not Scheme.KEPT))


def _open(
    path: Path, settings: Mapping[str, object], chosen: str, threads: int, known: Names
) -> tuple[Found, Mapping[str, object], tuple[str, ...]]:
    """Open with all graph optimisations, or, where they break the graph, with the basic ones."""
    try:
        return _build(path, settings, chosen, threads, known), settings, ()
    except EmitError as error:
        if settings.get("graph_optimization_level") in ("basic", "disable_all"):
            raise
        fewer = {**settings, "graph_optimization_level": "basic"}
        found = _build(path, fewer, chosen, threads, known)
        note = f"{path.stem}: only basic graph optimisations, because all of them failed: "
        return found, fewer, (note + error.message[:300],)


def _build(
    path: Path, settings: Mapping[str, object], chosen: str, threads: int, known: Names
) -> Found:
    """In a subprocess: open the file as the device will, or write its `.ort` form and open that."""
    found: Found = call(convert if chosen == "ort" else audit, path, settings, threads, known)
    return found


def _check_size(engine: Engine) -> None:
    weights = engine.model.graph.initializers.values()
    total = sum(v.const_value.nbytes for v in weights if v.const_value is not None)
    if total > MOST_BYTES:
        raise UnsupportedError(
            f"engine {engine.name} has {total / 2**30:.1f} GiB of weights; a .ort file holds them "
            f"all in itself and ends at 2 GiB",
            hint="leave out --format ort, or quantize more by a policy",
        )


def _remarks(
    name: str, found: Found, path: Path, settings: Mapping[str, object]
) -> tuple[str, ...]:
    remarks = []
    if found.blockwise:
        remarks.append(
            f"{name}: ONNX Runtime rounds the activations of {len(found.blockwise)} products with "
            "INT8 weights to INT8 as well, by blocks, where the CPU has a kernel for it"
        )
    disabled = settings.get("disabled_optimizers")
    if path.suffix == ".ort" and not (isinstance(disabled, list) and NCHWC in disabled):
        remarks.append(
            f"{path.name} is laid out for CPUs like the one that built it, and no others"
        )
    return tuple(remarks)
