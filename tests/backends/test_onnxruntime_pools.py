"""A pool between a float normalisation and an INT8 convolution stays float."""

from pathlib import Path

import engines
import numpy as np
import onnx
import onnxruntime
import pytest
import small

from edgec.backends.onnxruntime.pools import PROPAGATION, pools_float

GROUPS = "n = GroupNormalization <num_groups = 4> (c, g, b)"
TEXT = """g (float[1,3,32,32] x) => (float[1,16,14,14] y) {{
    c = Conv <pads = [1,1,1,1]> (x, w) {norm} r = Relu ({before})
    p = MaxPool <kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1]> (r)
    y = Conv (p, v)
}}"""
WEIGHTS = {
    "w": small.normal(1, 16, 3, 3, 3),
    "v": small.normal(2, 16, 16, 3, 3),
    "g": 1 + small.normal(3, 16, spread=0.1),
    "b": small.normal(4, 16),
}


@pytest.mark.parametrize("grouped", [True, False])
def test_the_pool_computes_in_the_type_that_is_fast(grouped: bool, tmp_path: Path) -> None:
    text = TEXT.format(norm=GROUPS if grouped else "", before="n" if grouped else "c")
    kept = {key: array for key, array in WEIGHTS.items() if grouped or key in "wv"}
    found = small.canonical(small.model(text, 21, **kept))
    feeds = [{"x": small.normal(seed, 1, 3, 32, 32)} for seed in range(4)]
    made, plan = engines.engine(found, "x86-vnni", feeds)
    assert pools_float(made.model) is grouped
    artifact = engines.emit(made, plan, tmp_path)
    disabled = artifact.settings["disabled_optimizers"]
    assert isinstance(disabled, list)
    assert (PROPAGATION in disabled) is grouped
    assert artifact.optimised.int8 == 2
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(
        artifact.path, options, ["CPUExecutionProvider"], disabled_optimizers=set(disabled)
    )
    graph = onnx.load(tmp_path / "optimised.onnx").graph
    makers = {value: node.op_type for node in graph.node for value in node.output}
    (pool,) = (node for node in graph.node if "MaxPool" in node.op_type)
    integers = {"QuantizeLinear", "QLinearConv"}
    assert (makers[pool.input[0]] in integers) is not grouped
    before = small.run(found.model, feeds[0])["y"]
    after = engines.run(artifact, feeds[0])["y"]
    assert small.sqnr(before, np.asarray(after)) > 25
