"""Rewrites are proven on the model's own samples; a wrong one is switched off where it is wrong."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import small

from edgec import prove as stage
from edgec.build import Job, build
from edgec.canonicalise import canonicalise
from edgec.inputs import inputs
from edgec.load import load
from edgec.prove import Judge, prove
from edgec.rules import CANONICAL, Rule
from edgec.runtime import Bundle, npz
from edgec.types import Graph

CHAIN = """g (float[2,4] x) => (float[2,4] y) {
  [a] a = Abs (x) [b] b = Sigmoid (a) [c] c = Abs (b) [d] d = Sin (c) [e] y = Abs (d)
}"""
CANONICAL_ADD = "g (float[2,4] x) => (float[2,4] y) { [s] s = Sum (x, x, x) y = Relu (s) }"


def wrong_at(*names: str) -> Rule:
    """Abs(x) -> Relu(x), right where x is positive, as it is in CHAIN; at `names`: Exp(x)."""

    def apply(model: ir.Model) -> int:
        count = 0
        for node in list(model.graph):
            if node.op_type != "Abs":
                continue
            new = ir.node("Exp" if node.name in names else "Relu", node.inputs, name=node.name)
            if node.name not in names and node.inputs[0].is_graph_input():  # Relu is Abs from 0 on
                new = ir.node("Max", [node.inputs[0], node.inputs[0]], name=node.name)
            out, old = new.outputs[0], node.outputs[0]
            name, out.type, out.shape = old.name, old.type, old.shape
            node.prepend(new)
            ir.convenience.replace_all_uses_with(old, out, replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
            out.name = name
            count += 1
        return count

    return Rule("wrong-abs", "Abs(x) -> Relu(x)", apply)


def proven(made: ir.Model, folder: Path, rules: tuple[Rule, ...] | None = None) -> Graph:
    """The stage on positive samples, so that Relu and Max are right in the place of Abs."""
    path = small.save(made, folder / "model.onnx")
    loaded = load(path)
    graph = canonicalise(loaded, {}, rules=rules)
    samples = []
    for index in range(2):
        samples.append(folder / f"{index}.npz")
        npz.write(samples[-1], {"x": np.abs(small.normal(index, 2, 4)) + 0.1})
    judge = partial(Judge, path, samples, inputs(graph), 1, folder)
    return prove(graph, judge, lambda: loaded, lambda _: None)


def test_all_rewrites_have_their_evidence(tmp_path: Path) -> None:
    found = proven(small.model(CANONICAL_ADD), tmp_path)
    assert [one.rule for one in found.rewrites] == ["sum-to-add"]
    assert found.rewrites[0].evidence == (
        "the outputs of 2 samples are the same bit by bit, all rewrites together"
    )


def test_nothing_is_run_where_nothing_was_rewritten(tmp_path: Path) -> None:
    graph = small.canonical(small.model("g (float[2] x) => (float[2] y) { [r] y = Relu (x) }"))

    def never() -> Judge:
        pytest.fail("nothing is to be judged")

    assert prove(graph, never, lambda: graph, lambda _: None) is graph


def test_a_wrong_rule_is_switched_off_at_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = (*CANONICAL[:8], wrong_at("c"), *CANONICAL[8:])
    monkeypatch.setattr("edgec.canonicalise.CANONICAL", rules)
    found = proven(small.model(CHAIN), tmp_path)
    rewrite = next(one for one in found.rewrites if one.rule == "wrong-abs")
    assert rewrite.nodes == ("c",)
    assert rewrite.count == 2  # it still serves the other places
    assert rewrite.failure == (
        "outputs differ by 1e0 of their largest number, where 1e-4 is allowed"
    )
    assert "bit by bit" in rewrite.evidence
    assert small.ops(found.model) == ["Max", "Sigmoid", "Abs", "Sin", "Relu"]


def test_a_rule_that_is_wrong_everywhere_is_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = (*CANONICAL, wrong_at("a", "c", "e"))
    monkeypatch.setattr("edgec.canonicalise.CANONICAL", rules)
    found = proven(small.model(CHAIN), tmp_path)
    rewrite = next(one for one in found.rewrites if one.rule == "wrong-abs")
    assert (rewrite.nodes, rewrite.count, rewrite.evidence) == ((), 0, "")
    assert small.ops(found.model) == ["Abs", "Sigmoid", "Abs", "Sin", "Abs"]


def test_a_rule_whose_graph_does_not_run_is_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(model: ir.Model) -> int:
        for node in model.graph:
            if node.op_type == "Sin":
                node.attributes["no_such"] = ir.AttrInt64("no_such", 1)
                return 1
        return 0

    monkeypatch.setattr(
        "edgec.canonicalise.CANONICAL", (*CANONICAL, Rule("spoil", "a -> a", spoil, whole=True))
    )
    found = proven(small.model(CHAIN), tmp_path)
    (rewrite,) = found.rewrites
    assert rewrite.rule == "spoil"
    assert "no_such" in rewrite.failure


def test_two_wrong_rules_are_both_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def minus(model: ir.Model) -> int:
        for node in model.graph:
            if node.op_type == "Sin":
                node.op_type = "Cos"
                return 1
        return 0

    rules = (*CANONICAL[:3], wrong_at("e"), *CANONICAL[3:], Rule("cos", "Sin -> Cos", minus))
    monkeypatch.setattr("edgec.canonicalise.CANONICAL", rules)
    found = proven(small.model(CHAIN), tmp_path)
    by_name = {one.rule: one for one in found.rewrites}
    assert by_name["wrong-abs"].nodes == ("e",)
    assert by_name["cos"].failure
    assert small.ops(found.model) == ["Max", "Sigmoid", "Relu", "Sin", "Abs"]


def test_what_is_random_is_not_proven_and_says_so(tmp_path: Path) -> None:
    made = small.model(
        "g (float[2,4] x) => (float[2,4] y) { r = RandomNormalLike (x) y = Sum (x, r) }"
    )
    found = proven(made, tmp_path)
    assert [one.rule for one in found.rewrites if one.count] == ["sum-to-add"]
    evidence = found.rewrites[0].evidence
    assert evidence.startswith("not proven") or "within" in evidence


def test_where_the_source_does_not_run_nothing_is_proven(tmp_path: Path) -> None:
    made = small.model(
        "g (float[2,4] x) => (float[m,k] y) { s = Sum (x, x) y = Reshape (s, t) }",
        t=np.array([3, 3]),
    )
    found = proven(made, tmp_path)
    assert [one.rule for one in found.rewrites] == ["sum-to-add"]
    assert found.rewrites[0].evidence.startswith("not proven: the source: ")


@pytest.mark.parametrize(
    ("found", "distance"),
    [
        (np.float32([1, 2, np.nan]), 0.0),
        (np.float32([1, 2.2, np.nan]), 0.1),
        (np.float32([1, 2, 3]), np.inf),
        (np.float32([[1, 2, np.nan]]), np.inf),
        (np.float64([1, 2, np.nan]), np.inf),
    ],
    ids=["equal", "a tenth", "a number for NaN", "another shape", "another type"],
)
def test_the_distance(found: np.ndarray, distance: float) -> None:
    expected = [{"y": np.float32([1, 2, np.nan])}]
    assert stage.distance(expected, [{"y": found}]) == pytest.approx(distance)
    assert stage.distance([{"y": np.array([1, 2])}], [{"y": np.array([1, 3])}]) == 0.5


def test_the_places_of_a_rule() -> None:
    """Neighbours that changed are one place; a constant that changed counts."""
    made = small.model(
        """g (float[1,2,4,4] x) => (float[1,2,4,4] y) {
             [c] c = Conv (x, w) [m] m = Mul (c, s) [r] r = Relu (m)
             [d] d = Conv (r, w) [n] y = Mul (d, s)
           }""",
        w=small.normal(0, 2, 2, 1, 1),
        s=np.float32(2),
    )
    after = small.canonical(made).model
    places = stage._places(made, after)
    assert sorted(sorted(place) for place in places) == [["c", "m"], ["d", "n"]]


def test_a_build_tells_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgec.canonicalise.CANONICAL", (*CANONICAL, wrong_at("c")))
    path = small.save(small.model(CHAIN), tmp_path / "model.onnx")
    (tmp_path / "data").mkdir()
    for index in range(4):
        npz.write(tmp_path / f"data/{index}.npz", {"x": np.abs(small.normal(index, 2, 4)) + 0.1})
    job = Job(path, data=tmp_path / "data", output=tmp_path / "m.edgec", measure=False)
    report = build(job)
    assert all(one.sqnr_db == np.inf for one in report.checks.outputs)
    with Bundle(report.bundle) as bundle:
        page = bundle.manifest
    (rewrite,) = page["rewrites"]
    assert rewrite["nodes"] == ["c"]
    assert rewrite["evidence"]
    assert any("rewrite wrong-abs was switched off at c" in note for note in page["notes"])
