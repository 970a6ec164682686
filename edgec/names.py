"""Nodes keep the names that users know them by, through rewrites that make new nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from edgec.graphs import WEIGHTED

INVENTED = re.compile(r"node_(\w+_)?\d+")  # what onnx_ir calls a node that has no name


@dataclass(frozen=True)
class Made:
    """What made a value: the node's name, whether it had weights, and the value it read first."""

    name: str
    weighted: bool
    source: str


def snapshot(model: ir.Model) -> dict[str, Made]:
    """How each value of a graph is made."""
    return {
        str(value.name): Made(
            name=node.name or "",
            weighted=node.op_type in WEIGHTED,
            source=str(node.inputs[0].name) if node.inputs and node.inputs[0] is not None else "",
        )
        for node in model.graph
        for value in node.outputs
    }


def keep(model: ir.Model, before: Mapping[str, Made]) -> None:
    """Give a node that a rewrite made the name of the one that it stands for.

    Of several nodes that became one, that is the one with the weight, else the last.
    """
    known = {made.name for made in before.values()}
    taken = {node.name for node in model.graph}
    for node in model.graph:
        if (node.name and node.name in known) or not INVENTED.fullmatch(node.name or "node_0"):
            continue
        gone: list[Made] = []
        value = str(node.outputs[0].name)
        while value in before and before[value].name not in taken:
            gone.append(before[value])
            value = gone[-1].source
        found = next((made for made in gone if made.weighted), gone[0] if gone else None)
        if found is not None and found.name:
            node.name = found.name
            taken.add(found.name)
