"""Canonical rewrites: one file each, applied in this order to every model, for every target.

A rule is a module with a `NAME`, a docstring that is its equation, and `apply(model) -> int`,
which edits the model in place and returns how often it did so. A rule keeps the name of every
value that survives it, since names are the canonical ids that statistics are keyed by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import onnx_ir as ir

from edgec.rules import (
    affine,
    attention_keys,
    batch_norm,
    constant_of_shape,
    constants,
    functions,
    gelu,
    identity,
    opset,
    quantized_tables,
    quantized_weights,
    sums,
    types,
)


@dataclass(frozen=True)
class Rule:
    """A named rewrite."""

    name: str
    equation: str
    apply: Callable[[ir.Model], int]


def _rule(module: ModuleType) -> Rule:
    return Rule(module.NAME, (module.__doc__ or "").strip(), module.apply)


CANONICAL = tuple(
    _rule(module)
    for module in (
        functions,
        opset,
        constant_of_shape,
        constants,
        quantized_weights,
        quantized_tables,
        sums,
        batch_norm,
        affine,
        gelu,
        attention_keys,
        identity,
        types,
    )
)
