"""Where towers end: at the head that picks from what they found, at the decoder that reads them.

All sets of nodes here can be cut off: nothing that stays reads what goes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx_ir as ir

from edgec.graphs import inner
from edgec.groups import LAYOUT, Groups, Label
from edgec.kinds import looks_up, weighted
from edgec.narrow import Needs, bytes_of, narrowest

SELECTIONS = frozenset({"NonMaxSuppression"})
MOVES = LAYOUT | {"Concat", "Flatten", "Split", "Slice"}
Readers = Mapping[ir.Node, Sequence[ir.Node]]


def head(order: Sequence[ir.Node], needs: Needs, read_by: Readers) -> set[ir.Node]:
    """What selects boxes, and what it alone reads or that reads it: coordinates, not features.

    It begins behind the last products with weights, where the fewest values cross.
    """
    found: set[ir.Node] = set()
    for node in order:
        if any(one.op_type in SELECTIONS for one in inner(node)) or any(
            value.producer() in found for value in needs[node]
        ):
            found.add(node)
    if not found:
        return found
    moved = []
    for node in reversed(order):
        readers = read_by.get(node, ())
        if node not in found and readers and not weighted(node) and found.issuperset(readers):
            found.add(node)
            moved.append(node)
    # what only moves numbers may stay, behind nothing but the like
    free: list[ir.Node] = []
    for node in reversed(moved):
        made_here = [one for v in needs[node] if (one := v.producer()) in found]
        if node.op_type in MOVES and all(one in free for one in made_here):
            free.append(node)
    if not free:
        return found
    rest = found - set(free)
    return rest | narrowest(free, rest, needs, most=True)


def leaks(
    nodes: Sequence[ir.Node], go: Collection[ir.Node], needs: Needs, read_by: Readers
) -> set[ir.Node]:
    """The end of a tower that belongs behind the cut: fewer values cross before it.

    Keys and values of a cross-attention depend on one tower alone and are none of it: one product
    deep, many of them read one value. So is what needs a shape from behind the cut.
    """
    inside, depth = set(nodes), dict[ir.Node, int]()
    for node in reversed(nodes):
        deepest = max((depth.get(one, 0) for one in read_by.get(node, ())), default=0)
        depth[node] = deepest + weighted(node)
    free = [node for node in nodes if depth[node] <= 1]
    moved = narrowest(free, go, needs, most=False)
    if not moved:
        return moved
    forced = any(v.producer() in go for node in moved for v in needs[node])
    before = _crossing(go, inside, needs)
    after = _crossing({*go, *moved}, inside - moved, needs)
    fewer = len(after) < len(before) and _bytes(after) <= _bytes(before)
    return moved if forced or fewer else set()


def _crossing(
    go: Collection[ir.Node], stay: Collection[ir.Node], needs: Needs
) -> dict[ir.Value, None]:
    """What the one side reads and does not make: of the other side's, or of the graph's inputs."""
    return {
        value: None
        for node in go
        for value in needs[node]
        if value.producer() in stay or value.producer() is None
    }


def _bytes(values: Collection[ir.Value]) -> int:
    return sum(bytes_of(value) for value in values)


def decoder(
    model: ir.Model,
    groups: Groups,
    texts: Mapping[Label, Sequence[ir.Node]],
    fusion: Sequence[ir.Node],
) -> Label | None:
    """Of towers that look at tokens, the one that goes on as a decoder in the fusion.

    A decoder carries keys and values that grow from step to step, or gives a score for every row of
    the table that its tokens are looked up in. An encoder of text beside it has more products.
    """
    if not texts:
        return None
    caches = groups.caches
    own = {label: len(caches.intersection(groups.values(label))) for label in texts}
    products = {label: sum(map(weighted, nodes)) for label, nodes in texts.items()}
    found = min(texts, key=lambda label: (-own[label], products[label]))
    carried = any(value in caches for node in (*texts[found], *fusion) for value in node.inputs)
    joined = set(fusion)
    answers = [value for value in model.graph.outputs if value.producer() in joined]
    return found if carried or _speaks(answers, texts[found], groups) else None


def _speaks(answers: Sequence[ir.Value], nodes: Sequence[ir.Node], groups: Groups) -> bool:
    """Whether an answer has a number for each row of a table that the nodes look tokens up in."""
    sizes = set()
    for node in filter(looks_up, nodes):
        table, index = node.inputs[0], node.inputs[1]
        maker = None if index is None else index.producer()
        if table is not None and table.shape is not None and (maker is None or groups.data[maker]):
            sizes.add(table.shape[0])
    return any(
        value.shape is not None and len(value.shape) > 1 and value.shape[-1] in sizes
        for value in answers
        if value.dtype is not None and value.dtype.is_floating_point()
    )
