"""Run with TensorRT's genuine bindings over the stub: registers the plugins of a build plan.

Arguments: the declarations as JSON. Prints what the bindings made of them. The stub has no plugin
registry and nothing that computes sizes, so a list stands in for the one and numbers for the other.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from typing import Any

import numpy as np
import tensorrt as trt
import tensorrt_bindings

from edgec.runtime import tensorrt_plugins as plugins

KEPT: list[Any] = []


class Registry:
    """What TensorRT's own keeps."""

    def __init__(self) -> None:
        self.creators: dict[tuple[str, str, str], Any] = {}

    def register_creator(self, creator: Any, namespace: str) -> bool:
        self.creators[creator.name, creator.plugin_version, namespace] = creator
        return True

    def get_creator(self, name: str, version: str, namespace: str) -> Any:
        return self.creators[name, version, namespace]


class Builder:
    """Sizes as numbers."""

    def constant(self, value: int) -> int:
        return value

    def operation(self, kind: Any, one: int, other: int) -> int:
        known = {"SUM": one + other, "SUB": one - other, "PROD": one * other}
        known["FLOOR_DIV"] = one // other if other else 0
        return known[kind.name]


def main() -> None:
    declared = json.loads(sys.argv[1])
    registry = Registry()
    for module in (trt, tensorrt_bindings, sys.modules["tensorrt_bindings.tensorrt"]):
        module.get_plugin_registry = lambda: registry
    told = plugins.register(trt, declared)
    found: dict[str, Any] = {"told": told, "version": trt.__version__}
    found["creators"] = [list(key) for key in registry.creators]
    found["fields"] = {
        key[0]: [[one.name, one.type.name] for one in creator.field_names]
        for key, creator in registry.creators.items()
    }
    found["quick"] = plugins.quick_api(trt) is not None
    look = quick if found["quick"] else classic
    found["ops"] = {one["op"]: look(one, registry) for one in declared}
    print(json.dumps(found), flush=True)
    os._exit(0)  # the stub gives 10.3 nothing to end with


def classic(one: dict[str, Any], registry: Registry) -> dict[str, Any]:
    creator = registry.get_creator(one["op"], "1", one["namespace"])
    kinds = {"int": (np.int32, "INT32"), "float": (np.float32, "FLOAT32")}
    given = {name: one["values"][name] for name in one["attributes"]}
    fields = [
        trt.PluginField(
            name,
            np.array([value], kinds[one["attributes"][name]][0]),
            getattr(trt.PluginFieldType, kinds[one["attributes"][name]][1]),
        )
        for name, value in given.items()
    ]
    plugin = creator.create_plugin("n", trt.PluginFieldCollection(fields), trt.TensorRTPhase.BUILD)
    assert isinstance(plugin, trt.IPluginV3)
    for kind in (trt.PluginCapabilityType.CORE, trt.PluginCapabilityType.BUILD):
        assert plugin.get_capability_interface(kind) is plugin
    again = plugin.clone()
    KEPT.extend([fields, plugin, again])
    types = [getattr(trt.DataType, plugins._TYPES[kind]) for kind in one["inputs"].values()]
    back = creator.create_plugin("n", again.get_fields_to_serialize(), trt.TensorRTPhase.RUNTIME)
    KEPT.append(back)
    sizes = {
        name: [plugins.Size(trt, Builder(), size) for size in shape]
        for name, shape in one["shapes"].items()
    }
    planned = plugins._launch(plugins.Path(one["launch"]))(sizes, plugin.values)
    return {
        "num_outputs": plugin.num_outputs,
        "name": [plugin.plugin_namespace, plugin.plugin_name, plugin.plugin_version],
        "values": back.values,
        "types": [dtype.name for dtype in plugin.get_output_data_types(types)],
        "outputs": [[plain(size) for size in shape] for shape in planned["outputs"]],
        "grid": [plain(size) for size in planned["grid"]],
        "numbers": [plain(size) for size in planned["numbers"]],
    }


def quick(one: dict[str, Any], registry: Registry) -> dict[str, Any]:
    api = plugins.quick_api(trt)
    sys.modules["tensorrt_bindings.plugin._tensor"].SymIntExpr._exprBuilder = Builder()
    describe, implement = plugins._registered[f"{one['namespace']}::{one['op']}"]
    types = [getattr(trt.DataType, plugins._TYPES[kind]) for kind in one["inputs"].values()]
    given = [
        api.TensorDesc(api.ShapeExprs.from_tuple(tuple(one["shapes"][name])), dtype)
        for name, dtype in zip(one["inputs"], types, strict=True)
    ]
    values = [one["values"][name] for name in one["attributes"]]
    assert list(inspect.signature(describe).parameters) == [*one["inputs"], *one["attributes"]]
    made = describe(*given, *values)
    name, cubin, params, numbers = implement(*given, *values, made, 0)
    assert isinstance(params, api.KernelLaunchParams)
    assert isinstance(numbers, api.SymIntExprs)
    return {
        "name": name,
        "cubin": len(cubin),
        "types": [value.dtype.name for value in made],
        "outputs": [[plain(size) for size in value.shape_expr] for value in made],
        "grid": [plain(params.grid_x)],
        "block": [plain(params.block_x)],
        "numbers": [plain(size) for size in numbers],
    }


def plain(size: Any) -> int:
    if isinstance(size, plugins.Size):
        return int(size.expression)
    return int(size if isinstance(size, int) else size._expr)


main()
