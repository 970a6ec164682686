"""Plugins of TensorRT for custom ops: CUDA kernels that were compiled where the bundle was built.

A plugin is declared in the bundle's build plan:

    op, namespace   how the parser finds it          inputs, outputs   types by name, in order
    attributes      int or float, by name            cubin             the kernel for this GPU
    launch          Python with launch(shapes, attributes) -> grid, block, numbers, outputs

`numbers` are whole numbers that the kernel takes between its inputs and its outputs; `outputs` are
their shapes. `launch` works on sizes that may be symbolic: it adds, multiplies and divides them.
From TensorRT 10.9 on a quick plugin hands over the kernel itself (`aot_impl`), and the engine needs
no plugin when it runs; before, `IPluginV3` launches it. Not verified on hardware.
"""

import ctypes
import inspect
import struct
from importlib import import_module
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from edgec.errors import EmitError, ToolchainError

VERSION = "1"
_TYPES = {"float": "FLOAT", "int64": "INT64", "int32": "INT32", "bool": "BOOL"}
_HINT = "Build the bundle again, or finish without the plugin: its reference is the next step."
_registered: Dict[str, Any] = {}  # by namespace::op; the registry of TensorRT keeps no reference

Launch = Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]]


def float_bits(number: float) -> int:
    """A float32 as the whole number with the same bits, since kernels take whole numbers alone."""
    return int(struct.unpack("<i", struct.pack("<f", number))[0])


def quick_api(trt: Any) -> Optional[Any]:
    """TensorRT's module of quick plugins where it takes compiled kernels (10.9 and later)."""
    for name in (trt.__name__ + ".plugin", "tensorrt_bindings.plugin"):
        try:
            found = import_module(name)
        except ImportError:
            continue
        if hasattr(found, "aot_impl") and hasattr(found, "KernelLaunchParams"):
            return found
    return None


def register(trt: Any, declared: Sequence[Mapping[str, Any]]) -> List[str]:
    """Register plugins before a model is parsed or an engine is read; returns how, one by one.

    `launch` of each runs here: it is code of whoever made the op. ToolchainError: TensorRT is too
    old. EmitError: it refuses a plugin, or `launch` is no such function.
    """
    told, api = [], quick_api(trt)
    for one in declared:
        key = "{}::{}".format(one["namespace"], one["op"])
        if api is None and not hasattr(trt, "IPluginV3"):
            message = "TensorRT {} takes no plugins in Python".format(trt.__version__)
            raise ToolchainError(message, hint=_HINT)
        if key not in _registered:
            try:
                _registered[key] = _made(trt, api, one, key)
            except Exception as error:  # TensorRT's own, or of the code of another author
                message = "the plugin {} cannot be registered: {!r}".format(key, error)
                raise EmitError(message[:500], hint=_HINT) from error
        told.append("{} as {}".format(key, "IPluginV3" if api is None else "a quick plugin"))
    return told


def _made(trt: Any, api: Optional[Any], one: Mapping[str, Any], key: str) -> Any:
    cubin, launch = Path(one["cubin"]).read_bytes(), _launch(Path(one["launch"]))
    if api is not None:
        return _quick(trt, api, one, key, cubin, launch)
    creator = _creator(trt, one, cubin, launch)
    trt.get_plugin_registry().register_creator(creator, one["namespace"])
    return creator


def _launch(path: Path) -> Launch:
    """The function of a file, which is run."""
    scope: Dict[str, Any] = {"float_bits": float_bits}
    exec(compile(path.read_text(encoding="utf-8"), path.name, "exec"), scope)
    found: Launch = scope["launch"]
    return found


# ---- from 10.9 on ----


def _quick(
    trt: Any, api: Any, one: Mapping[str, Any], key: str, cubin: bytes, launch: Launch
) -> Any:
    """A quick plugin, whose functions have the signatures that TensorRT reads."""
    inputs, attributes = list(one["inputs"]), list(one["attributes"])
    kinds = {"int": int, "float": float}

    def describe(*given: Any) -> Any:
        planned = launch(_exprs(inputs, given), dict(zip(attributes, given[len(inputs) :])))
        made = []
        for kind, shape in zip(one["outputs"].values(), planned["outputs"]):
            value = given[0].like()
            value.dtype = getattr(trt.DataType, _TYPES[kind])
            value.shape_expr = api.ShapeExprs.from_tuple(tuple(shape))
            made.append(value)
        return tuple(made)

    def implement(*given: Any) -> Any:
        planned = launch(_exprs(inputs, given), dict(zip(attributes, given[len(inputs) :])))
        params = api.KernelLaunchParams()
        for axis, size in zip("xyz", planned["grid"]):
            setattr(params, "grid_" + axis, size)
        for axis, size in zip("xyz", planned["block"]):
            setattr(params, "block_" + axis, size)
        numbers = api.SymIntExprs(len(planned["numbers"]))
        for index, number in enumerate(planned["numbers"]):
            numbers[index] = api.SymInt32(number)
        return one["op"], cubin, params, numbers

    parameters = [_parameter(name, api.TensorDesc) for name in inputs]
    parameters += [_parameter(name, kinds[one["attributes"][name]]) for name in attributes]
    results: Any = Tuple.__getitem__(tuple(api.TensorDesc for _ in one["outputs"]))
    describe.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        parameters, return_annotation=results
    )
    kernel = Tuple[str, bytes, api.KernelLaunchParams, api.SymIntExprs]
    more = [_parameter("outputs", results), _parameter("tactic", int)]
    implement.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        parameters + more, return_annotation=kernel
    )
    api.register(key)(describe)
    api.aot_impl(key)(implement)
    return describe, implement


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation)


def _exprs(names: Sequence[str], given: Sequence[Any]) -> Dict[str, List[Any]]:
    return {name: list(one.shape_expr) for name, one in zip(names, given)}


# ---- 10.3 to 10.8 ----


class Size:
    """A size that TensorRT computes later, with the arithmetic of a whole number."""

    def __init__(self, trt: Any, builder: Any, expression: Any) -> None:
        self._trt, self._builder, self.expression = trt, builder, expression

    def _with(self, kind: str, other: Any) -> "Size":
        if not isinstance(other, Size):
            other = Size(self._trt, self._builder, self._builder.constant(int(other)))
        operation = getattr(self._trt.DimensionOperation, kind)
        made = self._builder.operation(operation, self.expression, other.expression)
        return Size(self._trt, self._builder, made)

    def __add__(self, other: Any) -> "Size":
        return self._with("SUM", other)

    def __sub__(self, other: Any) -> "Size":
        return self._with("SUB", other)

    def __mul__(self, other: Any) -> "Size":
        return self._with("PROD", other)

    def __floordiv__(self, other: Any) -> "Size":
        return self._with("FLOOR_DIV", other)


def _creator(trt: Any, one: Mapping[str, Any], cubin: bytes, launch: Launch) -> Any:
    """What makes plugins of one op, by the parser's attributes or by an engine's."""
    inputs, outputs = list(one["inputs"]), list(one["outputs"])
    kinds = {"int": (np.int32, "INT32"), "float": (np.float32, "FLOAT32")}
    wanted = [_TYPES[kind] for kind in [*one["inputs"].values(), *one["outputs"].values()]]

    class Plugin(
        trt.IPluginV3,  # type: ignore[misc]
        trt.IPluginV3OneCore,  # type: ignore[misc]
        trt.IPluginV3OneBuild,  # type: ignore[misc]
        trt.IPluginV3OneRuntime,  # type: ignore[misc]
    ):
        """One node."""

        def __init__(self, values: Mapping[str, Any]) -> None:
            trt.IPluginV3.__init__(self)
            trt.IPluginV3OneCore.__init__(self)
            trt.IPluginV3OneBuild.__init__(self)
            trt.IPluginV3OneRuntime.__init__(self)
            self.num_outputs = len(outputs)
            self.plugin_namespace = one["namespace"]
            self.plugin_name, self.plugin_version = one["op"], VERSION
            self.timing_cache_id = ""
            self.values = dict(values)

        def get_capability_interface(self, type: Any) -> Any:
            return self

        def clone(self) -> Any:
            return Plugin(self.values)

        def get_fields_to_serialize(self) -> Any:
            return trt.PluginFieldCollection(_fields(trt, self.values, one["attributes"], kinds))

        def get_output_data_types(self, input_types: Any) -> Any:
            return [getattr(trt.DataType, name) for name in wanted[len(inputs) :]]

        def get_output_shapes(self, given: Any, shape_inputs: Any, builder: Any) -> Any:
            shapes = {
                name: [Size(trt, builder, dims[axis]) for axis in range(len(dims))]
                for name, dims in zip(inputs, given)
            }
            made = []
            for sizes in launch(shapes, self.values)["outputs"]:
                dims = trt.DimsExprs(len(sizes))
                for axis, size in enumerate(sizes):
                    known = isinstance(size, Size)
                    dims[axis] = size.expression if known else builder.constant(int(size))
                made.append(dims)
            return made

        def supports_format_combination(self, pos: int, in_out: Any, num_inputs: int) -> bool:
            desc = in_out[pos].desc
            linear = desc.format == trt.TensorFormat.LINEAR
            return bool(linear and desc.type == getattr(trt.DataType, wanted[pos]))

        def configure_plugin(self, given: Any, made: Any) -> None:
            """Nothing is kept."""

        def on_shape_change(self, given: Any, made: Any) -> None:
            """Nothing is kept."""

        def attach_to_context(self, context: Any) -> Any:
            return self.clone()

        def set_tactic(self, tactic: int) -> None:
            """There is one."""

        def enqueue(
            self, given: Any, made: Any, sources: Any, sinks: Any, workspace: Any, stream: int
        ) -> None:
            shapes = {name: [int(d) for d in desc.dims] for name, desc in zip(inputs, given)}
            planned = launch(shapes, self.values)
            _run(cubin, one["op"], planned, list(sources), list(sinks), stream)

    class Creator(trt.IPluginCreatorV3One):  # type: ignore[misc]
        """Makes them."""

        def __init__(self) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name, self.plugin_namespace = one["op"], one["namespace"]
            self.plugin_version = VERSION
            empty = dict.fromkeys(one["attributes"])
            self.field_names = trt.PluginFieldCollection(
                _fields(trt, empty, one["attributes"], kinds)
            )

        def create_plugin(self, name: str, fields: Any, phase: Any) -> Any:
            types = {"int": int, "float": float}
            given = {field.name: field.data for field in fields}
            return Plugin(
                {
                    key: types[kind](np.asarray(given[key]).reshape(-1)[0])
                    for key, kind in one["attributes"].items()
                }
            )

    return Creator()


def _fields(
    trt: Any, values: Mapping[str, Any], declared: Mapping[str, str], kinds: Mapping[str, Any]
) -> List[Any]:
    made = []
    for name, kind in declared.items():
        dtype, label = kinds[kind]
        data = np.array([] if values[name] is None else [values[name]], dtype)
        made.append(trt.PluginField(name, data, getattr(trt.PluginFieldType, label)))
    return made


def _run(
    cubin: bytes,
    name: str,
    planned: Mapping[str, Any],
    sources: Sequence[int],
    sinks: Sequence[int],
    stream: int,
) -> None:
    """Launch the kernel of a cubin, by CUDA's driver, in the context that TensorRT has made."""
    cuda = ctypes.CDLL("libcuda.so.1")
    function = _function(cuda, cubin, name)
    numbers = [ctypes.c_int32(int(number)) for number in planned["numbers"]]
    before = [ctypes.c_void_p(address) for address in sources]
    arguments = [*before, *numbers, *(ctypes.c_void_p(address) for address in sinks)]
    places = (ctypes.c_void_p * len(arguments))(
        *(ctypes.cast(ctypes.byref(one), ctypes.c_void_p) for one in arguments)
    )
    ones = [1, 1, 1]
    sizes = [(list(planned[what]) + ones)[:3] for what in ("grid", "block")]
    dims = [ctypes.c_uint(int(size)) for size in sizes[0] + sizes[1]]
    _check(
        cuda.cuLaunchKernel(
            function, *dims, ctypes.c_uint(0), ctypes.c_void_p(stream), places, None
        ),
        name,
    )


_functions: Dict[Tuple[int, str], Any] = {}  # by context and name


def _function(cuda: Any, cubin: bytes, name: str) -> Any:
    context = ctypes.c_void_p()
    _check(cuda.cuCtxGetCurrent(ctypes.byref(context)), name)
    key = (context.value or 0, name)
    if key not in _functions:
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        _check(cuda.cuModuleLoadData(ctypes.byref(module), cubin), name)
        _check(cuda.cuModuleGetFunction(ctypes.byref(function), module, name.encode()), name)
        _functions[key] = function
    return _functions[key]


def _check(code: int, name: str) -> None:
    if code:
        message = "the CUDA kernel {} cannot be launched: error {}".format(name, code)
        raise ToolchainError(message, hint=_HINT)
