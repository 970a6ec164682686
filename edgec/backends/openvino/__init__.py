"""OpenVINO: the engine is an IR, converted from the quantized ONNX and compiled where it runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgec.backends.onnxruntime import _misplaced as misplaced
from edgec.backends.onnxruntime.audit import planned
from edgec.backends.openvino.audit import audit, emitted
from edgec.backends.openvino.chains import has_dense_chain
from edgec.backends.openvino.cut import cut
from edgec.backends.openvino.ir import convert
from edgec.graphs import save
from edgec.isolate import call
from edgec.results import Artifact, Engine
from edgec.types import Decision, Part, Scheme

# Values that share a scale where activations are quantized at run time; the table's
# `dynamic_inputs` follow from it.
GROUP_SIZE = 64


class Backend:
    """Converts the engine in a subprocess, compiles it there, and reads the compiled graph back."""

    def emit(
        self, engine: Engine, decisions: Mapping[str, Decision], into: Path, threads: int
    ) -> Artifact:
        """See `backends.Backend`."""
        onnx = into / f"{engine.name}.openvino.onnx"
        path = into / f"{engine.name}.xml"
        files = save(engine.model, onnx)
        call(convert, onnx, path, engine.half)
        for file in files:
            file.unlink()
        asked = emitted(engine.model, decisions)
        wanted = planned(engine, decisions, asked)
        settings = _settings(engine, decisions)
        names = _labels(engine, wanted.int8 | wanted.float)
        dynamic = [name for name in names.values() if decisions[name].scheme is Scheme.INT8_DYNAMIC]
        optimised = call(audit, path, settings, names, dynamic, threads)
        return Artifact(
            engine=engine.name,
            backend=engine.runtime.backend,
            device=engine.runtime.device,
            path=path,
            data_files=(path.with_suffix(".bin"),),
            parts=engine.parts,
            inputs=engine.inputs,
            outputs=engine.outputs,
            settings=settings,
            planned=wanted.counts,
            emitted=asked.counts,
            optimised=optimised.counts,
            misplaced=misplaced(decisions, wanted, asked, optimised),
            half=engine.half,
        )

    def cut(self, artifact: Artifact, part: Part, into: Path) -> Path:
        """See `backends.Backend`."""
        path = into / f"{part.name}.built.xml"
        call(cut, artifact.path, part.inputs, part.outputs, path)
        return path


def _labels(engine: Engine, nodes: frozenset[str]) -> dict[str, str]:
    """What OpenVINO may call each of the nodes.

    A product becomes one layer with the addition of its bias and is called as that; what makes an
    output of the graph is called as the output.
    """
    labels: dict[str, str] = {}
    for node in engine.source.graph:
        name = str(node.name)
        if name not in nodes:
            continue
        uses = list(node.outputs[0].uses())
        bias = [use.node for use in uses if use.node.op_type == "Add" and len(uses) == 1]
        for one in (*bias, node):
            labels.setdefault(str(one.outputs[0].name), name)
            labels.setdefault(str(one.name), name)
    return labels


def _settings(engine: Engine, decisions: Mapping[str, Decision]) -> Mapping[str, object]:
    """The runtime's own, with the precision of the plan, and without what it computes wrongly."""
    names = [str(node.name) for node in engine.source.graph]
    dynamic = any(decisions[name].scheme is Scheme.INT8_DYNAMIC for name in names)
    unsafe = engine.runtime.wrong_dense_chains and has_dense_chain(engine.model)
    return {
        **engine.runtime.settings,
        "precision": str(engine.precision),
        **({"dynamic_quantization_group": GROUP_SIZE} if dynamic else {}),
        **({"snippets": False} if unsafe else {}),
    }
