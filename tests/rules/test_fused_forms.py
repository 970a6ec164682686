"""ONNX Runtime's fusions, expanded: against their equations in float64, and its own kernels."""

from __future__ import annotations

import math
from types import ModuleType

import equal
import numpy as np
import onnx_ir as ir
import pytest
import small

from edgec.graphs import infer_shapes
from edgec.rules import (
    embed_layer_norm,
    fused_conv,
    fused_gelu,
    fused_products,
    multi_head_attention,
    packed_attention,
    rotary_embedding,
    skip_layer_norm,
)

Array = np.ndarray
MICROSOFT = ', "com.microsoft": 1'
# The kernels approximate erf, exp and tanh; LayerNormalization divides roundings by a deviation.
TOLERANCE = 3e-6
EDGES = np.float32([0, -0.0, 1e-30, -1e-30, 3, -3, 30, -30, 1e4, -1e4])
erf = np.vectorize(math.erf, otypes=[np.float64])


def model(text: str, **weights: Array) -> ir.Model:
    return small.model(text, 17, MICROSOFT, **weights)


def prove(
    made: ir.Model,
    rule: ModuleType,
    feeds: dict[str, Array],
    expected: Array,
    tolerance: float = TOLERANCE,
) -> ir.Model:
    equal.prove(made, rule, feeds, {"y": expected}, tolerance=tolerance)
    assert {node.domain for node in made.graph} == {""}
    return made


def gelu(x: Array) -> Array:
    return x * (1 + erf(x / math.sqrt(2))) / 2


def by_tanh(x: Array) -> Array:
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


@pytest.mark.parametrize("random", [True, False], ids=["random", "edges"])
@pytest.mark.parametrize(
    ("op", "reference"),
    [
        ("Gelu (x)", gelu),
        ("BiasGelu (x, b)", gelu),
        ("FastGelu (x)", by_tanh),
        ("FastGelu (x, b)", by_tanh),
        ("QuickGelu (x)", lambda x: x / (1 + np.exp(-1.702 * x))),
        ("QuickGelu <alpha = 0.5> (x)", lambda x: x / (1 + np.exp(-0.5 * x))),
    ],
)
def test_gelu(op: str, reference: object, random: bool) -> None:
    x = small.normal(0, 4, 10) * 3 if random else EDGES.reshape(1, 10)
    b = small.normal(1, 10)
    made = model(f"g (float[n,10] x) => (float[n,10] y) {{ y = com.microsoft.{op} }}", b=b)
    wide = x.astype(np.float64) + (b if ", b" in op else 0)
    with np.errstate(over="ignore"):
        prove(made, fused_gelu, {"x": x}, reference(wide))  # type: ignore[operator]


@pytest.mark.parametrize("alpha", [1.0, 0.125])
@pytest.mark.parametrize("b_is", ["constant", "computed"])
@pytest.mark.parametrize(("a_turned", "b_turned"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_fused_matmul(a_turned: int, b_turned: int, b_is: str, alpha: float) -> None:
    shapes = {"a": (2, 4, 3) if a_turned else (2, 3, 4), "b": (5, 4) if b_turned else (4, 5)}
    a, b = (small.normal(i, *shape) for i, shape in enumerate(shapes.values()))
    fed = ", float[{},{}] b".format(*shapes["b"]) if b_is == "computed" else ""
    made = model(
        f"""g (float[{",".join(map(str, shapes["a"]))}] a{fed}) => (float[2,3,5] y) {{
              [p] y = com.microsoft.FusedMatMul
                <transA = {a_turned}, transB = {b_turned}, alpha = {alpha}> (a, b)
            }}""",
        **({} if fed else {"b": b}),
    )
    left = a.astype(np.float64).swapaxes(1, 2) if a_turned else a.astype(np.float64)
    expected = left @ (b.T if b_turned else b).astype(np.float64) * alpha
    feeds = {"a": a, "b": b} if fed else {"a": a}
    found = prove(made, fused_products, feeds, expected)
    product = next(node for node in found.graph if node.op_type == "MatMul")
    assert product.name == "p"
    if b_is == "constant":  # what can be quantized: a plain product with a weight
        assert small.ops(found)[-1] == "MatMul"
        assert product.inputs[1].const_value is not None


def test_transposed_batches_stay() -> None:
    made = model(
        """g (float[3,2,4] a, float[2,4,5] b) => (float[2,3,5] y) {
             y = com.microsoft.FusedMatMul <transBatchA = 1> (a, b)
           }"""
    )
    assert fused_products.apply(equal.named(made)) == 0


def test_fused_gemm() -> None:
    a, b, c = small.normal(0, 3, 4), small.normal(1, 5, 4), small.normal(2, 5)
    made = model(
        """g (float[3,4] a) => (float[3,5] y) {
             y = com.microsoft.FusedGemm
               <transB = 1, alpha = 0.5, beta = 2.0, activation = "Relu"> (a, b, c)
           }""",
        b=b,
        c=c,
    )
    expected = 0.5 * (a.astype(np.float64) @ b.T.astype(np.float64)) + 2 * c
    prove(made, fused_products, {"a": a}, np.maximum(expected, 0))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ('activation = "Relu"', lambda x: np.maximum(x, 0)),
        ('activation = "Tanh"', np.tanh),
        ('activation = "Sigmoid"', lambda x: 1 / (1 + np.exp(-x))),
        (
            'activation = "LeakyRelu", activation_params = [0.1]',
            lambda x: np.where(x < 0, np.float32(0.1) * x, x),
        ),
        ('activation = "Clip", activation_params = [-0.5, 1.0]', lambda x: np.clip(x, -0.5, 1)),
    ],
    ids=["Relu", "Tanh", "Sigmoid", "LeakyRelu", "Clip"],
)
def test_fused_conv(activation: str, function: object, residual: bool) -> None:
    x, w, b = small.normal(0, 2, 3, 5, 5), small.normal(1, 4, 3, 1, 1), small.normal(2, 4)
    z = small.normal(3, 2, 4, 5, 5)
    more = (", float[2,4,5,5] z", ", z") if residual else ("", "")
    made = model(
        f"""g (float[2,3,5,5] x{more[0]}) => (float[2,4,5,5] y) {{
              y = com.microsoft.FusedConv <{activation}> (x, w, b{more[1]})
            }}""",
        w=w,
        b=b,
    )
    value = np.einsum("nchw,oc->nohw", x.astype(np.float64), w[:, :, 0, 0]) + b.reshape(1, 4, 1, 1)
    expected = function(value + z if residual else value)  # type: ignore[operator]
    prove(made, fused_conv, {"x": x, "z": z} if residual else {"x": x}, expected)


def normalised(x: Array, simple: bool = False) -> Array:
    centred = x if simple else x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)


@pytest.mark.parametrize("spread", [1.0, 1e-3])
@pytest.mark.parametrize("sum_is_read", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("simple", [False, True])
def test_skip_layer_norm(simple: bool, with_bias: bool, sum_is_read: bool, spread: float) -> None:
    x, s = (small.normal(i, 2, 3, 16) * spread for i in range(2))
    g, b, c = (small.normal(i, 16) for i in range(2, 5))
    c *= spread
    kind = "SkipSimplifiedLayerNormalization" if simple else "SkipLayerNormalization"
    inputs = ("x, s, g" if simple else "x, s, g, b") + (", c" if with_bias else "")
    outputs = "y, , , total" if sum_is_read else "y"
    given = ", float[2,3,16] total" if sum_is_read else ""
    made = model(
        f"""g (float[2,3,16] x, float[2,3,16] s) => (float[2,3,16] y{given}) {{
              {outputs} = com.microsoft.{kind} <epsilon = 0.00001> ({inputs})
            }}""",
        **{"g": g, **({} if simple else {"b": b}), **({"c": c} if with_bias else {})},
    )
    total = x.astype(np.float64) + s + (c if with_bias else 0)
    expected = {"y": normalised(total, simple) * g + (0 if simple else b)}
    expected |= {"total": total} if sum_is_read else {}
    equal.prove(made, skip_layer_norm, {"x": x, "s": s}, expected, tolerance=TOLERANCE)
    assert {node.domain for node in made.graph} == {""}


@pytest.mark.parametrize("axis", ["", "<axis = 2, epsilon = 0.01>"])
def test_a_root_mean_square_alone(axis: str) -> None:
    """SimplifiedLayerNormalization, which ONNX Runtime has in ONNX's domain."""
    made = model(
        f"""g (float[n,5,8] x) => (float[n,5,8] y) {{
              y = SimplifiedLayerNormalization {axis} (x, g)
            }}""",
        g=small.normal(1, 8),
    )
    x = small.normal(0, 2, 5, 8)
    wide = x.astype(np.float64)
    root = np.sqrt((wide**2).mean(axis=2, keepdims=True) + (0.01 if axis else 1e-5))
    prove(made, skip_layer_norm, {"x": x}, wide / root * small.normal(1, 8))


def test_types_behind_fusions_in_half() -> None:
    """ONNX infers none; each fused form computes in the type of its first input."""
    made = model(
        """g (float16[n,4,8] x) => (float16[n,4,4] y, float16[n,4,8] z) {
             a = com.microsoft.BiasGelu (x, b)
             c = MatMul (a, w)
             d, e, f, z = com.microsoft.SkipSimplifiedLayerNormalization (c, x, b)
             h = com.microsoft.QuickGelu (d)
             i = com.microsoft.Attention <num_heads = 2> (h, v, k)
             y = com.microsoft.FusedMatMul <transB = 1, alpha = 0.5> (i, z)
           }""",
        b=small.normal(1, 8).astype(np.float16),
        w=small.normal(2, 8, 8).astype(np.float16),
        v=small.normal(3, 8, 24).astype(np.float16),
        k=small.normal(4, 24).astype(np.float16),
    )
    ir.passes.common.NameFixPass()(made)
    infer_shapes(made)
    values = [value for node in made.graph for value in node.outputs if value.uses()]
    assert {value.dtype for value in values} == {ir.DataType.FLOAT16}
    assert all(value.shape is not None and len(value.shape) == 3 for value in values)
    assert {node.domain for node in made.graph} == {"", "com.microsoft"}
    for rule in (packed_attention, skip_layer_norm, fused_gelu, fused_products):
        assert rule.apply(made) > 0
    assert {node.domain for node in made.graph} == {""}
    weights = {value.dtype for value in made.graph.initializers.values()}
    assert weights == {ir.DataType.FLOAT16, ir.DataType.INT64}


def test_a_deviation_that_is_read_keeps_the_node() -> None:
    made = model(
        """g (float[2,3,16] x, float[2,3,16] s) => (float[2,3,16] y, float[2,3,1] m) {
             y, m = com.microsoft.SkipLayerNormalization (x, s, g)
           }""",
        g=np.ones(16, np.float32),
    )
    assert skip_layer_norm.apply(equal.named(made)) == 0


def attention(x: Array, w: Array, b: Array, bias: Array, heads: int) -> Array:
    batch, steps, _ = x.shape
    q, k, v = (
        piece.reshape(batch, steps, heads, -1).transpose(0, 2, 1, 3)
        for piece in np.split(x.astype(np.float64) @ w + b, 3, axis=-1)
    )
    scores = q @ k.swapaxes(2, 3) / math.sqrt(q.shape[-1]) + bias
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    return (shares @ v).transpose(0, 2, 1, 3).reshape(batch, steps, -1)


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("mask", ["none", "zeros and ones", "lengths"])
def test_attention(mask: str, causal: int) -> None:
    x, w, b = small.normal(0, 2, 5, 8), small.normal(1, 8, 24), small.normal(2, 24)
    lengths = np.int32([5, 3])
    kept = (np.arange(5) < lengths[:, None]).astype(np.int32)
    fed = {"none": "", "zeros and ones": ", int32[2,s] m", "lengths": ", int32[2] m"}[mask]
    made = model(
        f"""g (float[2,s,8] x{fed}) => (float[2,s,8] y) {{
              [a] y = com.microsoft.Attention
                <num_heads = 2, unidirectional = {causal}> (x, w, b{", m" if fed else ""})
            }}""",
        w=w,
        b=b,
    )
    bias = np.zeros((2, 1, 5, 5)) if mask == "none" else (1 - kept[:, None, None, :]) * -10000.0
    bias = bias + (np.triu(np.full((5, 5), -1e30), 1) if causal else 0)
    given = {} if mask == "none" else {"m": lengths if mask == "lengths" else kept}
    found = prove(made, packed_attention, {"x": x, **given}, attention(x, w, b, bias, 2))
    assert small.node(found, "a").op_type == "MatMul"


def test_attention_with_a_past_stays() -> None:
    made = model(
        """g (float[1,2,8] x, float[2,1,2,3,4] p) => (float[1,2,8] y, float[2,1,2,5,4] q) {
             y, q = com.microsoft.Attention <num_heads = 2> (x, w, b, , p)
           }""",
        w=small.normal(1, 8, 24),
        b=small.normal(2, 24),
    )
    assert packed_attention.apply(equal.named(made)) == 0


@pytest.mark.parametrize("with_segments", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
def test_embed_layer_norm(with_mask: bool, with_segments: bool) -> None:
    ids = np.int32([[1, 5, 2, 0], [3, 3, 0, 0]])
    segments, mask = np.int32([[0, 0, 1, 1], [0, 1, 1, 1]]), np.int32(ids > 0)
    tables = {"w": small.normal(0, 6, 16), "p": small.normal(1, 7, 16), "k": small.normal(2, 2, 16)}
    g, b = small.normal(3, 16), small.normal(4, 16)
    fed = (", int32[n,t] s" if with_segments else "") + (", int32[n,t] m" if with_mask else "")
    used = ("s", "k") if with_segments else ("", "")
    if not with_segments:
        del tables["k"]
    made = model(
        f"""g (int32[n,t] i{fed}) => (float[n,t,16] y, int32[n] count) {{
              y, count = com.microsoft.EmbedLayerNormalization <epsilon = 0.00001>
                (i, {used[0]}, w, p, {used[1]}, g, b{", m" if with_mask else ""})
            }}""",
        g=g,
        b=b,
        **tables,
    )
    total = tables["w"].astype(np.float64)[ids] + tables["p"][:4]
    if with_segments:
        total = total + tables["k"][segments]
    count = mask.sum(axis=1) if with_mask else np.zeros(2)
    feeds = {"i": ids} | ({"s": segments} if with_segments else {})
    feeds |= {"m": mask} if with_mask else {}
    expected = {"y": normalised(total) * g + b, "count": count}
    equal.prove(made, embed_layer_norm, feeds, expected, tolerance=TOLERANCE)
    assert {node.domain for node in made.graph} == {""}


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("more", ["", ", b", ", b, m", ", , , e", ", b, m, e"])
def test_multi_head_attention(more: str, causal: int) -> None:
    """Against ONNX Runtime's own kernel."""
    made = model(
        f"""g (float[n,4,8] q, float[n,4,8] k, float[n,4,12] v, int32[n,4] m, float[1,1,4,4] e)
              => (float[n,4,12] y) {{
              y = com.microsoft.MultiHeadAttention
                <num_heads = 2, unidirectional = {causal}> (q, k, v{more})
            }}""",
        b=small.normal(9, 28),
    )
    sizes = {"q": 8, "k": 8, "v": 12}
    feeds = {name: small.normal(i, 2, 4, size) for i, (name, size) in enumerate(sizes.items())}
    feeds |= {"m": np.int32([[1, 1, 1, 1], [1, 1, 0, 0]]), "e": small.normal(7, 1, 1, 4, 4)}
    equal.prove(made, multi_head_attention, feeds, tolerance=TOLERANCE)
    assert {node.domain for node in made.graph} == {""}


@pytest.mark.parametrize("form", ["q, q, q, , , , p, p", "q, z, z", "q, r, r"])
def test_multi_head_attention_of_other_forms_stays(form: str) -> None:
    """With a past, with keys by head, or causal over another number of keys."""
    made = model(
        f"""g (float[1,4,8] q, float[1,2,3,4] p, float[1,2,4,4] z, float[1,3,8] r)
              => (float[1,4,8] y) {{
              y = com.microsoft.MultiHeadAttention <num_heads = 2, unidirectional = 1> ({form})
            }}"""
    )
    assert multi_head_attention.apply(equal.named(made)) == 0


@pytest.mark.parametrize("places", ["int64[n,5] p", "int64[1] p"])
@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize(
    ("shape", "attributes", "half"),
    [
        ("n,5,24", "", 4),  # as many heads as fit
        ("n,5,24", ", num_heads = 2", 6),
        ("n,5,24", ", num_heads = 2, rotary_embedding_dim = 8", 4),
        ("n,3,5,8", "", 4),
        ("n,3,5,8", ", num_heads = 3, rotary_embedding_dim = 4", 2),
    ],
)
def test_rotary_embedding(
    shape: str, attributes: str, half: int, interleaved: int, places: str
) -> None:
    """Against ONNX Runtime's own kernel."""
    made = model(
        f"""g (float[{shape}] x, {places}) => (float[{shape}] y) {{
              y = com.microsoft.RotaryEmbedding <interleaved = {interleaved}{attributes}>
                (x, p, c, s)
            }}""",
        c=small.normal(1, 16, half),
        s=small.normal(2, 16, half),
    )
    sizes = [2, *(int(size) for size in shape.split(",")[1:])]
    given = np.int64([[4, 3, 2, 1, 0], [11, 15, 0, 7, 7]] if "[n" in places else [9])
    feeds = {"x": small.normal(0, *sizes), "p": given}
    equal.prove(made, rotary_embedding, feeds, tolerance=TOLERANCE)
    assert {node.domain for node in made.graph} == {""}


@pytest.mark.parametrize("attributes", ["is_packed_batching = 1", "scale = 2.0", "num_heads = 5"])
def test_rotary_embedding_of_other_forms_stays(attributes: str) -> None:
    made = model(
        f"""g (float[n,5,24] x, int64[n,5] p) => (float[n,5,24] y) {{
              y = com.microsoft.RotaryEmbedding <{attributes}> (x, p, c, s)
            }}""",
        c=small.normal(1, 16, 4),
        s=small.normal(2, 16, 4),
    )
    assert rotary_embedding.apply(equal.named(made)) == 0
