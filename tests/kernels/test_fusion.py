"""GroupNorm and SiLU become one node where they are what they look like, and compute the same."""

from __future__ import annotations

from pathlib import Path

import graphs
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgec.canonicalise import canonicalise
from edgec.graphs import save
from edgec.lineage import lineages
from edgec.load import load
from edgec.reference import Reference
from edgec.types import Graph

KEY = "edgec.kernels::GroupNormSilu"
EXPORTED = """
    r = Reshape (x, rows)
    i = InstanceNormalization <epsilon = 0.001> (r, ones, zeros)
    b = Reshape (i, sizes)
    m = Mul (b, scale)
    v = Add (m, bias)
    g = Sigmoid (v)
    y = Mul (v, g)
"""
INSTANCES = """
    v = InstanceNormalization <epsilon = 0.001> (x, flat_scale, flat_bias)
    g = Sigmoid (v)
    y = Mul (g, v)
"""
STANDARD = """
    v = GroupNormalization <num_groups = 2, epsilon = 0.001> (x, flat_scale, flat_bias)
    g = Sigmoid (v)
    y = Mul (v, g)
"""


def canonical(
    body: str, place: Path, opset: int = 21, fuse: bool = True, **others: object
) -> Graph:
    random = np.random.default_rng(8)
    weights = {
        "rows": np.array([0, 2, -1], np.int64),
        "sizes": np.array([0, 6, 5, 7], np.int64),
        "ones": np.ones(2, np.float32),
        "zeros": np.zeros(2, np.float32),
        "scale": random.normal(1, 0.5, (6, 1, 1)).astype(np.float32),
        "bias": random.normal(0, 0.5, (1, 6, 1, 1)).astype(np.float32),
        "flat_scale": random.normal(1, 0.5, 6).astype(np.float32),
        "flat_bias": random.normal(0, 0.5, 6).astype(np.float32),
        **others,
    }
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> '
        f"g (float[n, 6, 5, 7] x) => (float[n, 6, 5, 7] y) {{ {body} }}"
    )
    used = {name for node in model.graph.node for name in node.input}
    for name, array in weights.items():
        if name in used:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    path = place / "net.onnx"
    onnx.save(model, path)
    return canonicalise(load(path, None, {KEY: fuse}), {})


def fused(graph: Graph) -> int:
    return sum(node.op_type == "GroupNormSilu" for node in graph.model.graph)


@pytest.mark.parametrize("body", [EXPORTED, INSTANCES, STANDARD])
def test_the_forms_of_exporters_become_one_node(body: str, tmp_path: Path) -> None:
    graph = canonical(body, tmp_path)
    assert [node.op_type for node in graph.model.graph] == ["GroupNormSilu"]
    assert str(graph.model.graph.outputs[0].name) == "y"
    save(graph.model, tmp_path / "fused.onnx")
    feeds = {"x": np.random.default_rng(9).normal(1, 2, (3, 6, 5, 7)).astype(np.float32)}
    plain, made = (
        Reference(tmp_path / name, 1).run(feeds)["y"] for name in ("net.onnx", "fused.onnx")
    )
    assert np.abs(plain - made).max() <= 1e-5 * np.abs(plain).max()


@pytest.mark.parametrize("body", [EXPORTED, INSTANCES, STANDARD])
def test_statistics_serve_the_fused_and_the_plain_form(body: str, tmp_path: Path) -> None:
    """A calibration for one target is used by another, whose runtime has no kernel."""
    after = body.replace("y = Mul", "w = Mul") + "\n y = Exp (w)"
    both = [lineages(canonical(after, tmp_path, fuse=fuse)) for fuse in (True, False)]
    for name in ("x", "w", "y"):
        assert both[0][name] == both[1][name]
    other = lineages(canonical(after.replace("0.001", "0.01"), tmp_path))
    assert other["w"] != both[0]["w"]


@pytest.mark.parametrize(
    ("body", "others"),
    [
        (EXPORTED.replace("y = Mul (v, g)", "z = Mul (v, g)\n y = Add (z, v)"), {}),
        (EXPORTED.replace("y = Mul (v, g)", "z = Mul (v, g)\n y = Add (z, m)"), {}),
        (EXPORTED.replace("y = Mul (v, g)", "z = Mul (v, g)\n y = Add (z, b)"), {}),
        (EXPORTED.replace("Sigmoid (v)", "Sigmoid (m)"), {}),
        (EXPORTED.replace("y = Mul", "y = Add"), {}),
        (EXPORTED, {"ones": np.array([1, 2], np.float32)}),
        (EXPORTED, {"zeros": np.array([0, 1], np.float32)}),
        (EXPORTED, {"scale": np.ones((7,), np.float32)}),
        (EXPORTED.replace("Sigmoid", "Tanh"), {}),
    ],
)
def test_what_only_looks_like_it_stays(
    body: str, others: dict[str, np.ndarray], tmp_path: Path
) -> None:
    assert fused(canonical(body, tmp_path, **others)) == 0


def test_nothing_is_fused_where_no_runtime_has_a_kernel(tmp_path: Path) -> None:
    assert fused(canonical(EXPORTED, tmp_path, fuse=False)) == 0


def test_a_real_export_is_fused(tmp_path: Path) -> None:
    """torch's dynamo exporter, sizes that vary."""
    path = graphs.FIXTURES / "groupnorm.onnx"
    graph = canonicalise(load(path, None, {KEY: True}), {})
    assert fused(graph) == 3
    plain = lineages(canonicalise(load(path, None, {KEY: False}), {}))
    own = {str(value.name) for node in graph.model.graph for value in node.outputs}
    assert {name: plain[name] for name in own} == {
        name: digest for name, digest in lineages(graph).items() if name in own
    }
    assert [one.count for one in graph.rewrites if one.rule == "fuse-group-norm-silu"] == [3]
