"""What a model must be before any stage may trust it; each refusal names its place and a remedy.

`check_proto` judges the file as it was parsed: texts, names, edges, functions, in every graph
inside of nodes and functions. Operators are judged in `edgec.operators`, weights in
`edgec.external`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import onnx
from google.protobuf.message import Message

from edgec.errors import EdgecError, InputError, UnsupportedError

LONGEST_NAME = 4096
# Of a tensor; its numbers, which would be copied, may be gigabytes.
TEXTS = ("name", "doc_string", "external_data", "metadata_props")
AGAIN = "run onnx.checker.check_model on it, and export it again"
DAMAGED = "the file may be truncated or changed; export or copy it again"
Body = onnx.GraphProto | onnx.FunctionProto
CALLED: Mapping[type, str] = {
    onnx.NodeProto: "node",
    onnx.ValueInfoProto: "value",
    onnx.TensorProto: "weight",
    onnx.FunctionProto: "function",
}


def check_proto(path: Path, proto: onnx.ModelProto) -> None:
    """Whether names, edges and functions make a graph that can be read. Raises InputError."""
    _check_texts(path, proto, "the model")
    if not proto.HasField("graph") or not (proto.graph.output or proto.graph.node):
        raise InputError(f"{path}: the graph has no outputs", hint=AGAIN)
    _check_functions(path, proto)
    _check_body(path, proto.graph, frozenset(), "the graph")
    for function in proto.functions:
        _check_body(path, function, frozenset(), f"function {brief(function.name)}")


def _check_texts(path: Path, message: Message, place: str) -> None:
    """Protobuf hands over text that is not UTF-8 as bytes, on which every stage would trip.

    Documentation, which is for nobody here, is left out instead.
    """
    kind = CALLED.get(type(message))
    if kind is not None and (name := getattr(message, "name", "")):
        place = f"{kind} {brief(name)}"
    if isinstance(message, onnx.TensorProto):
        _check_tensor(path, message)
        numberless = [message.DESCRIPTOR.fields_by_name.get(name) for name in TEXTS]
        fields = [(one, getattr(message, one.name)) for one in numberless if one is not None]
    else:
        fields = message.ListFields()
    for field, found in fields:
        if field.type == field.TYPE_STRING:
            for text in [found] if isinstance(found, str | bytes) else found:
                if not isinstance(text, str) and field.name == "doc_string":
                    message.ClearField(field.name)
                elif not isinstance(text, str):
                    raise InputError(
                        f"{path}: {place} has a {field.name} that is not UTF-8: {brief(text)}",
                        hint=DAMAGED,
                    )
        elif field.type == field.TYPE_MESSAGE:
            for inner in [found] if isinstance(found, Message) else found:
                _check_texts(path, inner, place)


def _check_tensor(path: Path, tensor: onnx.TensorProto) -> None:
    """No dimension is negative; where an external tensor lies is stated once, in whole numbers."""
    if any(dim < 0 for dim in tensor.dims):
        raise InputError(
            f"{path}: weight {brief(tensor.name)} is damaged: its shape is {list(tensor.dims)[:9]}",
            hint=DAMAGED,
        )
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return
    keys = [entry.key for entry in tensor.external_data]
    for entry in tensor.external_data:
        number = entry.key not in ("offset", "length") or re.fullmatch(r"[0-9]{1,30}", entry.value)
        if not number or keys.count(entry.key) > 1:
            told = f"{entry.key} {brief(entry.value)}" if not number else f"two of {entry.key}"
            raise InputError(
                f"{path}: weight {brief(tensor.name)} is damaged: its place in a file has {told}",
                hint=DAMAGED,
            )


def _check_body(path: Path, body: Body, outer: frozenset[str], where: str) -> None:
    """One graph: every value is made once, before it is read; `outer` are values around it."""
    made: dict[str, str] = {}
    is_graph = isinstance(body, onnx.GraphProto)
    inputs = [value.name for value in body.input] if is_graph else list(body.input)
    for name in inputs:
        _check_name(path, name, f"an input of {where}")
        if name in made:
            raise InputError(f"{path}: {where} has two inputs {brief(name)}", hint=AGAIN)
        made[name] = "an input"
    weights: set[str] = set()
    if is_graph:
        if body.sparse_initializer:
            name = body.sparse_initializer[0].values.name
            raise UnsupportedError(
                f"{path}: weight {brief(name)} is stored sparsely, which edgec does not read",
                hint="export it as a dense tensor",
            )
        for tensor in body.initializer:
            _check_name(path, tensor.name, f"a weight of {where}")
            if tensor.name in weights:
                raise InputError(
                    f"{path}: {where} has two weights {brief(tensor.name)}", hint=AGAIN
                )
            weights.add(tensor.name)
    makers: dict[str, onnx.NodeProto] = {}
    for node in body.node:
        if not node.output or not any(node.output):
            raise InputError(
                f"{path}: node {call(node)} has no outputs, so nothing can read it", hint=AGAIN
            )
        for name in filter(None, node.output):
            _check_name(path, name, f"an output of node {call(node)}")
            if name in made or name in makers or name in weights:
                raise InputError(
                    f"{path}: node {call(node)} makes {brief(name)}, which is already "
                    f"{made.get(name) or ('made' if name in makers else 'a weight')}",
                    hint=AGAIN,
                )
            makers[name] = node
    known = outer | made.keys() | weights | makers.keys()
    for node in body.node:
        for name in filter(None, node.input):
            if name not in known:
                raise InputError(
                    f"{path}: node {call(node)} reads {brief(name)}, which nothing produces",
                    hint=AGAIN,
                )
        for graph in graphs_in(node):
            _check_body(path, graph, known, f"a graph inside node {call(node)}")
    for output in body.output:
        name = output.name if isinstance(output, onnx.ValueInfoProto) else output
        if name not in known:
            raise InputError(
                f"{path}: {where} has the output {brief(name)}, which is never produced",
                hint=AGAIN,
            )
        if name not in made and name not in weights and name not in makers:
            raise InputError(
                f"{path}: {where} has the output {brief(name)}, a value of the graph around it",
                hint="hand it on through an Identity node inside, as ONNX wants it",
            )
    _check_cycles(path, body, makers)


def _check_cycles(path: Path, body: Body, makers: Mapping[str, onnx.NodeProto]) -> None:
    """Kahn's algorithm: what is left when all nodes that can run have run is a cycle."""
    index = {name: i for i, node in enumerate(body.node) for name in node.output if name}
    needs = [{index[name] for name in _all_reads(node) if name in index} for node in body.node]
    readers: dict[int, list[int]] = {}
    for reader, own in enumerate(needs):
        for maker in own:
            readers.setdefault(maker, []).append(reader)
    waits = [len(own) for own in needs]
    ready = [i for i, count in enumerate(waits) if not count]
    for done in ready:
        for reader in readers.get(done, ()):
            waits[reader] -= 1
            if not waits[reader]:
                ready.append(reader)
    if len(ready) == len(waits):
        return
    left = {i for i, count in enumerate(waits) if count}
    at, trail = min(left), []
    while at not in trail:
        trail.append(at)
        at = next(i for i in sorted(needs[at]) if i in left)
    ring = [call(body.node[i]) for i in reversed(trail[trail.index(at) :])]
    shown = " -> ".join([*ring[:4], *(["…"] if len(ring) > 4 else []), ring[0]])
    raise InputError(
        f"{path}: the graph contains a cycle: {shown}",
        hint="a value cannot depend on itself: export the model again, with a Loop if it repeats",
    )


def _all_reads(node: onnx.NodeProto) -> Iterator[str]:
    """The names that a node reads, those inside of its graphs too (their own ones included)."""
    yield from node.input
    for graph in graphs_in(node):
        own = {value.name for value in graph.input} | {one.name for one in graph.initializer}
        own |= {name for inner in graph.node for name in inner.output}
        yield from (value.name for value in graph.output if value.name not in own)
        for inner in graph.node:
            yield from (name for name in _all_reads(inner) if name not in own)


def graphs_in(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node holds, by whatever attribute."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def _check_functions(path: Path, proto: onnx.ModelProto) -> None:
    """No function calls itself, by whatever way; ONNX forbids it, and inlining would not end."""
    bodies: dict[tuple[str, str], onnx.FunctionProto] = {}
    for function in proto.functions:
        key = (domain(function.domain), function.name)
        if key in bodies and function.overload == bodies[key].overload:
            raise InputError(f"{path}: function {'::'.join(key)} is defined twice", hint=AGAIN)
        bodies[key] = function
    calls = {key: _called(function.node) & bodies.keys() for key, function in bodies.items()}
    done: set[tuple[str, str]] = set()
    for start in bodies:
        trail: list[tuple[str, str]] = []
        stack = [(start, 0)]
        while stack:
            key, depth = stack.pop()
            del trail[depth:]
            if key in trail:
                ring = [*trail[trail.index(key) :], key]
                raise InputError(
                    f"{path}: function {brief('::'.join(key))} calls itself: "
                    + " -> ".join(brief(name) for _, name in ring[:6]),
                    hint="ONNX functions cannot recur: write the repetition as a Loop",
                )
            if key in done:
                continue
            trail.append(key)
            stack += [(inner, depth + 1) for inner in sorted(calls[key])]
        done.update(bodies.keys() & _reachable(start, calls))


def _reachable(
    start: tuple[str, str], calls: Mapping[tuple[str, str], Iterable[tuple[str, str]]]
) -> set[tuple[str, str]]:
    found, stack = {start}, [start]
    while stack:
        fresh = [key for key in calls[stack.pop()] if key not in found]
        found.update(fresh)
        stack += fresh
    return found


def _called(nodes: Iterable[onnx.NodeProto]) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        found.add((domain(node.domain), node.op_type))
        stack += [inner for graph in graphs_in(node) for inner in graph.node]
    return found


def domain(name: str) -> str:
    """ONNX's own domain has two names."""
    return "" if name == "ai.onnx" else name


def _check_name(path: Path, name: str, what: str) -> None:
    if not name and what.startswith("a weight"):
        raise InputError(f"{path}: {what} has no name", hint=AGAIN)
    if "\0" in name or len(name) > LONGEST_NAME:
        raise InputError(
            f"{path}: {what} has a name of {len(name)} characters that no runtime takes: "
            f"{brief(name)}",
            hint="rename it, or export the model again",
        )


def first_line(error: BaseException) -> str:
    """What a library's error says, short and printable."""
    while error.__cause__ is not None and not isinstance(error, EdgecError):
        error = error.__cause__
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return printable(text)[:200]


def printable(text: str) -> str:
    """A text of the file as a terminal may show it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def call(node: onnx.NodeProto) -> str:
    """How a node is called in a message: by its name, or by what it is and makes."""
    if node.name:
        return brief(node.name)
    made = next((name for name in node.output if name), "")
    return f"{printable(node.op_type)[:99]} (makes {brief(made)})"


def brief(name: object) -> str:
    """A name in quotes, printable and not too long."""
    text = repr(name)
    return text if len(text) <= 120 else f"{text[:100]}…'"
