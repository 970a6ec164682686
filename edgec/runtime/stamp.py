"""What this device is, and whether an engine is for it: asked before anything is deserialised.

An engine of TensorRT runs on the GPU generation and the TensorRT version that it was built for, and
on no other; TensorRT itself only says "deserialize failed" then. The GPU and the driver are asked
through libcuda, which needs no package; where there is none, they are unknown, not wrong.
"""

import ctypes
import platform
import re
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Tuple

from edgec.errors import EdgecError, UnsupportedError

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
NONE = ""


class Device(NamedTuple):
    """A machine; what could not be found out is empty.

    `capability` "8.7"; `driver`: the CUDA version of the driver, "12.6"; `version`: TensorRT's;
    `missing`: why there is none. `board`: as the device tree names it.
    """

    arch: str
    board: str
    capability: str
    driver: str
    version: str
    missing: str

    def __str__(self) -> str:
        known = [self.board or "this machine", self.arch]
        known.append("GPU sm_" + self.capability.replace(".", "") if self.capability else "no GPU")
        known.append("TensorRT " + self.version if self.version else "no TensorRT")
        return "{} ({})".format(known[0], ", ".join(known[1:]))


def probe(module: str) -> Device:
    """This machine, with the TensorRT that the module `module` is."""
    from edgec.runtime.tensorrt_build import module as bindings

    version = missing = ""
    try:
        version = str(bindings(module).__version__)
    except EdgecError as error:
        missing = error.message
    capability, driver = _cuda()
    return Device(platform.machine(), board(), capability, driver, version, missing)


def name(device: Device) -> str:
    """The stamp of what is built on a device: a name for a folder."""
    parts = [device.arch]
    parts.append("sm" + device.capability.replace(".", "") if device.capability else "nogpu")
    parts.append("trt" + device.version if device.version else "notrt")
    if device.driver:
        parts.append("cuda" + device.driver)
    return "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part) for part in parts)


def mismatches(requires: Mapping[str, Any], device: Device) -> List[str]:
    """How a device differs from what an engine is for; what is unknown does not differ."""
    found: List[str] = []
    if requires["arch"] not in ("any", device.arch):
        found.append("it is {}, not {}".format(device.arch, requires["arch"]))
    wanted = requires["capabilities"]
    if device.capability and wanted and device.capability not in wanted:
        text = "its GPU is sm_{}, not sm_{}"
        listed = " or sm_".join(one.replace(".", "") for one in wanted)
        found.append(text.format(device.capability.replace(".", ""), listed))
    if device.version and series(device.version) != series(requires["version"]):
        found.append("it has TensorRT {}, not {}".format(device.version, requires["version"]))
    return found


def series(version: str) -> str:
    """What two versions must share: major and minor."""
    return ".".join(version.split(".")[:2])


def wrong_device(target: Mapping[str, Any], device: Device, found: List[str]) -> UnsupportedError:
    """The error of a bundle on another device than its own."""
    message = "this bundle is for {} with {}; this is {}: {}".format(
        target["name"], target["stack"], device, "; ".join(found)
    )
    hint = "Build it for this device: edgec build MODEL --target NAME (edgec targets lists them, "
    hint += "--stack chooses the version). To run it here on ONNX Runtime all the same: "
    hint += "python3 BUNDLE finish --onnxruntime."
    return UnsupportedError(message, hint=hint)


def as_json(device: Device) -> Dict[str, str]:
    """A device as JSON values."""
    return dict(device._asdict())


def board() -> str:
    """The board, as the device tree or the firmware names it."""
    for path in ("/proc/device-tree/model", "/sys/class/dmi/id/product_name"):
        try:
            text = Path(path).read_bytes().decode("utf-8", "replace").strip("\0 \n")
        except OSError:
            continue
        if text:
            return re.sub(r"[^ -~]", "?", text)[:200]
    return NONE


def _cuda() -> Tuple[str, str]:
    """The first GPU's compute capability, and the driver's CUDA version."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
        version = ctypes.c_int()
        if library.cuInit(0) or library.cuDriverGetVersion(ctypes.byref(version)):
            return NONE, NONE
        driver = "{}.{}".format(version.value // 1000, version.value % 1000 // 10)
        device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        if library.cuDeviceGet(ctypes.byref(device), 0):
            return NONE, driver
        for value, attribute in ((major, _CAPABILITY_MAJOR), (minor, _CAPABILITY_MINOR)):
            if library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device):
                return NONE, driver
        return "{}.{}".format(major.value, minor.value), driver
    except (OSError, AttributeError):
        return NONE, NONE
