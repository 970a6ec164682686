"""ONNX Runtime's CPU provider: the engine is the quantized ONNX file itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgec.backends.onnxruntime.audit import Found, audit, count, planned
from edgec.errors import EmitError
from edgec.graphs import save
from edgec.isolate import call
from edgec.types import Artifact, Decision, Engine, Scheme, Target


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
        emitted = count(engine.model, fused=False)
        wanted = planned(engine, decisions, emitted)
        optimised, settings, notes = _open(path, target, threads)
        return Artifact(
            engine=engine.name,
            backend=engine.backend,
            device=engine.device,
            path=path,
            parts=engine.parts,
            inputs=engine.inputs,
            outputs=engine.outputs,
            settings=settings,
            planned=wanted.counts,
            emitted=emitted.counts,
            optimised=optimised.counts,
            misplaced=_misplaced(decisions, wanted, emitted, optimised),
            notes=notes,
        )


def _misplaced(
    decisions: Mapping[str, Decision], wanted: Found, emitted: Found, optimised: Found
) -> tuple[str, ...]:
    """Nodes that were to be INT8 and are not, or the reverse; not those that are kept."""
    found = (optimised.float | emitted.float) & wanted.int8
    found |= (optimised.int8 | emitted.int8) & wanted.float
    return tuple(sorted(n for n in found if decisions[n].scheme is not Scheme.KEPT))


def _open(
    path: Path, target: Target, threads: int
) -> tuple[Found, Mapping[str, object], tuple[str, ...]]:
    """Open with all graph optimisations, or, where they break the graph, with the basic ones."""
    settings = dict(target.stack.settings)
    try:
        return call(audit, path, settings, threads), settings, ()
    except EmitError as error:
        fewer = {**settings, "graph_optimization_level": "basic"}
        found: Found = call(audit, path, fewer, threads)
        note = f"{path.stem}: only basic graph optimisations, because all of them failed: "
        return found, fewer, (note + error.message[:300],)
