"""Stages 2 and 9, proven: what rewrites make computes what the source file does, on its samples.

The canonical rewrites are proven together, by the outputs, then those that lower the result to each
runtime. Where that fails, the first rule is found after which the outputs differ (by halving the
list), then the places at which it does (by halving these); there it is switched off, for this model
alone, and the rest is proven anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgec.canonicalise import canonicalise, in_order
from edgec.errors import EmitError
from edgec.graphs import save
from edgec.isolate import call
from edgec.lower import lowered, lowerings
from edgec.reference import LEVELS, outputs
from edgec.rules import Rule
from edgec.types import Feeds, Graph, Range, Rewrite, Runtime

LIMIT = 1e-4  # of an output's largest number: other orders of float32 sums, through deep networks
HALF_LIMIT = 2e-2  # the same where anything computes in 16 bits
NOISE = 16  # times what ONNX Runtime's own optimisations change are still rounding
MOST_SAMPLES = 4
MOST_PLACES = 8  # at which a rule fails, from which on it is switched off as a whole
HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class Verdict:
    """How far outputs are from the source's, in parts of their largest number, or why none is."""

    error: float
    problem: str = ""


@dataclass(frozen=True)
class Line:
    """Rewrites in a row. `make`: the graph without those that are off, by all rules or by these."""

    rules: tuple[Rule, ...]
    make: Callable[[Sequence[Rewrite], Sequence[Rule] | None], Graph]


def canonical(source: Callable[[], Graph], shapes: Mapping[str, tuple[Range, ...]]) -> Line:
    """The line to the canonical graph; `source` gives it as it was loaded, if something fails."""
    return Line(in_order(), lambda off, rules: canonicalise(source(), shapes, off, rules))


def lowering(graph: Graph, runtime: Runtime) -> Line:
    """The line from a canonical graph to what a runtime takes."""

    def make(off: Sequence[Rewrite], rules: Sequence[Rule] | None) -> Graph:
        model, used = lowered(graph.model, runtime, off, rules)
        return replace(graph, model=model, rewrites=used)

    return Line(lowerings(runtime), make)


class Judge:
    """Runs models on a few samples and compares them with the source file."""

    def __init__(
        self,
        original: Path,
        samples: Sequence[Path],
        threads: int,
        folder: Path,
    ) -> None:
        """Raises EmitError where the source file itself does not run."""
        self._original, self._folder = original, folder
        self.samples = list(samples)
        self._threads = threads
        self._expected = self._run(original)
        self._noise: float | None = None

    def __call__(self, model: ir.Model) -> Verdict:
        """A model against the source."""
        path = self._folder / "proof.onnx"
        save(model.clone(), path)
        try:
            return Verdict(distance(self._expected, self._run(path)))
        except EmitError as error:
            return Verdict(math.inf, error.message)

    def noise(self) -> float:
        """How far the source is from itself: without optimisations, and when it runs again."""
        if self._noise is None:
            found = [self._run(self._original), self._run(self._original, LEVELS[-1:])]
            self._noise = max(distance(self._expected, one) for one in found)
        return self._noise

    def _run(self, path: Path, levels: Sequence[str] = LEVELS) -> list[Feeds]:
        found: list[Feeds] = call(outputs, path, self.samples, self._threads, levels)
        return found


def prove(
    graph: Graph, line: Line, judges: Callable[[], Judge], say: Callable[[str], None]
) -> Graph:
    """The graph that `line` made, with the evidence of its rewrites, without those that fail.

    `judges` gives the judge, where there is something to prove. Where the source file itself does
    not run, nothing is proven.
    """
    changed = [one for one in graph.rewrites if one.count]
    if not changed:
        return graph
    try:
        judge = judges()
    except EmitError as error:  # later stages say what is wrong with model or samples
        return replace(graph, rewrites=_unproven(graph.rewrites, f"the source: {error.message}"))
    limit = HALF_LIMIT if _computes_in_half(graph.model) else LIMIT
    while changed:
        verdict = judge(graph.model)
        if verdict.error > limit:
            limit = max(limit, NOISE * judge.noise())
        if verdict.error <= limit:
            return replace(graph, rewrites=_proven(graph.rewrites, verdict, judge))
        off = [one for one in graph.rewrites if one.failure]
        found = _search(line, off, judge, limit, say)
        if found is None:
            why = "the source's own outputs change from run to run"
            return replace(graph, rewrites=_unproven(graph.rewrites, why))
        say(f"rewrite {found.rule} fails on this model: {found.failure}")
        off = [one for one in off if one.rule != found.rule] + [found]
        graph = line.make(off, None)
        changed = [one for one in graph.rewrites if one.count]
    return graph


def _search(
    line: Line,
    off: Sequence[Rewrite],
    judge: Judge,
    limit: float,
    say: Callable[[str], None],
) -> Rewrite | None:
    """The first rule after which the outputs differ, and the nodes at which it is to blame.

    None: they differ before any rule.
    """
    wholly = {one.rule for one in off if not one.nodes}
    rules = [rule for rule in line.rules if rule.name not in wholly]

    def upto(count: int, more: Rewrite | None = None) -> ir.Model:
        known = [one for one in off if more is None or one.rule != more.rule]
        both = known if more is None else [*known, more]
        return line.make(both, rules[:count]).model

    low, high = 0, len(rules)
    if judge(upto(0)).error > limit:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        say(f"looking for the rewrite that fails: {rules[low].name} to {rules[high - 1].name}")
        if judge(upto(middle)).error > limit:
            high = middle
        else:
            low = middle
    rule, before, after = rules[high - 1], upto(high - 1), upto(high)
    verdict = judge(after)
    why = verdict.problem or (
        f"outputs differ by {_parts(verdict.error)} of their largest number, where "
        f"{_parts(limit)} is allowed"
    )
    earlier = next((one.nodes for one in off if one.rule == rule.name), ())
    places = [] if rule.whole else _places(before, after)

    def fails(chosen: Sequence[frozenset[str]]) -> bool:
        others = frozenset[str]().union(*(place for place in places if place not in chosen))
        left = (*earlier, *sorted(others - set(earlier)))
        if not left:
            return True
        return judge(upto(high, Rewrite(rule.name, 0, why, left))).error > limit

    guilty = _halve(places, fails)
    nodes = {*earlier, *frozenset[str]().union(*guilty)}
    if len(guilty) > MOST_PLACES or len(guilty) == len(places) or nodes == set(earlier):
        return Rewrite(rule.name, 0, why)
    return Rewrite(rule.name, 0, why, tuple(sorted(nodes)))


def _halve(
    places: Sequence[frozenset[str]], fails: Callable[[Sequence[frozenset[str]]], bool]
) -> list[frozenset[str]]:
    """The places that fail alone; of those that only fail together, all. The whole is known to."""
    if len(places) < 2:
        return list(places)
    found: list[frozenset[str]] = []
    middle = len(places) // 2
    for half in (places[:middle], places[middle:]):
        if len(found) <= MOST_PLACES and fails(half):
            found += _halve(half, fails)
    return found or list(places)


def _places(before: ir.Model, after: ir.Model) -> list[frozenset[str]]:
    """Where a rule changed a graph: names of neighbouring nodes that are gone or read otherwise."""
    left = {_signature(node) for node in after.graph}
    changed = [node for node in before.graph if _signature(node) not in left and node.name]
    groups: dict[ir.Node, set[ir.Node]] = {node: {node} for node in changed}
    for node in changed:
        for value in node.inputs:
            maker = None if value is None else value.producer()
            if maker in groups and groups[maker] is not groups[node]:
                groups[maker] |= groups[node]
                for one in groups[node]:
                    groups[one] = groups[maker]
    distinct = {id(group): group for group in groups.values()}
    return [frozenset(str(node.name) for node in group) for group in distinct.values()]


def _signature(node: ir.Node) -> tuple[object, ...]:
    """What a node is and reads; a constant by its tensor, which copies of a model share."""
    reads = tuple(
        None if v is None else (v.name, id(v.const_value) if v.const_value is not None else 0)
        for v in node.inputs
    )
    return (node.name, node.op_type, node.domain, reads, tuple(v.name for v in node.outputs))


def _computes_in_half(model: ir.Model) -> bool:
    return any(value.dtype in HALVES for node in model.graph for value in node.outputs)


def _proven(rewrites: Sequence[Rewrite], verdict: Verdict, judge: Judge) -> tuple[Rewrite, ...]:
    exact = "the same bit by bit" if verdict.error == 0 else f"within {_parts(verdict.error)}"
    text = f"the outputs of {len(judge.samples)} samples are {exact}, all rewrites together"
    return tuple(replace(one, evidence=text) if one.count else one for one in rewrites)


def _unproven(rewrites: Sequence[Rewrite], why: str) -> tuple[Rewrite, ...]:
    text = f"not proven: {why}"
    return tuple(replace(one, evidence=text) if one.count else one for one in rewrites)


def _parts(error: float) -> str:
    """An error as the power of ten above it: figures that a second run repeats."""
    if not math.isfinite(error):
        return "more than any number"
    return f"1e{math.ceil(math.log10(max(error, 1e-30)))}"


def distance(expected: Sequence[Feeds], found: Sequence[Feeds]) -> float:
    """The largest over samples and outputs; integers differ by the share that is not equal."""
    pairs = zip(expected, found, strict=True)
    return max(
        (_apart(array, other.get(name)) for one, other in pairs for name, array in one.items()),
        default=0.0,
    )


def _apart(expected: np.ndarray, found: np.ndarray | None) -> float:
    if found is None or expected.shape != found.shape or expected.dtype != found.dtype:
        return math.inf
    if expected.dtype.kind not in "fc":
        return float(np.mean(expected != found)) if expected.size else 0.0
    x, y = expected.astype(np.float64), found.astype(np.float64)
    odd = ~np.isfinite(x)
    if not np.array_equal(x[odd], y[odd], equal_nan=True):
        return math.inf
    difference = np.abs(x[~odd] - y[~odd]).max(initial=0)
    return float(difference / max(np.abs(x[~odd]).max(initial=0), 1e-30)) if difference else 0.0
