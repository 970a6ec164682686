"""TensorRT's three faces, told apart by what the imported module can do, never by its version.

    Flags    8.x to 10.x   precision by builder flags; INT8 by Q/DQ, or by a calibration cache
    Types    11.x          the types in the graph decide: Q/DQ, and casts for FP16
    Ahead    TensorRT-RTX  as Types, and builds for GPUs that are not here

Source: the Python bindings of 8.6.1, 10.3, 10.7, 10.16, 11.4 and RTX 1.7.1, compared name by name.
Building was run with TensorRT-RTX alone; the rest is not verified on hardware.
"""

from typing import Any, Dict, List, Mapping, Optional, Sequence

from edgec.errors import EmitError, ToolchainError

PRECISIONS = ("int8", "float16", "float32")
EXPLICIT, IMPLICIT, PLAIN = "explicit", "implicit", "plain"  # Q/DQ; a calibration cache; no INT8
ELSEWHERE = "Build for a stack whose TensorRT can do it, or let finish fall back."


class Flags:
    """8.x to 10.x: the builder is told which precisions it may choose from."""

    name = "TensorRT 8 to 10"
    tunes = True  # kernels are timed on the GPU while building, and a cache keeps the times

    def __init__(self, trt: Any) -> None:
        self.trt = trt

    def network_flags(self, typed: bool) -> int:
        """For `create_network`. ToolchainError: typed networks are asked for and not there."""
        known = self.trt.NetworkDefinitionCreationFlag
        flags = _bit(known, "EXPLICIT_BATCH")
        if typed:
            if not hasattr(known, "STRONGLY_TYPED"):
                message = "TensorRT {} has no strongly typed networks".format(self.version)
                raise ToolchainError(message, hint=ELSEWHERE)
            flags |= _bit(known, "STRONGLY_TYPED")
        return flags

    def configure(
        self, config: Any, builder: Any, request: Mapping[str, Any], calibrator: Optional[Any]
    ) -> List[str]:
        """Set precision and device; returns what was set, for people."""
        said: List[str] = []
        if not request["typed"]:
            rest = ("FP16",) if request.get("half", True) else ()
            wanted = {"int8": ("INT8", *rest), "float16": ("FP16",), "float32": ()}
            for flag in wanted[request["precision"]]:
                config.set_flag(getattr(self.trt.BuilderFlag, flag))
                said.append(flag)
        if calibrator is not None:
            config.int8_calibrator = calibrator
            said.append("calibration cache")
        return said + self._dla(config, builder, request.get("dla"))

    def _dla(self, config: Any, builder: Any, core: Optional[int]) -> List[str]:
        """Layers on a DLA core where it has them, on the GPU elsewhere."""
        if core is None:
            return []
        if builder.num_DLA_cores <= core:
            message = "this device has {} DLA cores, the engine is for DLA {}"
            message = message.format(builder.num_DLA_cores, core)
            raise EmitError(message, hint="Build for a target that has it, or without DLA.")
        config.default_device_type = self.trt.DeviceType.DLA
        config.DLA_core = core
        config.set_flag(self.trt.BuilderFlag.GPU_FALLBACK)
        return ["DLA {}".format(core), "GPU_FALLBACK"]

    @property
    def version(self) -> str:
        """The module's own version."""
        return str(self.trt.__version__)


class Types(Flags):
    """11.x: there is nothing to choose, the graph says it all."""

    name = "TensorRT 11"

    def network_flags(self, typed: bool) -> int:
        """Every network is strongly typed; the flag stays and changes nothing."""
        return _bit(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")

    def configure(
        self, config: Any, builder: Any, request: Mapping[str, Any], calibrator: Optional[Any]
    ) -> List[str]:
        """ToolchainError: a calibration cache, which this TensorRT cannot read."""
        if calibrator is not None or request["form"] == IMPLICIT:
            message = "TensorRT {} reads no calibration cache".format(self.version)
            raise ToolchainError(message, hint="It takes Q/DQ: build for a stack with TensorRT 11.")
        return self._dla(config, builder, request.get("dla"))


class Ahead(Types):
    """TensorRT-RTX: as 11.x; kernels are chosen on the device, so nothing is timed here."""

    name = "TensorRT-RTX"
    tunes = False

    def configure(
        self, config: Any, builder: Any, request: Mapping[str, Any], calibrator: Optional[Any]
    ) -> List[str]:
        """Set the GPUs to build for. EmitError names those that it cannot build for."""
        said = super().configure(config, builder, request, calibrator)
        wanted = list(request.get("capabilities") or ())
        known = capabilities(self.trt)
        unknown = [one for one in wanted if one not in known]
        if unknown:
            message = "TensorRT-RTX {} builds for {}, not for {}".format(
                self.version, ", ".join(sorted(known, key=float)), ", ".join(unknown)
            )
            raise EmitError(message, hint="Choose a target with one of those GPUs.")
        if wanted:
            config.num_compute_capabilities = len(wanted)
            for index, one in enumerate(wanted):
                config.set_compute_capability(known[one], index)
        return said + ["sm_" + one.replace(".", "") for one in wanted]


def capabilities(trt: Any) -> Dict[str, Any]:
    """The GPUs that a module builds for from anywhere, "8.9" -> its enumerator."""
    found: Dict[str, Any] = {}
    for name, value in trt.ComputeCapability.__members__.items():
        if name.startswith("SM") and name[2:].isdigit():
            found["{}.{}".format(name[2:-1], name[-1])] = value
    return found


def adapter(trt: Any) -> Flags:
    """The face of a module. ToolchainError: it is none of the three."""
    if not all(hasattr(trt, name) for name in ("Builder", "OnnxParser", "BuilderFlag")):
        message = "{} is no TensorRT that builds engines".format(getattr(trt, "__name__", trt))
        raise ToolchainError(message, hint="Install the full TensorRT, not its lean runtime.")
    if hasattr(trt, "ComputeCapability") and hasattr(trt.IBuilderConfig, "set_compute_capability"):
        return Ahead(trt)
    if hasattr(trt.BuilderFlag, "INT8") and hasattr(trt, "IInt8EntropyCalibrator2"):
        return Flags(trt)
    return Types(trt)


def set_workspace(trt: Any, config: Any, limit: int) -> None:
    """The most scratch memory that a layer may take, in bytes."""
    if hasattr(config, "set_memory_pool_limit"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limit)
    else:  # up to 8.3
        config.max_workspace_size = limit


def set_extras(trt: Any, config: Any, names: Sequence[str]) -> List[str]:
    """Set further builder flags where the module has them; returns those that it has."""
    found = [name for name in names if hasattr(trt.BuilderFlag, name)]
    for name in found:
        config.set_flag(getattr(trt.BuilderFlag, name))
    return found


def _bit(flags: Any, name: str) -> int:
    return 1 << int(getattr(flags, name)) if hasattr(flags, name) else 0
