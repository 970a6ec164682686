"""ONNX Runtime's CPU provider: the engine is the quantized ONNX file itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgec.backends.onnxruntime.audit import Found, audit, count, planned
from edgec.graphs import save
from edgec.isolate import call
from edgec.types import Artifact, Decision, Engine, Target


class Backend:
    """Saves the engine, opens it in a subprocess, and reads the optimised graph back."""

    def emit(
        self,
        engine: Engine,
        decisions: Mapping[str, Decision],
        target: Target,
        into: Path,
        threads: int,
    ) -> Artifact:
        """See `backends.Backend`."""
        path = into / f"{engine.name}.onnx"
        save(engine.model, path)
        emitted = count(engine.model)
        wanted = planned(engine, decisions, emitted)
        optimised: Found = call(audit, path, dict(target.stack.settings), threads)
        return Artifact(
            engine=engine.name,
            backend=engine.backend,
            device=engine.device,
            path=path,
            parts=engine.parts,
            inputs=engine.inputs,
            outputs=engine.outputs,
            settings=target.stack.settings,
            planned=wanted.counts,
            emitted=emitted.counts,
            optimised=optimised.counts,
            misplaced=tuple(sorted((optimised.float | emitted.float) & wanted.int8)),
        )
