"""Multiply-accumulates per node, as polynomials of the dimensions that the model leaves open.

An operator costs what its definition in the ONNX specification multiplies: products of matrices,
convolutions, recurrences and attention. Additions alone, pooling, activations and normalisation do
not count, as in the literature (ResNet-50 at 224x224: 4.09 G). What cannot be known, because
inference found no shape, is said and never counted as nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add, mul

import onnx_ir as ir

from edgec.graphs import attribute, constant, subgraphs

Monomial = tuple[str, ...]  # symbolic dimensions, sorted; () is a plain number


@dataclass(frozen=True)
class Amount:
    """A sum of products, such as 12 * batch * tokens^2 + 7; whole numbers, exact.

    `terms`: the factor of each product of dimensions; none: zero.
    """

    terms: Mapping[Monomial, int] = field(default_factory=dict)

    def __add__(self, other: Amount) -> Amount:
        terms = dict(self.terms)
        for symbols, factor in other.terms.items():
            terms[symbols] = terms.get(symbols, 0) + factor
        return Amount({symbols: factor for symbols, factor in terms.items() if factor})

    def __mul__(self, other: Amount) -> Amount:
        terms: dict[Monomial, int] = {}
        for one, a in self.terms.items():
            for two, b in other.terms.items():
                symbols = tuple(sorted((*one, *two)))
                terms[symbols] = terms.get(symbols, 0) + a * b
        return Amount({symbols: factor for symbols, factor in terms.items() if factor})

    def __bool__(self) -> bool:
        return bool(self.terms)

    @property
    def symbols(self) -> frozenset[str]:
        """The dimensions that it depends on."""
        return frozenset(symbol for symbols in self.terms for symbol in symbols)

    def at(self, sizes: Mapping[str, int]) -> int:
        """Its value where each symbol has a size. Raises KeyError where one has none."""
        return sum(
            reduce(mul, (sizes[symbol] for symbol in symbols), factor)
            for symbols, factor in self.terms.items()
        )

    @property
    def per_unit(self) -> int:
        """Its value where every open dimension is 1."""
        return sum(self.terms.values())

    def text(self, show: Callable[[int], str] = str) -> str:
        """For people: `4.09 G * N`; the largest powers first."""
        if not self.terms:
            return show(0)
        ordered = sorted(self.terms.items(), key=lambda term: (-len(term[0]), term[0]))
        return " + ".join(" * ".join([show(factor), *symbols]) for symbols, factor in ordered)


ONE = Amount({(): 1})
REPEATED = "repetitions of "  # a loop whose count only a run can tell
Dims = list[Amount]
Counter = Callable[[ir.Node], Amount | None]  # None: a shape is not known


def number(value: int) -> Amount:
    """A plain number."""
    return Amount({(): value} if value else {})


def product(amounts: Sequence[Amount]) -> Amount:
    """All of them multiplied; 1 where there are none."""
    return reduce(mul, amounts, ONE)


def dims(value: ir.Value | None) -> Dims | None:
    """The dimensions of a value, or None where one of them has neither a size nor a name."""
    if value is None or value.shape is None:
        return None
    found: Dims = []
    for dim in value.shape:
        if isinstance(dim, int):
            found.append(number(dim))
        elif dim.value is None:
            return None
        else:
            found.append(Amount({(str(dim.value),): 1}))
    return found


def macs(node: ir.Node) -> Amount | None:
    """The multiply-accumulates of a node for one run; None where they cannot be known."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    counter = COUNTERS.get((domain, node.op_type))
    try:
        return Amount() if counter is None else counter(node)
    except (IndexError, ValueError):  # fewer inputs or dimensions than the operator wants
        return None


def total(nodes: Sequence[ir.Node]) -> tuple[Amount, tuple[str, ...]]:
    """The sum over nodes, and the names of those whose work is not known."""
    found, unknown = Amount(), []
    for node in nodes:
        one = macs(node)
        if one is None:
            unknown.append(str(node.name))
        else:
            found += one
    return found, tuple(unknown)


def _input(node: ir.Node, index: int) -> Dims | None:
    return dims(node.inputs[index]) if index < len(node.inputs) else None


def _convolution(weight: int) -> Counter:
    """Conv: every element of the output is a sum over a weight [M, C / group, kernel…]."""

    def count(node: ir.Node) -> Amount | None:
        w, y = _input(node, weight), dims(node.outputs[0])
        return None if w is None or y is None else product([*y, *w[1:]])

    return count


def _transposed(node: ir.Node) -> Amount | None:
    """ConvTranspose: every element of the input meets a weight [C, M / group, kernel…]."""
    x, w = _input(node, 0), _input(node, 1)
    return None if w is None or x is None else product([*x, *w[1:]])


def _matrices(a: int) -> Counter:
    """A product of matrices [..., M, K] x [..., K, N], broadcast over what stands before."""

    def count(node: ir.Node) -> Amount | None:
        left, y = _input(node, a), dims(node.outputs[0])
        return None if left is None or y is None else product([*y, left[-1]])

    return count


def _gemm(node: ir.Node) -> Amount | None:
    a, y = _input(node, 0), dims(node.outputs[0])
    if a is None or y is None:
        return None
    return product([*y, a[0 if attribute(node, "transA", 0) else 1]])


def _nbits(node: ir.Node) -> Amount | None:
    """MatMulNBits: the weight is packed, and its sizes are attributes."""
    y, inner = dims(node.outputs[0]), attribute(node, "K", 0)
    return None if y is None or not inner else product([*y, number(inner)])


def _recurrent(node: ir.Node) -> Amount | None:
    """LSTM, GRU, RNN: both weights, for every step [T, B, I] of every sample."""
    x, w, r = (_input(node, index) for index in range(3))
    if x is None or w is None or r is None:
        return None
    return product(x[:2]) * (product(w) + product(r))


def _attention(node: ir.Node) -> Amount | None:
    """Attention (opset 23): scores Q K^T, then their product with V; projections are not in it.

    Inputs are [B, heads, L, d] or [B, L, heads * d]; a past lengthens keys and values.
    """
    q, k, v = (_input(node, index) for index in range(3))
    if q is None or k is None or v is None:
        return None
    heads = q[1]
    if len(q) == 3:
        queries, keys = (attribute(node, f"{which}_num_heads", 0) for which in ("q", "kv"))
        heads, length = number(queries), q[1]
        wide = _divided(q[2], queries), _divided(v[2], keys)
        known = k[1]
    else:
        length, wide, known = q[2], (q[3], v[3]), k[2]
    past = _input(node, 4)
    if past is not None:
        known = known + past[2]
    if wide[0] is None or wide[1] is None:
        return None
    return product([q[0], heads, length, known]) * (wide[0] + wide[1])


def _divided(amount: Amount, by: int) -> Amount | None:
    if not by or any(factor % by for factor in amount.terms.values()):
        return None
    return Amount({symbols: factor // by for symbols, factor in amount.terms.items()})


def _microsoft_attention(node: ir.Node) -> Amount | None:
    """com.microsoft Attention: x [B, L, D] times W [D, 3 * H], then scores and their product."""
    x, w, y = _input(node, 0), _input(node, 1), dims(node.outputs[0])
    if x is None or w is None or y is None:
        return None
    return product([*x, w[1]]) + product([x[0], x[1], x[1], y[2], number(2)])


def _multi_head(node: ir.Node) -> Amount | None:
    """com.microsoft MultiHeadAttention: q [B, L, D], k [B, S, D], v [B, S, E]."""
    q, k, v = (_input(node, index) for index in range(3))
    if q is None or k is None or v is None or {len(q), len(k), len(v)} != {3}:
        return None
    return product([q[0], q[1], k[1]]) * (q[2] + v[2])


def _einsum(node: ir.Node) -> Amount | None:
    """Einsum: one product for every combination of indices; a single operand multiplies nothing."""
    equation = node.attributes["equation"].as_string().replace(" ", "")
    terms = equation.partition("->")[0].split(",")
    if len(terms) < 2:
        return Amount()
    sizes: dict[str, Amount] = {}
    for index, term in enumerate(terms):
        own = _input(node, index)
        if own is None:
            return None
        before, dots, after = term.partition("...")
        labels = [*before, *(f"…{i}" for i in range(len(own) - len(before) - len(after))), *after]
        if not dots and len(own) != len(before):
            return None
        for label, size in zip(labels, own, strict=True):
            if label not in sizes or sizes[label] == ONE:
                sizes[label] = size
    return product(list(sizes.values())) * number(len(terms) - 1)


def _if(node: ir.Node) -> Amount | None:
    """If: the branch that costs more."""
    branches = [total(list(graph)) for graph in subgraphs(node)]
    if any(unknown for _, unknown in branches):
        return None
    return max((found for found, _ in branches), key=lambda one: one.per_unit, default=Amount())


def _loop(node: ir.Node) -> Amount | None:
    """Loop: its body, as often as it says; where only a run can tell, per repetition."""
    found = _inside(node)
    if not found:
        return found
    trips = constant(node.inputs[0]) if node.inputs else None
    if trips is None or trips.size != 1:
        return found * Amount({(f"{REPEATED}{node.name}",): 1})
    return found * number(max(int(trips.reshape(-1)[0]), 0))


def _scan(node: ir.Node) -> Amount | None:
    """Scan: its body, for every element along the first axis of what it scans."""
    found, scanned = _inside(node), attribute(node, "num_scan_inputs", 1)
    if not found:
        return found
    axes = node.attributes.get("scan_input_axes")
    x = _input(node, len(node.inputs) - scanned)
    return None if x is None else found * x[axes.as_ints()[0] if axes is not None else 0]


def _inside(node: ir.Node) -> Amount | None:
    each = [total(list(graph)) for graph in subgraphs(node)]
    if any(unknown for _, unknown in each):
        return None
    return reduce(add, (found for found, _ in each), Amount())


COUNTERS: Mapping[tuple[str, str], Counter] = {
    ("", "Conv"): _convolution(1),
    ("", "DeformConv"): _convolution(1),
    ("", "ConvInteger"): _convolution(1),
    ("", "QLinearConv"): _convolution(3),
    ("", "ConvTranspose"): _transposed,
    ("", "MatMul"): _matrices(0),
    ("", "MatMulInteger"): _matrices(0),
    ("", "QLinearMatMul"): _matrices(0),
    ("", "Gemm"): _gemm,
    ("", "LSTM"): _recurrent,
    ("", "GRU"): _recurrent,
    ("", "RNN"): _recurrent,
    ("", "Attention"): _attention,
    ("", "Einsum"): _einsum,
    ("", "If"): _if,
    ("", "Loop"): _loop,
    ("", "Scan"): _scan,
    ("com.microsoft", "FusedConv"): _convolution(1),
    ("com.microsoft", "FusedMatMul"): _matrices(0),
    ("com.microsoft", "FusedGemm"): _gemm,
    ("com.microsoft", "QGemm"): _gemm,
    ("com.microsoft", "MatMulNBits"): _nbits,
    ("com.microsoft", "MatMulIntegerToFloat"): _matrices(0),
    ("com.microsoft", "DynamicQuantizeMatMul"): _matrices(0),
    ("com.microsoft", "Attention"): _microsoft_attention,
    ("com.microsoft", "MultiHeadAttention"): _multi_head,
}
