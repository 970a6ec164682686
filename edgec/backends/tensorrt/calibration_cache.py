"""The calibration cache of TensorRT 8 to 10, from edgec's own statistics.

    TRT-<version>-EntropyCalibration2
    <tensor>: <scale = amax / 127 as a big-endian float32, eight hex digits>

TensorRT takes a cache only if its first line names the very version that reads it, and calibrates
by itself otherwise: so the version of the device is asked for. It believes any number it finds; a
scale that is zero or not finite ruins the engine (NVIDIA/TensorRT#672, #3612), and none is written.
TensorRT 11 reads no cache. Not verified on hardware.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from edgec.calibrators import limits
from edgec.errors import InputError, UnsupportedError
from edgec.masked import unmasked
from edgec.quantize.static import affine
from edgec.types import Grid, Method, Statistics

CALIBRATOR = "EntropyCalibration2"
GRID = Grid(
    activations="int8",
    symmetric_activations=True,
    weights="int8",
    per_channel=True,
    reduce_range=False,
    source="https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/"
    "work-quantized-types.html",
    confidence="documented",
)
_LINE = re.compile(r"(?P<name>.+): (?P<bits>[0-9a-f]{8})")


def scales(
    statistics: Statistics, method: Method, masked: Mapping[str, str] = MappingProxyType({})
) -> dict[str, float]:
    """The scale of every value with a range, in TensorRT's grid: amax / 127, as float32.

    What never was a number has none, and so no line: TensorRT runs what makes or reads it in float.
    `masked`: see `edgec.masked`.
    """
    found = {}
    for name, one in sorted(statistics.values.items()):
        if one.histogram is not None and one.seen:
            bounds = limits(statistics, name, method, GRID)
            if name in masked:
                bounds = unmasked(bounds, limits(statistics, masked[name], method, GRID))
            found[name] = float(affine(*bounds, GRID).scale)
    return found


def dump(found: Mapping[str, float], version: str) -> str:
    """The cache as text. Raises InputError that names a tensor whose scale cannot be used."""
    lines = [f"TRT-{number(version)}-{CALIBRATOR}"]
    for name, scale in found.items():
        with np.errstate(over="ignore"):
            rounded = float(np.float32(scale))
        if not math.isfinite(rounded) or rounded <= 0:
            raise InputError(
                f"tensor {name!r} has the scale {scale:g}, which TensorRT must not be given",
                hint="calibrate on samples in which the tensor is neither zero nor infinite",
            )
        if "\n" in name or "\r" in name or not name:
            raise InputError(f"a cache cannot hold the name {name!r}", hint="rename the tensor")
        lines.append(f"{name}: {struct.pack('>f', rounded).hex()}")
    return "\n".join(lines) + "\n"


def parse(text: str) -> tuple[int, dict[str, float]]:
    """The version number and the scales in a cache. Raises InputError for anything else."""
    head, *lines = text.removesuffix("\n").split("\n")  # names may hold other line separators
    found = re.fullmatch(rf"TRT-(\d+)-{CALIBRATOR}", head)
    if found is None:
        raise InputError(
            f"{head[:80]!r} does not begin a calibration cache",
            hint="write it anew: edgec calibrate --tensorrt-cache",
        )
    matches = [_LINE.fullmatch(line) for line in lines]
    if None in matches:
        raise InputError(
            f"line {matches.index(None) + 2} of the cache is not `name: eight hex digits`",
            hint="write it anew: edgec calibrate --tensorrt-cache",
        )
    return int(found[1]), {
        one["name"]: struct.unpack(">f", bytes.fromhex(one["bits"]))[0]
        for one in matches
        if one is not None
    }


def number(version: str) -> int:
    """The version as a cache's first line has it: "8.6.2" -> 8602, "10.3.0" -> 100300."""
    found = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)(\.\d+)*", version)
    if found is None:
        raise InputError(
            f"{version!r} is no version of TensorRT", hint="write it as 8.6.2 or 10.3.0"
        )
    major, minor, patch = (int(found[i]) for i in (1, 2, 3))
    if not 8 <= major <= 10:
        raise UnsupportedError(
            f"TensorRT {version} reads no calibration cache that edgec writes",
            hint="TensorRT 11 takes Q/DQ alone; caches are for 8, 9 and 10",
        )
    tens = 10_000 if major >= 10 else 1_000
    return major * tens + minor * 100 + patch
