"""A part that is too large for an engine is cut where little crosses, and loses nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import small

from edgec.assign import assign
from edgec.fit import fit, room
from edgec.graphs import extract
from edgec.join import join
from edgec.partition import partition
from edgec.types import Bounds, Graph, Hardware, Policy

# Wide, narrow, wide, narrow: the halves meet where there are 8 numbers, not 64.
CHAIN = """g (float[2,16] x) => (float[2,16] y, float[2,64] c) {
  [m1] a = MatMul (x, w1)
  b = Relu (a)
  [m2] c = MatMul (b, w2)
  d = Relu (c)
  [m3] e = MatMul (d, w3)
  f = Tanh (e)
  [m4] h = MatMul (f, w4)
  k = Relu (h)
  [m5] y = MatMul (k, w5)
}"""
WEIGHTS = {"w1": (16, 64), "w2": (64, 64), "w3": (64, 8), "w4": (8, 64), "w5": (64, 16)}


def chain() -> Graph:
    made = {name: small.normal(i, *shape) / 8 for i, (name, shape) in enumerate(WEIGHTS.items())}
    return small.canonical(small.model(CHAIN, **made))


def test_the_cut_falls_where_the_fewest_bytes_cross() -> None:
    found = chain()
    (whole,) = partition(found)
    pieces = fit(found, [whole], 26_000)
    assert [piece.name for piece in pieces] == [f"{whole.name}_part1", f"{whole.name}_part2"]
    first, second = pieces
    assert "m3" in first.nodes
    assert "m4" in second.nodes
    assert len(second.inputs) == 1
    assert set(first.outputs) == {*second.inputs, "c"}
    assert second.outputs == ("y",)
    assert first.reason == f"piece 1 of 2, for the memory of an engine: {whole.reason}"
    assert {piece.kind for piece in pieces} == {whole.kind}
    assert sum(piece.macs for piece in pieces) == whole.macs


def test_what_fits_stays_whole() -> None:
    found = chain()
    parts = partition(found)
    assert fit(found, parts, 0) == parts
    assert fit(found, parts, parts[0].weight_bytes) == parts


@pytest.mark.parametrize("most", [1, 5_000, 17_000, 20_000, 28_000])
def test_pieces_fit_and_equal_the_whole(most: int) -> None:
    found = chain()
    pieces = fit(found, partition(found), most)
    sizes = {node.name: 4 * int(np.prod(WEIGHTS[f"w{node.name[1]}"])) for node in _products(found)}
    for piece in pieces:
        heavy = [node for node in piece.nodes if node in sizes]
        assert piece.weight_bytes <= most or len(heavy) == 1
    feeds = {"x": small.normal(5, 2, 16)}
    known = dict(feeds)
    for piece in pieces:
        known.update(small.run(extract(found.model, piece.inputs, piece.outputs), known))
    for name, array in small.run(found.model, feeds).items():
        assert known[name].tobytes() == array.tobytes()


def _products(found: Graph) -> list:
    return [node for node in found.model.graph if node.op_type in ("MatMul", "Gemm")]


def test_towers_are_cut_in_the_order_of_their_graph() -> None:
    found = small.fixture("clip_torchscript")
    parts = fit(found, small.parts("clip_torchscript"), 24_100)
    names = [part.name for part in parts]
    assert names[0] == "vision"
    assert [name for name in names if name.startswith("text")][:2] == ["text_part1", "text_part2"]
    members = [node for part in parts for node in part.nodes]
    assert len(members) == len(set(members))


def test_engines_hold_no_more_than_their_memory() -> None:
    found, target = chain(), small.target("x86-vnni")
    bounds = Bounds(engine_bytes=26_000)
    limited = replace(target, runtimes=tuple(replace(r, limits=bounds) for r in target.runtimes))
    parts = fit(found, partition(found), 26_000)
    plan = assign(found, parts, Policy(), limited, data=False)
    engines = join(found, plan, limited)
    assert [engine.parts for engine in engines] == [(part.name,) for part in parts]
    free = assign(found, parts, Policy(), target, data=False)
    assert len(join(found, free, target)) == 1


def test_half_of_the_memory_is_for_an_engine() -> None:
    target = small.target("x86-vnni")
    (runtime,) = target.runtimes
    memory = Hardware("memory", {"gb": 8}, {}, "a test", "measured")
    board = replace(target, hardware={"memory": memory})
    assert room(runtime, board) == 4_000_000_000
    assert room(replace(runtime, limits=Bounds(engine_bytes=5)), board) == 5
    assert room(runtime, replace(target, hardware={})) == 0
