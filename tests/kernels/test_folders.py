"""Folders of custom ops: what is refused of them, and with which words."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import models
import onnx_ir as ir
import pytest

from edgec.canonicalise import canonicalise
from edgec.data import folder
from edgec.errors import InputError, UnsupportedError
from edgec.kernels import find, read
from edgec.kernels.marks import FUSES, MARK, op
from edgec.load import load

TOY = folder("kernels") / "squareplus"


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TOY, tmp_path / "toy"))


def change(place: Path, file: str, before: str, after: str) -> None:
    text = (place / file).read_text(encoding="utf-8")
    assert before in text
    (place / file).write_text(text.replace(before, after, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "before", "after", "words"),
    [
        (
            "kernel.toml",
            "tolerance = 1e-6",
            "tolerance = 1e-6\nspeed = 9",
            "'speed' was unexpected",
        ),
        ("kernel.toml", "tolerance = 1e-6", "", "tolerance"),
        ("kernel.toml", "tolerance = 1e-6", "tolerance = 2", "tolerance"),
        ("kernel.toml", 'x = "float"', 'x = "complex"', "complex"),
        ("kernel.toml", 'x = "float"', 'z = "float"', "inputs: z here, and x in the reference"),
        ("kernel.toml", 'b = "float"', 'b = "int"', "its default in the reference is no int"),
        ("kernel.toml", 'name = "Squareplus"', 'name = "Other"', "name: Other here"),
        ("kernel.toml", '"edgec.kernels"', '"com.microsoft"', "belongs to others"),
        ("kernel.toml", "onnxruntime.cc", "../../evil.cc", "evil"),
        ("kernel.toml", "onnxruntime.cc", "other.cc", "other.cc is no file of this folder"),
        ("kernel.toml", "summary =", "summary", "not TOML"),
        ("kernel.toml", '[shapes]\ny = "x"', '[shapes]\ny = "w.0"', "shapes.y"),
        ("reference.txt", '"" : 17', '"" : 21', "opset_import"),
        ("reference.txt", "Sqrt", "Skwert", "Skwert in the reference is no operator of ONNX"),
        ("reference.txt", "(x) => (y)", "(x) => ", "not an ONNX function"),
    ],
)
def test_what_is_wrong_is_named(toy: Path, file: str, before: str, after: str, words: str) -> None:
    change(toy, file, before, after)
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        read(toy)
    assert "kernel.schema.json" in caught.value.hint


def test_a_folder_may_hold_several_ops(toy: Path) -> None:
    other = shutil.copytree(toy, toy.parent / "other")
    change(Path(other), "kernel.toml", '"Squareplus"', '"Rootplus"')
    change(Path(other), "reference.txt", "Squareplus <b", "Rootplus <b")
    for place in (toy, Path(other)):
        change(place, "kernel.toml", '"edgec.kernels"', '"my.ops"')
        change(place, "reference.txt", '"edgec.kernels"', '"my.ops"')
    own = {key for key in find(toy.parent) if key.startswith("my.ops::")}
    assert own == {"my.ops::Squareplus", "my.ops::Rootplus"}
    assert len(find(toy)) == len(find()) + 1


def test_two_folders_of_one_op_are_refused(toy: Path) -> None:
    shutil.copytree(toy, toy.parent / "again")
    with pytest.raises(InputError, match="is also what"):
        find(toy.parent)


def test_a_folder_without_an_op_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has a kernel\.toml") as caught:
        find(tmp_path)
    assert "tools/new-kernel" in caught.value.hint


def test_a_custom_op_without_a_kernel_names_the_folder_to_write(tmp_path: Path) -> None:
    path = models.net(tmp_path / "net.onnx", "acme.ops", "FancyGate")
    with pytest.raises(UnsupportedError, match=r"acme\.ops::FancyGate") as caught:
        load(path)
    assert "tools/new-kernel my-ops/fancy_gate acme.ops FancyGate" in caught.value.hint
    assert "--kernels my-ops" in caught.value.hint


def test_marks_that_a_model_brings_along_are_forgotten(tmp_path: Path) -> None:
    path = models.net(tmp_path / "net.onnx", "edgec.kernels", "Squareplus")
    model = ir.load(path)
    model.metadata_props[FUSES] = "edgec.kernels::GroupNormSilu nonsense"
    for node in model.graph:
        node.metadata_props[MARK] = "no::such 00"
    body = ir.Graph([], [], nodes=[], name="f", opset_imports={"": 17})
    function = ir.Function("d", "f", graph=body, attributes=[])
    function.metadata_props[MARK] = "{not json"
    model.functions[function.identifier()] = function
    model.ir_version = 10
    ir.save(model, path)
    loaded = load(path)
    assert loaded.custom_ops == {"edgec.kernels::Squareplus"}
    graph = canonicalise(loaded, {})
    assert not [one for one in graph.rewrites if one.failure]
    assert not any(op(node) for node in graph.model.graph)


def test_a_node_that_breaks_its_declaration_is_refused(tmp_path: Path) -> None:
    path = models.net(tmp_path / "net.onnx", "edgec.kernels", "Squareplus", c=1.0)
    with pytest.raises(InputError, match="an attribute c, which is not declared"):
        load(path)
    path = models.net(tmp_path / "net.onnx", "edgec.kernels", "Squareplus", b=1)
    with pytest.raises(InputError, match="an attribute b that is no float"):
        load(path)
    path = models.net(tmp_path / "net.onnx", "edgec.kernels", "GroupNormSilu", num_groups=2)
    with pytest.raises(InputError, match="1 inputs, not 3"):
        load(path)


def test_the_shipped_ops_keep_to_the_schema() -> None:
    """Which is not asked at run time."""
    found = [read(one.folder) for one in find().values()]
    assert {one.name for one in found} >= {"GroupNormSilu", "Squareplus"}
