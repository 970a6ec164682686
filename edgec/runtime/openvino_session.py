"""Engines on OpenVINO (2024.0 and later): IR files, or ONNX files for parts that are compared.

Float ops compute in the precision that the plan says, never in the device's own choice: OpenVINO's
CPU plugin computes in bf16 by default where the CPU has it.

A network with symbolic dimensions runs much slower than the same network with fixed ones (two
towers, AVX512-VNNI, 2 threads: 2.3x of FP32 ONNX Runtime against 3.1x). So the first few sets of
input shapes that come along get a compilation of their own (`specialise`, each costs its compile
time once and a copy of the packed weights); any further ones share the dynamic one.

A folder in the environment variable EDGEC_CACHE keeps compiled engines between starts.
"""

import os
import queue
import threading
from pathlib import Path
from typing import Any, Dict, List, Mapping, NoReturn, Tuple, Union

import openvino

from edgec.errors import InputError, ToolchainError
from edgec.runtime.onnx_file import check_beside, check_external

DEVICES = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU"}
PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
HINTS = {"latency": "LATENCY", "throughput": "THROUGHPUT"}
SUFFIXES = (".xml", ".onnx")
SPECIALISE = 5
_KEYS = {"device", "neighbours", "threads", "precision", "hint", "specialise"}
_KEYS |= {"dynamic_quantization_group", "snippets"}
_REBUILD = "Build the bundle again with this version of edgec."
Shapes = Tuple[Tuple[int, ...], ...]


class OpenVINOSession:
    """A compiled engine; `run` may be called from several threads at once."""

    def __init__(self, core: Any, model: Any, device: str, properties: Dict[str, Any], most: int):
        """`most`: how many sets of shapes are compiled for themselves."""
        self._core, self._model = core, model
        self._device, self._properties = device, properties
        self._names = [_name(port) for port in model.inputs]
        self._outputs = [_name(port) for port in model.outputs]
        self._fixed = not any(port.partial_shape.is_dynamic for port in model.inputs)
        self._most = 0 if self._fixed else most
        self._lock = threading.Lock()
        self._compiled: Dict[Shapes, _Pool] = {}
        if self._most == 0:
            self._pool(())

    def run(self, feeds: Mapping[str, Any]) -> Dict[str, Any]:
        """Arrays by input name -> new arrays by output name."""
        arrays = [feeds[name] for name in self._names]
        shapes = tuple(tuple(array.shape) for array in arrays)
        pool = self._pool(() if self._fixed else shapes)
        return dict(zip(self._outputs, pool.infer(arrays)))

    def close(self) -> None:
        """Release the engine."""
        with self._lock:
            self._compiled.clear()

    def _pool(self, shapes: Shapes) -> "_Pool":
        found = self._compiled.get(shapes)
        if found is not None:
            return found
        with self._lock:
            if shapes not in self._compiled and len(self._compiled) >= self._most:
                shapes = ()
            if shapes not in self._compiled:
                self._compiled[shapes] = self._compile(shapes)
            return self._compiled[shapes]

    def _compile(self, shapes: Shapes) -> "_Pool":
        model = self._model
        try:
            if shapes:
                model = self._reshaped(shapes)
            return _Pool(self._core.compile_model(model, self._device, self._properties))
        except RuntimeError as error:
            _explain(error, "engine", self._core)

    def _reshaped(self, shapes: Shapes) -> Any:
        model = self._model.clone()
        try:
            model.reshape(dict(zip(self._names, map(list, shapes))))
        except RuntimeError as error:
            _failed(error)
        return model


class _Pool:
    """A compilation, and as many infer requests as run at once."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._free = queue.LifoQueue()  # type: queue.LifoQueue[Any]

    def infer(self, arrays: List[Any]) -> List[Any]:
        try:
            request = self._free.get_nowait()
        except queue.Empty:
            request = self._compiled.create_infer_request()
        try:
            found = request.infer(arrays, share_inputs=True, share_outputs=False)
            return [found[index] for index in range(len(self._compiled.outputs))]
        except RuntimeError as error:
            _failed(error)
        finally:
            self._free.put(request)


def open_artifact(artifact: Union[Path, bytes], settings: Mapping[str, Any]) -> OpenVINOSession:
    """Open an IR (`.xml` with its `.bin` beside it) or an ONNX file; see `edgec.runtime.openers`.

    `settings`: precision (float32, bfloat16, float16), hint (latency, throughput), specialise
    (0 to 64), dynamic_quantization_group (0: off), snippets (false: the CPU plugin generates no
    code for groups of ops), threads, device (cpu, gpu, npu).
    """
    device, properties, most = configure(settings)
    if isinstance(artifact, bytes):
        raise InputError("an OpenVINO engine needs its files", hint=_REBUILD)
    _check_files(artifact)
    core = openvino.Core()
    if device not in core.available_devices and not any(
        name.startswith(device + ".") for name in core.available_devices
    ):
        message = "OpenVINO finds no {} here, only {}".format(
            device, ", ".join(core.available_devices)
        )
        raise ToolchainError(message, hint="Install its driver, or build for another target.")
    try:
        model = core.read_model(str(artifact))
    except RuntimeError as error:
        _explain(error, artifact.name, core)
    return OpenVINOSession(core, model, device, properties, most)


def _check_files(artifact: Path) -> None:
    """Nothing may be read but files of the artifact's folder, as IR or as ONNX.

    OpenVINO chooses how to read a file by its name and its content.
    """
    if artifact.suffix not in SUFFIXES:
        message = "{}: OpenVINO's engines are {}".format(artifact.name, " or ".join(SUFFIXES))
        raise InputError(message, hint=_REBUILD)
    if not artifact.is_file():
        raise InputError("{} is missing".format(artifact), hint=_REBUILD)
    with open(str(artifact), "rb") as stream:
        is_ir = stream.read(256).lstrip().startswith(b"<")
    if not is_ir:
        check_external(artifact, artifact.name)
    elif os.path.lexists(str(artifact.with_suffix(".bin"))):
        check_beside(artifact, artifact.with_suffix(".bin").name, artifact.name)


def configure(settings: Mapping[str, Any]) -> Tuple[str, Dict[str, Any], int]:
    """Device, properties for OpenVINO, and how many sets of shapes are compiled for themselves.

    Raises InputError for what a manifest may not say.
    """
    unknown = sorted(set(settings) - _KEYS)
    if unknown:
        _bad_setting("unknown setting " + ", ".join(repr(key) for key in unknown))
    device = _chosen(settings, "device", "cpu", DEVICES)
    properties: Dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _chosen(settings, "precision", "float32", PRECISIONS),
        "PERFORMANCE_HINT": _chosen(settings, "hint", "latency", HINTS),
    }
    threads = _number(settings, "threads", 0, 1024)
    if device == "CPU" and threads:
        properties["INFERENCE_NUM_THREADS"] = threads
    if device == "CPU":
        group = _number(settings, "dynamic_quantization_group", 0, 1 << 16)
        properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = str(group)  # 2024.4 refuses an int
    snippets = settings.get("snippets", True)
    if type(snippets) is not bool:
        _bad_setting("snippets {!r}".format(snippets))
    if device == "CPU" and not snippets:
        properties["SNIPPETS_MODE"] = "DISABLE"
    cache = os.environ.get("EDGEC_CACHE")
    if cache:
        properties["CACHE_DIR"] = os.path.join(cache, "openvino")
    return device, properties, _number(settings, "specialise", SPECIALISE, 64)


def _chosen(settings: Mapping[str, Any], key: str, default: str, known: Dict[str, str]) -> str:
    value = settings.get(key, default)
    if not isinstance(value, str) or value not in known:
        _bad_setting("{} {!r}".format(key, value))
    return known[value]


def _number(settings: Mapping[str, Any], key: str, default: int, most: int) -> int:
    value = settings.get(key, default)
    if type(value) is not int or not 0 <= value <= most:
        _bad_setting("{} {!r}".format(key, value))
    return int(value)


def _name(port: Any) -> str:
    """The tensor's name; IR keeps those of the ONNX file."""
    return str(port.get_any_name())


def _bad_setting(what: str) -> NoReturn:
    raise InputError("openvino engine: not allowed: " + what[:300], hint=_REBUILD)


def _explain(error: Exception, label: str, core: Any) -> NoReturn:
    version = openvino.get_version().split("-")[0]
    message = "OpenVINO {} cannot open {}: {}".format(version, label, _words(error))
    raise InputError(message, hint=_REBUILD) from error


def _failed(error: Exception) -> NoReturn:
    message = "the engine failed: " + _words(error)
    raise InputError(message, hint="Check shapes and values of the inputs.") from error


def _words(error: Exception) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines()]
    return " ".join(line for line in lines if line)[:500]
