"""Which runtimes of a target can have a native kernel of an op, and how it is compiled for them."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgec.errors import ToolchainError
from edgec.kernels import Kernel, Kernels, plugins
from edgec.native import REFERENCE, SOURCES, compiled, compiler
from edgec.target import cpu_flags
from edgec.types import KernelChoice, Runtime, Target

FLAGS = (
    *("-O3", "-std=c++17", "-fPIC", "-fvisibility=hidden"),
    *("-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-I", str(SOURCES)),
)
LINK = ("-shared", "-s", "-static-libstdc++", "-static-libgcc", "-Wl,--build-id=none")
# What a compiler may use, by what all CPUs of a target have, and what it then takes for granted;
# the first that fits.
V4 = ("x86-64-v4", ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"))
LEVELS: Mapping[str, Sequence[tuple[str, tuple[str, tuple[str, ...]]]]] = {
    "x86_64": (
        ("avx512", V4),
        ("amx", V4),
        ("avx", ("x86-64-v3", ("avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"))),
        ("sse4_2", ("x86-64-v2", ("sse4_2", "ssse3", "popcnt"))),
        ("", ("x86-64", ())),
    ),
    "aarch64": (
        ("asimddp", ("armv8.2-a+dotprod", ("asimddp", "atomics"))),
        ("", ("armv8-a", ())),
    ),
}
ELEMENTS = {"float": 1, "int32": 6, "int64": 7, "bool": 9}  # of ONNX's TensorProto
ANY = "any"  # the architecture of a row that fits every machine


def offers(kernels: Kernels, target: Target, *, native: bool) -> tuple[KernelChoice, ...]:
    """For every op and runtime: whether there can be a native kernel, and why not.

    `native`: whether native code is wanted at all.
    """
    return tuple(
        _offer(kernel, runtime, target, native=native)
        for kernel in kernels.values()
        for runtime in target.runtimes
    )


def with_natives(target: Target, choices: Sequence[KernelChoice]) -> Target:
    """The target with the native kernels that its runtimes have."""
    runtimes = [
        replace(one, natives={c.op: c for c in choices if c.runtime == one.name and c.native})
        for one in target.runtimes
    ]
    return replace(target, runtimes=tuple(runtimes))


def library(kernels: Sequence[Kernel], target: Target, folder: Path, name: str) -> Path:
    """Compile kernels of ONNX Runtime into one library, for every CPU that fits the target.

    They are compiled anew in each build, in about two seconds each: nothing is loaded from a folder
    that others may write to. CXX names another compiler. Raises ToolchainError with the reason.
    """
    command, march = compiler("CXX", "c++", REFERENCE), f"-march={level(target)[0]}"
    parts = [_object(kernel, command, march, folder) for kernel in kernels]
    flags = [*FLAGS, march, *LINK]
    return compiled(command, flags, SOURCES / "register.cc", folder / name, REFERENCE, parts)


def _object(kernel: Kernel, command: Sequence[str], march: str, folder: Path) -> str:
    source = kernel.sources["onnxruntime"]["source"]
    result = folder / f"{kernel.domain}.{kernel.name}.o"
    if result.is_file():
        return str(result)
    defined = {
        "EDGEC_DOMAIN": f'"{kernel.domain}"',
        "EDGEC_NAME": f'"{kernel.name}"',
        "EDGEC_INPUTS": ",".join(str(ELEMENTS[kind]) for kind in kernel.inputs.values()),
        "EDGEC_OUTPUTS": ",".join(str(ELEMENTS[kind]) for kind in kernel.outputs.values()),
    }
    flags = [*FLAGS, march, "-c", *(f"-D{name}={value}" for name, value in defined.items())]
    return str(compiled(command, flags, source, result, REFERENCE))


def level(target: Target) -> tuple[str, tuple[str, ...]]:
    """The -march that all CPUs of a target have, and the CPU flags that it takes for granted."""
    arch = platform.machine() if target.arch == ANY else target.arch
    levels = LEVELS[arch]
    groups = target.requires or (frozenset(),)
    found = [
        next(i for i, (flag, _) in enumerate(levels) if not flag or _any(flag, group))
        for group in groups
    ]
    return levels[max(found)][1]


def _any(flag: str, group: frozenset[str]) -> bool:
    return any(one.startswith(flag) for one in group)


def _offer(kernel: Kernel, runtime: Runtime, target: Target, *, native: bool) -> KernelChoice:
    why = _refusal(kernel, runtime, target) if native else "no native code is wanted"
    reason = why or "a native kernel can be had; a build compiles, compares and measures it"
    return KernelChoice(
        kernel.key, runtime.name, native=not why, reason=reason, backend=runtime.backend
    )


def _refusal(kernel: Kernel, runtime: Runtime, target: Target) -> str:
    """Why a runtime cannot have a native kernel, or an empty text."""
    if runtime.backend == "openvino":
        return "an extension of OpenVINO is bound to one release of its library"
    if runtime.backend not in kernel.sources:
        return f"there is no kernel for {runtime.backend}"
    if runtime.backend == "tensorrt":
        return plugins.refusal(runtime, target)
    if runtime.settings.get("format", "onnx") != "onnx":
        return "minimal builds of ONNX Runtime know no custom ops"
    here = platform.machine()
    if target.arch not in (here, ANY) or here not in LEVELS:
        return f"a kernel for {target.arch} cannot be compiled and checked on {here}"
    if target.requires and not any(group <= cpu_flags() for group in target.requires):
        return f"this machine is no {target.name}, so that the kernel cannot be checked here"
    try:
        compiler("CXX", "c++", REFERENCE)
    except ToolchainError as error:
        return error.message
    return ""
