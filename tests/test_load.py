"""What cannot be trusted is refused at the door, with its reason; everything else loads."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

import graphs
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import small
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgec.build import Job, build
from edgec.canonicalise import canonicalise
from edgec.errors import EdgecError, EmitError, InputError, UnsupportedError
from edgec.load import load

# file -> error, words of its message, words of its hint
REFUSED: dict[str, tuple[type[EdgecError], str, str]] = {
    "cyclic": (InputError, "the graph contains a cycle: Relu (makes 'b') -> Add", "a Loop if"),
    "dangling_input": (InputError, "reads 'nothing', which nothing produces", "check_model"),
    "empty_file": (InputError, "0 bytes cannot be an ONNX file", "export again"),
    "empty_graph": (InputError, "the graph has no outputs", "check_model"),
    "external_absolute": (
        InputError,
        "weight 'w' points outside the model's folder: /etc/passwd",
        "do not use this file",
    ),
    "external_escape": (
        InputError,
        "weight 'w' points outside the model's folder: ../../etc/passwd",
        "do not use this file",
    ),
    "external_missing": (InputError, "external data file nowhere.bin is missing", "copy it beside"),
    "external_short": (InputError, "short.bin ends before weight 'w'", "truncated"),
    "future_opset": (UnsupportedError, "opset 99 is newer than", "pip install --upgrade onnx"),
    "huge_weight": (InputError, "weight 'w' is damaged", "truncated or changed"),
    "not_a_model": (InputError, "not a readable ONNX model", "of another format"),
    "truncated": (InputError, "not a readable ONNX model", "truncated"),
    "unknown_domain": (UnsupportedError, "is acme.ops::Warp", "standard ONNX operators"),
    "unknown_op": (
        UnsupportedError,
        "is Frobnicate, an operator that ONNX does not have at opset 17",
        "standard ONNX operators",
    ),
    "written_twice": (InputError, "makes 'y', which is already made", "check_model"),
}
LATER = {"wrong_shapes"}  # sound as a file; only a runtime sees what is wrong with it


def test_the_table_is_complete() -> None:
    assert REFUSED.keys() | LATER == {path.stem for path in graphs.HOSTILE.glob("*.onnx")}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_hostile_file_is_refused(name: str) -> None:
    kind, message, hint = REFUSED[name]
    path = graphs.HOSTILE / f"{name}.onnx"
    with pytest.raises(kind) as caught:
        load(path)
    assert type(caught.value) is kind
    assert caught.value.exit_code == (4 if kind is UnsupportedError else 3)
    assert caught.value.message.startswith(f"{path}: ")
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_an_attribute_of_a_function_outside_of_one(tmp_path: Path) -> None:
    text = "g (float[6] x) => (float[6] y) { [soft] y = Softmax <axis : int = @axis> (x) }"
    path = small.save(small.model(text), tmp_path / "m.onnx")
    with pytest.raises(
        InputError, match="node 'soft' takes 'axis' from an attribute of a function"
    ):
        load(path)


def test_a_split_into_another_number_of_pieces(tmp_path: Path) -> None:
    """ONNX's shape inference ends the process on it."""
    made = small.model(
        "g (float[6] x) => (float[2] a, float[4] b) { [cut] a, b = Split <num_outputs = 1> (x) }",
        18,
    )
    path = small.save(made, tmp_path / "m.onnx")
    with pytest.raises(
        InputError, match=r"node 'cut' \(Split\) has 2 outputs, and num_outputs is 1"
    ):
        load(path)


def test_documentation_that_is_not_utf_8_is_left_out(tmp_path: Path) -> None:
    proto = ir.to_proto(small.model("g (float[6] x) => (float[6] y) { [one] y = Relu (x) }"))
    proto.graph.node[0].doc_string = "C:/nets"
    data = proto.SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(data.replace(b"C:/nets", b"C:/\xd6\xd0ts"))
    (node,) = load(path).model.graph
    assert not node.doc_string


def test_an_attribute_of_64_bits(tmp_path: Path) -> None:
    """To the end, as exporters write it."""
    made = small.model(
        f"g (float[6,n] x) => (int64[2] y) {{ y = Shape <start = 0, end = {2**63 - 1}> (x) }}"
    )
    assert load(small.save(made, tmp_path / "m.onnx")).model.graph.num_nodes() == 1


def test_shapes_that_do_not_fit_are_refused_by_the_build(tmp_path: Path) -> None:
    job = Job(
        graphs.HOSTILE / "wrong_shapes.onnx",
        target="generic",
        output=tmp_path / "out.edgec",
        measure=False,
    )
    with pytest.raises(EmitError, match="Incompatible dimensions for matrix multiplication"):
        build(job)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", graphs.names())
def test_every_good_fixture_loads(name: str) -> None:
    path = graphs.path(name)
    found = load(path)
    files = [path]
    if name == "external":
        files.append(graphs.FIXTURES / "external.bin")
    assert found.source == f"{name}.onnx"
    assert found.sha256 == hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()
    assert found.bytes == sum(f.stat().st_size for f in files)


@pytest.mark.parametrize("what", ["nothing", "a folder"])
def test_no_file(what: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    if what == "a folder":
        path.mkdir()
    with pytest.raises(InputError, match=r"model\.onnx: no such file"):
        load(path)


@pytest.mark.parametrize("data", [b"\0" * 64, b"hello", b"PK\3\4", "ünï\n".encode() * 99])
def test_bytes_that_are_not_onnx(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        load(path)
    assert str(path) in caught.value.message


def test_an_old_opset(tmp_path: Path) -> None:
    made = small.model("g (float[2] x) => (float[2] y) { y = Relu (x) }", opset=0)
    path = small.save(made, tmp_path / "old.onnx")
    with pytest.raises(InputError, match="opset 0 is older than 1") as caught:
        load(path)
    assert "opset 1 or newer" in caught.value.hint


def test_an_operator_that_the_opset_lacks(tmp_path: Path) -> None:
    text = "g (float[2] x) => (float[2] y) { [late] y = Gelu (x) }"
    path = small.save(small.model(text, opset=17), tmp_path / "gelu.onnx")
    with pytest.raises(UnsupportedError, match=r"node 'late' is Gelu.* at opset 17"):
        load(path)
    assert load(small.save(small.model(text, opset=20), path)).model.opset_imports[""] == 20


def test_an_unknown_operator_inside_a_branch(tmp_path: Path) -> None:
    made = small.model(
        """g (bool c, float[2] x) => (float[2] y) {
             y = If (c) <then_branch = t () => (float[2] a) { [inner] a = Nonsense (x) },
                         else_branch = e () => (float[2] b) { b = Relu (x) }>
           }"""
    )
    path = small.save(made, tmp_path / "branch.onnx")
    with pytest.raises(UnsupportedError, match="node 'inner' is Nonsense"):
        load(path)


def test_a_model_local_function_is_known() -> None:
    assert load(graphs.path("function")).model.functions


def _copy_external(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    shutil.copy(graphs.FIXTURES / "external.bin", folder)
    return Path(shutil.copy(graphs.path("external"), folder))


def test_external_data_is_left_on_disk() -> None:
    tensors = [
        v.const_value for v in load(graphs.path("external")).model.graph.initializers.values()
    ]
    assert any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors)


def test_truncated_external_data(tmp_path: Path) -> None:
    path = _copy_external(tmp_path)
    os.truncate(tmp_path / "external.bin", (tmp_path / "external.bin").stat().st_size - 1)
    with pytest.raises(InputError, match=r"external data file external\.bin ends before weight"):
        load(path)


def test_missing_external_data(tmp_path: Path) -> None:
    path = _copy_external(tmp_path)
    (tmp_path / "external.bin").unlink()
    with pytest.raises(InputError, match=r"external data file external\.bin is missing"):
        load(path)


def test_a_link_that_leaves_the_folder(tmp_path: Path) -> None:
    path = _copy_external(tmp_path / "inner")
    (tmp_path / "inner" / "external.bin").rename(tmp_path / "secret.bin")
    (tmp_path / "inner" / "external.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(InputError, match="points outside the model's folder"):
        load(path)


def test_a_model_that_is_a_link_is_read_where_the_link_is(tmp_path: Path) -> None:
    _copy_external(tmp_path / "store")
    (tmp_path / "use").mkdir()
    path = tmp_path / "use" / "external.onnx"
    path.symlink_to(tmp_path / "store" / "external.onnx")
    with pytest.raises(InputError, match=r"external data file external\.bin is missing"):
        load(path)
    (path.parent / "external.bin").symlink_to(tmp_path / "store" / "external.bin")
    with pytest.raises(InputError, match="points outside the model's folder") as caught:
        load(path)
    assert "copy model and data into one folder, without links" in caught.value.hint
    (path.parent / "external.bin").unlink()
    shutil.copy(tmp_path / "store" / "external.bin", path.parent)
    canonicalise(load(path), {})


def test_a_hard_link(tmp_path: Path) -> None:
    path = _copy_external(tmp_path)
    os.link(tmp_path / "external.bin", tmp_path / "again.bin")
    with pytest.raises(InputError, match=r"external\.bin is a hard link") as caught:
        load(path)
    assert "copy of its own" in caught.value.hint


def _outside(tensor: onnx.TensorProto, **entries: str) -> onnx.TensorProto:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


@pytest.mark.parametrize("where", ["node", "branch", "function"])
def test_a_constant_node_cannot_reach_outside(where: str, tmp_path: Path) -> None:
    weight = onnx.numpy_helper.from_array(np.zeros(2, np.float32), "w")
    outside = _outside(weight, location="/etc/passwd", offset="0", length="8")
    node = onnx.helper.make_node("Constant", [], ["w"], value=outside)
    add = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    value = onnx.helper.make_tensor_value_info
    ends = [value("x", 1, [2])], [value("y", 1, [2])]
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("own", 1)]
    functions = []
    nodes = [node, add]
    if where == "function":
        functions = [onnx.helper.make_function("own", "F", ["x"], ["y"], nodes, opsets[:1])]
        nodes = [onnx.helper.make_node("F", ["x"], ["y"], domain="own")]
    elif where == "branch":
        branch = onnx.helper.make_graph(nodes, "b", [], ends[1])
        cond = onnx.numpy_helper.from_array(np.array(True), "cond")
        nodes = [
            onnx.helper.make_node("Constant", [], ["c"], value=cond),
            onnx.helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
        ]
    made = onnx.helper.make_graph(nodes, "g", *ends)
    path = tmp_path / "constant.onnx"
    path.write_bytes(
        onnx.helper.make_model(
            made, opset_imports=opsets, functions=functions, ir_version=8
        ).SerializeToString()
    )
    with pytest.raises(InputError, match="'w' points outside the model's folder: /etc/passwd"):
        load(path)


@pytest.mark.parametrize(
    ("offset", "length"), [("-8", "32"), ("0", "16"), ("8", "32"), ("x", "32"), ("0", "-32")]
)
def test_a_place_in_external_data_that_does_not_exist(
    offset: str, length: str, tmp_path: Path
) -> None:
    text = "g (float[8] x) => (float[8] y) { y = Mul (x, w) }"
    proto = ir.to_proto(small.model(text, w=np.ones(8, np.float32)))
    _outside(proto.graph.initializer[0], location="w.bin", offset=offset, length=length)
    (tmp_path / "w.bin").write_bytes(bytes(32))
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(InputError) as caught:
        load(path)
    assert str(path) in caught.value.message


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "model.onnx"


def _loads_or_refuses(path: Path) -> None:
    """A damaged file may still be a model; if not, the error is one that a user can act on."""
    with contextlib.suppress(EdgecError):
        canonicalise(load(path), {})


MLP = graphs.path("mlp").read_bytes()
CHANGE = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@CHANGE
@given(end=st.integers(0, len(MLP) - 1))
def test_any_truncation(end: int, scratch: Path) -> None:
    scratch.write_bytes(MLP[:end])
    _loads_or_refuses(scratch)


@CHANGE
@given(flips=st.lists(st.integers(0, 8 * len(MLP) - 1), min_size=1, max_size=8))
def test_any_flipped_bits(flips: list[int], scratch: Path) -> None:
    data = bytearray(MLP)
    for bit in flips:
        data[bit // 8] ^= 1 << bit % 8
    scratch.write_bytes(data)
    _loads_or_refuses(scratch)


@CHANGE
@given(at=st.integers(0, 400), value=st.integers(0, 255))
def test_any_changed_byte_of_the_structure(at: int, value: int, scratch: Path) -> None:
    proto = onnx.load_from_string(MLP)
    for tensor in proto.graph.initializer:
        tensor.dims[:] = [1]
        tensor.raw_data = tensor.raw_data[:4]
    data = bytearray(proto.SerializeToString())
    data[at % len(data)] = value
    scratch.write_bytes(data)
    _loads_or_refuses(scratch)
