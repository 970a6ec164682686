"""How nodes of custom ops, and the functions that are their references, are known in a graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir

MARK = "edgec.kernel"  # in the metadata of a node: op and digest; of a function: what it is about
STAYS = "edgec.kernel.stays"  # of a function whose nodes are not written out for every runtime
PLAIN = "edgec.kernel.plain"  # of a node that a rewrite made: what it stands for, for its lineage
FUSES = "edgec.kernel.fuses"  # of a model: the ops that rewrites may make nodes of


def mark(node: ir.Node, key: str, digest: str) -> None:
    """Say in a node's metadata what computes it."""
    node.metadata_props[MARK] = f"{key} {digest}"


def op(node: ir.Node) -> str:
    """The custom op of a node, domain::name; empty where it is none."""
    return node.metadata_props.get(MARK, "").partition(" ")[0]


def references(model: ir.Model) -> list[ir.Function]:
    """The functions that are references, and not the model's own."""
    return [one for one in model.functions.values() if MARK in one.metadata_props]


def fuses(model: ir.Model, key: str) -> bool:
    """Whether a rewrite may make nodes of an op: some runtime has a kernel for it."""
    return key in model.metadata_props.get(FUSES, "").split()


@contextmanager
def aside(model: ir.Model) -> Iterator[None]:
    """The model meanwhile has no references: passes would inline them, or not convert them."""
    found = references(model)
    for one in found:
        del model.functions[one.identifier()]
    yield
    for one in found:
        model.functions[one.identifier()] = one
