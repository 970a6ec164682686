"""OpenVINO: the suite, and what is its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import engines
import graphs
import numpy as np
import pytest
import small
from suite import Suite

from edgec.backends.openvino import GROUP_SIZE
from edgec.errors import UnsupportedError
from edgec.results import Counts
from edgec.runtime.openvino_session import configure
from edgec.target import cpu_flags, load_target, names, stacks
from edgec.types import Range, Scheme, Target


class TestOpenVINO(Suite):
    name = "openvino"
    suffix = ".xml"
    hidden = {"lstm": "recurrent layers lose their names"}  # noqa: RUF012
    few = {"vit": 0, "clip_dynamo": 0, "mlp": 1}  # noqa: RUF012 - fewer than 64 inputs each


def narrowed(target: str, runtime: str) -> Target:
    row = load_target(target)
    return replace(row, runtimes=(row.runtime(runtime),))


def test_settings_are_those_that_the_session_takes(tmp_path: Path) -> None:
    feeds = [graphs.load_feeds("mlp", seed) for seed in range(2)]
    for scheme, group in ((Scheme.INT8_DYNAMIC, 64), (Scheme.INT8_STATIC, 0)):
        into = tmp_path / scheme
        into.mkdir()
        policy = engines.everywhere(scheme)
        made, plan = engines.engine(small.fixture("mlp"), "x86-vnni", feeds, policy, "openvino")
        artifact = engines.emit(made, plan, into)
        assert artifact.settings["precision"] == "float32"
        assert artifact.settings.get("dynamic_quantization_group", 0) == group
        _, properties, most = configure(artifact.settings)
        assert properties["INFERENCE_PRECISION_HINT"] == "f32"
        assert properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] == str(group)
        assert most == artifact.settings["specialise"]


TWO = """g (float[4,48] x) => (float[4,64] y, float[4,32] z) {
  [few] y = MatMul (x, w)
  [many] z = MatMul (y, v)
}"""


def test_dynamic_int8_of_a_product_with_few_inputs_is_int8_weights_alone(tmp_path: Path) -> None:
    """Below a group's size OpenVINO quantizes no activations, whatever its graph says."""
    weights = {"w": small.normal(0, 48, 64), "v": small.normal(1, 64, 32)}
    found = small.canonical(small.model(TWO, **weights))
    policy = engines.everywhere(Scheme.INT8_DYNAMIC)
    made, plan = engines.engine(found, "x86-vnni", [], policy, "openvino")
    few, many = (plan.decisions[name] for name in ("few", "many"))
    assert (few.scheme, many.scheme) == (Scheme.INT8_WEIGHT_ONLY, Scheme.INT8_DYNAMIC)
    assert few.reason == (
        "48 inputs, and below 64 its activations stay in float: INT8 weights alone"
    )
    assert few.evidence == "openvino, ops.MatMul"
    artifact = engines.emit(made, plan, tmp_path)
    assert artifact.planned == artifact.emitted == artifact.optimised == Counts(1, 1)
    # against the products of the very INT8 weights: exact, or by activations of 8 bits
    feeds = {"x": small.normal(2, 4, 48)}
    exact = small.run(made.model, feeds)
    close = engines.run(artifact, feeds)
    assert small.sqnr(exact["y"], close["y"]) > 100
    assert 35 < small.sqnr(exact["z"], close["z"]) < 60


def test_where_every_product_has_few_inputs_the_part_is_weight_only() -> None:
    policy = engines.everywhere(Scheme.INT8_DYNAMIC)
    plan = small.plan(small.fixture("vit"), "x86-vnni", policy, backend="openvino")
    assert set(plan.schemes.values()) == {Scheme.INT8_WEIGHT_ONLY}
    assert all(steps == (Scheme.FLOAT32,) for steps in plan.ladders.values())


def test_the_table_knows_the_size_of_a_group() -> None:
    for name in names():
        for runtime in [one for s in stacks(name) for one in load_target(name, s).runtimes]:
            if runtime.backend == "openvino":
                rows = [runtime.ops[op].dynamic_inputs for op in ("MatMul", "Gemm")]
                assert rows == [GROUP_SIZE, GROUP_SIZE]


def test_an_engine_in_bf16_has_half_the_weights(tmp_path: Path) -> None:
    found = small.fixture("vit")
    sizes, sqnr = {}, {}
    feeds = graphs.load_feeds("vit", 1)
    exact = small.run(found.model, feeds)["logits"]
    for scheme in (Scheme.FLOAT32, Scheme.BFLOAT16):
        into = tmp_path / scheme
        into.mkdir()
        made, plan = engines.engine_for(
            found, narrowed("x86-bf16", "openvino"), [], engines.everywhere(scheme)
        )
        assert made.precision is scheme
        artifact = engines.emit(made, plan, into)
        assert artifact.settings["precision"] == str(scheme)
        assert artifact.optimised == artifact.planned == Counts(0, 14)
        sizes[scheme] = artifact.data_files[0].stat().st_size
        sqnr[scheme] = small.sqnr(exact, engines.run(artifact, feeds)["logits"])
    assert sizes[Scheme.BFLOAT16] < 0.6 * sizes[Scheme.FLOAT32]
    assert sqnr[Scheme.FLOAT32] > 100
    assert sqnr[Scheme.BFLOAT16] > 30
    if {"avx512_bf16", "amx_bf16"} & cpu_flags():
        assert sqnr[Scheme.BFLOAT16] < 70


def test_int8_leaves_the_rest_to_the_precision_of_the_runtime(tmp_path: Path) -> None:
    feeds = [graphs.load_feeds("vit", seed) for seed in range(2)]
    row = narrowed("x86-bf16", "openvino")
    policy = engines.everywhere(Scheme.INT8_STATIC)
    made, plan = engines.engine_for(small.fixture("vit"), row, feeds, policy)
    assert made.precision is Scheme.BFLOAT16
    artifact = engines.emit(made, plan, tmp_path)
    assert artifact.optimised == artifact.planned == Counts(12, 2)
    exact = small.run(small.fixture("vit").model, feeds[0])["logits"]
    assert small.sqnr(exact, engines.run(artifact, feeds[0])["logits"]) > 28


def test_an_engine_for_a_gpu_is_checked_on_the_cpu(tmp_path: Path) -> None:
    feeds = [graphs.load_feeds("cnn", seed) for seed in range(2)]
    row = narrowed("intel-core-ultra", "openvino-gpu")
    made, plan = engines.engine_for(small.fixture("cnn"), row, feeds)
    artifact = engines.emit(made, plan, tmp_path)
    assert (artifact.backend, artifact.device) == ("openvino", "gpu")
    assert artifact.settings["precision"] == "float16"
    assert artifact.planned == artifact.emitted == artifact.optimised
    assert artifact.planned.int8 == 10


def test_an_engine_for_an_npu_wants_fixed_shapes(tmp_path: Path) -> None:
    from edgec.canonicalise import canonicalise
    from edgec.load import load

    row = narrowed("intel-core-ultra", "openvino-npu")
    with pytest.raises(UnsupportedError, match="openvino-npu takes fixed shapes only, and image"):
        engines.engine_for(small.fixture("cnn"), row, [])
    shape = tuple(Range(size, size) for size in (1, 3, 32, 32))
    found = canonicalise(load(graphs.path("cnn")), {"image": shape})
    made, plan = engines.engine_for(found, row, [graphs.load_feeds("cnn", 0, batch=1)])
    artifact = engines.emit(made, plan, tmp_path)
    assert artifact.device == "npu"
    assert artifact.planned == artifact.optimised


@pytest.mark.parametrize("sizes", ["2,7", "a,b"], ids=["fixed", "symbolic"])
def test_an_embedding_that_came_with_a_scale_per_column(sizes: str, tmp_path: Path) -> None:
    """As it came, OpenVINO 2026.4.1 crashes, or is right to 3 dB: see `rules.quantized_tables`."""
    text = f"""g (int64[{sizes}] i) => (float[{sizes},32] y) {{
      t = DequantizeLinear <axis = 1> (q, s)
      y = Gather (t, i)
    }}"""
    draw = np.random.default_rng(0)
    table = draw.integers(-128, 128, (400, 32)).astype(np.int8)
    source = small.model(text, q=table, s=draw.uniform(0.001, 0.05, 32).astype(np.float32))
    found = small.canonical(source)
    made, plan = engines.engine(found, "x86-vnni", [], None, "openvino")
    artifact = engines.emit(made, plan, tmp_path)
    feeds = {"i": draw.integers(0, 400, (2, 7))}
    exact = small.run(source, feeds)["y"]
    np.testing.assert_allclose(engines.run(artifact, feeds)["y"], exact, rtol=1e-6)
