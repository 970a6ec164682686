"""Canonical rewrites: one file each, applied in this order to every model, for every target.

A rule is a module with a `NAME`, a docstring that is its equation, and `apply(model) -> int`,
which edits the model in place and returns how often it did so. A rule keeps the name of every
value that survives it, since names are the canonical ids that statistics are keyed by. `WHOLE`
marks a rule that cannot leave single nodes as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import onnx_ir as ir

from edgec.rules import (
    affine,
    attention_keys,
    attention_past,
    batch_norm,
    casts,
    channel_affine,
    clamps,
    constant_of_shape,
    constants,
    einsum,
    embed_layer_norm,
    functions,
    fused_conv,
    fused_gelu,
    fused_products,
    gelu,
    group_norm,
    group_norm_silu,
    hard_swish,
    identity,
    instance_norm,
    kernel_references,
    known_sizes,
    layer_norm,
    mish,
    nan_guards,
    narrowed,
    opset,
    packed_attention,
    quantized_tables,
    quantized_weights,
    rms_norm,
    skip_layer_norm,
    sums,
    swish,
    types,
)


@dataclass(frozen=True)
class Rule:
    """A named rewrite."""

    name: str
    equation: str
    apply: Callable[[ir.Model], int]
    whole: bool = False


def _rule(module: ModuleType) -> Rule:
    whole = getattr(module, "WHOLE", False)
    return Rule(module.NAME, (module.__doc__ or "").strip(), module.apply, whole)


CANONICAL = tuple(
    _rule(module)
    for module in (
        functions,
        opset,
        kernel_references,
        constant_of_shape,
        constants,
        known_sizes,
        narrowed,
        casts,
        quantized_weights,
        quantized_tables,
        packed_attention,
        attention_past,
        embed_layer_norm,
        skip_layer_norm,
        fused_gelu,
        fused_products,
        fused_conv,
        einsum,
        group_norm,
        instance_norm,
        layer_norm,
        rms_norm,
        clamps,
        swish,
        mish,
        hard_swish,
        nan_guards,
        sums,
        batch_norm,
        affine,
        channel_affine,
        gelu,
        attention_keys,
        identity,
        types,
        group_norm_silu,
    )
)
