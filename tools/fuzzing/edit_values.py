"""Edits of shapes, types and weights."""

from __future__ import annotations

from random import Random

import onnx
from edits import INTEGERS, NAMES, a_declaration, a_tensor, edit, graphs, values_of
from onnx import ModelProto, TensorProto

# The folder of a mutant holds w.bin, links that leave it, a hard link and a pipe.
LOCATIONS: tuple[str, ...] = ("w.bin", "./w.bin", "sub/../w.bin", "model.onnx", "nowhere.bin")
LOCATIONS += ("w.bin\0", "", ".", "..", "../canary.bin", "../../etc/passwd")
LOCATIONS += ("sub/../../canary.bin", "link.bin", "linked/canary.bin", "/etc/passwd")
LOCATIONS += ("/proc/self/environ", "/dev/zero", "//etc/passwd", "file:///etc/passwd", "hard.bin")
LOCATIONS += ("pipe.bin", "..\\canary.bin", "%2e%2e/canary.bin", "~/canary.bin", "x" * 5000)
PLACES = ("0", "8", "-8", "65536", "65537", "99999999999999999999", str(1 << 63), "x", "", "1e3")


# Shapes and types


@edit
def change_dimension(model: ModelProto, rng: Random) -> bool:
    found = a_declaration(model, rng)
    if found is None or not found.type.tensor_type.shape.dim:
        return False
    dim = rng.choice(found.type.tensor_type.shape.dim)
    if rng.random() < 0.6:
        dim.dim_value = rng.choice(INTEGERS)
    else:
        dim.dim_param = rng.choice([*NAMES, "batch", "2*n+1", "-1"])
    return True


@edit
def change_rank(model: ModelProto, rng: Random) -> bool:
    found = a_declaration(model, rng)
    if found is None or found.type.WhichOneof("value") != "tensor_type":
        return False
    kind = found.type.tensor_type
    what = rng.randrange(4)
    if what == 0:
        kind.ClearField("shape")
    elif what == 1:
        kind.shape.ClearField("dim")
    elif what == 2:
        for size in rng.choices(INTEGERS, k=rng.choice((1, 2, 70))):
            kind.shape.dim.add(dim_value=size)
    else:
        kind.shape.dim.add()
    return True


@edit
def change_type(model: ModelProto, rng: Random) -> bool:
    found = a_declaration(model, rng)
    if found is None:
        return False
    what = rng.randrange(5)
    if what == 0:
        found.ClearField("type")
    elif what == 1:
        tensor = onnx.helper.make_tensor_type_proto(TensorProto.FLOAT, [1])
        found.type.CopyFrom(onnx.helper.make_sequence_type_proto(tensor))
    elif what == 2:
        found.type.map_type.key_type = TensorProto.STRING
    else:
        found.type.tensor_type.elem_type = rng.choice([*range(27), 99, -1])
    return True


@edit
def drop_declarations(model: ModelProto, rng: Random) -> bool:
    graph = rng.choice(graphs(model))
    graph.ClearField("value_info")
    return True


@edit
def declare_wrongly(model: ModelProto, rng: Random) -> bool:
    name = rng.choice(values_of(model) or ["x"])
    shape = rng.choice([[], [1], [2, 3], [1 << 62] * 2, ["n", 4], None])
    kind = rng.choice([TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING, TensorProto.BOOL])
    model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, kind, shape))
    return True


# Weights


@edit
def change_tensor_dims(model: ModelProto, rng: Random) -> bool:
    found = a_tensor(model, rng)
    if found is None:
        return False
    if found.dims and rng.random() < 0.7:
        found.dims[rng.randrange(len(found.dims))] = rng.choice(INTEGERS)
    else:
        found.dims[:] = rng.choice([[], [1], list(reversed(found.dims)), [0], [1 << 40, 1 << 40]])
    return True


@edit
def change_tensor_type(model: ModelProto, rng: Random) -> bool:
    found = a_tensor(model, rng)
    if found is None:
        return False
    found.data_type = rng.choice([*range(28), 99, -1])
    return True


@edit
def change_tensor_data(model: ModelProto, rng: Random) -> bool:
    found = a_tensor(model, rng)
    if found is None:
        return False
    what = rng.randrange(5)
    if what == 0:
        found.raw_data = found.raw_data[: rng.randrange(len(found.raw_data) + 1)]
    elif what == 1:
        found.raw_data = found.raw_data + b"\0" * rng.choice((1, 4, 64))
    elif what == 2:
        found.float_data.extend([0.5] * rng.choice((1, 4)))
    elif what == 3:
        found.raw_data = b"\xff" * len(found.raw_data)
    else:
        found.string_data.extend([b"\xff", b"text"])
    return True


@edit
def make_string_tensor(model: ModelProto, rng: Random) -> bool:
    found = a_tensor(model, rng)
    if found is None:
        return False
    name = found.name
    texts = [b"a", "é".encode(), b"\xff"][: rng.choice((1, 2, 3))]
    found.CopyFrom(TensorProto(name=name, data_type=TensorProto.STRING, dims=[len(texts)]))
    found.string_data.extend(texts)
    return True


@edit
def make_external(model: ModelProto, rng: Random) -> bool:
    found = a_tensor(model, rng)
    if found is None:
        return False
    for field in ("raw_data", "float_data", "int64_data", "int32_data", "external_data"):
        if rng.random() < 0.9:
            found.ClearField(field)
    found.data_location = TensorProto.EXTERNAL
    if rng.random() < 0.95:
        found.external_data.add(key="location", value=rng.choice(LOCATIONS))
    for key in ("offset", "length", "checksum"):
        if rng.random() < 0.6:
            found.external_data.add(key=key, value=rng.choice(PLACES))
    if rng.random() < 0.1:
        found.external_data.add(key="location", value="../canary.bin")
    return True


@edit
def make_external_well(model: ModelProto, rng: Random) -> bool:
    """As an exporter does it: the right length at some offset of a file that is there."""
    found = a_tensor(model, rng)
    if found is None or not found.raw_data:
        return False
    length = len(found.raw_data)
    found.ClearField("raw_data")
    found.data_location = TensorProto.EXTERNAL
    found.ClearField("external_data")
    found.external_data.add(key="location", value=rng.choice(LOCATIONS[:3] + LOCATIONS))
    found.external_data.add(key="offset", value="0")
    found.external_data.add(key="length", value=str(length))
    return True


@edit
def rename_tensor(model: ModelProto, rng: Random) -> bool:
    found, other = a_tensor(model, rng), a_tensor(model, rng)
    if found is None or other is None:
        return False
    found.name = rng.choice([*NAMES, other.name])
    return True


@edit
def repeat_tensor(model: ModelProto, rng: Random) -> bool:
    graph = rng.choice(graphs(model))
    if not model.graph.initializer:
        return False
    graph.initializer.add().CopyFrom(rng.choice(model.graph.initializer))
    return True


@edit
def drop_tensor(model: ModelProto, rng: Random) -> bool:
    if not model.graph.initializer:
        return False
    del model.graph.initializer[rng.randrange(len(model.graph.initializer))]
    return True


@edit
def add_sparse_tensor(model: ModelProto, rng: Random) -> bool:
    found = a_tensor(model, rng)
    if found is None:
        return False
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(found)
    sparse.indices.CopyFrom(onnx.helper.make_tensor("i", TensorProto.INT64, [1], [1 << 40]))
    sparse.dims[:] = rng.choice([[4], [1 << 62], []])
    return True
