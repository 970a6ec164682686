"""What crosses between two INT8 engines is INT8, and the numbers stay the same bit by bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import engines as helpers
import graphs
import numpy as np
import onnx_ir as ir
import pytest
import small

from edgec.assign import assign
from edgec.backends import backend
from edgec.build import Job, build
from edgec.crossing import narrowed
from edgec.fit import fit
from edgec.join import join
from edgec.lower import lower
from edgec.partition import partition
from edgec.quantize import quantize
from edgec.results import Artifact, Engine
from edgec.runtime import load
from edgec.types import Bounds, Graph, Plan, Scheme, Target

MOST = 20_000  # bytes of weights of an engine: the convolutions of the fixture take several


@pytest.fixture(scope="module")
def row() -> Target:
    """A machine with little memory for an engine."""
    target = small.target("x86-vnni")
    (runtime,) = target.runtimes
    return replace(target, runtimes=(replace(runtime, limits=Bounds(engine_bytes=MOST)),))


def pieces(found: Graph, row: Target) -> tuple[tuple[Engine, ...], Plan]:
    """Quantized engines whose values cross as float."""
    feeds = [graphs.load_feeds("cnn", seed) for seed in range(3)]
    parts = fit(found, partition(found), MOST)
    plan = assign(found, parts, helpers.everywhere(Scheme.INT8_STATIC), row, data=True)
    known = helpers.seen(found, plan, row.runtimes[0], feeds)
    made = []
    for one in join(found, plan, row):
        model = quantize(one.source, plan.decisions, known, helpers.recovered(plan), one.runtime)
        made.append(replace(one, model=lower(model, one.runtime)))
    return tuple(made), plan


def run(artifacts: list[Artifact], feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    known = dict(feeds)
    for one in artifacts:
        known.update(helpers.run(one, {name: known[name] for name in one.inputs}))
    return known


def test_int8_crosses_and_equals_float_bit_by_bit(row: Target, tmp_path: Path) -> None:
    found = small.fixture("cnn")
    plain, plan = pieces(found, row)
    assert len(plain) > 1
    given = [str(value.name) for value in found.model.graph.outputs]
    narrow = narrowed(plain, given)
    crossing = {name for one in narrow for name in one.inputs if name.endswith("/int8")}
    assert crossing
    made = {}
    for name, chosen in (("plain", plain), ("narrow", narrow)):
        (tmp_path / name).mkdir()
        artifacts = [helpers.emit(one, plan, tmp_path / name) for one in chosen]
        made[name] = run(artifacts, graphs.load_feeds("cnn", 9))
        assert all(one.optimised == one.planned for one in artifacts)
        if name == "narrow":
            parts = {part.name: part for part in plan.parts}
            for one in artifacts:  # a part taken out of it is fed with float, and gives float
                for part in (parts[name] for name in one.parts):
                    piece = ir.load(backend("onnxruntime").cut(one, part, tmp_path))
                    assert {v.name for v in piece.graph.inputs} == set(part.inputs)
                    assert {v.name for v in piece.graph.outputs} == set(part.outputs)
                    assert all(v.dtype == ir.DataType.FLOAT for v in piece.graph.inputs)
    for name in given:
        np.testing.assert_array_equal(made["narrow"][name], made["plain"][name])
    for name in crossing:
        assert made["narrow"][name].dtype == np.uint8


def test_what_others_read_crosses_as_float(row: Target) -> None:
    plain, _ = pieces(small.fixture("cnn"), row)
    given = [name for one in plain for name in one.outputs]
    assert [one.inputs for one in narrowed(plain, given)] == [one.inputs for one in plain]


def test_another_grid_on_the_other_side_crosses_as_float(row: Target) -> None:
    plain, _ = pieces(small.fixture("cnn"), row)
    for node in plain[1].model.graph:
        if node.op_type == "QuantizeLinear" and node.inputs[0] in plain[1].model.graph.inputs:
            scale = node.inputs[1]
            assert scale is not None
            scale.const_value = ir.tensor(np.float32(0.5))
    found = narrowed(plain, ())
    assert found[0].outputs == plain[0].outputs


def test_a_build_for_little_memory(tmp_path: Path) -> None:
    (tmp_path / "board").mkdir()
    (tmp_path / "board" / "target.toml").write_text(
        f"""extends = "x86-vnni"
summary = "x86-vnni with little memory"
[runtimes.onnxruntime.limits]
engine_bytes = {MOST}
"""
    )
    job = Job(
        model=graphs.path("cnn"),
        target=str(tmp_path / "board"),
        backend="onnxruntime",
        data=graphs.write_samples("cnn", tmp_path / "data", 8),
        output=tmp_path / "made.edgec",
        measure=False,
    )
    report = build(job)
    assert len(report.artifacts) > 1
    assert any(name.endswith("/int8") for one in report.artifacts for name in one.inputs)
    assert all(one.sqnr_db >= 12 for one in report.checks.parts)
    with load(report.bundle) as bundle:
        found = bundle.run(graphs.load_feeds("cnn", 1000, batch=1))
    assert set(found) == {one.value for one in report.checks.outputs}
