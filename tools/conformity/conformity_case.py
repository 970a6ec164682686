"""One node case of ONNX through all stages for one backend, and through the raw backend."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO
from unittest import mock

import numpy as np
import onnx

from edgec.assign import assign
from edgec.backends import backend
from edgec.canonicalise import canonicalise
from edgec.errors import EdgecError, EmitError
from edgec.join import join
from edgec.load import load
from edgec.lower import lower
from edgec.partition import partition
from edgec.results import Artifact
from edgec.runtime.openers import opener
from edgec.target import load_target, stacks
from edgec.types import Override, Policy, Scheme, Target

TARGET = "x86-vnni"
BACKENDS = ("onnxruntime", "openvino")
FLOAT = Policy(parts=(Override("*", scheme=Scheme.FLOAT32),))
PASSED, REFUSED, SHARED, FAILED = "passed", "refused", "shared", "failed"
DIFFERS = "differs"
Case = Any  # onnx's TestCase: name, model, data_sets of inputs and expected outputs, rtol, atol
Row = dict[str, str]


def target(name: str) -> Target:
    """The row of this kind of CPU with one backend alone."""
    for stack in stacks(TARGET):
        row = load_target(TARGET, stack)
        if found := tuple(one for one in row.runtimes if one.backend == name):
            return replace(row, runtimes=found)
    raise LookupError(f"{TARGET} has no {name}")


def run_all(cases: Sequence[Case], name: str, log: Path) -> None:
    """Judge cases one after the other; each is written down when it begins and when it ends."""
    with log.open("a", encoding="utf-8") as stream:
        for case in cases:
            _say(stream, {"case": case.name, "state": "begun", "backend": name})
            _say(stream, {**judge(case, name), "backend": name})


def _say(stream: TextIO, row: Row) -> None:
    stream.write(json.dumps(row) + "\n")
    stream.flush()


def judge(case: Case, name: str) -> Row:
    """Passed, or with a reason one of three others.

    Refused: the raw backend does not pass either. Shared: so does the raw backend compute other
    numbers than the case expects. Failed: all else.
    """
    with tempfile.TemporaryDirectory(prefix="edgec-conformity-") as folder:
        place = Path(folder)
        ours, why = _outcome(case, lambda feeds: through(case, name, place, feeds))
        if ours == PASSED:
            return {"case": case.name, "state": PASSED, "reason": ""}
        raw, raw_why = _outcome(case, lambda feeds: alone(case, name, place, feeds))
    state = FAILED
    if ours == REFUSED and raw != PASSED:
        state = REFUSED
    elif ours == raw == DIFFERS:
        state = SHARED
    return {"case": case.name, "state": state, "reason": why, "raw": raw, "raw_reason": raw_why}


def _outcome(case: Case, run: Any) -> tuple[str, str]:
    """Of all data sets. Refused: an error that is meant; failed: one that is not."""
    try:
        for inputs, expected in case.data_sets:
            names = [value.name for value in case.model.graph.input]
            listed = inputs if isinstance(inputs, dict) else dict(zip(names, inputs, strict=False))
            feeds = {key: _array(value) for key, value in listed.items()}
            found = run(feeds)
            outputs = [value.name for value in case.model.graph.output]
            for index, wanted in enumerate(expected):
                compare(found[outputs[index]], wanted, case.rtol, case.atol)
    except EdgecError as error:
        return REFUSED, f"{type(error).__name__}: {error.message}"[:400]
    except AssertionError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return DIFFERS, " ".join(lines[:6])[:400]
    except Exception as error:
        return FAILED, f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]
    return PASSED, ""


def _array(value: Any) -> Any:
    """The cases have numpy's scalars where they mean tensors of rank 0, and protobuf's tensors."""
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def compare(found: Any, expected: Any, relative: float, absolute: float) -> None:
    """As onnx's own runner does."""
    if isinstance(expected, (list, tuple)):
        assert isinstance(found, (list, tuple)), "no sequence"
        assert len(found) == len(expected), f"{len(found)} instead of {len(expected)}"
        for one, other in zip(found, expected, strict=True):
            compare(one, other, relative, absolute)
        return
    if expected is None:
        assert found is None or np.size(found) == 0, "something where nothing was expected"
        return
    expected, found = np.asarray(_array(expected)), np.asarray(found)
    if expected.dtype.kind in "OUST":
        np.testing.assert_array_equal(found.astype(object), expected.astype(object))
        return
    assert found.dtype == expected.dtype, f"{found.dtype} instead of {expected.dtype}"
    assert found.shape == expected.shape, f"{found.shape} instead of {expected.shape}"
    if expected.dtype.kind in "biu":
        np.testing.assert_array_equal(found, expected)
    else:
        wide = np.complex128 if expected.dtype.kind == "c" else np.float64
        np.testing.assert_allclose(
            found.astype(wide), expected.astype(wide), rtol=relative, atol=absolute
        )


def through(case: Case, name: str, place: Path, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Load, canonicalise, partition, lower, emit in float, and run."""
    path = place / "model.onnx"
    path.write_bytes(case.model.SerializeToString())
    graph = canonicalise(load(path), {})
    row = target(name)
    plan = assign(graph, partition(graph), FLOAT, row, data=False)
    known = dict(feeds)
    for engine in join(graph, plan, row):
        made = replace(engine, model=lower(engine.model.clone(), engine.runtime))
        with (
            mock.patch("edgec.backends.onnxruntime.call", _call),
            mock.patch("edgec.backends.openvino.call", _call),
        ):
            artifact = backend(name).emit(made, plan.decisions, place, 1)
        given = {key: known[key] for key in engine.inputs if key in known}
        known.update(_call(_run, artifact, given, engine.outputs))
    return known


def _call(function: Any, *arguments: Any, **_: Any) -> Any:
    """As `edgec.isolate.call`, but here: this is a subprocess, and one a case takes hours."""
    try:
        return function(*arguments)
    except EdgecError:
        raise
    except Exception as error:
        raise EmitError(f"{type(error).__name__}: {error}", hint="") from error


def _run(artifact: Artifact, feeds: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
    """Open an engine and run it, as verification does in a subprocess."""
    session = opener(artifact.backend)(artifact.path, {**artifact.settings, "threads": 1})
    found = session.run(feeds)
    return {name: found[name] for name in outputs}


def alone(case: Case, name: str, place: Path, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """What the backend makes of the file as it is."""
    outputs = [value.name for value in case.model.graph.output]
    path = place / "raw.onnx"
    path.write_bytes(case.model.SerializeToString())
    if name == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return dict(zip(outputs, session.run(outputs, dict(feeds)), strict=True))
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    known = {name for port in compiled.inputs for name in port.get_names()}
    found = compiled({name: array for name, array in feeds.items() if name in known})
    return {key: found[index] for index, key in enumerate(outputs)}
