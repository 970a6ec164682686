"""One engine, built in this process: parse, profile, limit, build. See `apart` for the limits.

The request is JSON:

    module        tensorrt or tensorrt_rtx
    model         an ONNX file                     engine, log   where the results go
    precision     int8, float16 or float32         form          explicit, implicit or plain
    typed         whether the types in the graph decide; half: else, whether INT8 may mix with FP16
    cache         a calibration cache, or ""       batches       a folder of .npz samples, or ""
    profiles      for each: input -> {"min", "opt", "max"}
    workspace     bytes, 0: the builder's own      timing_cache  a file, read and renewed, or ""
    capabilities  GPUs to build for; none: this    dla           a core, or null
    flags         further builder flags, used where the module has them
    plugins       what the model's custom ops need; see `tensorrt_plugins`
"""

import hashlib
import os
import re
from importlib import import_module
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional

from edgec.errors import EmitError, InputError, ToolchainError
from edgec.runtime import tensorrt_calibrators as calibrators
from edgec.runtime.apart import OutOfMemory
from edgec.runtime.tensorrt_adapters import IMPLICIT, adapter, set_extras, set_workspace
from edgec.runtime.tensorrt_layers import layers
from edgec.runtime.tensorrt_plugins import register

MODULES = ("tensorrt", "tensorrt_rtx")
_MEMORY = re.compile(r"out.?of.?memory|insufficient memory|cuda.*memory allocation", re.IGNORECASE)
_MOST_LOG = 64 << 20  # bytes
_REPORT = "Keep the part on another backend by a policy, or report the log."


def module(name: str) -> Any:
    """The bindings. ToolchainError: they are not installed, or do not load."""
    if name not in MODULES:
        raise InputError("{!r} is no TensorRT".format(name[:80]), hint="Build the bundle again.")
    try:
        return import_module(name)
    except (ImportError, OSError) as error:  # a library of theirs may be missing
        missing = isinstance(error, ModuleNotFoundError) and error.name == name
        why = "is not installed" if missing else "cannot be imported: {}".format(error)
        hint = "On Jetson it comes with JetPack: apt install python3-libnvinfer."
        if name == "tensorrt_rtx":
            hint = "pip install 'edgec[tensorrt-rtx]', or tensorrt-rtx-cu12 alone."
        raise ToolchainError("{} {}".format(name, why), hint=hint) from error


def build(request: Mapping[str, Any]) -> Dict[str, Any]:
    """Write the engine, and say what it is. Raises EmitError, OutOfMemory, ToolchainError."""
    trt = module(request["module"])
    face = adapter(trt)
    plugins = register(trt, request.get("plugins", ()))
    with _Log(trt, Path(request["log"])) as log:
        builder = _builder(trt, log)
        network = builder.create_network(face.network_flags(bool(request["typed"])))
        parser = trt.OnnxParser(network, log.logger)
        if not parser.parse_from_file(request["model"]):
            raise EmitError(_parser_says(parser), hint=_REPORT, log=log.tail())
        config = builder.create_builder_config()
        if request["workspace"]:
            set_workspace(trt, config, request["workspace"])
        calibrator = _calibrator(trt, request)
        said = face.configure(config, builder, request, calibrator)
        said += plugins + set_extras(trt, config, request.get("flags", ()))
        if hasattr(trt, "ProfilingVerbosity"):
            config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        _profiles(builder, config, network, request["profiles"])
        timings = _timings(config, request["timing_cache"]) if face.tunes else None
        serialized = builder.build_serialized_network(network, config)
        if serialized is None:
            if getattr(calibrator, "asked", False):
                raise EmitError(calibrators.REFUSED, hint=calibrators.HINT, log=log.tail())
            raise _failed(log)
        _write(Path(request["engine"]), serialized)
        if timings is not None:
            _write(Path(request["timing_cache"]), timings.serialize())
        made = layers(log.text())
    engine = Path(request["engine"])
    return {
        "by": face.name,
        "version": face.version,
        "set": said,
        "bytes": engine.stat().st_size,
        "sha256": digest(engine),
        "timing_cache": digest(Path(request["timing_cache"])) if timings is not None else "",
        "calibrated_on": getattr(calibrator, "batches", 0),
        "layers": [one._asdict() for one in made],
    }


def _builder(trt: Any, log: "_Log") -> Any:
    try:
        return trt.Builder(log.logger)
    except TypeError as error:  # "factory function returned nullptr": the library gave none
        last = ": " + log.errors[0][:300] if log.errors else ""
        message = "TensorRT {} does not start here{}".format(trt.__version__, last)
        hint = "Check that this device has a GPU, and that the driver works."
        raise EmitError(message, hint=hint, log=log.tail()) from error


def digest(path: Path) -> str:
    """The sha256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            found.update(block)
    return found.hexdigest()


def _calibrator(trt: Any, request: Mapping[str, Any]) -> Optional[Any]:
    if request["form"] != IMPLICIT or not hasattr(trt, "IInt8EntropyCalibrator2"):
        return None  # the adapter says what is missing
    if request["batches"]:
        from edgec.runtime.device_memory import DeviceMemory

        return calibrators.from_batches(trt, _batches(Path(request["batches"])), DeviceMemory())
    return calibrators.from_cache(trt, Path(request["cache"]).read_bytes())


def _batches(folder: Path) -> Iterator[Dict[str, Any]]:
    from edgec.runtime import npz

    files = sorted(folder.glob("*.npz"))
    if not files:
        raise InputError("{} holds no .npz files".format(folder), hint="Give a folder of samples.")
    for file in files:
        yield npz.read(file, str(file))


def _profiles(builder: Any, config: Any, network: Any, wanted: List[Mapping[str, Any]]) -> None:
    """Add the profiles; EmitError names an input that varies and has no bounds."""
    varying = {}
    for index in range(network.num_inputs):
        value = network.get_input(index)
        if any(size < 0 for size in tuple(value.shape)):
            varying[value.name] = tuple(value.shape)
    for name, shape in varying.items():
        if not wanted or any(name not in one for one in wanted):
            shown = "x".join("?" if size < 0 else str(size) for size in shape)
            message = "input {!r} varies in size ({}), and has no bounds".format(name, shown)
            raise EmitError(message, hint="Give bounds: --shape {}=1..8x...".format(name))
    for one in wanted if varying else ():
        profile = builder.create_optimization_profile()
        for name in varying:
            bounds = one[name]
            profile.set_shape(name, *(tuple(bounds[key]) for key in ("min", "opt", "max")))
        config.add_optimization_profile(profile)


def _timings(config: Any, path: str) -> Optional[Any]:
    """The timing cache in use: what earlier builds measured, if it is of this very device."""
    if not path or not hasattr(config, "create_timing_cache"):
        return None
    known = Path(path).read_bytes() if os.path.isfile(path) else b""
    cache = config.create_timing_cache(known)
    if not config.set_timing_cache(cache, False) and known:
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _write(path: Path, buffer: Any) -> None:
    partial = path.with_name(path.name + ".partial~")
    with partial.open("wb") as stream:
        stream.write(memoryview(buffer))
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(str(partial), str(path))


def _parser_says(parser: Any) -> str:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    lines = []
    for error in errors[:3]:
        node, operator = (_text(error, name) for name in ("node_name", "node_operator"))
        where = " at {} {!r}".format(operator or "node", node) if node else ""
        lines.append("TensorRT cannot read the model{}: {}".format(where, error.desc()[:400]))
    return "; ".join(lines) or "TensorRT cannot read the model, and does not say why"


def _text(error: Any, name: str) -> str:
    """A fact about an error; older parsers do not tell the node."""
    return str(getattr(error, name)()) if hasattr(error, name) else ""


def _failed(log: "_Log") -> EmitError:
    last = log.errors[0] if log.errors else "it does not say why"
    message = "TensorRT reads the model and cannot build it: {}".format(last[:500])
    if any(_MEMORY.search(line) for line in log.errors):
        return OutOfMemory(message, hint="A smaller workspace may do.", log=log.tail())
    return EmitError(message, hint=_REPORT, log=log.tail())


class _Log:
    """The builder's log, on disk from the first line, so that a crash leaves it."""

    def __init__(self, trt: Any, path: Path) -> None:
        self.path = path
        self.errors: List[str] = []
        self._stream = path.open("w", encoding="utf-8", errors="replace")
        log, severities = self, (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)

        class Logger(trt.ILogger):  # type: ignore[misc]
            """Writes everything down."""

            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                log.add(str(message), severity in severities)

        self.logger = Logger()

    def add(self, message: str, serious: bool) -> None:
        """A message; it may have several lines."""
        if serious:
            self.errors.append(message)
        if self._stream.tell() < _MOST_LOG and not self._stream.closed:
            self._stream.write(message + "\n")
            if serious:
                self._stream.flush()

    def text(self) -> str:
        """All of it."""
        self._stream.flush()
        return self.path.read_text(encoding="utf-8", errors="replace")

    def tail(self) -> str:
        """The end of it."""
        return self.text()[-4000:]

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, *_: Any) -> None:
        self._stream.flush()  # left open: the library may log until it is unloaded
