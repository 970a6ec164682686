"""Run under TensorRT's genuine bindings (tools/tensorrt-bindings), in a process of its own.

Objects that only a GPU's library could give are stood in for, and take no attribute and no call
that the genuine class lacks; enumerations, the logger and the calibrators are the genuine ones.
Prints JSON for test_tensorrt_bindings.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt as trt

from edgec.errors import EdgecError
from edgec.runtime import tensorrt_build
from edgec.runtime import tensorrt_calibrators as calibrators
from edgec.runtime.tensorrt_adapters import adapter

calls: list[str] = []


class Strict:
    """As an object of `kind`: what that lacks is an error here too."""

    def __init__(self, kind: Any, **answers: Any) -> None:
        object.__setattr__(self, "_kind", kind)
        object.__setattr__(self, "_answers", answers)

    def __getattr__(self, name: str) -> Any:
        if not hasattr(self._kind, name):
            raise AttributeError(f"{self._kind.__name__} has no {name}")
        if name in self._answers and not callable(self._answers[name]):
            return self._answers[name]

        def call(*arguments: Any) -> Any:
            calls.append(f"{self._kind.__name__}.{name}")
            answer = self._answers.get(name)
            return answer(*arguments) if answer else True

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        if not hasattr(self._kind, name):
            raise AttributeError(f"{self._kind.__name__} has no {name}")
        calls.append(
            f"{self._kind.__name__}.{name} = {getattr(value, 'name', type(value).__name__)}"
        )


flags: list[str] = []
network_flags: list[int] = []
cache = Strict(trt.ITimingCache, serialize=lambda: b"times")
config = Strict(
    trt.IBuilderConfig,
    set_flag=lambda flag: flags.append(flag.name),
    create_timing_cache=lambda data: cache,
)
value = Strict(trt.ITensor, name="image", shape=(-1, 3, 8, 8))
network = Strict(trt.INetworkDefinition, num_inputs=1, get_input=lambda index: value)
profile = Strict(trt.IOptimizationProfile)
serialized: list[bytes | None] = [b"an engine"]


def create_network(flags: int) -> Any:
    network_flags.append(flags)
    return network


class Module:
    """The genuine module with objects of the library stood in for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(trt, name)

    def Builder(self, logger: Any) -> Any:  # noqa: N802
        assert isinstance(logger, trt.ILogger)
        logger.log(trt.ILogger.INFO, "a line of the log")
        return Strict(
            trt.Builder,
            create_network=create_network,
            create_builder_config=lambda: config,
            create_optimization_profile=lambda: profile,
            build_serialized_network=lambda network, config: serialized[0],
            num_DLA_cores=2,
        )

    def OnnxParser(self, network: Any, logger: Any) -> Any:  # noqa: N802
        return Strict(trt.OnnxParser, parse_from_file=lambda path: True)


def built(folder: Path, **changes: Any) -> dict[str, Any]:
    """What `build` says and does for a request."""
    for record in (calls, flags, network_flags):
        record.clear()
    (folder / "calibration").write_bytes(b"TRT-100300-EntropyCalibration2\nimage: 3c010204\n")
    request = {
        "module": "tensorrt",
        "model": "model.onnx",
        "engine": str(folder / "engine"),
        "log": str(folder / "log"),
        "precision": "int8",
        "form": "explicit",
        "typed": False,
        "cache": str(folder / "calibration"),
        "batches": "",
        "profiles": [{"image": {k: [1, 3, 8, 8] for k in ("min", "opt", "max")}}],
        "workspace": 1 << 28,
        "timing_cache": str(folder / "times"),
        "capabilities": [],
        "dla": None,
        "flags": ["STRIP_PLAN", "NO_SUCH_FLAG"],
        **changes,
    }
    try:
        answer = tensorrt_build.build(request)
    except EdgecError as error:
        return {"error": type(error).__name__, "message": error.message}
    return {
        "set": answer["set"],
        "flags": list(flags),
        "network": list(network_flags),
        "calls": sorted(set(calls)),
        "engine": (folder / "engine").read_bytes().decode(),
        "times": (folder / "times").read_bytes().decode(),
        "log": (folder / "log").read_text(),
    }


def calibrating() -> dict[str, Any]:
    """Both calibrators, as the library would use them."""
    if not hasattr(trt, "IInt8EntropyCalibrator2"):
        return {}
    served = calibrators.from_cache(trt, b"a cache")
    found: dict[str, Any] = {
        "genuine": isinstance(served, trt.IInt8EntropyCalibrator2),
        "algorithm": served.get_algorithm().name,
        "cache": bytes(served.read_calibration_cache()).decode(),
        "batch": served.get_batch_size(),
        "asked before": served.asked,
    }
    try:
        served.get_batch(["image"])
    except EdgecError as error:
        found["refused"] = error.message
    found["asked after"] = served.asked

    class Memory:
        """Records what is copied; the addresses are its own."""

        def __init__(self) -> None:
            self.held: list[int] = []
            self.copied: list[tuple[int, float]] = []

        def allocate(self, size: int) -> int:
            self.held.append(size)
            return 1000 * len(self.held)

        def upload(self, address: int, array: np.ndarray) -> None:
            self.copied.append((address, float(array.sum())))

    memory = Memory()
    batches = ({"b": np.full((1, 4), k, "f4"), "a": np.full((1, 2), k, "f4")} for k in (1, 2, 3))
    stream = calibrators.from_batches(trt, iter(batches), memory)
    given = []
    while (batch := stream.get_batch(["a", "b"])) is not None:
        given.append(list(batch))
    stream.write_calibration_cache(b"made")
    found["streamed"] = {
        "genuine": isinstance(stream, trt.IInt8EntropyCalibrator2),
        "algorithm": stream.get_algorithm().name,
        "given": given,
        "held": memory.held,
        "copied": memory.copied,
        "batches": stream.batches,
        "cache": stream.cache.decode(),
        "knows one": stream.read_calibration_cache() is None,
    }
    return found


def main(folder: Path) -> None:
    """Everything, as JSON on stdout."""
    plain = adapter(trt)
    result: dict[str, Any] = {"version": plain.version, "adapter": plain.name}
    result["genuine builder"] = built(folder)  # the stub's factory gives nothing
    sys.modules["tensorrt"] = Module()  # type: ignore[assignment]
    result["explicit"] = built(folder)
    result["typed"] = built(folder, typed=True)
    result["implicit"] = built(folder, form="implicit")
    result["no half"] = built(folder, half=False)
    result["float16"] = built(folder, precision="float16", form="plain")
    result["float32"] = built(folder, precision="float32", form="plain")
    result["dla"] = built(folder, form="implicit", dla=1)
    result["no such dla"] = built(folder, dla=5)
    result["no bounds"] = built(folder, profiles=[])
    serialized[0] = None
    result["failed"] = built(folder)
    result["calibrators"] = calibrating()
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
