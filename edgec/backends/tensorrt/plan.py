"""What a device needs to know to build an engine: `build` in the manifest; see its schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from edgec.errors import UnsupportedError
from edgec.results import Engine
from edgec.types import Extent

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
# What the builder takes before any workspace. Measured with TensorRT-RTX 1.7.1: 235 to 300 MB for
# small models; ResNet-50 from 102 MB of weights 541 MB, from 26 MB in INT8 394 MB. What a Jetson
# adds to it (CUDA's context, kernels that are timed) is inferred.
BASE_HOST, BASE_DEVICE, PER_BYTE = 300 * 10**6, 1200 * 10**6, 3
WORKSPACE = (4 << 30, 1 << 30, 256 << 20, 64 << 20)


def memory(engine: Engine) -> int:
    """What the builder is expected to need, in bytes, without workspace."""
    tensors = (value.const_value for value in engine.source.graph.initializers.values())
    weights = sum(int(tensor.nbytes) for tensor in tensors if tensor is not None)
    base = BASE_HOST if engine.runtime.toolchain.built_on == "host" else BASE_DEVICE
    return base + PER_BYTE * weights


def requires(engine: Engine) -> dict[str, Any]:
    """What a device has to be."""
    gpu = engine.target.hardware.get("gpu")
    isa = "" if gpu is None else str(gpu.facts.get("isa", ""))
    digits = isa.removeprefix("sm_")
    if not digits.isdigit() or len(digits) < 2:
        raise UnsupportedError(
            f"target {engine.target.name} does not say what its GPU is",
            hint='write isa = "sm_87" in its hardware.gpu',
        )
    return {
        "arch": engine.target.arch,
        "capabilities": [f"{digits[:-1]}.{digits[-1]}"],
        "version": engine.runtime.toolchain.version,
    }


def profiles(engine: Engine) -> list[dict[str, Any]]:
    """One profile over the sizes that the inputs have; none where nothing varies."""
    found = {}
    for value in engine.model.graph.inputs:
        name = str(value.name)
        if name not in engine.inputs or value.shape is None:
            continue
        if all(isinstance(dim, int) for dim in value.shape):
            continue
        bounds = [_extent(engine, name, dim) for dim in value.shape]
        found[name] = {
            "min": [one.low for one in bounds],
            "opt": [one.typical for one in bounds],
            "max": [one.high for one in bounds],
        }
    return [found] if found else []


def _extent(engine: Engine, name: str, dim: int | ir.SymbolicDim) -> Extent:
    if isinstance(dim, int):
        return Extent(dim, dim, dim)
    known = engine.extents.get(str(dim.value))
    if known is None:
        raise UnsupportedError(
            f"engine {engine.name}: the size of {name!r} in dimension {dim.value or '?'} is not "
            "known, and TensorRT needs bounds",
            hint="give them: --shape INPUT=1x1..128, or samples with --data",
        )
    return known


def step(
    by: str,
    precision: str,
    form: str,
    model: str,
    *,
    typed: bool = False,
    half: bool = False,
    cache: str = "",
) -> dict[str, Any]:
    """One way to run an engine. `half`: whether FP16 may stand beside INT8 where flags decide."""
    found: dict[str, Any] = {"by": by, "precision": precision, "form": form, "model": model}
    found |= {"typed": typed, "half": half}
    return {**found, **({"cache": cache} if cache else {})}


def build(
    engine: Engine,
    steps: Sequence[Mapping[str, Any]],
    *,
    ready: bool,
    plugins: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The whole plan. `plugins`: see `edgec.runtime.tensorrt_plugins`."""
    host = engine.runtime.toolchain.built_on == "host"
    device = engine.runtime.device
    return {
        "module": MODULES[engine.runtime.toolchain.name],
        "requires": requires(engine),
        "ready": ready,
        "steps": [dict(one) for one in steps],
        "profiles": profiles(engine),
        "workspace": [] if host else list(WORKSPACE),
        "memory": memory(engine),
        "dla": int(device.removeprefix("dla") or 0) if device.startswith("dla") else None,
        "flags": [str(flag) for flag in _flags(engine)],
        **({"plugins": [dict(one) for one in plugins]} if plugins else {}),
    }


def _flags(engine: Engine) -> Sequence[object]:
    """Further builder flags of the runtime's settings, such as WEIGHT_STREAMING or STRIP_PLAN."""
    found = engine.runtime.settings.get("builder_flags", [])
    return found if isinstance(found, list) else [found]
