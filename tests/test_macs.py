"""Multiply-accumulates against figures worked out by hand, and two networks that all know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import small

from edgec.canonicalise import canonicalise
from edgec.load import load
from edgec.macs import Amount, macs, number, product, total

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def work(text: str, opset: int = 17, more: str = "", **weights: np.ndarray) -> Amount:
    """The work of a graph as canonicalise leaves it, which must be known."""
    found, unknown = total(
        list(small.canonical(small.model(text, opset, more, **weights)).model.graph)
    )
    assert unknown == ()
    return found


CONV = "g (float[n, 8, 20, 30] x) => (float[n, c, h, w] y) {{ y = Conv <{0}> (x, w) }}"


@pytest.mark.parametrize(
    ("attributes", "shape", "expected"),
    [
        ("pads = [1, 1, 1, 1]", (16, 8, 3, 3), 20 * 30 * 16 * 8 * 9),
        ("strides = [2, 2], pads = [1, 1, 1, 1]", (16, 8, 3, 3), 10 * 15 * 16 * 8 * 9),
        ("group = 8, pads = [1, 1, 1, 1]", (8, 1, 3, 3), 20 * 30 * 8 * 9),
        ("group = 4", (12, 2, 1, 1), 20 * 30 * 12 * 2),
        ("dilations = [2, 2]", (16, 8, 3, 3), 16 * 26 * 16 * 8 * 9),
    ],
)
def test_conv(attributes: str, shape: tuple[int, ...], expected: int) -> None:
    assert work(CONV.format(attributes), w=ones(*shape)) == Amount({("n",): expected})


def test_conv_transpose_counts_by_its_input() -> None:
    text = """g (float[1, 8, 5, 5] x) => (float[1, 4, 10, 10] y)
        { y = ConvTranspose <strides = [2, 2], group = 2> (x, w) }"""
    assert work(text, w=ones(8, 2, 2, 2)) == number(8 * 5 * 5 * 2 * 2 * 2)


def test_products_of_matrices() -> None:
    fixed = "g (float[b, t, 32] x) => (float[b, t, 64] y) { y = MatMul (x, w) }"
    assert work(fixed, w=ones(32, 64)) == Amount({("b", "t"): 32 * 64})
    free = """g (float[b, 4, t, 8] q, float[b, 4, 8, t] k) => (float[b, 4, t, t] s)
        { s = MatMul (q, k) }"""
    assert work(free) == Amount({("b", "t", "t"): 4 * 8})
    spread = (
        "g (float[7, 1, 5, 3] a, float[2, 3, 4] b) => (float[7, 2, 5, 4] y) { y = MatMul (a, b) }"
    )
    assert work(spread) == number(7 * 2 * 5 * 4 * 3)
    vector = "g (float[9] a, float[9, 4] b) => (float[4] y) { y = MatMul (a, b) }"
    assert work(vector) == number(36)


@pytest.mark.parametrize("turned", [0, 1])
def test_gemm(turned: int) -> None:
    shape = "10, n" if turned else "n, 10"
    text = f"""g (float[{shape}] x) => (float[n, 6] y)
        {{ y = Gemm <transA = {turned}, transB = 1> (x, w, c) }}"""
    assert work(text, w=ones(6, 10), c=ones(6)) == Amount({("n",): 60})


def test_recurrent() -> None:
    text = (
        "g (float[t, b, 8] x) => (float[t, 2, b, 16] y) "
        '{ y = LSTM <hidden_size = 16, direction = "bidirectional"> (x, w, r) }'
    )
    made = work(text, w=ones(2, 64, 8), r=ones(2, 64, 16))
    assert made == Amount({("b", "t"): 2 * 64 * (8 + 16)})


def test_attention_with_and_without_a_past() -> None:
    """4 query heads of 8 on 2 heads of keys: scores and their product, of 8 and 8."""
    text = """g (float[b, s, 32] q, float[b, s, 16] k, float[b, s, 16] v) => (float[b, s, 32] y)
        { y = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v) }"""
    (node,) = small.model(text, opset=23).graph
    assert macs(node) == Amount({("b", "s", "s"): 4 * (8 + 8)})
    text = """g (float[1, 4, 1, 8] q, float[1, 4, 1, 8] k, float[1, 4, 1, 8] v,
               float[1, 4, 9, 8] pk, float[1, 4, 9, 8] pv)
        => (float[1, 4, 1, 8] y, float[1, 4, 10, 8] nk, float[1, 4, 10, 8] nv)
        { y, nk, nv = Attention (q, k, v, , pk, pv) }"""
    (node,) = small.model(text, opset=23).graph
    assert macs(node) == number(4 * 10 * (8 + 8))


def test_microsoft_attention() -> None:
    more = ', "com.microsoft" : 1'
    text = """g (float[b, t, 16] x) => (float[b, t, 16] y)
        { y = com.microsoft.Attention <num_heads = 2> (x, w, c) }"""
    (node,) = small.model(text, 17, more, w=ones(16, 48), c=ones(48)).graph
    assert macs(node) == Amount({("b", "t"): 16 * 48, ("b", "t", "t"): 2 * 16})
    text = """g (float[b, t, 64] x, uint8[8, 2, 16] w, float[16] s) => (float[b, t, 8] y)
        { y = com.microsoft.MatMulNBits <K = 64, N = 8, bits = 4, block_size = 32> (x, w, s) }"""
    (node,) = small.model(text, 17, more).graph
    assert macs(node) == Amount({("b", "t"): 64 * 8})


def test_einsum_multiplies_every_combination() -> None:
    text = """g (float[b, 5, 6] x, float[6, 7] z) => (float[b, 5, 7] y)
        { y = Einsum <equation = "...ik, kj -> ...ij"> (x, z) }"""
    (node,) = small.model(text).graph
    assert macs(node) == Amount({("b",): 5 * 6 * 7})
    text = 'g (float[4, 5] x) => (float[5, 4] y) { y = Einsum <equation = "ij->ji"> (x) }'
    (node,) = small.model(text).graph
    assert macs(node) == Amount()


LOOP = """g (float[3, 4] x, {0} n) => (float[3, 4] y) {{
    go = Constant <value = bool {{1}}> ()
    y = Loop (n, go, x) <body = b (int64 i, bool c, float[3, 4] s) => (bool d, float[3, 4] t)
        {{ d = Identity (c) t = MatMul (s, w) }}>
}}"""


def test_a_loop_counts_as_often_as_it_runs() -> None:
    made = small.model(LOOP.format("int64"), w=ones(4, 4))
    loop = next(node for node in made.graph if node.op_type == "Loop")
    found = macs(loop)
    assert found is not None
    assert found.per_unit == 3 * 4 * 4
    assert len(found.symbols) == 1
    made.graph.inputs.pop()
    count = made.graph.initializers
    loop.replace_input_with(0, ir.Value(name="n", const_value=ir.tensor(np.array(5), name="n")))
    assert macs(loop) == number(5 * 3 * 4 * 4), count


def test_an_if_counts_its_dearer_branch() -> None:
    text = """g (bool c, float[3, 4] x) => (float[3, 4] y) {
        y = If (c) <then_branch = t () => (float[3, 4] a) { a = MatMul (x, w) },
                    else_branch = e () => (float[3, 4] b) { b = Relu (x) }>
    }"""
    made = small.model(text, w=ones(4, 4))
    assert macs(next(iter(made.graph))) == number(48)


def test_what_has_no_shape_is_unknown_and_not_nothing() -> None:
    made = small.model(
        "g (float[n, 4] x) => (float[n, 4] y) { z = Relu (x) y = MatMul (z, w) }", w=ones(4, 4)
    )
    product_node = list(made.graph)[1]
    product_node.inputs[0].shape = None
    assert macs(product_node) is None
    assert total(list(made.graph)) == (Amount(), (str(product_node.name),))


def test_amounts_add_and_multiply() -> None:
    n, t = Amount({("n",): 1}), Amount({("t",): 1})
    found = product([n, t, t]) * number(3) + n * number(2) + number(7)
    assert found.at({"n": 10, "t": 5}) == 3 * 10 * 25 + 20 + 7
    assert found.symbols == {"n", "t"}
    assert found.per_unit == 12
    assert found.text() == "3 * n * t * t + 2 * n + 7"
    assert not Amount()
    assert n + n * number(-1) == Amount()
    assert number(0) * n == Amount()


def test_resnet_50() -> None:
    """4.09 G at 224 x 224, as the literature has it."""
    found, unknown = total(list(canonicalise(load(LIGHT / "light_resnet50.onnx"), {}).model.graph))
    assert unknown == ()
    assert found == number(4_089_184_256)


LAYER = """
    q{0} = MatMul (h{0}, wide) k{0} = MatMul (h{0}, wide) v{0} = MatMul (h{0}, wide)
    qh{0} = Reshape (q{0}, heads) kh{0} = Reshape (k{0}, heads) vh{0} = Reshape (v{0}, heads)
    qt{0} = Transpose <perm = [0, 2, 1, 3]> (qh{0}) vt{0} = Transpose <perm = [0, 2, 1, 3]> (vh{0})
    kt{0} = Transpose <perm = [0, 2, 3, 1]> (kh{0})
    s{0} = MatMul (qt{0}, kt{0}) p{0} = Softmax <axis = -1> (s{0}) c{0} = MatMul (p{0}, vt{0})
    ct{0} = Transpose <perm = [0, 2, 1, 3]> (c{0}) cf{0} = Reshape (ct{0}, flat)
    o{0} = MatMul (cf{0}, wide) r{0} = Add (o{0}, h{0})
    u{0} = MatMul (r{0}, up) g{0} = Relu (u{0}) d{0} = MatMul (g{0}, down) h{1} = Add (d{0}, r{0})
"""


def test_minilm() -> None:
    """all-MiniLM-L6-v2: 6 layers of width 384, 12 heads, 1536 between.

    A token: 6 x (4 x 384^2 + 2 x 384 x 1536) = 10,616,832; a pair of tokens: 6 x 2 x 384 = 4,608.
    At 128 tokens 1.43 G.
    """
    body = "".join(LAYER.format(layer, layer + 1) for layer in range(6))
    text = f"g (float[batch, tokens, 384] h0) => (float[batch, tokens, 384] h6) {{ {body} }}"
    found = work(
        text,
        wide=ones(384, 384),
        up=ones(384, 1536),
        down=ones(1536, 384),
        heads=np.array([0, 0, 12, 32]),
        flat=np.array([0, 0, 384]),
    )
    assert found == Amount({("batch", "tokens"): 10_616_832, ("batch", "tokens", "tokens"): 4_608})
    assert found.at({"batch": 1, "tokens": 128}) == 1_434_451_968
