"""TensorRT without a GPU: what an engine's files hold, and that they are the same numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import engines
import graphs
import numpy as np
import onnx_ir as ir
import pytest
import small

from edgec.backends import backend
from edgec.backends.tensorrt.calibration_cache import number, parse
from edgec.backends.tensorrt.half import half, rounded
from edgec.backends.tensorrt.prepare import float_biases, ranges, refusal, unquantized
from edgec.errors import UnsupportedError
from edgec.extents import extents
from edgec.graphs import constant
from edgec.inputs import inputs
from edgec.results import Artifact, Engine
from edgec.runtime.openers import opener
from edgec.target import load_target
from edgec.types import Extent, Plan, Range, Scheme, Target

STACKS = [("jetson-orin", stack) for stack in ("jp5", "jp6.0", "jp6.2", "jp7.2", "jp7.2.2")]
STACKS += [("jetson-thor", "jp7.2"), ("jetson-thor", "jp7.2.2")]
EXACT = 100.0
NAMES = ["cnn", "vit", "clip_dynamo", "mlp"]


def row(target: str, stack: str | None = None) -> Target:
    found = load_target(target, stack)
    return replace(found, runtimes=found.runtimes[:1])


def made(name: str, target: Target, scheme: Scheme | None = None) -> tuple[Engine, Plan]:
    found = small.fixture(name)
    feeds = [graphs.load_feeds(name, seed) for seed in range(3)]
    policy = None if scheme is None else engines.everywhere(scheme)
    engine, plan = engines.engine_for(found, target, feeds, policy)
    dims = {
        str(dim.value): Extent(1, 2, 16)
        for value in found.model.graph.inputs
        for dim in value.shape or ()
        if not isinstance(dim, int)
    }
    return replace(engine, extents=dims), plan


def emit(name: str, target: Target, into: Path, scheme: Scheme | None = None) -> Artifact:
    engine, plan = made(name, target, scheme)
    return backend("tensorrt").emit(engine, plan.decisions, into, 1)


def stand_in(artifact: Artifact, feeds: engines.Feeds) -> dict[str, np.ndarray]:
    runs = artifact.opened
    return opener(runs.backend)(runs.path, runs.settings).run(feeds)


@pytest.mark.parametrize("name", NAMES)
def test_float_biases_are_the_same_numbers(name: str) -> None:
    engine, _ = made(name, row("jetson-thor"))
    folded = float_biases(engine.model)
    kinds = [
        node.inputs[0].dtype
        for node in folded.graph
        if node.op_type == "DequantizeLinear" and node.inputs[0] is not None
    ]
    assert kinds
    assert ir.DataType.INT32 not in kinds
    feeds = graphs.load_feeds(name, 5)
    exact = small.run(engine.model, feeds)
    for key, array in small.run(folded, feeds).items():
        assert small.sqnr(exact[key], array) > EXACT


@pytest.mark.parametrize("name", NAMES)
def test_the_float_model_of_a_cache_is_the_quantized_one_without_its_grid(name: str) -> None:
    engine, _ = made(name, row("jetson-orin", "jp6.2"))
    plain = unquantized(float_biases(engine.model))
    assert not [node for node in plain.graph if "uantize" in node.op_type]
    known = {v.name for node in plain.graph for v in node.outputs}
    known |= {v.name for v in plain.graph.inputs}
    assert set(ranges(engine.model)) <= known
    assert [v.name for v in plain.graph.outputs] == list(engine.outputs)
    feeds = graphs.load_feeds(name, 5)
    exact = small.run(engine.source, feeds)
    for key, array in small.run(plain, feeds).items():
        assert small.sqnr(exact[key], array) > 15  # weights alone are rounded


@pytest.mark.parametrize("name", ["cnn", "clip_dynamo"])
def test_weights_of_the_float_model_quantize_back_to_the_same_integers(name: str) -> None:
    """What TensorRT makes of them by their largest value per channel is what Q/DQ holds."""
    engine, _ = made(name, row("jetson-orin", "jp6.2"))
    model, plain = float_biases(engine.model), unquantized(float_biases(engine.model))
    values = plain.graph.initializers
    count = 0
    for node in model.graph:
        data = constant(node.inputs[0]) if node.op_type == "DequantizeLinear" else None
        if data is None or data.dtype != np.int8 or data.ndim < 2:
            continue
        folded = values[f"{node.outputs[0].name}/folded"].const_value
        assert folded is not None
        array = folded.numpy()
        axis = node.attributes["axis"].as_int()
        others = tuple(i for i in range(array.ndim) if i != axis)
        scale = np.abs(array).max(axis=others, keepdims=True) / 127
        again = np.rint(array / np.maximum(scale, 1e-30)).astype(np.int8)
        np.testing.assert_array_equal(again, data)
        count += 1
    assert count >= 10


@pytest.mark.parametrize(("target", "stack"), STACKS)
def test_every_stack_gets_what_it_takes(target: str, stack: str, tmp_path: Path) -> None:
    chosen = row(target, stack)
    tool = chosen.runtimes[0].toolchain
    artifact = emit("clip_dynamo", chosen, tmp_path)
    plan = artifact.build
    assert artifact.misplaced == ()
    assert artifact.planned == artifact.emitted
    assert artifact.planned.int8 >= 20
    sm = {"jetson-orin": "8.7", "jetson-thor": "11.0"}[target]
    assert plan["requires"] == {"arch": "aarch64", "capabilities": [sm], "version": tool.version}
    assert plan["ready"] is False
    assert plan["module"] == "tensorrt"
    assert plan["memory"] > 10**9
    assert plan["workspace"] == sorted(plan["workspace"], reverse=True)
    (profile,) = plan["profiles"]
    assert profile["ids"] == {"min": [1, 1], "opt": [2, 2], "max": [16, 16]}
    assert profile["image"]["max"] == [16, 3, 32, 32]
    steps = plan["steps"]
    caches = int(tool.version.split(".")[0]) < 11
    forms = [(one["by"], one["precision"], one["form"]) for one in steps]
    wanted = [("tensorrt", "int8", "explicit")]
    wanted += [("tensorrt", "int8", "implicit")] if caches else []
    wanted += [("tensorrt", "float16", "plain"), ("onnxruntime", "int8", "explicit")]
    assert forms == wanted
    typed = tool.strongly_typed != "never"
    assert steps[0]["typed"] is typed
    opsets = small_opset(artifact.path)
    assert opsets <= chosen.runtimes[0].max_opset
    names = {"engines/" + path.name for path in (artifact.path, *artifact.side_files)}
    for step in steps:
        assert step["model"] in names | set(artifact.spares)
    if caches:
        text = (tmp_path / "main.calibration").read_text()
        head, found = parse(text)
        assert head == number(tool.version)
        assert text.startswith(f"TRT-{number(tool.version)}-EntropyCalibration2\n")
        grid = ranges(ir.load(artifact.opened.path))
        assert found == {key: float(np.float32(scale)) for key, scale in grid.items()}
        assert len(found) >= 20
        assert steps[1]["cache"] == "engines/main.calibration"
        assert steps[1]["typed"] is False
    else:
        assert not list(tmp_path.glob("*.calibration"))
    assert any("not verified on hardware" in note for note in artifact.notes)


def small_opset(path: Path) -> int:
    return ir.load(path).opset_imports[""]


def test_fp16_stands_in_the_graph_where_types_decide(tmp_path: Path) -> None:
    artifact = emit("vit", row("jetson-thor", "jp7.2.2"), tmp_path)
    model = ir.load(artifact.path)
    for value in (*model.graph.inputs, *model.graph.outputs):
        assert value.dtype is ir.DataType.FLOAT
    casts = [n for n in model.graph if n.op_type == "Cast"]
    assert casts
    scales = [n.inputs[1] for n in model.graph if n.op_type == "QuantizeLinear"]
    assert scales
    assert all(v is not None and v.dtype is ir.DataType.FLOAT for v in scales)
    halves = [v.name for v in model.graph.initializers.values() if v.dtype is ir.DataType.FLOAT16]
    assert halves


def test_fp16_by_flags_leaves_the_graph_in_float(tmp_path: Path) -> None:
    artifact = emit("clip_dynamo", row("jetson-orin", "jp5"), tmp_path)
    dtypes = {v.dtype for v in ir.load(artifact.path).graph.initializers.values()}
    assert ir.DataType.FLOAT16 not in dtypes
    # what is verified is rounded to FP16 all the same
    checked = [n.name for n in ir.load(artifact.opened.path).graph if n.op_type == "Cast"]
    assert sum(str(name).endswith("/to_fp16") for name in checked) > 10


def test_nodes_that_stay_in_float32_do(tmp_path: Path) -> None:
    artifact = emit("vit", row("jetson-thor", "jp7.2.2"), tmp_path, Scheme.FLOAT32)
    dtypes = {v.dtype for v in ir.load(artifact.path).graph.initializers.values()}
    assert ir.DataType.FLOAT16 not in dtypes
    feeds = graphs.load_feeds("vit", 4)
    exact = small.run(small.fixture("vit").model, feeds)
    for key, array in stand_in(artifact, feeds).items():
        assert small.sqnr(exact[key], array) > EXACT


@pytest.mark.parametrize(("name", "least"), [("cnn", 20), ("vit", 28), ("mlp", 35)])
def test_the_stand_in_is_close_to_float(name: str, least: float, tmp_path: Path) -> None:
    artifact = emit(name, row("jetson-orin", "jp6.2"), tmp_path)
    assert artifact.opened.settings == {"graph_optimization_level": "disable_all"}
    for seed in range(2):
        feeds = graphs.load_feeds(name, seed)
        exact = small.run(small.fixture(name).model, feeds)
        for key, array in stand_in(artifact, feeds).items():
            assert array.dtype == exact[key].dtype
            assert small.sqnr(exact[key], array) > least


def test_parts_are_cut_out_of_the_stand_in(tmp_path: Path) -> None:
    engine, plan = made("clip_dynamo", row("jetson-orin", "jp6.2"))
    artifact = backend("tensorrt").emit(engine, plan.decisions, tmp_path, 1)
    feeds = graphs.load_feeds("clip_dynamo", 1)
    whole = stand_in(artifact, feeds)
    known = dict(feeds)
    for part in plan.parts:
        path = backend("tensorrt").cut(artifact, part, tmp_path)
        runs = artifact.opened
        session = opener(runs.backend)(path, runs.settings)
        known.update(session.run({name: known[name] for name in part.inputs}))
    for name, array in whole.items():
        assert small.sqnr(array, known[name]) > 45, name  # a part ends in FP32


def test_a_dla_gets_the_float_model_and_a_cache(tmp_path: Path) -> None:
    chosen = load_target("jetson-orin", "jp6.2")
    (offload,) = chosen.offloads
    assert offload.toolchain.quantization == ("implicit",)
    text = """g (float[1,3,16,16] x) => (float[1,8,16,16] y) {
      [conv] c = Conv <pads=[1,1,1,1]> (x, w)
      [act] r = Relu (c)
      [last] y = Conv <pads=[1,1,1,1]> (r, v)
    }"""
    weights = {"w": small.normal(0, 8, 3, 3, 3), "v": small.normal(1, 8, 8, 3, 3)}
    found = small.canonical(small.model(text, opset=13, **weights))
    feeds = [{"x": small.normal(seed, 1, 3, 16, 16)} for seed in range(2)]
    engine, plan = engines.engine_for(found, replace(chosen, runtimes=(offload,)), feeds)
    artifact = backend("tensorrt").emit(engine, plan.decisions, tmp_path, 1)
    steps = artifact.build["steps"]
    assert artifact.build["dla"] == 0
    assert steps[0]["form"] == "implicit"
    assert steps[0]["model"] == "engines/main.float.onnx"
    assert artifact.path.name == "main.float.onnx"
    assert not [n for n in ir.load(artifact.path).graph if "uantize" in n.op_type]
    # ONNX Runtime falls back on the form that was verified, which is quantized
    assert steps[-1]["model"] == "spares/main.explicit.onnx"
    assert [n for n in ir.load(artifact.opened.path).graph if n.op_type == "QuantizeLinear"]


def test_bounds_that_nobody_gave_are_asked_for(tmp_path: Path) -> None:
    engine, plan = made("vit", row("jetson-orin"))
    with pytest.raises(UnsupportedError, match="'image' in dimension") as caught:
        backend("tensorrt").emit(replace(engine, extents={}), plan.decisions, tmp_path, 1)
    assert "--shape" in caught.value.hint


@pytest.mark.parametrize("name", ["ptq_qdq", "qat_qdq"])
def test_a_model_that_came_quantized_is_looked_at(name: str, tmp_path: Path) -> None:
    found = small.fixture(name)
    why = refusal(found.model)
    kinds = {str(n.inputs[2].dtype) for n in found.model.graph if n.op_type == "QuantizeLinear"}  # type: ignore[union-attr]
    assert ("symmetric INT8 alone" in why) is ("UINT8" in kinds), (why, kinds)


def test_asymmetric_numbers_are_refused(tmp_path: Path) -> None:
    text = """g (float[n,16] x) => (float[n,16] y) {
      q = QuantizeLinear (x, s, z)
      [pair] y = DequantizeLinear (q, s, z)
    }"""
    scale, zero = np.array(0.1, np.float32), np.array(3, np.int8)
    why = refusal(small.model(text, s=scale, z=zero))
    assert (
        why == "x is quantized with a zero point that is not 0, and TensorRT takes symmetric "
        "INT8 alone"
    )
    assert refusal(small.model(text, s=scale, z=np.array(0, np.int8))) == ""


def test_a_target_without_a_gpu_is_told(tmp_path: Path) -> None:
    engine, plan = made("mlp", row("jetson-orin"))
    bare = replace(engine, target=replace(engine.target, hardware={}))
    with pytest.raises(UnsupportedError, match="does not say what its GPU is"):
        backend("tensorrt").emit(bare, plan.decisions, tmp_path, 1)


def test_two_emits_give_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        artifact = emit("clip_dynamo", row("jetson-orin", "jp6.2"), folder)
        paths = (artifact.path, *artifact.side_files, *artifact.spares.values())
        written.append({path.name: path.read_bytes() for path in paths})
    assert len(written[0]) == 4
    assert written[0] == written[1]


def test_half_keeps_the_nodes_that_it_is_told(tmp_path: Path) -> None:
    text = """g (float[n,16] x) => (float[n,16] y) {
      [first] a = MatMul (x, w)
      [second] y = MatMul (a, v)
    }"""
    found = small.model(text, w=small.normal(0, 16, 16), v=small.normal(1, 16, 16))
    made = half(found, ["second"])
    dtypes = {name: value.dtype for name, value in made.graph.initializers.items()}
    assert dtypes == {"w": ir.DataType.FLOAT16, "v": ir.DataType.FLOAT}
    assert [node.op_type for node in made.graph] == ["Cast", "MatMul", "Cast", "MatMul"]


def test_between_nodes_in_float32_nothing_overflows(tmp_path: Path) -> None:
    text = """g (float[n,16] x) => (float[n,16] y) {
      [first] a = MatMul (x, w)
      [second] b = Mul (a, big)
      [third] c = Div (b, big)
      [last] y = MatMul (c, w)
    }"""
    big = np.array(1e5, np.float32)
    found = small.model(text, w=small.normal(0, 16, 16), big=big)
    feeds = {"x": 100 * small.normal(2, 3, 16)}
    exact = small.run(found, feeds)["y"]
    assert not np.isfinite(small.run(rounded(found, []), feeds)["y"]).all()
    for made in (rounded, half):
        kept = small.run(made(found, ["second", "third"]), feeds)["y"]
        assert small.sqnr(exact, kept) > 50
    values = [v.name for n in rounded(found, []).graph for v in n.outputs]
    assert {"a", "b", "c", "y"} <= set(values)


def test_a_mask_of_the_lowest_float_is_finite_in_half() -> None:
    """Exporters write (1 - mask) * -3.4e38; infinity times 0 would be no number."""
    text = """g (float[n,16] x, float[n,16] mask) => (float[n,16] y) {
      [first] a = Sub (one, mask)
      [second] b = Mul (a, lowest)
      [third] c = Add (x, b)
      [last] y = Softmax <axis = -1> (c)
    }"""
    lowest = np.array(np.finfo(np.float32).min)
    found = small.model(text, one=np.ones(1, np.float32), lowest=lowest)
    mask = np.arange(32).reshape(2, 16) % 16 < 9
    feeds = {"x": small.normal(2, 2, 16), "mask": mask.astype(np.float32)}
    exact = small.run(found, feeds)["y"]
    for made in (rounded, half):
        assert small.sqnr(exact, small.run(made(found, []), feeds)["y"]) > 50, made


def test_extents_are_stated_or_seen(tmp_path: Path) -> None:
    found = small.fixture("clip_dynamo")
    paths = []
    for index, length in enumerate((3, 9, 5)):
        path = tmp_path / f"{index}.npz"
        feeds = graphs.load_feeds("clip_dynamo", index)
        cut = {k: v[:, :length] if k in ("ids", "mask") else v for k, v in feeds.items()}
        np.savez(path, **cut)
        paths.append(path)
    batch = graphs.load_feeds("clip_dynamo", 0)["image"].shape[0]
    seen = extents(found, paths, inputs(found))
    assert seen == {"batch": Extent(batch, batch, batch), "sequence": Extent(3, 5, 9)}
    shapes = {"ids": (Range(1, 8), Range(1, 77))}
    stated = extents(replace(found, shapes=shapes), paths, inputs(found))
    assert stated == {"batch": Extent(1, batch, 8), "sequence": Extent(1, 5, 77)}
    assert extents(replace(found, shapes=shapes), [], inputs(found)) == {
        "batch": Extent(1, 8, 8),
        "sequence": Extent(1, 77, 77),
    }
    assert extents(found, [], inputs(found)) == {}


def test_the_word_that_nothing_was_run_on_hardware_is_everywhere() -> None:
    for target, stack in STACKS:
        assert re.search("not verified on hardware", row(target, stack).verified)
