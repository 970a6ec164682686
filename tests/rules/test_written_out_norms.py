"""RMSNorm, InstanceNorm and GroupNorm written out: against their equations in float64."""

from __future__ import annotations

from pathlib import Path

import equal
import numpy as np
import onnx_ir as ir
import pytest
import small

from edgec.lower import lower
from edgec.rules import group_norm, instance_norm, layer_norm, rms_norm

TOLERANCE = 4e-6  # roundings of a mean, divided by a deviation
EPSILON = 1e-5
QUOTIENTS = {
    "div": "u = Div (c, r)",
    "reciprocal": "i = Reciprocal (r) u = Mul (c, i)",
    "one over": "i = Div (one, r) u = Mul (i, c)",
}
WEIGHTS = {
    "eps": np.float32(EPSILON),
    "two": np.float32(2),
    "one": np.float32(1),
    "half": np.float32(-0.5),
}


def mean(x: str, axes: list[int], opset: int) -> str:
    return f"ReduceMean <axes = {axes}> ({x})" if opset < 18 else f"ReduceMean ({x}, axes)"


def rms(x: np.ndarray, gamma: np.ndarray | float = 1.0) -> np.ndarray:
    wide = x.astype(np.float64)
    return wide / np.sqrt((wide**2).mean(axis=-1, keepdims=True) + EPSILON) * gamma


def rms_model(opset: int, square: str, quotient: str) -> ir.Model:
    root = "" if "half" in quotient else "r = Sqrt (e)"
    return small.model(
        f"""g (float[n,t,16] x) => (float[n,t,16] y) {{
              c = Identity (x) q = {square} v = {mean("q", [-1], opset)}
              e = Add (v, eps) {root} {quotient} y = Mul (gamma, u)
            }}""",
        opset,
        gamma=small.normal(1, 16),
        axes=np.array([-1]),
        **WEIGHTS,
    )


@pytest.mark.parametrize("spread", [1.0, 1e4, 1e-4])
@pytest.mark.parametrize("square", ["Mul (c, c)", "Pow (c, two)"])
@pytest.mark.parametrize(
    "quotient",
    [*QUOTIENTS.values(), "i = Pow (e, half) u = Mul (c, i)"],
    ids=lambda text: text[:12],
)
@pytest.mark.parametrize("opset", [17, 18, 23])
def test_rms_norm(opset: int, quotient: str, square: str, spread: float) -> None:
    made = rms_model(opset, square, quotient)
    x = small.normal(0, 2, 3, 16) * np.float32(spread)
    plain = opset < 23 and "Pow" in square and "Div (c" in quotient
    found = equal.prove(
        made,
        rms_norm,
        {"x": x},
        {"y": rms(x, made.graph.initializers["gamma"].const_value.numpy())},
        tolerance=TOLERANCE,
        count=0 if plain else 1,
    )
    if opset < 23:
        parts = ("Identity", "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul")
        assert found == dict.fromkeys(parts, 1)
    else:
        assert found == {"Identity": 1, "RMSNormalization": 1}


@pytest.mark.parametrize("opset", [17, 18, 23])
def test_onnxruntime_has_one_kernel_for_it(opset: int, tmp_path: Path) -> None:
    import onnxruntime

    made = equal.named(rms_model(opset, "Mul (c, c)", QUOTIENTS["one over"]))
    assert rms_norm.apply(made) == 1
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    path = small.save(made, tmp_path / "m.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (kernel,) = small.ops(ir.load(tmp_path / "optimised.onnx"))
    assert kernel == ("RMSNormalization" if opset == 23 else "SimplifiedLayerNormalization")


@pytest.mark.parametrize("opset", [20, 23])
def test_float16_between_casts(opset: int) -> None:
    made = small.model(
        """g (float16[n,16] x) => (float16[n,16] y) {
              c = Cast <to = 1> (x) q = Pow (c, two) v = ReduceMean (q, axes)
              e = Add (v, eps) r = Sqrt (e) i = Reciprocal (r) u = Mul (c, i)
              h = Cast <to = 10> (u) y = Mul (h, gamma)
            }""",
        opset,
        gamma=np.float16(small.normal(1, 16)),
        axes=np.array([-1]),
        **WEIGHTS,
    )
    x = np.float16(small.normal(0, 3, 16) * 100)
    gamma = made.graph.initializers["gamma"].const_value.numpy().astype(np.float64)
    found = equal.prove(made, rms_norm, {"x": x}, {"y": rms(x, gamma)}, tolerance=2**-10)
    assert found["RMSNormalization"] == (opset == 23)
    assert found["Cast"] == (0 if opset == 23 else 2)


@pytest.mark.parametrize(
    "change",
    [
        ("Mul (c, c)", "Mul (c, x)"),
        ("<axes = [-1]> (q)", "<axes = [-2]> (q)"),
        ("Div (c, r)", "Div (r, c)"),
        ("Div (c, r)", "Div (x, r)"),
    ],
)
def test_what_only_looks_like_it_stays(change: tuple[str, str]) -> None:
    text = """g (float[n,t,16] x) => (float[n,t,16] y) {
        c = Neg (x) q = Mul (c, c) v = ReduceMean <axes = [-1]> (q)
        e = Add (v, eps) r = Sqrt (e) u = Div (c, r) y = Mul (u, gamma)
    }""".replace(*change)
    made = small.model(text, 17, gamma=small.normal(1, 16), **WEIGHTS)
    assert rms_norm.apply(equal.named(made)) == 0


@pytest.mark.parametrize("limit", [13, 17, 21])
@pytest.mark.parametrize("dims", ["float[n,4,16]", "float[n,16]"])
def test_a_runtime_without_it_gets_it_written_out(limit: int, dims: str) -> None:
    from dataclasses import replace

    made = small.model(
        f"g ({dims} x) => ({dims} y) {{ [n] y = RMSNormalization <epsilon = 0.00001> (x, gamma) }}",
        23,
        gamma=small.normal(1, 16),
    )
    runtime = replace(small.runtime("generic"), max_opset=limit, tolerates=0)
    found = lower(equal.named(made).clone(), runtime)
    assert found.opset_imports[""] <= limit
    assert small.ops(found) == ["Mul", "ReduceMean", "Add", "Sqrt", "Div", "Mul"]
    x = small.normal(0, 2, *([4] if "4" in dims else []), 16)
    gamma = made.graph.initializers["gamma"].const_value.numpy()
    equal.close(small.run(found, {"x": x})["y"], rms(x, gamma), TOLERANCE)


def norm(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axis=axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=axes, keepdims=True) + EPSILON)


CENTRED = "m = {mean_x} c = Sub (i0, m) q = Mul (c, c) v = {mean_q} e = Add (v, eps) r = Sqrt (e)"


@pytest.mark.parametrize("spread", [1.0, 1e4, 1e-4])
@pytest.mark.parametrize("quotient", QUOTIENTS)
@pytest.mark.parametrize("shape", ["n,8,h,w", "2,8,5,4,3"])
@pytest.mark.parametrize("opset", [17, 18])
def test_instance_norm(opset: int, shape: str, quotient: str, spread: float) -> None:
    axes = list(range(2, shape.count(",") + 1))
    body = CENTRED.format(mean_x=mean("i0", axes, opset), mean_q=mean("q", axes, opset))
    made = small.model(
        f"""g (float[{shape}] x) => (float[{shape}] y) {{
              i0 = Identity (x) {body} {QUOTIENTS[quotient]} y = Identity (u)
            }}""",
        opset,
        axes=np.array(axes),
        **WEIGHTS,
    )
    x = small.normal(0, 2, 8, *(5, 4, 3)[: len(axes)]) * np.float32(spread)
    found = equal.prove(
        made, instance_norm, {"x": x}, {"y": norm(x, tuple(axes))}, tolerance=TOLERANCE
    )
    assert found == {"Identity": 2, "InstanceNormalization": 1}


@pytest.mark.parametrize("rows", ["[0, 2, -1]", "[0, 2, 4, 6, 5]"], ids=["rows", "channels apart"])
def test_a_group_norm_written_out_becomes_what_the_native_one_does(rows: str) -> None:
    """Reshape, mean and variance, Reshape, scale and shift: as `group-to-instance-norm` makes."""
    sizes, eps = [1, 8, 6, 5], np.float32(EPSILON)
    factors = {"s": 1 + small.normal(1, 8, 1, 1), "b": small.normal(2, 8, 1, 1)}
    axes = [2] if "-1" in rows else [2, 3, 4]
    body = CENTRED.format(mean_x=mean("i0", axes, 18), mean_q=mean("q", axes, 18))
    written = small.model(
        f"""g (float[1,8,6,5] x) => (float[1,8,6,5] y) {{
              w = Conv (x, k) i0 = Reshape (w, rows) {body} u = Div (c, r)
              z = Reshape (u, back) a = Mul (z, s) n = Add (a, b) f = Relu (n) y = Conv (f, k)
            }}""",
        18,
        rows=np.array(eval(rows)),
        back=np.array(sizes),
        axes=np.array(axes),
        k=small.normal(3, 8, 8, 1, 1),
        **{"eps": eps, **factors},
    )
    native = small.model(
        """g (float[1,8,6,5] x) => (float[1,8,6,5] y) {
             w = Conv (x, k) n = GroupNormalization <num_groups = 2, epsilon = 0.00001> (w, s, b)
             f = Relu (n) y = Conv (f, k)
           }""",
        21,
        k=small.normal(3, 8, 8, 1, 1),
        s=factors["s"].reshape(8),
        b=factors["b"].reshape(8),
    )
    x = small.normal(0, 1, 8, 6, 5)
    found = [small.canonical(one).model for one in (written, native)]
    assert small.ops(found[0]) == small.ops(found[1])
    assert "InstanceNormalization" in small.ops(found[0])
    equal.close(small.run(found[0], {"x": x})["y"], small.run(native, {"x": x})["y"], 1e-5)
    assert group_norm.NAME in [one.rule for one in small.canonical(native).rewrites]


def test_a_row_that_is_no_group_is_a_layer_norm() -> None:
    """Adaptive layer norms have no scale of their own."""
    body = CENTRED.format(mean_x=mean("i0", [-1], 17), mean_q=mean("q", [-1], 17))
    made = small.model(
        f"""g (float[n,8,16] x, float[n,1,16] s) => (float[n,8,16] y) {{
              i0 = Identity (x) {body} u = Div (c, r) y = Mul (u, s)
            }}""",
        17,
        **WEIGHTS,
    )
    assert instance_norm.apply(equal.named(made)) == 0
    x, scale = small.normal(0, 2, 8, 16), small.normal(1, 2, 1, 16)
    expected = norm(x, (2,)) * scale
    found = equal.prove(
        made, layer_norm, {"x": x, "s": scale}, {"y": expected}, tolerance=TOLERANCE
    )
    assert found == {"Identity": 1, "LayerNormalization": 1, "Mul": 1}


def test_a_mean_over_other_axes_stays() -> None:
    body = CENTRED.format(mean_x=mean("i0", [1, 2], 17), mean_q=mean("q", [1, 2], 17))
    made = small.model(
        f"g (float[n,8,h] i0) => (float[n,8,h] u) {{ {body} u = Div (c, r) }}", 17, **WEIGHTS
    )
    assert instance_norm.apply(equal.named(made)) == 0
