"""Engines on ONNX Runtime's CPU provider (1.19, the newest for Python 3.8, and later).

Engines in one process fight: while one runs, the idle workers of the others spin on its
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
spinning is best by far (0.55 to 0.65 of the time):
`load(path, settings={"onnxruntime": {"spinning": "never"}})`.
The other settings stand in `onnxruntime_settings`.
"""

import re
from pathlib import Path
from typing import Any, Dict, List, Mapping, NoReturn, Optional, Sequence, Tuple, Union

import numpy as np
import onnxruntime

from edgec.errors import InputError, ToolchainError
from edgec.runtime import buffers
from edgec.runtime.onnx_file import check_external, is_ort
from edgec.runtime.onnxruntime_settings import Options, parse

# Older ones crash on damaged files in onnxruntime's own format: microsoft/onnxruntime#28186. Of
# 3600 with a changed bit, byte or word, 1.19 to 1.27 crashed on 9 to 25, and 1.28 to 1.32 on none.
ORT_FORMAT_SINCE = (1, 28)
_REBUILD = "Build the bundle again with this version of edgec."
_TYPES = {"float": "float32", "double": "float64", "bool": "bool"}  # others have numpy's names
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
    dropped values return to the arena for the next call. IOBinding cannot save what is not there:
    onnxruntime 1.32, one op of 16 floats, instructions of a call counted by callgrind, in
    thousands: `run` 39, with OrtValues bound once for all calls 25 (1.4 us less, but then neither
    threads nor results are apart), with a binding for each call 69 to 72; and where outputs are
    copied out of the binding, 12.6 MB took 0.81 ms instead of 0.31. So `run` does without.

    It pays where a result must lie in memory of the caller's: `run_into`.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self._outputs: List[str] = [value.name for value in session.get_outputs()]
        self._types = {value.name: _dtype(value.type) for value in session.get_outputs()}

    def run(self, feeds: Mapping[str, Any]) -> Dict[str, Any]:
        """Run once. InputError: the engine refused the values."""
        try:
            arrays = self._session.run(self._outputs, feeds)
        except Exception as error:  # onnxruntime's exceptions share no base but this
            _failed(error, "Check shapes and values of the inputs.")
        return dict(zip(self._outputs, arrays))

    def run_into(self, feeds: Mapping[str, Any], out: Mapping[str, Any]) -> Dict[str, Any]:
        """Run once, and have the engine write the outputs named in `out` into those arrays.

        All outputs are returned, those of `out` as the arrays given. Against `run` and a copy,
        onnxruntime 1.32: 0.48 instead of 0.86 ms for 12.6 MB, 18 instead of 26 us for 0.6 MB, 2 us
        more for a few numbers; without an arena, outputs above 32 MB cost a tenth, because a call
        needs no new memory. Safe from several threads, if each brings arrays of its own.

        Raises InputError: an array that does not fit or must not be written to (`buffers.check`),
        or values that the engine refused; what `out` then holds is undefined.
        """
        unknown = sorted(str(name) for name in out if name not in self._types)
        if unknown:
            message = "unknown output " + ", ".join(unknown)
            raise InputError(message, hint="The engine makes " + ", ".join(self._outputs))
        buffers.check(out, feeds)
        for name, array in out.items():
            if self._types[name] != array.dtype.name:
                buffers.misfit(name, array, str(self._types[name]))
        try:
            # The binding holds addresses alone: these names keep the arrays alive until the end.
            held: Dict[str, Any] = {
                name: array if array.flags.c_contiguous else np.ascontiguousarray(array)
                for name, array in feeds.items()
            }
            binding = self._session.io_binding()
            for name, array in held.items():
                binding.bind_cpu_input(name, array)
            for name in self._outputs:
                if name in out:
                    value = onnxruntime.OrtValue.ortvalue_from_numpy(out[name])
                    binding.bind_ortvalue_output(name, value)
                else:
                    binding.bind_output(name)
            self._session.run_with_iobinding(binding)
            made = zip(self._outputs, binding.get_outputs())
            return {name: out[name] if name in out else value.numpy() for name, value in made}
        except Exception as error:  # onnxruntime's exceptions share no base but this
            _failed(error, "Check the inputs, and the shapes of the arrays to be written to.")

    def close(self) -> None:
        """Release the session."""
        self._session = None


def open_artifact(artifact: Union[Path, bytes], settings: Mapping[str, Any]) -> OnnxRuntimeSession:
    """Open a model in ONNX, or in onnxruntime's own format (`.ort`); its content says which.

    `settings`: see `onnxruntime_settings`. In a `.ort` file the graph is optimised already, so that
    `graph_optimization_level` and `disabled_optimizers` change nothing.

    InputError: damaged model, external data outside its folder, a setting that is not allowed.
    ToolchainError: this onnxruntime is too old for the model.
    """
    label = artifact.name if isinstance(artifact, Path) else "the engine's model"
    own_format = is_ort(artifact)
    if own_format:
        _check_age(label)
    else:
        check_external(artifact, label)
    checked = parse(settings)
    options = session_options(checked, artifact.parent if isinstance(artifact, Path) else None)
    # Otherwise a file's name would decide how it is read, and not what was looked at above.
    options.add_session_config_entry("session.load_model_format", "ORT" if own_format else "ONNX")
    source = str(artifact) if isinstance(artifact, Path) else artifact
    try:
        session = onnxruntime.InferenceSession(
            source,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=set(checked.disabled) or None,
            enable_fallback=0,  # it would try the same again, and print
        )
    except Exception as error:  # onnxruntime's exceptions share no base but this
        _explain(error, label)
    session.disable_fallback()
    if hasattr(session, "_model_bytes"):
        session._model_bytes = b""  # only the fallback would need the whole file again
    return OnnxRuntimeSession(session)


def session_options(checked: Options, folder: Optional[Path] = None) -> Any:
    """onnxruntime's `SessionOptions` for checked settings. `folder`: where its kernels lie.

    ToolchainError: a library of custom ops does not load here.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = checked.threads
    options.inter_op_num_threads = checked.inter_op_threads
    options.execution_mode = getattr(onnxruntime.ExecutionMode, checked.mode)
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, checked.level)
    options.enable_cpu_mem_arena = checked.arena
    options.enable_mem_pattern = checked.memory_pattern
    for key, value in checked.entries:
        options.add_session_config_entry(key, value)
    if checked.kernels:
        _check_cpu(checked.kernels_need)
    for name in checked.kernels:
        _register(options, name, folder)
    return options


def _check_cpu(needed: Sequence[str]) -> None:
    """What the kernels take for granted would else end the process (SIGILL)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    lines = [line.partition(":") for line in text.splitlines()]
    known = {
        flag for key, _, v in lines if key.strip() in ("flags", "Features") for flag in v.split()
    }
    lacking = [flag for flag in needed if flag not in known]
    if lacking:
        message = "the native kernels need a CPU with {}".format(", ".join(lacking))
        hint = "Build for a target whose CPUs are like this one, or with --no-native."
        raise ToolchainError(message, hint=hint)


def _register(options: Any, name: str, folder: Optional[Path]) -> None:
    if folder is None:
        message = "the kernels of a model come as files beside it, and this model is no file"
        raise InputError(message, hint=_REBUILD)
    try:
        options.register_custom_ops_library(str((folder / name).absolute()))
    except Exception as error:  # onnxruntime's exceptions share no base but this
        message = "the native kernel {} does not load here: {}".format(name, _first_line(error))
        hint = "Build on a system as old as this one, or without native kernels: --no-native."
        raise ToolchainError(message, hint=hint) from error


def _check_age(label: str) -> None:
    version = onnxruntime.__version__
    if _release(version) < ORT_FORMAT_SINCE:
        message = (
            "onnxruntime {} is too old for {}: a damaged file in its own format could crash it"
        )
        wanted = ".".join(map(str, ORT_FORMAT_SINCE))
        hint = "Install onnxruntime {} or newer, or build the bundle without --format ort."
        raise ToolchainError(message.format(version, label), hint=hint.format(wanted))


def _release(version: str) -> Tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]+", version)[:2])


def _dtype(kind: str) -> str:
    """numpy's name of onnxruntime's type "tensor(float)"; for a sequence, a map or text "other"."""
    found = re.match(r"tensor\(((?:u?int|float|double|bool)[0-9]*)\)\Z", kind)
    return _TYPES.get(found.group(1), found.group(1)) if found else "other"


def _failed(error: Exception, hint: str) -> NoReturn:
    raise InputError("the engine failed: " + _first_line(error), hint=hint) from error


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
