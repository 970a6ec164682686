"""Each canonical rewrite computes the same, says how often it was applied, and keeps names."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import graphs
import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common
import pytest
import small

from edgec.canonicalise import canonicalise
from edgec.errors import InputError, UnsupportedError
from edgec.rules import CANONICAL, Rule
from edgec.types import Range, Rewrite

TOLERANCE = 1e-5  # of the largest number: folded weights round once more in float32
RULES = {rule.name: rule for rule in CANONICAL}
CONV = "[conv] c = Conv <pads = [1, 1, 1, 1]> (x, w, b)"
X, Y = "float[1,3,6,6] x", "float[1,4,6,6] y"
WEIGHTS = {"w": small.normal(1, 4, 3, 3, 3), "b": small.normal(2, 4)}
FEEDS = {"x": small.normal(0, 1, 3, 6, 6)}


def apply(rule: str, made: ir.Model) -> int:
    ir.passes.common.NameFixPass()(made)
    return RULES[rule].apply(made)


def same(made: ir.Model, rule: str, feeds: Mapping[str, np.ndarray], exact: bool = False) -> int:
    """Apply a rule; the outputs keep their names, and their numbers within TOLERANCE."""
    before = small.run(made, feeds)
    count = apply(rule, made)
    after = small.run(made, feeds)
    assert list(after) == list(before)
    for name, array in before.items():
        assert after[name].dtype == array.dtype
        limit = 0 if exact else TOLERANCE * np.abs(array).max()
        assert np.abs(after[name].astype(float) - array.astype(float)).max() <= limit
    return count


def test_the_order_and_the_equations() -> None:
    assert [rule.name for rule in CANONICAL] == [
        "inline-functions",
        "lift-opset",
        "write-out-custom-ops",
        "materialise-constants",
        "fold-constants",
        "fold-known-sizes",
        "narrow-exactly",
        "drop-cast-round-trips",
        "fold-quantized-weights",
        "scale-looked-up-rows",
        "expand-packed-attention",
        "state-empty-mask",
        "expand-embed-layer-norm",
        "expand-skip-layer-norm",
        "expand-fused-gelu",
        "expand-fused-products",
        "expand-fused-conv",
        "einsum-to-matmul",
        "group-to-instance-norm",
        "fuse-instance-norm",
        "fuse-layer-norm",
        "fuse-rms-norm",
        "one-clamp",
        "plain-swish",
        "fuse-mish",
        "fuse-hard-swish",
        "drop-nan-guards",
        "sum-to-add",
        "fold-batch-norm",
        "fold-affine",
        "one-pass-affine",
        "reorder-gelu",
        "plain-key-transpose",
        "remove-identity",
        "infer-types",
        "fuse-group-norm-silu",
    ]
    for rule in CANONICAL:
        assert "->" in rule.equation, rule.name


# Two exact rewrites (functions and constants) and all others over every fixture.
@pytest.mark.parametrize("name", graphs.names())
def test_a_fixture_computes_what_it_did(name: str) -> None:
    found = small.fixture(name)
    feeds = graphs.load_feeds(name)
    before, after = small.run(graphs.path(name), feeds), small.run(found.model, feeds)
    assert list(before) == list(after)
    for key, array in before.items():
        scale = max(1.0, np.abs(array.astype(float)).max())
        tolerance = 2e-3 if array.dtype == np.float16 else TOLERANCE
        assert np.abs(after[key].astype(float) - array.astype(float)).max() <= tolerance * scale


@pytest.mark.parametrize("name", graphs.names())
def test_every_node_and_value_has_a_name_of_its_own(name: str) -> None:
    nodes = list(small.fixture(name).model.graph)
    names = [node.name for node in nodes]
    values = [value.name for node in nodes for value in node.outputs]
    assert all(names)
    assert len(set(names)) == len(names)
    assert all(values)
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("name", [n for n in graphs.names() if n != "float16_io"])
def test_a_canonical_id_means_what_the_name_means_in_the_file(name: str) -> None:
    source, found = ir.load(graphs.path(name)), small.fixture(name).model
    if source.opset_imports[""] < 17:
        RULES["lift-opset"].apply(source)
    known = {value.name for node in source.graph for value in node.outputs}
    made = [str(value.name) for node in found.graph for value in node.outputs]
    kept = [value for value in made if value in known]
    assert len(kept) >= 0.5 * min(len(made), len(known))  # one node may become several
    feeds = graphs.load_feeds(name)
    before = small.run(small.exposed(source, kept), feeds)
    after = small.run(small.exposed(found, kept), feeds)
    for key in kept:
        scale = max(1.0, np.abs(before[key].astype(float)).max(initial=0))
        assert before[key].shape == after[key].shape, key
        difference = np.abs(before[key].astype(float) - after[key].astype(float))
        assert difference.max(initial=0) <= TOLERANCE * scale, key


@pytest.mark.parametrize("name", graphs.names())
def test_weighted_nodes_keep_their_names(name: str) -> None:
    source = ir.load(graphs.path(name))
    ops = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM")
    known = {n.name for n in ir.traversal.RecursiveGraphIterator(source.graph) if n.name}
    if name == "function":  # the copies of an inlined body have names of their own
        return
    for node in small.fixture(name).model.graph:
        if node.op_type in ops and known:
            assert node.name in known


def test_the_source_is_not_changed() -> None:
    made = small.model(f"g ({X}) => ({Y}) {{ {CONV} y = Mul (c, s) }}", s=np.float32(2), **WEIGHTS)
    found = small.canonical(made)
    assert small.ops(made) == ["Conv", "Mul"]
    assert small.ops(found.model) == ["Conv"]
    assert [(r.rule, r.count) for r in found.rewrites] == [("fold-affine", 1)]


# inline-functions


def test_functions_are_inlined() -> None:
    made = ir.load(graphs.path("function"))
    functions = len(made.functions)
    assert functions > 0
    assert same(made, "inline-functions", graphs.load_feeds("function"), exact=True) == functions
    assert not made.functions
    assert {node.domain for node in made.graph} == {""}


def test_nothing_to_inline() -> None:
    assert (
        apply("inline-functions", small.model("g (float[2] x) => (float[2] y) {y = Relu (x)}")) == 0
    )


# lift-opset


def test_an_old_opset_is_lifted() -> None:
    made = ir.load(graphs.path("cnn_opset9"))
    assert same(made, "lift-opset", graphs.load_feeds("cnn_opset9")) == 1
    assert made.opset_imports[""] == 17


@pytest.mark.parametrize("opset", [17, 18, 21])
def test_a_new_opset_stays(opset: int) -> None:
    made = small.model("g (float[2] x) => (float[2] y) {y = Relu (x)}", opset=opset)
    assert apply("lift-opset", made) == 0
    assert made.opset_imports[""] == opset


# materialise-constants


def test_a_filled_constant() -> None:
    made = small.model(
        """g (float[2,3] x) => (float[2,3] y) {
             w = ConstantOfShape <value = float[1] {1.5}> (s)
             y = Mul (x, w)
           }""",
        s=np.array([2, 3]),
    )
    feeds = {"x": small.normal(0, 2, 3)}
    assert same(made, "materialise-constants", feeds, exact=True) == 1
    assert small.ops(made) == ["Mul"]
    np.testing.assert_array_equal(
        made.graph.initializers["w"].const_value.numpy(), np.full((2, 3), 1.5, np.float32)
    )


@pytest.mark.parametrize(
    "text",
    [
        "g (int64[1] s) => (float[n] y) { w = ConstantOfShape (s) y = Relu (w) }",
        "g (float[1] x) => (float[2] y) { y = ConstantOfShape (k) }",
    ],
    ids=["a computed shape", "a graph output"],
)
def test_a_filled_constant_stays(text: str) -> None:
    made = small.model(text, k=np.array([2]))
    before = small.ops(made)
    assert apply("materialise-constants", made) == 0
    assert small.ops(made) == before


def test_a_filled_constant_beyond_the_limit_stays() -> None:
    made = small.model(
        "g (float[1] x) => (float y) { w = ConstantOfShape (s) y = ReduceMax <keepdims=0> (w) }",
        s=np.array([1 << 16, 1 << 14]),
    )
    assert apply("materialise-constants", made) == 0


# fold-constants


def test_shape_arithmetic_becomes_a_constant() -> None:
    made = small.model(
        """g (float[2,6] x) => (float[3,4] y) {
             s = Shape (x)
             p = ReduceProd <keepdims = 1> (s)
             q = Div (p, four)
             t = Concat <axis = 0> (q, four)
             y = Reshape (x, t)
           }""",
        four=np.array([4]),
    )
    assert same(made, "fold-constants", {"x": small.normal(0, 2, 6)}, exact=True) == 4
    assert small.ops(made) == ["Reshape"]


@pytest.mark.parametrize("size", [2, 5])
def test_what_depends_on_a_free_size_stays(size: int) -> None:
    made = small.model(
        """g (float[n,6] x) => (float[m] y) {
             s = Shape (x)
             f = Cast <to = 1> (s)
             t = ReduceSum <keepdims = 0> (f)
             a = Mul (x, t)
             y = Reshape (a, minus)
           }""",
        minus=np.array([-1]),
    )
    assert same(made, "fold-constants", {"x": small.normal(0, size, 6)}, exact=True) == 0
    assert "Shape" in small.ops(made)


def test_a_large_constant_is_not_blown_up() -> None:
    made = small.model(
        """g (float[1,1] x) => (float[2000,2000] y) { e = Expand (one, s) y = Add (x, e) }""",
        one=np.ones((1, 1), np.float32),
        s=np.array([2000, 2000]),
    )
    apply("fold-constants", made)
    assert max(value.const_value.nbytes for value in made.graph.initializers.values()) < 1 << 20


def test_quantized_weights_are_not_made_float() -> None:
    made = small.model(
        """g (float[2,16] x) => (float[2,16] y) {
             w = DequantizeLinear (w8, s, z)
             y = MatMul (x, w)
           }""",
        w8=np.arange(256).astype(np.uint8).view(np.int8).reshape(16, 16),
        s=np.float32(0.1),
        z=np.int8(0),
    )
    assert same(made, "fold-constants", {"x": small.normal(0, 2, 16)}, exact=True) == 0
    assert small.ops(made) == ["DequantizeLinear", "MatMul"]


def test_weights_that_are_cast_from_int8_are_not_made_float() -> None:
    made = small.model(
        """g (float[2,16] x) => (float[2,16] y) {
             f = Cast <to = 1> (w8)
             w = Mul (f, s)
             y = MatMul (x, w)
           }""",
        w8=np.arange(256).astype(np.uint8).view(np.int8).reshape(16, 16),
        s=small.normal(0, 1, 16),
    )
    assert same(made, "fold-constants", {"x": small.normal(0, 2, 16)}, exact=True) == 0
    assert small.ops(made) == ["Cast", "Mul", "MatMul"]


# fold-quantized-weights


@pytest.mark.parametrize("axis", [0, 1, None], ids=["per row", "per column", "per tensor"])
def test_the_quantization_of_a_weight(axis: int | None) -> None:
    size = {0: 4, 1: 5, None: 0}[axis]
    scale = np.abs(small.normal(3, size)) + 0.01 if size else np.float32(0.02)
    zero = np.arange(size).astype(np.int8) if size else np.int8(3)
    attribute = "" if axis is None else f"<axis = {axis}>"
    made = small.model(
        f"""g (float[2,4] x) => (float[2,5] y) {{
              q = QuantizeLinear {attribute} (w, s, z)
              d = DequantizeLinear {attribute} (q, s, z)
              y = MatMul (x, d)
            }}""",
        w=small.normal(1, 4, 5) * 3,
        s=scale,
        z=zero,
    )
    count = same(made, "fold-quantized-weights", {"x": small.normal(0, 2, 4)}, exact=True)
    assert count == 1
    assert small.ops(made) == ["DequantizeLinear", "MatMul"]
    assert made.graph.initializers["q"].dtype == ir.DataType.INT8


def test_the_quantization_of_an_activation_stays() -> None:
    made = small.model(
        """g (float[4] x) => (float[4] y) {
             q = QuantizeLinear (x, s, z)
             y = DequantizeLinear (q, s, z)
           }""",
        s=np.float32(0.1),
        z=np.uint8(7),
    )
    assert apply("fold-quantized-weights", made) == 0
    assert small.ops(made) == ["QuantizeLinear", "DequantizeLinear"]


# scale-looked-up-rows

LOOKUP = """g (int64[a,b] i) => (float[a,b,6] y) {{
  t = DequantizeLinear <axis = {axis}> (q, s, z)
  [look] y = Gather (t, i)
}}"""


def table(axis: int = 1, zero: int = 0, text: str = LOOKUP) -> ir.Model:
    size = (9, 6)[axis % 2]
    return small.model(
        text.format(axis=axis),
        q=np.random.default_rng(0).integers(-128, 128, (9, 6)).astype(np.int8),
        s=np.abs(small.normal(1, size)) + 0.01,
        z=np.full(size, zero, np.int8),
    )


LOOKED_UP = {"i": np.array([[0, 8, 3], [5, 5, 1]], np.int64)}


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize(("zero", "ops"), [(0, []), (3, ["Sub"])])
def test_a_table_with_a_scale_per_column(zero: int, ops: list[str], axis: int) -> None:
    made = table(axis, zero)
    assert same(made, "scale-looked-up-rows", LOOKED_UP, exact=True) == 1
    assert small.ops(made) == ["Gather", "Cast", *ops, "Mul"]


def test_a_table_that_others_read_stays_for_them() -> None:
    text = LOOKUP.replace("float[a,b,6] y)", "float[a,b,6] y, float[9,6] w)")
    made = table(text=text.replace("[look]", "w = Neg (t) [look]"))
    assert same(made, "scale-looked-up-rows", LOOKED_UP, exact=True) == 1
    assert small.ops(made) == ["DequantizeLinear", "Neg", "Gather", "Cast", "Mul"]


def test_a_table_with_a_scale_per_row_stays() -> None:
    assert apply("scale-looked-up-rows", table(axis=0)) == 0
    columns = LOOKUP.replace("[a,b,6] y", "[9,a,b] y").replace("Gather (", "Gather <axis = 1> (")
    assert apply("scale-looked-up-rows", table(text=columns)) == 0


# sum-to-add


@pytest.mark.parametrize("terms", [2, 3, 5])
def test_a_sum(terms: int) -> None:
    names = [f"x{i}" for i in range(terms)]
    takes = ", ".join(f"float[2,3] {name}" for name in names)
    made = small.model(
        f"g ({takes}) => (float[2,3] y) {{ [s] t = Sum ({', '.join(names)}) y = Relu (t) }}"
    )
    feeds = {name: small.normal(i, 2, 3) for i, name in enumerate(names)}
    assert same(made, "sum-to-add", feeds) == 1
    assert small.ops(made) == ["Add"] * (terms - 1) + ["Relu"]
    assert made.graph[-2].outputs[0].name == "t"


def test_a_sum_that_is_the_output_and_broadcasts() -> None:
    made = small.model(
        "g (float[2,3] a, float[3] b, float[2,1] c) => (float[2,3] y) { y = Sum (a, b, c) }"
    )
    feeds = {"a": small.normal(0, 2, 3), "b": small.normal(1, 3), "c": small.normal(2, 2, 1)}
    assert same(made, "sum-to-add", feeds) == 1


def test_a_sum_of_one_stays() -> None:
    assert apply("sum-to-add", small.model("g (float[2] x) => (float[2] y) { y = Sum (x) }")) == 0


# fold-batch-norm


def _norm(channels: int) -> dict[str, np.ndarray]:
    return {
        "g": small.normal(5, channels) + 2,
        "h": small.normal(6, channels),
        "m": small.normal(7, channels),
        "v": np.abs(small.normal(8, channels)) + 0.5,
    }


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "Gemm"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_normalisation_is_folded(op: str, bias: bool) -> None:
    last = ", b" if bias else ""
    if op == "Gemm":
        text = f"g (float[2,3] x) => (float[2,4] y) {{ [conv] c = Gemm (x, w{last}) "
        weights, feeds = {"w": small.normal(1, 3, 4)}, {"x": small.normal(0, 2, 3)}
    else:
        size = "6" if op == "Conv" else "8"
        text = f"g ({X}) => (float[1,4,n,{size}] y) {{ [conv] c = {op} "
        text += "<pads = [1,1,1,1]> " if op == "Conv" else ""
        text += f"(x, w{last}) "
        shape = (4, 3, 3, 3) if op == "Conv" else (3, 4, 3, 3)
        weights, feeds = {"w": small.normal(1, *shape)}, FEEDS
    if bias:
        weights["b"] = small.normal(2, 4)
    made = small.model(text + "y = BatchNormalization (c, g, h, m, v) }", **weights, **_norm(4))
    assert same(made, "fold-batch-norm", feeds) >= 1
    assert small.ops(made) == [op]


def test_a_folded_node_keeps_its_name() -> None:
    made = small.model(
        f"g ({X}) => ({Y}) {{ {CONV} [norm] n = BatchNormalization (c, g, h, m, v) "
        "[half] a = Mul (n, s) [last] y = Relu (a) }",
        s=np.float32(0.5),
        **WEIGHTS,
        **_norm(4),
    )
    found = small.canonical(made).model
    assert [(node.op_type, node.name) for node in found.graph] == [
        ("Conv", "conv"),
        ("Relu", "last"),
    ]
    assert [node.outputs[0].name for node in found.graph] == ["a", "y"]


def test_a_normalisation_of_a_value_with_another_use_stays() -> None:
    made = small.model(
        f"g ({X}) => ({Y}, float[1,4,6,6] z) "
        f"{{ {CONV} y = BatchNormalization (c, g, h, m, v) z = Relu (c) }}",
        **WEIGHTS,
        **_norm(4),
    )
    assert same(made, "fold-batch-norm", FEEDS) == 0
    assert "BatchNormalization" in small.ops(made)


def test_a_normalisation_of_an_input_stays() -> None:
    made = small.model(
        f"g ({X}) => (float[1,3,6,6] y) {{ y = BatchNormalization (x, g, h, m, v) }}", **_norm(3)
    )
    assert same(made, "fold-batch-norm", FEEDS) == 0


# fold-affine


@pytest.mark.parametrize("op", ["Mul", "Add"])
@pytest.mark.parametrize("shape", [(), (1,), (4, 1, 1), (1, 4, 1, 1)])
@pytest.mark.parametrize("first", [True, False])
def test_a_constant_factor_or_term(op: str, shape: tuple[int, ...], first: bool) -> None:
    order = "s, c" if first else "c, s"
    made = small.model(
        f"g ({X}) => (float[1,4,6,6] z) {{ {CONV} y = {op} ({order}) z = Relu (y) }}",
        s=small.normal(4, *shape),
        **WEIGHTS,
    )
    assert same(made, "fold-affine", FEEDS) == 1
    assert small.ops(made) == ["Conv", "Relu"]
    assert made.graph[0].outputs[0].name == "y"


def test_a_factor_and_a_term_behind_a_conv_without_bias() -> None:
    made = small.model(
        f"g ({X}) => ({Y}) {{ c = Conv <pads = [1,1,1,1]> (x, w) m = Mul (c, s) y = Add (m, t) }}",
        w=WEIGHTS["w"],
        s=small.normal(4, 4, 1, 1),
        t=small.normal(5, 4, 1, 1),
    )
    assert same(made, "fold-affine", FEEDS) == 2
    assert small.ops(made) == ["Conv"]


def test_weights_that_are_shared_are_scaled_for_one_conv_only() -> None:
    made = small.model(
        f"g ({X}) => ({Y}, float[1,4,6,6] z) {{ {CONV} y = Mul (c, s) "
        "[other] z = Conv <pads = [1,1,1,1]> (x, w, b) }",
        s=np.float32(3),
        **WEIGHTS,
    )
    assert same(made, "fold-affine", FEEDS) == 1


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        (f"g ({X}) => ({Y}) {{ {CONV} y = Mul (c, s) }}", (6,)),
        (f"g ({X}) => ({Y}) {{ {CONV} y = Mul (c, s) }}", (1, 4, 6, 6)),
        (f"g ({X}) => (float[1,1,4,6,6] y) {{ {CONV} y = Mul (c, s) }}", (1, 1, 1, 1, 1)),
        (f"g ({X}) => ({Y}, float[1,4,6,6] c) {{ {CONV} y = Mul (c, s) }}", ()),
        (f"g ({X}) => ({Y}) {{ {CONV} m = Mul (c, s) y = Add (m, c) }}", ()),
        (f"g ({X}) => ({Y}) {{ {CONV} n = Neg (c) y = Add (n, s) }}", ()),
        (f"g ({X}) => (float[1,3,6,6] y) {{ y = Mul (x, s) }}", ()),
        (f"g ({X}, float[4,1,1] t) => ({Y}) {{ {CONV} y = Mul (c, t) }}", ()),
    ],
    ids=[
        "along the width",
        "per element",
        "adds a dimension",
        "the conv is an output",
        "the conv has two uses",
        "something in between",
        "no conv",
        "no constant",
    ],
)
def test_a_factor_that_stays(text: str, shape: tuple[int, ...]) -> None:
    made = small.model(text, s=small.normal(4, *shape), **WEIGHTS)
    before = small.ops(made)
    feeds = {**FEEDS, "t": small.normal(9, 4, 1, 1)}
    assert same(made, "fold-affine", feeds, exact=True) == 0
    assert small.ops(made) == before


def test_a_conv_whose_bias_is_computed_stays() -> None:
    made = small.model(
        f"g ({X}, float[4] b) => ({Y}) {{ {CONV} y = Mul (c, s) }}",
        w=WEIGHTS["w"],
        s=np.float32(2),
    )
    assert same(made, "fold-affine", {**FEEDS, "b": WEIGHTS["b"]}, exact=True) == 0


# remove-identity


def test_what_computes_nothing_goes() -> None:
    made = small.model(
        """g (float[2,3] x) => (float[2,3] y) {
             a = Identity (x)
             b = Relu (a)
             c = Dropout (b)
             unused = Neg (b)
             wi = Identity (w)
             y = Add (c, wi)
           }""",
        w=small.normal(1, 3),
    )
    assert same(made, "remove-identity", {"x": small.normal(0, 2, 3)}, exact=True) == 4
    assert small.ops(made) == ["Relu", "Add"]
    assert [made.graph[0].outputs[0].name, made.graph[1].outputs[0].name] == ["b", "y"]


def test_an_identity_between_input_and_output_stays() -> None:
    made = small.model("g (float[2] x) => (float[2] y) { y = Identity (x) }")
    assert same(made, "remove-identity", {"x": small.normal(0, 2)}, exact=True) == 0


@pytest.mark.parametrize(
    ("body", "also"),
    [
        ("t = Identity (y)", "e = Neg (y)"),
        ("t = Identity (y)", "e = Neg (x)"),
        ("t = Identity (y)", "e = Identity (y)"),
        ("t = Dropout (y)", "e = Neg (x)"),
        ("t = Identity (x)", "e = Neg (y)"),
        ("t = Identity (w)", "e = Identity (y)"),
    ],
)
def test_a_branch_hands_on_a_value_of_the_graph_around_it(body: str, also: str) -> None:
    """It has to have an output of its own, as ONNX wants it, and `y` to be made."""
    made = small.model(
        f"""g (bool c, float[3] x) => (float[3] q) {{
             a = Relu (x)
             y = Sigmoid (a)
             z = If (c) <then_branch = t () => (float[3] t) {{ {body} }},
                         else_branch = e () => (float[3] e) {{ {also} }}>
             q = Exp (z)
           }}""",
        w=small.normal(1, 3),
    )
    for c in (True, False):
        feeds = {"c": np.array(c), "x": small.normal(0, 3)}
        assert same(made, "remove-identity", feeds, exact=True) == 0
    assert small.ops(made).count("Sigmoid") == 1


def test_what_computes_nothing_goes_in_a_body_too() -> None:
    made = small.model(
        """g (bool c, float[3] x) => (float[3] z, float[3] y) {
             y = Relu (x)
             z = If (c) <then_branch = t () => (float[3] t) {
                             a = Neg (y) b = Identity (a) t = Identity (b)
                         },
                         else_branch = e () => (float[3] e) { i = Identity (y) e = Exp (i) }>
           }"""
    )
    feeds = {"c": np.array(True), "x": small.normal(0, 3)}
    assert same(made, "remove-identity", feeds, exact=True) == 3
    then = next(n for n in made.graph if n.op_type == "If").attributes["then_branch"].as_graph()
    assert [(node.op_type, node.outputs[0].name) for node in then] == [("Neg", "t")]


def test_equal_small_constants_become_one() -> None:
    made = small.model(
        "g (float[2] x) => (float[2] y) { a = Add (x, w) y = Mul (a, v) }",
        w=np.float32([1, 2]),
        v=np.float32([1, 2]),
    )
    assert same(made, "remove-identity", {"x": small.normal(0, 2)}, exact=True) == 0
    assert made.graph[0].inputs[1] is made.graph[1].inputs[1]


# infer-types


def test_missing_types_are_inferred() -> None:
    made = small.model("g (float[2,3] x) => (float[3,2] y) { r = Relu (x) y = Transpose (r) }")
    made.graph[0].outputs[0].type = None
    assert RULES["infer-types"].apply(made) == 1
    value = made.graph[0].outputs[0]
    assert value.dtype == ir.DataType.FLOAT
    assert list(value.shape or ()) == [2, 3]


def test_missing_names_are_given() -> None:
    made = small.model("g (float[2] x) => (float[2] y) { a = Relu (x) y = Neg (a) }")
    for node in made.graph:
        node.name = None
    RULES["infer-types"].apply(made)
    names = [node.name for node in made.graph]
    assert all(names)
    assert len(set(names)) == 2


# canonicalise


def test_a_shape_is_fixed() -> None:
    source = small.graph(ir.load(graphs.path("vit")))
    found = canonicalise(source, {"image": tuple(Range(n, n) for n in (4, 3, 32, 32))})
    assert list(found.model.graph.inputs[0].shape or ()) == [4, 3, 32, 32]
    assert next(iter(found.model.graph.outputs[0].shape or ())) == 4
    assert found.shapes["image"][0] == Range(4, 4)


def test_a_range_leaves_a_dimension_free() -> None:
    made = small.model("g (float[n,3] x) => (float[m,3] y) { y = Relu (x) }")
    found = canonicalise(small.graph(made), {"x": (Range(1, 8), Range(3, 3))})
    shape = list(found.model.graph.inputs[0].shape or ())
    assert not isinstance(shape[0], int)
    assert found.shapes["x"] == (Range(1, 8), Range(3, 3))


@pytest.mark.parametrize(
    ("shapes", "message", "hint"),
    [
        ({"z": (Range(1, 1),)}, "--shape z: the model has no such input", "its inputs are x"),
        ({"w": (Range(3, 3),)}, "--shape w: the model has no such input", "its inputs are x"),
        ({"x": (Range(1, 1),)}, "--shape x: 1 dimensions given, the model has 2", "shape is nx3"),
        (
            {"x": (Range(1, 1), Range(4, 4))},
            "--shape x: dimension 1 is 3 in the model",
            "a fixed dimension cannot change",
        ),
    ],
)
def test_a_shape_that_does_not_fit(
    shapes: dict[str, tuple[Range, ...]], message: str, hint: str
) -> None:
    made = small.model(
        "g (float[n,3] x) => (float[n,3] y) { y = Mul (x, w) }", w=np.float32([1, 2, 3])
    )
    with pytest.raises(InputError) as caught:
        canonicalise(small.graph(made), shapes)
    assert caught.value.message == message
    assert hint in caught.value.hint


def test_a_rewrite_that_cannot_cope_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(made: ir.Model) -> int:
        made.graph[0].name = "half done"
        raise ir.passes.PassError("outer") from TypeError("unhashable")

    rules = (Rule("fold-nothing", "a -> a", fail), RULES["sum-to-add"])
    monkeypatch.setattr("edgec.canonicalise.CANONICAL", rules)
    found = small.canonical(small.model("g (float[2] x) => (float[2] y) { [s] y = Sum (x, x) }"))
    assert found.rewrites == (
        Rewrite("fold-nothing", 0, "TypeError unhashable"),
        Rewrite("sum-to-add", 1),
    )
    assert [(node.op_type, node.name) for node in found.model.graph] == [("Add", "s/add")]


def test_an_error_that_a_rewrite_means_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: ir.Model) -> int:
        raise UnsupportedError("opset", hint="export again")

    monkeypatch.setattr("edgec.canonicalise.CANONICAL", (Rule("r", "a -> a", refuse),))
    with pytest.raises(UnsupportedError, match="opset"):
        small.canonical(small.model("g (float[2] x) => (float[2] y) { y = Relu (x) }"))


def test_canonicalise_leaves_logging_of_others_alone() -> None:
    before = logging.getLogger().level
    small.canonical(small.model("g (float[2] x) => (float[2] y) { y = Relu (x) }"))
    assert logging.getLogger().level == before


def test_what_changes_in_a_body_alone_counts() -> None:
    """Else nothing would be proven of it."""
    made = small.model(
        """g (bool c, float[2,3] x) => (float[2,3] z) {
             z = If (c) <then_branch = t () => (float[2,3] t) { a = Add (w, w) t = Mul (x, a) },
                         else_branch = e () => (float[2,3] e) { e = Neg (x) }>
           }""",
        w=small.normal(1, 3),
    )
    found = small.canonical(made)
    assert {one.rule: one.count for one in found.rewrites}["fold-constants"] > 0
