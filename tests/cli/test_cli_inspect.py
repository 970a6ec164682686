"""`edgec inspect`: its table, its JSON, its picture and its minimal models."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import graphs
import numpy as np
import onnx
import pytest
import small
from test_cli import refused, run

HOSTILE = "</title><script>alert(1)</script>[red]\x1b[31m\"'&"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model all of whose names would do harm to a page or a terminal."""
    weight = onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), f"w{HOSTILE}")
    names = [f"{letter}{HOSTILE}" for letter in "xhy"]
    value = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("MatMul", [names[0], weight.name], [names[1]], f"m{HOSTILE}"),
        onnx.helper.make_node(
            f"F{HOSTILE}", [names[1]], [names[2]], f"f{HOSTILE}", domain="com.microsoft"
        ),
    ]
    made = onnx.helper.make_graph(
        nodes,
        "g",
        [value(names[0], 1, [f"n{HOSTILE}", 64])],
        [value(names[2], 1, [f"n{HOSTILE}", 64])],
        [weight],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    path = tmp_path_factory.mktemp("hostile") / "model.onnx"
    onnx.save(onnx.helper.make_model(made, opset_imports=opsets, ir_version=8), path)
    return path


def test_the_table(tmp_path: Path) -> None:
    done = run(
        "inspect", graphs.path("clip_dynamo"), "--target", "x86-vnni", "--no-ask", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for word in ("vision", "cnn", "Conv 10", "12.3 kB · batch", "float only", "ops.MatMul"):
        assert word in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_policy(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text('[names]\nvision = "camera"\n')
    model = graphs.path("clip_dynamo")
    done = run("inspect", model, "--policy", "policy.toml", "--json", "-", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [one["name"] for one in json.loads(done.stdout)["parts"]] == ["camera", "text", "fusion"]
    (tmp_path / "policy.toml").write_text("[parts.nose]\nscheme = 'float32'\n")
    done = run("inspect", model, "--policy", "policy.toml", cwd=tmp_path)
    assert done.returncode == 3
    assert "parts.nose matches nothing in this model" in done.stderr


@pytest.mark.parametrize(
    ("inputs", "read", "why"),
    [
        ("float[2,3] x", "r = Relu (x)", "its sizes do not fit together"),
        ("float[n,m] x, int64[2] s", "r = Reshape (x, s)", "say sizes with --shape"),
    ],
)
def test_work_that_is_not_known(inputs: str, read: str, why: str, tmp_path: Path) -> None:
    text = f"g ({inputs}) => (float[k,5] y) {{ {read} [bad] a = Gemm (r, w) y = Relu (a) }}"
    path = small.save(small.model(text, w=small.normal(0, 4, 5)), tmp_path / "m.onnx")
    assert f"the work of bad is not known: {why}" in run("inspect", path).stdout


def test_json_on_stdout() -> None:
    shapes = ["--shape", "image=1x3x32x32", "--shape", "ids=1x8", "--shape", "mask=1x8"]
    done = run("inspect", graphs.path("clip_dynamo"), *shapes, "--json", "-")
    page = json.loads(done.stdout)
    vision = page["parts"][0]
    assert vision["name"] == "vision"
    assert vision["macs"] == [[425_344]]
    assert vision["ops"]["Conv"] == 10
    assert {"value": "image", "from": None, "to": "vision"}.items() <= page["crossings"][0].items()
    assert page["crossings"][0]["bytes"] == [[4 * 3 * 32 * 32]]
    assert page["target"] is None
    assert page["shortfalls"] == []


def test_the_picture_has_no_script_and_nothing_from_elsewhere(
    hostile: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    done = run("inspect", hostile, "--target", "generic", "--html", page)
    assert done.returncode == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "\x1b" not in text + done.stdout
    assert "&lt;script&gt;" in text
    assert "[red]" in done.stdout
    for word in ("http-equiv", "prefers-color-scheme", "cannot run", "was asked"):
        assert word in text
    assert "src=" not in text
    assert "href=" not in text
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    picture = text[text.index("<svg") : text.index("</svg>") + 6]
    tree = ElementTree.fromstring(picture)
    kinds = {element.tag.rpartition("}")[2] for element in tree.iter()}
    assert kinds == {"svg", "defs", "marker", "path", "g", "title", "rect", "text"}
    assert not [
        key for e in tree.iter() for key in e.attrib if key.startswith("on") or key == "style"
    ]


@pytest.mark.parametrize("name", ["clip_dynamo", "trimodal_cross", "cnn", "mlp", "if_capture"])
def test_boxes_stand_apart_and_inside_of_the_picture(name: str) -> None:
    from edgec.inspection import inspect
    from edgec.load import load
    from edgec.report.picture import svg

    tree = ElementTree.fromstring(svg(inspect(load(graphs.path(name)), {})))
    width, height = (float(n) for n in tree.attrib["viewBox"].split()[2:])
    boxes = [
        tuple(float(e.attrib[key]) for key in ("x", "y", "width", "height"))
        for e in tree.iter()
        if e.attrib.get("class") in ("box", "pill")
    ]
    assert len(boxes) >= 3
    for x, y, w, h in boxes:
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height
    for index, (x, y, w, h) in enumerate(boxes):
        for a, b, c, d in boxes[index + 1 :]:
            assert x + w <= a or a + c <= x or y + h <= b or b + d <= y


def test_minimal_models_of_what_cannot_run(hostile: Path, tmp_path: Path) -> None:
    folder = tmp_path / "nodes"
    done = run("inspect", hostile, "--target", "generic", "--save-node", folder)
    assert done.returncode == 0, done.stderr
    assert "1 minimal models" in done.stdout
    (path,) = folder.iterdir()
    assert path.parent == folder
    onnx.checker.check_model(path)
    assert onnx.load(path).graph.node[0].op_type.startswith("F</title>")


def test_alike_nodes_are_saved_once_unless_all_are_wanted(tmp_path: Path) -> None:
    text = """g (float[n, 4] x, float[n, 4] z) => (float[n, 4] a, float[n, 4] b) {
        a = com.microsoft.Odd (x) b = com.microsoft.Odd (z) }"""
    path = small.save(small.model(text, 17, ', "com.microsoft" : 1'), tmp_path / "odd.onnx")
    for more, count in ([], 1), (["--every"], 2):
        folder = tmp_path / f"nodes{count}"
        done = run("inspect", path, "--target", "generic", "--save-node", folder, *more)
        assert done.returncode == 0, done.stderr
        assert len(list(folder.iterdir())) == count


def test_saving_nodes_needs_a_target(tmp_path: Path) -> None:
    done = run("inspect", graphs.path("mlp"), "--save-node", tmp_path / "nodes")
    refused(done, 3, "there is no target", "give --target")
    assert not (tmp_path / "nodes").exists()


@pytest.mark.parametrize("place", ["taken", "taken/nodes"])
def test_saving_nodes_where_no_folder_can_be(place: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("kept")
    done = run(
        "inspect", graphs.path("mlp"), "--target", "generic", "--save-node", tmp_path / place
    )
    refused(done, 3, "taken is no folder that can be written to", "choose another")
    assert done.stdout == ""


def test_saving_nodes_under_a_name_that_is_too_long(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 300)
    done = run("inspect", graphs.path("mlp"), "--target", "generic", "--save-node", folder)
    refused(done, 3, "File name too long", "choose another")


@pytest.mark.parametrize("name", ["cyclic", "truncated", "external_escape"])
def test_a_bad_graph_is_refused(name: str) -> None:
    refused(run("inspect", graphs.HOSTILE / f"{name}.onnx"), 3, name)
