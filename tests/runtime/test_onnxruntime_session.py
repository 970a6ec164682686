"""Engines on ONNX Runtime: both formats, hostile files, and results in memory of the caller's."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec.errors import InputError, ToolchainError
from edgec.runtime import load
from edgec.runtime.buffers import fill
from edgec.runtime.onnx_file import external_files, is_ort
from edgec.runtime.onnxruntime_session import OnnxRuntimeSession, open_artifact

MODEL = bundles.two_tower_models()["one"].SerializeToString()


def ort(model: bytes, folder: Path, name: str = "m.ort") -> Path:
    """A model in onnxruntime's own format."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(folder / name)
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return folder / name


def same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert sorted(left) == sorted(right)
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], strict=True)


# onnxruntime's own format


@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize("name", ["m.ort", "m.onnx", "m"])
def test_the_content_says_what_it_is_and_not_the_name(
    tmp_path: Path, name: str, as_bytes: bool
) -> None:
    path = ort(MODEL, tmp_path).rename(tmp_path / name)
    assert is_ort(path)
    assert is_ort(path.read_bytes())
    session = open_artifact(path.read_bytes() if as_bytes else path, {})
    same(session.run(bundles.feeds()), bundles.expected(bundles.feeds()))


@pytest.mark.parametrize("as_bytes", [True, False])
def test_onnx_that_is_called_otherwise(tmp_path: Path, as_bytes: bool) -> None:
    path = tmp_path / "m.ort"
    path.write_bytes(MODEL)
    assert not is_ort(path)
    session = open_artifact(path.read_bytes() if as_bytes else path, {})
    assert set(session.run(bundles.feeds())) == {"score", "image_vector"}


@pytest.mark.parametrize("folder", [False, True])
def test_a_bundle_of_both_formats(tmp_path: Path, folder: bool) -> None:
    described, files = bundles.parts(2, graph_optimization_level="disable_all")
    vision = bundles.two_tower_models()["vision"].SerializeToString()
    del files["engines/vision.onnx"]
    files["engines/vision.ort"] = ort(vision, tmp_path).read_bytes()
    files["engines/vision.required_operators.config"] = b"# operators\n"
    described["engines"][0]["artifact"] = "engines/vision.ort"
    path = bundles.pack.write_bundle(described, files, tmp_path / "m", force=False, folder=folder)
    with load(path, threads=1) as model:
        assert model.self_test().passed
        same(model.run(bundles.feeds(3)), bundles.expected(bundles.feeds(3)))


def test_an_onnxruntime_that_damaged_files_can_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ort(MODEL, tmp_path)
    for version in ("1.19.2", "1.27.0", "1.9"):
        monkeypatch.setattr(onnxruntime, "__version__", version)
        with pytest.raises(ToolchainError, match=f"onnxruntime {version} is too old for m.ort"):
            open_artifact(path, {})
        open_artifact(MODEL, {})  # ONNX is no matter
    for version in ("1.28.0", "1.32.0.dev20261101", "2.0.0"):
        monkeypatch.setattr(onnxruntime, "__version__", version)
        open_artifact(path, {})


DAMAGE = """
import random, sys
from pathlib import Path
from edgec.errors import InputError, ToolchainError
from edgec.runtime.onnxruntime_session import open_artifact
import bundles
good, feeds = Path(sys.argv[1]).read_bytes(), bundles.feeds()
opened = refused = 0
for seed in range(400):
    draw, data = random.Random(seed), bytearray(good)
    place = draw.randrange(8, len(data) - 4)
    if seed % 4 == 0:
        data[place] ^= 1 << draw.randrange(8)
    elif seed % 4 == 1:
        data[draw.randrange(8, len(data) // 2)] ^= 0xFF
    elif seed % 4 == 2:
        data[place & ~3 : (place & ~3) + 4] = draw.choice([b"\\xff\\xff\\xff\\x7f", bytes(4)])
    else:
        del data[place:]
    try:
        open_artifact(bytes(data), {"threads": 1}).run(feeds)
        opened += 1
    except (InputError, ToolchainError) as error:  # a damaged opset looks too new
        assert error.hint
        refused += 1
print(opened, refused)
"""


def test_damaged_files_are_refused_or_run_and_never_crash(tmp_path: Path) -> None:
    path = ort(MODEL, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", DAMAGE, str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(bundles.__file__).parent)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    opened, refused = map(int, done.stdout.split())
    assert opened + refused == 400
    assert opened > 20
    assert refused > 150


@pytest.mark.parametrize(
    "junk", [b"....ORTM", b"....ORTM....", b"\x18\0\0\0ORTM" + bytes(100), b"\0\0\0\0ORTM" * 9]
)
def test_the_identifier_alone_is_no_model(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "m.ort").write_bytes(junk)
    for artifact in (junk, tmp_path / "m.ort"):
        with pytest.raises(InputError, match="cannot open"):
            open_artifact(artifact, {})


def test_a_file_that_is_onnx_and_looks_like_the_other_format(tmp_path: Path) -> None:
    """Its bytes 4 to 8 are the other format's identifier, so that its weights are not looked for;
    then it must not be opened as ONNX either, which would read any file of the device."""
    model = bundles.two_tower_models()["fusion"]
    tensor = model.graph.initializer[0]
    (tmp_path / "secret.bin").write_bytes(tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, "../" + tmp_path.name + "/secret.bin")
    tensor.ClearField("raw_data")
    del model.opset_import[1:]
    name = b"ORTM"
    # field 1 (version), field 2 (producer's name), and then all that was there
    evil = b"\x08\x08\x12" + bytes([len(name)]) + name + model.SerializeToString()
    assert onnx.load_model_from_string(evil).producer_name == "ORTM"
    assert evil[4:8] == b"ORTM"
    path = tmp_path / "m.onnx"
    path.write_bytes(evil)
    for artifact in (evil, path):
        with pytest.raises(InputError, match="cannot open"):
            open_artifact(artifact, {})
        with pytest.raises(InputError, match="in onnxruntime's own format, not ONNX"):
            external_files(artifact, "m.onnx")


# results in memory of the caller's


def model(*nodes: Any, outputs: list[tuple[str, int]], **constants: Any) -> OnnxRuntimeSession:
    """A session of a float input x [n, 4]."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return open_artifact(made.SerializeToString(), {"threads": 1})


FLOAT, X = TensorProto.FLOAT, np.arange(24, dtype=np.float32).reshape(6, 4) - 9
CASES = {
    "new": lambda: model(helper.make_node("Relu", ["x"], ["y"]), outputs=[("y", FLOAT)]),
    "moved": lambda: model(
        helper.make_node("Reshape", ["x", "s"], ["y"]), outputs=[("y", FLOAT)], s=np.array([-1, 2])
    ),
    "the input": lambda: model(helper.make_node("Identity", ["x"], ["y"]), outputs=[("y", FLOAT)]),
    "a constant": lambda: model(
        helper.make_node("Identity", ["c"], ["y"]),
        helper.make_node("Relu", ["x"], ["z"]),
        outputs=[("y", FLOAT), ("z", FLOAT)],
        c=np.ones((2, 3), np.float32),
    ),
    "read again": lambda: model(
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Neg", ["y"], ["z"]),
        outputs=[("y", FLOAT), ("z", FLOAT)],
    ),
    "a number": lambda: model(
        helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0), outputs=[("y", FLOAT)]
    ),
    "other types": lambda: model(
        helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT64),
        helper.make_node("Cast", ["x"], ["z"], to=TensorProto.BOOL),
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        outputs=[("y", TensorProto.INT64), ("z", TensorProto.BOOL), ("h", TensorProto.FLOAT16)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_results_are_written_where_the_caller_wants_them(case: str) -> None:
    session = CASES[case]()
    expected = session.run({"x": X})
    out = {name: np.empty_like(array) for name, array in expected.items()}
    got = session.run_into({"x": X}, out)
    assert all(got[name] is out[name] for name in expected)
    same(got, expected)
    same(session.run({"x": X}), expected)


@pytest.mark.parametrize("case", CASES)
def test_other_results_are_new_arrays(case: str) -> None:
    session = CASES[case]()
    expected = session.run({"x": X})
    mine = {"y": np.empty_like(expected["y"])}
    got = session.run_into({"x": X}, mine)
    same(got, expected)
    for seed in range(5):
        session.run_into({"x": X + seed}, {"y": np.empty_like(expected["y"])})
    session.close()
    del session
    gc.collect()
    same(got, expected)


def test_the_inputs_may_be_strided_and_are_not_changed() -> None:
    session = CASES["new"]()
    wide = np.repeat(X, 2, axis=1)
    before, out = wide.copy(), np.empty_like(X)
    session.run_into({"x": wide[:, ::2]}, {"y": out})
    np.testing.assert_array_equal(out, np.maximum(X, 0))
    np.testing.assert_array_equal(wide, before)


def test_a_slice_of_a_larger_array() -> None:
    session, many = CASES["new"](), np.full((5, 6, 4), 7, np.float32)
    session.run_into({"x": X}, {"y": many[2]})
    np.testing.assert_array_equal(many[2], np.maximum(X, 0))
    assert (np.delete(many, 2, axis=0) == 7).all()


@pytest.mark.parametrize(
    "shape", [(1,), (1, 1), (6, 3), (4, 6), (24,), (6, 4, 1), (0, 4), (900, 9)]
)
@pytest.mark.parametrize("case", ["new", "the input", "read again"])
def test_a_wrong_shape_damages_nothing(case: str, shape: tuple[int, ...]) -> None:
    session, size = CASES[case](), int(np.prod(shape))
    memory = np.full(size + 8192, 7, np.float32)
    with pytest.raises(InputError, match="the engine failed") as caught:
        session.run_into({"x": X}, {"y": memory[4096 : 4096 + size].reshape(shape)})
    assert "shapes of the arrays" in caught.value.hint
    assert (memory[:4096] == 7).all()
    assert (memory[4096 + size :] == 7).all()
    out = np.empty_like(X)
    session.run_into({"x": X}, {"y": out})  # still usable


def _frozen() -> Any:
    array = np.empty_like(X)
    array.flags.writeable = False
    return array


def _unaligned() -> Any:
    return np.zeros(X.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(X.shape)


WRONG: list[tuple[str, Any, str]] = [
    ("a list", lambda: [[0.0] * 4] * 6, "output 'y': expected a numpy array, got list"),
    ("double", lambda: np.empty((6, 4)), r"the array is float64\[6, 4\], the engine makes float32"),
    ("integer", lambda: np.empty((6, 4), np.int32), "int32.*the engine makes float32"),
    ("half", lambda: np.empty((6, 4), np.float16), "float16.*the engine makes float32"),
    ("foreign", lambda: np.empty((6, 4), ">f4"), "dtype >f4 cannot be written to"),
    ("objects", lambda: np.empty((6, 4), object), "cannot be written to"),
    ("a record", lambda: np.empty((6, 4), "f4,f4"), "the engine makes float32"),
    ("strided", lambda: np.empty((6, 8), np.float32)[:, ::2], "must be C-contiguous, writable"),
    ("Fortran", lambda: np.empty((6, 4), np.float32, order="F"), "must be C-contiguous"),
    ("read-only", _frozen, "must be C-contiguous, writable and aligned"),
    ("unaligned", _unaligned, "must be C-contiguous, writable and aligned"),
    ("the input", lambda: X, "it may share memory with input 'x'"),
    ("part of it", lambda: X.reshape(4, 6)[1:2], "it may share memory with input 'x'"),
]


@pytest.mark.parametrize(("make", "message"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_arrays_that_must_not_be_written_to(make: Any, message: str) -> None:
    session, before = CASES["new"](), X.copy()
    with pytest.raises(InputError, match=message) as caught:
        session.run_into({"x": X}, {"y": make()})
    assert "numpy.empty_like" in caught.value.hint
    np.testing.assert_array_equal(X, before)


def test_two_results_in_the_same_place() -> None:
    memory = np.empty((7, 4), np.float32)
    with pytest.raises(InputError, match="output 'z': it may share memory with output 'y'"):
        CASES["read again"]().run_into({"x": X}, {"y": memory[:6], "z": memory[1:]})


def test_an_output_that_does_not_exist() -> None:
    with pytest.raises(InputError, match="unknown output nothing") as caught:
        CASES["new"]().run_into({"x": X}, {"nothing": np.empty_like(X)})
    assert caught.value.hint == "The engine makes y"


def test_text_cannot_be_written() -> None:
    session = model(
        helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING),
        outputs=[("y", TensorProto.STRING)],
    )
    assert session.run({"x": X})["y"].dtype == object
    with pytest.raises(InputError, match="the engine makes other"):
        session.run_into({"x": X}, {"y": np.empty((6, 4), "U4")})


def test_wrong_feeds_are_refused() -> None:
    session, out = CASES["new"](), np.empty_like(X)
    for feeds in (
        {},
        {"x": X.tolist()},
        {"x": X[0]},
        {"x": X.astype(np.float64)},
        {"x": X, "ghost": X},
    ):
        with pytest.raises(InputError, match="the engine failed"):
            session.run_into(feeds, {"y": out})


def test_many_threads_with_arrays_of_their_own() -> None:
    session = open_artifact(MODEL, {"threads": 1})
    samples = [bundles.feeds(seed, 1 + seed % 4, 1 + seed % 16) for seed in range(8)]
    alone = [session.run(sample) for sample in samples]

    def work(offset: int) -> None:
        for step in range(80):
            index = (offset + step) % 8
            out = {"score": np.empty_like(alone[index]["score"])}
            same(session.run_into(samples[index], out), alone[index])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_what_an_engine_cannot_write_itself_is_copied() -> None:
    mine, other = np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)
    made = {"y": other, "z": other}
    fill({"y": mine}, made)
    assert made["y"] is mine
    assert made["z"] is other
    np.testing.assert_array_equal(mine, other)
    for wrong in (np.ones((2, 1), np.float32), np.ones((2, 2))):
        with pytest.raises(InputError, match=r"the array is float32\[2, 2\], the engine makes"):
            fill({"y": mine}, {"y": wrong})
