"""A finding, made small: fewer steps of its recipe, then fewer nodes, weights, ends and texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from mutants import Mutant, make

Run = Callable[[Mutant], dict[str, Any]]
REPEATED = ("node", "initializer", "value_info", "output", "input", "sparse_initializer")


def minimise(
    bases: Mapping[str, Mapping[str, bytes]],
    seed: int,
    mutant: Mutant,
    result: Mapping[str, Any],
    run: Run,
) -> Mutant:
    """The smallest mutant that was found with the same kind of finding at the same place."""

    def same(one: Mutant) -> bool:
        found = run(one)
        return all(found.get(key) == result.get(key) for key in ("finding", "where", "stage"))

    steps = [-1, *range(len(mutant.recipe))]
    for step in list(steps):
        fewer = [one for one in steps if one != step]
        attempt = make(bases, seed, mutant.number, fewer)
        if same(attempt):
            steps, mutant = fewer, attempt
    try:
        model = onnx.ModelProto.FromString(mutant.data)
    except DecodeError:
        return mutant
    changed = True
    while changed:
        changed = False
        for holder, field in [(m, f) for m in _holders(model) for f in _fields(m)]:
            items = getattr(holder, field)
            size = max(len(items) // 2, 1)
            while size and len(items):
                index = 0
                while index < len(items):
                    before = model.SerializeToString()
                    kept = [type(items[0])(), *items][1:]
                    del items[index : index + size]
                    if same(replace(mutant, data=model.SerializeToString())):
                        changed = True
                    else:
                        del items[:]
                        items.extend(kept)
                        assert model.SerializeToString() == before
                        index += size
                size //= 2
    return replace(mutant, data=model.SerializeToString(deterministic=True))


def _holders(model: onnx.ModelProto) -> list[Any]:
    return [model, model.graph, *model.functions]


def _fields(message: Any) -> list[str]:
    names = (*REPEATED, "functions", "metadata_props", "opset_import")
    return [
        name
        for name in names
        if name in message.DESCRIPTOR.fields_by_name
        and message.DESCRIPTOR.fields_by_name[name].message_type is not None
    ]
