"""One file with all weights, the same as the library writes, and no copy of them on the way."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import graphs
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import small

from edgec import single_file
from edgec.graphs import save


@pytest.mark.parametrize("name", [*graphs.names(), "library/whisper_past_script"])
def test_the_file_says_what_the_library_would_write(name: str, tmp_path: Path) -> None:
    made = small.fixture(name).model.clone()
    single_file.write(made, tmp_path / "ours.onnx")
    ours, theirs = onnx.load(tmp_path / "ours.onnx"), ir.to_proto(made)
    if name != "external":  # the library leaves these where they are
        for proto in (ours, theirs):
            proto.graph.initializer.sort(key=lambda tensor: tensor.name)
            for tensor in proto.graph.initializer:
                tensor.ClearField("data_location")  # the file itself, stated or not
                tensor.ClearField("doc_string")  # empty, stated or not
        assert ours == theirs
    assert not any(tensor.external_data for tensor in ours.graph.initializer)
    onnx.checker.check_model(ours)


def test_the_model_is_as_before(tmp_path: Path) -> None:
    made = small.fixture("cnn").model.clone()
    before = {name: value.const_value for name, value in made.graph.initializers.items()}
    first, second = (save(made, tmp_path / f"{number}.onnx")[0] for number in (1, 2))
    assert {name: value.const_value for name, value in made.graph.initializers.items()} == before
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "int64", "bool"])
def test_weights_of_every_type(dtype: str, tmp_path: Path) -> None:
    array = (np.arange(70_000).reshape(7, 10_000) % 113 > 50).astype(dtype)
    made = small.model("g (float[1] x) => (float[1] y) { y = Relu (x) }", w=array)
    single_file.write(made, tmp_path / "made.onnx")
    (tensor,) = onnx.load(tmp_path / "made.onnx").graph.initializer
    assert np.array_equal(onnx.numpy_helper.to_array(tensor), array)
    assert onnx.numpy_helper.to_array(tensor).dtype == array.dtype


def test_weights_are_not_copied(tmp_path: Path) -> None:
    """64 MB in a file of their own become part of one file, with next to no memory."""
    size = 64 << 20
    with (tmp_path / "weights").open("wb") as stream:
        stream.truncate(size)
    tensor = ir.ExternalTensor(
        "weights", 0, size, ir.DataType.FLOAT, shape=ir.Shape([size // 4]), name="w",
        base_dir=tmp_path,
    )  # fmt: skip
    made = small.model("g (float[1] x) => (float[1] y) { y = Mul (x, w) }", w=np.zeros(1, "f4"))
    made.graph.initializers["w"].const_value = tensor
    tracemalloc.start()
    try:
        (path,) = save(made, tmp_path / "made.onnx")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > size
    assert peak < size / 16
