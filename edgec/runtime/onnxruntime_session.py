"""Engines on ONNX Runtime's CPU provider (1.19, the newest for Python 3.8, and later).

Several engines in one process fight: while one runs, the idle workers of the others spin on its
cores. An engine that has neighbours therefore lets its workers spin only while it runs
(`session.force_spinning_stop`); one that is alone keeps onnxruntime's default. Measured on a
ResNet-18 beside a 6-layer transformer with a fusion head, 2 threads on 2 AVX512-VNNI cores,
onnxruntime 1.31, one process a case, 2 x 31 interleaved rounds, median against one engine
(FP32 28.0 ms, INT8 12.1 ms):

                                        FP32          INT8
    two engines, spinning always        1.28, 1.31    1.29, 1.33
    two engines, spinning while running 1.02, 1.01    1.04, 1.04
    two engines, global thread pool     1.01, 1.01    1.01, 1.02
    one engine, spinning while running  1.01, 1.01    1.04, 1.05
    two engines, never spinning         1.13          1.38

The global thread pool would gain 2 % more and is not used: it cannot be changed once it exists,
`InferenceSession` then fails for everybody in the process who does not ask for it, and the Python
binding of onnxruntime 1.19 has no access to it. Where other programs keep the cores busy, never
spinning is best by far (0.55 to 0.65 of the time): `load(path, settings={"spinning": "never"})`.
"""

import re
from pathlib import Path
from typing import Any, Dict, List, Mapping, NoReturn, Union

import onnxruntime

from edgec.errors import InputError, ToolchainError
from edgec.runtime.onnx_file import external_files

LEVELS = {
    "disable_all": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
# What waiting workers of the thread pool do: burn their core always, only while the engine runs,
# or never.
SPINNING = {
    "always": {},
    "while_running": {"session.force_spinning_stop": "1"},
    "never": {"session.intra_op.allow_spinning": "0"},
}  # type: Dict[str, Dict[str, str]]
_KEYS = {"disabled_optimizers", "config", "graph_optimization_level", "threads", "spinning"}
_KEYS |= {"device", "neighbours"}
_REBUILD = "Build the bundle again with this version of edgec."
# Session options that make onnxruntime read or write files are not a manifest's business.
_CONFIG = re.compile(r"(session|optimization|mlas)\.[a-z0-9_.]+\Z", re.IGNORECASE)
_FILES = re.compile(r"path|file|folder|directory|library|external|ep_context", re.IGNORECASE)
_TOO_OLD = re.compile(
    r"unsupported model ir version|under development and support for this is limited|"
    r"could not find an implementation|is not a registered function|no (op|schema) registered|"
    r"opset.*is not supported",
    re.IGNORECASE,
)


class OnnxRuntimeSession:
    """An `InferenceSession` whose arrays are shared, not copied, at both ends.

    `InferenceSession.run` reads contiguous inputs in place, and its outputs are views of the
    tensors that the engine made; so engines hand values to each other without a copy, and
    dropped values return to the arena for the next call. It is faster than IOBinding (26 against
    45 us of overhead per call, onnxruntime 1.31) and than OrtValues (150 us).
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self._outputs: List[str] = [value.name for value in session.get_outputs()]

    def run(self, feeds: Mapping[str, Any]) -> Dict[str, Any]:
        """Run once. InputError: the engine refused the values."""
        try:
            arrays = self._session.run(self._outputs, feeds)
        except Exception as error:  # onnxruntime's exceptions share no base but this
            message = "the engine failed: " + _first_line(error)
            raise InputError(message, hint="Check shapes and values of the inputs.") from error
        return dict(zip(self._outputs, arrays))

    def close(self) -> None:
        """Release the session."""
        self._session = None


def open_artifact(artifact: Union[Path, bytes], settings: Mapping[str, Any]) -> OnnxRuntimeSession:
    """Open an ONNX model.

    Settings: `threads` (0: onnxruntime's choice), `spinning` (see SPINNING; default: always, or
    while_running where `neighbours` > 0, the number of other engines in the bundle),
    `graph_optimization_level` (see LEVELS), `disabled_optimizers` (names), `config` (session
    entries). InputError: damaged model, external data outside its folder, unknown settings.
    ToolchainError: this onnxruntime is too old for the model.
    """
    label = artifact.name if isinstance(artifact, Path) else "the engine's model"
    for location in sorted(external_files(artifact, label)):
        _check_location(location, artifact, label)
    options = _session_options(settings)
    names = {str(name) for name in settings.get("disabled_optimizers", ())}
    extra = {"disabled_optimizers": names} if names else {}
    source = str(artifact) if isinstance(artifact, Path) else artifact
    try:
        session = onnxruntime.InferenceSession(
            source, options, providers=["CPUExecutionProvider"], **extra
        )
    except Exception as error:  # onnxruntime's exceptions share no base but this
        _explain(error, label)
    session.disable_fallback()
    if hasattr(session, "_model_bytes"):
        session._model_bytes = b""  # only the fallback would need the whole file again
    return OnnxRuntimeSession(session)


def _check_location(location: str, artifact: Union[Path, bytes], label: str) -> None:
    safe = location and location[0] not in "/\\" and ":" not in location
    if not safe or ".." in re.split(r"[/\\]", location):
        message = "{} keeps weights outside its folder: {!r}".format(label, location[:200])
        raise InputError(message, hint="Do not open models from a source that you do not trust.")
    if isinstance(artifact, bytes):
        message = "{} needs the data file {!r}, which is not listed".format(label, location[:200])
        raise InputError(message, hint=_REBUILD)
    if not (artifact.parent / location).is_file():
        message = "{} needs the data file {!r}, which is missing".format(label, location[:200])
        raise InputError(message, hint="Copy the data file into the model's folder.")


def _session_options(settings: Mapping[str, Any]) -> Any:
    unknown = sorted(set(settings) - _KEYS)
    if unknown:
        _bad_setting("unknown setting " + ", ".join(repr(key) for key in unknown))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    level, threads = settings.get("graph_optimization_level", "all"), settings.get("threads", 0)
    if not isinstance(level, str) or level not in LEVELS:
        _bad_setting("graph_optimization_level {!r}".format(level))
    if type(threads) is not int or not 0 <= threads <= 1024:
        _bad_setting("threads {!r}".format(threads))
    if settings.get("device", "cpu") != "cpu":
        _bad_setting("device {!r}: only the CPU is known".format(settings["device"]))
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[level])
    options.intra_op_num_threads = threads
    default = "while_running" if settings.get("neighbours") else "always"
    spinning = settings.get("spinning", default)
    if not isinstance(spinning, str) or spinning not in SPINNING:
        _bad_setting("spinning {!r}".format(spinning))
    config = settings.get("config", {})
    disabled = settings.get("disabled_optimizers", [])
    if not isinstance(config, dict) or not isinstance(disabled, (list, tuple)):
        _bad_setting("config is an object, disabled_optimizers a list")
    for key, value in dict(SPINNING[spinning], **config).items():
        if not _CONFIG.match(key) or _FILES.search(key) or not isinstance(value, str):
            _bad_setting("config {!r} = {!r}".format(key, value))
        options.add_session_config_entry(key, value)
    return options


def _bad_setting(what: str) -> NoReturn:
    raise InputError("onnxruntime engine: not allowed: " + what[:300], hint=_REBUILD)


def _explain(error: Exception, label: str) -> NoReturn:
    line = _first_line(error)
    version = onnxruntime.__version__
    if _TOO_OLD.search(str(error)):
        message = "onnxruntime {} is too old for {}: {}".format(version, label, line)
        hint = "pip install --upgrade onnxruntime, or build for a target with an older stack."
        raise ToolchainError(message, hint=hint) from error
    message = "onnxruntime {} cannot open {}: {}".format(version, label, line)
    raise InputError(message, hint=_REBUILD) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
