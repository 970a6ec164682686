"""What a machine says of itself: its kernel, its device tree and its packages' metadata."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgec.target import board, cpu_flags

PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13", "tensorrt-rtx"),
}
# Flags that say which INT8 and 16-bit instructions there are, and what they are called.
TELLING = (
    *("sse4_2", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx_vnni_int8", "avx512_bf16"),
    *("avx512_fp16", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "asimdhp", "sve"),
)


@dataclass(frozen=True)
class Machine:
    """What a machine says of itself."""

    arch: str
    cpu: str
    flags: tuple[str, ...]
    memory_gb: float
    board: str
    system: str
    python: str
    packages: dict[str, str]


def machine() -> Machine:
    """This machine, by what the kernel and the package metadata say."""
    flags = cpu_flags()
    return Machine(
        arch=platform.machine(),
        cpu=_cpu(),
        flags=tuple(flag for flag in TELLING if flag in flags),
        memory_gb=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        board=board(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages={name: found for name in PACKAGES if (found := installed(name))},
    )


def installed(backend: str) -> str:
    """The version of a backend's package here, or an empty text."""
    for name in PACKAGES.get(backend, (backend,)):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor()
