"""Emits an engine as an ONNX file, which `session` runs with numpy alone."""

from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgec.backends.onnxruntime.audit import count, planned
from edgec.backends.onnxruntime.cut import cut
from edgec.errors import EmitError
from edgec.graphs import save
from edgec.results import Artifact, Counts
from edgec.types import Scheme

from .session import NumpySession


class Backend:
    def emit(self, engine, decisions, into, threads):
        emitted = count(engine.model, fused=False)
        wanted = planned(engine, decisions, emitted)
        path, *data_files = save(engine.model, into / f"{engine.name}.onnx")
        ran = _try(path, engine.model)
        weighted = (emitted.int8 | emitted.float) & {name.removesuffix("/integer") for name in ran}
        int8 = {name for name in weighted if ran.get(name) or ran.get(f"{name}/integer")}
        wrong = (weighted - int8) & wanted.int8 | int8 & wanted.float
        return Artifact(
            engine=engine.name,
            backend=engine.runtime.backend,
            device=engine.runtime.device,
            path=path,
            data_files=tuple(data_files),
            parts=engine.parts,
            inputs=engine.inputs,
            outputs=engine.outputs,
            settings={},
            planned=wanted.counts,
            emitted=emitted.counts,
            optimised=Counts(len(int8), len(weighted - int8)),
            misplaced=tuple(sorted(n for n in wrong if decisions[n].scheme is not Scheme.KEPT)),
        )

    def cut(self, artifact, part, into):
        path = Path(into) / f"{part.name}.built.onnx"
        save(cut(ir.load(artifact.path), part.inputs, part.outputs), path)
        return path


def _try(path, model):
    """Run the engine once on zeros: which nodes ran, and whether they computed with integers."""
    session = NumpySession(path)
    feeds = {}
    for value in model.graph.inputs:
        if value.name not in model.graph.initializers:
            shape = [dim if isinstance(dim, int) else 2 for dim in value.shape]
            feeds[value.name] = np.ones(shape, value.dtype.numpy())
    try:
        session.run(feeds)
    except Exception as error:
        raise EmitError(
            f"numpy cannot run {path.name}: {error}", hint="use another backend"
        ) from error
    return session.ran
