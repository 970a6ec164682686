"""The settings of an engine on ONNX Runtime: what there is, what it does, and what is allowed.

They come from the target's table, are stored in the bundle (`engines[].settings`), and may be
overridden by `load(path, settings={...})`. A manifest is hostile until checked, so everything that
is not listed here is refused. This module needs no onnxruntime.

    threads                   0 to 1024; 0, the default, is one for each core. The workers of one
                              op, the caller included
    spinning                  what waiting workers do: "always" (the default of a bundle with one
                              engine), "while_running" (with several) or "never"
    execution_mode            "sequential", the default, or "parallel": ops that do not depend on
                              each other run side by side, on `inter_op_threads` threads
    inter_op_threads          0 to 1024; 0, the default, is one for each core. Parallel mode only
    graph_optimization_level  "disable_all", "basic", "extended" or "all", the default
    disabled_optimizers       names of optimisation passes to leave out; none by default
    arena                     keep freed memory for the next call; true by default
    memory_pattern            plan all of a call's memory as one block, once the shapes have been
                              seen; true by default
    denormals_as_zero         compute with 0 for numbers below 1.2e-38; false by default
    config                    further session entries, by the names in CONFIG
    kernels                   names of libraries of custom ops, which lie beside the model; none by
                              default. Opening the engine runs their code: see `edgec.runtime.model`
    kernels_need              flags of the CPU that they take for granted, as /proc/cpuinfo has them

`parallel` is for towers that do not fill the cores alone; each running op still has `threads`
workers, so that their product should be the number of cores. Try it on the device: two equal INT8
ResNet-50 on two cores, 2 x 1 threads, took between 0.95 (cores idle) and 1.16 (busy) of the time.

`arena` and `memory_pattern` trade memory for time: an INT8 ResNet-50 (26 MB, one thread, AVX512
with VNNI, onnxruntime 1.32) took 73 MB, without a pattern 71 MB, without an arena 65 MB and 1 to
2 % more time. Without an arena, outputs above 32 MB are new pages of memory with every call, at
ten times the cost; `run_into` avoids that. `session.disable_prepacking` took 50 MB at 3.5 times
the time.

`denormals_as_zero` is for CPUs that such numbers slow down, and networks whose values fade out, as
recurrent ones do; the Xeon above multiplied them at full speed. It is a switch of the CPU, not of
the engine: onnxruntime sets it in the thread that opens the first session of the process, for numpy
too, and in the workers of each session that asks for it. So it is right only where the first engine
asks for it, and all that compute are that thread and those that it starts.
"""

import re
from typing import Any, Dict, FrozenSet, Mapping, NamedTuple, NoReturn, Pattern, Tuple

from edgec.errors import InputError

LEVELS = {
    "disable_all": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
MODES = {"sequential": "ORT_SEQUENTIAL", "parallel": "ORT_PARALLEL"}
# What waiting workers of the thread pool do: burn their core always, only while the engine runs,
# or never.
SPINNING = {
    "always": {},
    "while_running": {"session.force_spinning_stop": "1"},
    "never": {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"},
}  # type: Dict[str, Dict[str, str]]
MOST_THREADS = 1024

_FLAG = re.compile(r"[01]\Z")
_COUNT = re.compile(r"[0-9]{1,9}\Z")
# Session entries of onnxruntime that change how an engine computes and nothing else. Those that
# read or write files, share memory with the caller, or say how the file itself is to be read are
# not a manifest's business; what they mean is in onnxruntime_session_options_config_keys.h.
CONFIG = {
    "session.qdqisint8allowed": _FLAG,  # keep signed activations, instead of turning them unsigned
    "session.disable_quant_qdq": _FLAG,
    "session.disable_double_qdq_remover": _FLAG,
    "session.enable_quant_qdq_cleanup": _FLAG,
    "session.disable_qdq_constant_folding": _FLAG,
    "session.enable_dq_matmulnbits_fusion": _FLAG,
    # What MatMul with INT8 weights alone computes with. "4", the default: INT8 by blocks, where the
    # CPU has a kernel (AVX2, VNNI, dot product); 12 of 384 x 1536 took 0.5 of float's time for one
    # row and 0.6 for 128, at 35 dB. "1": float, but each call unpacks the weights, and takes 20 and
    # 1.3 times. So does "4" without a kernel; there "session.disable_quant_qdq" unpacks them once.
    "session.qdq_matmulnbits_accuracy_level": re.compile(r"[0-4]\Z"),
    "session.qdq_matmulnbits_block_size": re.compile(r"-1\Z|[0-9]{1,4}\Z"),
    "session.disable_prepacking": _FLAG,  # less memory, much slower
    "session.use_device_allocator_for_initializers": _FLAG,
    "session.disable_aot_function_inlining": _FLAG,
    "session.graph_optimizations_loop_level": re.compile(r"[0-2]\Z"),
    "session.intra_op.allow_spinning": _FLAG,
    "session.inter_op.allow_spinning": _FLAG,
    "session.force_spinning_stop": _FLAG,
    "session.intra_op.spin_duration_us": _COUNT,
    "session.inter_op.spin_duration_us": _COUNT,
    "session.dynamic_block_base": re.compile(r"[0-9]{1,3}\Z"),
    # For each worker but the caller, the logical cores (from 1) that it may use: "5;6;7", "5-8;5-8"
    "session.intra_op_thread_affinities": re.compile(r"[0-9]{1,4}([,;-][0-9]{1,4}){0,255}\Z"),
    "optimization.enable_gelu_approximation": _FLAG,
    "optimization.enable_cast_chain_elimination": _FLAG,
    "mlas.enable_gemm_fastmath_arm64_bfloat16": _FLAG,
    "mlas.disable_kleidiai": _FLAG,
    "mlas.use_lut_gemm": _FLAG,
    "mlas.qnbit.force_fp32": _FLAG,
}
_FORMS = "config is an object, disabled_optimizers a list"
_FEATURE = re.compile(r"[a-z0-9_]{1,40}\Z")
_LIBRARY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.]{0,200}\.so\Z")
_OPTIMIZER = re.compile(r"[A-Za-z0-9_]{1,100}\Z")
_HINT = "Build the bundle again with this version of edgec, or correct the settings given to load."


class Options(NamedTuple):
    """Checked settings. `level` and `mode` are names of onnxruntime's enumerations."""

    threads: int
    inter_op_threads: int
    mode: str
    level: str
    arena: bool
    memory_pattern: bool
    disabled: FrozenSet[str]
    entries: Tuple[Tuple[str, str], ...]
    kernels: Tuple[str, ...] = ()
    kernels_need: Tuple[str, ...] = ()


def parse(settings: Mapping[str, Any]) -> Options:
    """Check settings. The model adds `device` and `neighbours`, how many other engines there are.

    Raises InputError: an unknown setting, or a value that is not allowed.
    """
    rest = dict(settings)
    if rest.pop("device", "cpu") != "cpu":
        _refuse("device", settings["device"], "only the CPU is known")
    default = "while_running" if rest.pop("neighbours", 0) else "always"
    entries = dict(SPINNING[_choice(rest, "spinning", default, SPINNING)])
    if _flag(rest, "denormals_as_zero", False):
        entries["session.set_denormal_as_zero"] = "1"
    options = Options(
        threads=_count(rest, "threads"),
        inter_op_threads=_count(rest, "inter_op_threads"),
        mode=MODES[_choice(rest, "execution_mode", "sequential", MODES)],
        level=LEVELS[_choice(rest, "graph_optimization_level", "all", LEVELS)],
        arena=_flag(rest, "arena", True),
        memory_pattern=_flag(rest, "memory_pattern", True),
        disabled=_optimizers(rest),
        entries=tuple(sorted(dict(entries, **_config(rest)).items())),
        kernels=_names(rest, "kernels", _LIBRARY),
        kernels_need=_names(rest, "kernels_need", _FEATURE),
    )
    if rest:
        unknown = ", ".join(repr(str(key)[:80]) for key in list(rest)[:3])
        raise InputError("onnxruntime engine: not allowed: unknown setting " + unknown, hint=_HINT)
    if options.inter_op_threads and options.mode != MODES["parallel"]:
        _refuse("inter_op_threads", options.inter_op_threads, "execution_mode is not parallel")
    return options


def _choice(rest: Dict[str, Any], key: str, default: str, known: Mapping[str, Any]) -> str:
    value = rest.pop(key, default)
    if not isinstance(value, str) or value not in known:
        _refuse(key, value, "choose one of " + ", ".join(known))
    return value


def _count(rest: Dict[str, Any], key: str) -> int:
    value = rest.pop(key, 0)
    if type(value) is not int or not 0 <= value <= MOST_THREADS:
        _refuse(key, value, "a whole number from 0 to {}".format(MOST_THREADS))
    return value


def _flag(rest: Dict[str, Any], key: str, default: bool) -> bool:
    value = rest.pop(key, default)
    if type(value) is not bool:
        _refuse(key, value, "true or false")
    return value


def _optimizers(rest: Dict[str, Any]) -> FrozenSet[str]:
    names = rest.pop("disabled_optimizers", [])
    if not isinstance(names, (list, tuple)):
        _refuse("disabled_optimizers", names, _FORMS)
    for name in names:
        if not isinstance(name, str) or not _OPTIMIZER.match(name):
            _refuse("disabled_optimizers", name, "no name of an optimizer")
    return frozenset(names)


def _names(rest: Dict[str, Any], key: str, form: Pattern[str]) -> Tuple[str, ...]:
    names = rest.pop(key, [])
    if not isinstance(names, (list, tuple)):
        _refuse(key, names, "a list of names")
    for name in names:
        if not isinstance(name, str) or not form.match(name):
            _refuse(key, name, "a name of another form")
    return tuple(names)


def _config(rest: Dict[str, Any]) -> Dict[str, str]:
    config = rest.pop("config", {})
    if not isinstance(config, dict):
        _refuse("config", config, _FORMS)
    for key, value in config.items():
        pattern = CONFIG.get(key)
        if pattern is None:
            _refuse("config " + repr(str(key)[:100]), value, "no entry that a bundle may set")
        if not isinstance(value, str) or not pattern.match(value):
            _refuse("config " + repr(key), value, "a text of another form")
    return config


def _refuse(key: str, value: object, why: str) -> NoReturn:
    message = "onnxruntime engine: not allowed: {} {}: {}".format(key, repr(value)[:100], why)
    raise InputError(message, hint=_HINT)
