"""Whether onnx's inference of types and shapes survives a model, asked of a process that may die.

It ends the process on some graphs, among them a Slice of a negative size, which is what padding or
pooling makes of a picture that is too small. It also keeps memory for each number of a vector,
however long. So a fork infers first, without the arithmetic of shapes and with it, and tells which
vectors are long (see `infer_shapes`).
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import onnx_ir as ir

from edgec.errors import InputError
from edgec.graphs import MOST_NUMBERS, every_value, hidden, infer_shapes, length
from edgec.operators import named


def check_sizes(model: ir.Model) -> None:
    """Try inference out, and state the length of long vectors in `model`.

    Raises InputError that names the node on which inference ends the process. Where there is no
    fork, as on Windows, nothing is tried.
    """
    if not hasattr(os, "fork"):
        return
    told = _try(model, ())
    if told is None:
        raise _refusal(model)
    _state(model, told["long"])


def _state(model: ir.Model, lengths: Mapping[str, int]) -> None:
    for value in every_value(model):
        size = lengths.get(str(value.name))
        if size is not None:
            value.shape = ir.Shape([size])


def _refusal(model: ir.Model) -> InputError:
    """The first node with which inference ends the process, found by bisection."""
    nodes = list(model.graph.all_nodes())
    low, high = 0, len(nodes) - 1
    while low < high:
        middle = (low + high) // 2
        if _try(model, nodes[middle + 1 :]) is None:
            high = middle
        else:
            low = middle + 1
    node, before = nodes[low], _try(model, nodes[low:])
    sizes = {} if before is None else before["negative"]
    for value in node.inputs:
        if value is not None and value.name in sizes:
            maker = value.producer()
            by = "the model's inputs are" if maker is None else f"node {named(maker)} makes"
            return InputError(
                f"node {named(node)} ({node.op_type}) reads what is {sizes[value.name]} in size, "
                f"as {by}: the model's inputs are too small for it",
                hint="give larger ones by --shape, or export the model for larger inputs",
            )
    return InputError(
        f"node {named(node)} ({node.op_type}) ends onnx's inference of shapes, and the process",
        hint="export the model again without it; run onnx.checker.check_model on it",
    )


def _try(model: ir.Model, without: Sequence[ir.Node]) -> dict[str, Any] | None:
    """What a fork finds, with some nodes hidden; None where it does not survive.

    `long` and `negative`: lengths of long vectors and shapes with a negative size, by value.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads: the fork needs none
        child = os.fork()
    if child == 0:
        _infer(model, without, writer)
    os.close(writer)
    with open(reader, "rb") as stream:
        told = stream.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) or not told:
        return None
    found: dict[str, Any] = json.loads(told)
    return found


def _infer(model: ir.Model, without: Sequence[ir.Node], writer: int) -> NoReturn:
    """In the fork: nothing that happens to the model or the process is seen outside."""
    import resource  # nowhere but where there is a fork

    found: dict[str, Any] = {"long": {}, "negative": {}}
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where a dying library writes
        faulthandler.disable()
        gc.disable()  # it would touch, and so copy, all that the process has
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with hidden(model, without):
            trial = model.clone()
            infer_shapes(trial, arithmetic=False)
            lengths = {str(one.name): length(one) for one in every_value(trial)}
            if sum(lengths.values()) > MOST_NUMBERS:
                found["long"] = {name: size for name, size in lengths.items() if size}
                _state(model, found["long"])
            infer_shapes(model)
        for value in every_value(model):
            sizes = [dim if isinstance(dim, int) else str(dim) for dim in value.shape or ()]
            if any(isinstance(size, int) and size < 0 for size in sizes):
                found["negative"][str(value.name)] = sizes
    finally:  # an error comes again outside, where it is handled
        with open(writer, "wb") as stream:
            stream.write(json.dumps(found).encode())
        os._exit(0)
