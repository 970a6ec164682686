"""Nodes of custom ops as TensorRT's parser wants them, and what the device needs of each plugin.

The parser finds a plugin by the node's op_type and its attribute `plugin_namespace`; `aot` asks for
the kernel that was compiled ahead of time. graphsurgeon prepares the nodes, which is the one border
where it is used. Not verified on hardware.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgec.errors import ToolchainError
from edgec.kernels import Kernel
from edgec.native import REFERENCE, compiled, compiler
from edgec.runtime.tensorrt_plugins import VERSION
from edgec.types import KernelChoice, Runtime, Target

OLDEST, AHEAD = (10, 3), (10, 9)  # plugins in Python; kernels that were compiled ahead of time
GRAPHSURGEON = "onnx_graphsurgeon"


def refusal(runtime: Runtime, target: Target) -> str:
    """Why TensorRT of a target can have no plugin, or an empty text."""
    tool = runtime.toolchain
    if tool.built_on == "host":
        return f"{tool.name} builds its engines here, where no plugin runs"
    if runtime.device != "gpu":
        return f"no plugin runs on {runtime.device}"
    if release(tool.version) < OLDEST:
        return f"TensorRT {tool.version} takes no plugins in Python; 10.3 and later do"
    if not gpu(target):
        return f"{target.name} does not say what its GPU is"
    if find_spec(GRAPHSURGEON) is None:
        return "onnx-graphsurgeon is not installed: pip install 'edgec[tensorrt]'"
    try:
        compiler("NVCC", "nvcc", REFERENCE)
    except ToolchainError as error:
        return error.message
    return ""


def release(version: str) -> tuple[int, int]:
    """10.3.0 -> (10, 3)."""
    numbers = [int(part) for part in re.findall(r"\d+", version)[:2]]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)


def gpu(target: Target) -> str:
    """What the kernels are compiled for, such as sm_87; empty where that is not known."""
    unit = target.hardware.get("gpu")
    isa = "" if unit is None else str(unit.facts.get("isa", ""))
    return isa if re.fullmatch(r"sm_\d+", isa) else ""


def cubin(kernel: Kernel, target: Target, folder: Path) -> tuple[Path, Path]:
    """The kernel, compiled for the target's GPU, and how it is launched, in `folder`.

    NVCC names another compiler. Raises ToolchainError with the reason.
    """
    sources, isa = kernel.sources["tensorrt"], gpu(target)
    made, launch = (
        folder / f"{kernel.domain}.{kernel.name}.{end}" for end in (f"{isa}.cubin", "launch.py")
    )
    flags = ["-cubin", f"-arch={isa}", "-O3"]
    command = compiler("NVCC", "nvcc", REFERENCE)
    compiled(command, flags, sources["cuda"], made, REFERENCE)
    shutil.copyfile(sources["plugin"], launch)
    return made, launch


def namespace(domain: str) -> str:
    """TensorRT's namespaces have no dots."""
    return domain.replace(".", "_")


def declared(kernel: Kernel, files: tuple[Path, Path]) -> dict[str, Any]:
    """A plugin as the bundle's build plan has it; see `edgec.runtime.tensorrt_plugins`."""
    made, launch = files
    return {
        "op": kernel.name,
        "namespace": namespace(kernel.domain),
        "inputs": dict(kernel.inputs),
        "outputs": dict(kernel.outputs),
        "attributes": dict(kernel.attributes),
        "cubin": f"engines/{made.name}",
        "launch": f"engines/{launch.name}",
    }


def prepare(source: Path, into: Path, natives: Mapping[str, KernelChoice], version: str) -> None:
    """Rewrite the plugin nodes of an ONNX file for the parser of a TensorRT."""
    import onnx
    import onnx_graphsurgeon as gs

    graph = gs.import_onnx(onnx.load(source))
    ahead = release(version) >= AHEAD
    for node in graph.nodes:
        if f"{node.domain}::{node.op}" in natives:
            node.attrs["plugin_namespace"] = namespace(node.domain)
            node.attrs["plugin_version"] = VERSION
            if ahead:
                node.attrs["aot"] = True
            node.domain = None
    graph.import_domains = [one for one in graph.import_domains or [] if not _plugs(one, natives)]
    onnx.save(gs.export_onnx(graph, do_type_check=False), into)


def _plugs(imported: Any, natives: Mapping[str, KernelChoice]) -> bool:
    return any(key.startswith(f"{imported.domain}::") for key in natives)
