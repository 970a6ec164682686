"""Engines of TensorRT 8.5 and later, and of TensorRT-RTX, on an NVIDIA GPU.

Before the engine is deserialised, the device is compared with what the engine is for; an engine of
another GPU or version would fail with no more than "deserialize failed". Not verified on hardware.
"""

import threading
from pathlib import Path
from typing import Any, Dict, Mapping, Union

import numpy as np

from edgec.errors import InputError, ToolchainError
from edgec.runtime.device_memory import DeviceMemory
from edgec.runtime.stamp import mismatches, probe, wrong_device
from edgec.runtime.tensorrt_build import module
from edgec.runtime.tensorrt_plugins import register

SETTINGS = {"module", "requires", "target", "device", "neighbours", "threads", "hint", "plugins"}


class TensorRTSession:
    """A deserialised engine with one context; calls from several threads wait for each other."""

    def __init__(self, trt: Any, engine: Any, memory: DeviceMemory) -> None:
        self._engine, self._memory, self._lock = engine, memory, threading.Lock()
        self._context = engine.create_execution_context()
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        mode = trt.TensorIOMode
        self._inputs = [n for n in names if engine.get_tensor_mode(n) == mode.INPUT]
        self._outputs = [n for n in names if engine.get_tensor_mode(n) == mode.OUTPUT]
        self._types = {name: np.dtype(trt.nptype(engine.get_tensor_dtype(name))) for name in names}
        self._buffers: Dict[str, Any] = {}

    def run(self, feeds: Mapping[str, Any]) -> Dict[str, Any]:
        """Run once. InputError: a shape outside the engine's profile, or a failed call."""
        with self._lock:
            self._memory.enter()
            try:
                return self._run(feeds)
            finally:
                self._memory.leave()

    def _run(self, feeds: Mapping[str, Any]) -> Dict[str, Any]:
        context = self._context
        for name in self._inputs:
            array = np.asarray(feeds[name], self._types[name], order="C")
            if not context.set_input_shape(name, array.shape):
                message = "input {!r}: {} is outside of what the engine was built for"
                hint = "Build with --shape that covers it."
                raise InputError(message.format(name, list(array.shape)), hint=hint)
            self._memory.upload(self._address(name, array.nbytes), array)
        made: Dict[str, Any] = {}
        for name in self._outputs:
            made[name] = np.empty(tuple(context.get_tensor_shape(name)), self._types[name])
            self._address(name, made[name].nbytes)
        if not context.execute_async_v3(self._memory.stream):
            raise InputError("the engine failed", hint="Check shapes and values of the inputs.")
        for name, array in made.items():
            self._memory.download(array, self._buffers[name][0])
        self._memory.wait()
        return made

    def _address(self, name: str, size: int) -> int:
        """Where a tensor lies on the GPU; it grows and never shrinks."""
        address, held = self._buffers.get(name, (0, -1))
        if size > held:
            address = self._memory.allocate(size)
            self._buffers[name] = (address, size)
            self._context.set_tensor_address(name, address)
        return int(address)

    def close(self) -> None:
        """Release the engine and its memory."""
        self._context = self._engine = None
        self._memory.close()


def open_artifact(artifact: Union[Path, bytes], settings: Mapping[str, Any]) -> TensorRTSession:
    """Open an engine. `settings`: `module`, `requires` and `target` of the bundle's manifest.

    UnsupportedError: it is for another device. ToolchainError: no TensorRT, pycuda or GPU.
    InputError: settings that are not sound, or an engine that TensorRT refuses.
    """
    unknown = sorted(set(settings) - SETTINGS)
    if unknown or not {"module", "requires", "target"} <= set(settings):
        message = "tensorrt: settings are not sound" + (": " + unknown[0] if unknown else "")
        raise InputError(message, hint="Build the bundle again.")
    trt = module(settings["module"])
    device = probe(settings["module"])
    found = mismatches(settings["requires"], device)
    if found:
        raise wrong_device(settings["target"], device, found)
    if not hasattr(trt.ICudaEngine, "num_io_tensors"):
        message = "TensorRT {} is too old to run from here".format(device.version)
        raise ToolchainError(message, hint="TensorRT 8.5 or newer is needed: JetPack 5.")
    register(trt, settings.get("plugins", ()))
    memory = DeviceMemory()
    data = artifact if isinstance(artifact, bytes) else artifact.read_bytes()
    logger = trt.Logger(trt.Logger.ERROR)
    engine = trt.Runtime(logger).deserialize_cuda_engine(data)
    if engine is None:
        memory.close()
        message = "TensorRT {} does not take the engine".format(device.version)
        hint = "Build it anew on this device: python3 BUNDLE finish --again."
        raise InputError(message, hint=hint)
    return TensorRTSession(trt, engine, memory)
