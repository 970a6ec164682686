"""Rewrites are proven on the model's own samples; a wrong one is switched off where it is wrong."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import small

from edgec import prove as stage
from edgec.build import Job, build
from edgec.canonicalise import canonicalise
from edgec.load import load
from edgec.prove import Judge, canonical, lowering, prove
from edgec.rules import CANONICAL, Rule
from edgec.runtime import Bundle, npz
from edgec.types import Graph, Runtime

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
    judge = partial(Judge, path, samples, 1, folder)
    return prove(graph, canonical(lambda: loaded, {}), judge, lambda _: None)


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

    line = canonical(lambda: graph, {})
    assert prove(graph, line, never, lambda _: None) is graph


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


# Lowering, by the same proof

LACKING = """g (float[2,4] x) => (float[2,4] y) {
  [a] a = Swish (x) [b] b = Sin (a) [c] y = Swish <alpha = 0.5> (b)
}"""


def proven_lowering(made: ir.Model, runtime: Runtime, folder: Path) -> Graph:
    path = small.save(made, folder / "model.onnx")
    graph = canonicalise(load(path), {})
    npz.write(folder / "0.npz", {"x": small.normal(0, 2, 4)})
    judge = partial(Judge, path, [folder / "0.npz"], 1, folder)
    line = lowering(graph, runtime)
    return prove(line.make((), None), line, judge, lambda _: None)


def older(opset: int) -> Runtime:
    return replace(small.runtime("generic"), max_opset=opset, tolerates=0)


def test_lowering_has_its_evidence(tmp_path: Path) -> None:
    found = proven_lowering(small.model(LACKING, 24), older(21), tmp_path)
    assert [(one.rule, one.count) for one in found.rewrites] == [
        ("write-out", 2),
        ("sink-opset", 1),
    ]
    assert all("the outputs of 1 samples are " in one.evidence for one in found.rewrites)
    assert small.ops(found.model).count("Sigmoid") == 2


def test_nothing_is_lowered_where_a_runtime_takes_all(tmp_path: Path) -> None:
    found = proven_lowering(small.model(CHAIN), small.runtime("generic"), tmp_path)
    assert found.rewrites == ()


def spoilt(monkeypatch: pytest.MonkeyPatch, alpha: float) -> None:
    """Bodies of Swish with this alpha come out wrong."""
    from edgec import lower as stage

    honest = stage.expand

    def expand(node: ir.Node) -> None:
        found = node.attributes.get("alpha")
        if (1.0 if found is None else found.as_float()) == alpha:
            node.attributes["alpha"] = ir.AttrFloat32("alpha", -alpha)
        honest(node)

    monkeypatch.setattr("edgec.lower.expand", expand)


def test_a_wrong_lowering_is_switched_off_at_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt(monkeypatch, 0.5)
    takes_both = replace(small.runtime("generic"), unsupported={"Swish": "a test"})
    found = proven_lowering(small.model(LACKING, 24), takes_both, tmp_path)
    (one,) = found.rewrites
    assert (one.rule, one.count, one.nodes) == ("write-out", 1, ("c",))
    assert "outputs differ" in one.failure
    assert "the outputs of 1 samples are " in one.evidence
    assert small.ops(found.model).count("Swish") == 1  # what is left as it was


def test_a_build_proves_what_it_lowers(tmp_path: Path) -> None:
    path = small.save(small.model(LACKING, 24), tmp_path / "model.onnx")
    job = Job(path, target="generic", output=tmp_path / "m.edgec", measure=False)
    report = build(replace(job, backend="onnxruntime"))
    with Bundle(report.bundle) as bundle:
        rewrites = bundle.manifest["rewrites"]
    (one,) = [one for one in rewrites if one["rule"] == "write-out"]
    assert one["runtime"] == "onnxruntime"
    assert one["count"] == 2
    assert "all rewrites together" in one["evidence"]
