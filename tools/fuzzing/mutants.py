"""A mutant is a base, a seed and a number: the same three give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import edit_models
import edit_nodes
import edit_values
import onnx
from corpus import SHARES
from edits import EDITS
from google.protobuf.message import DecodeError, EncodeError

FAMILIES = (edit_nodes, edit_values, edit_models)
# In this order, whatever the order of imports: it is part of what a seed means.
NAMES = [name for one in FAMILIES for name in EDITS if EDITS[name].__module__ == one.__name__]
DAMAGED = 0.12  # the share of mutants whose bytes are spoilt, most of which are no protobuf then
STEPS = (1, 1, 1, 2, 2, 3, 5)
ATTEMPTS = 6


@dataclass(frozen=True)
class Mutant:
    """`recipe`: the edits that were applied, by name; "damage" is one of the bytes."""

    number: int
    base: str
    recipe: tuple[str, ...]
    data: bytes


def make(
    bases: Mapping[str, Mapping[str, bytes]],
    seed: int,
    number: int,
    keep: Sequence[int] | None = None,
) -> Mutant:
    """The mutant `number` of `seed`. `keep`: of its steps, these alone; None keeps all.

    Every step has a random source of its own, so that leaving one out does not change the others.
    """
    rng = Random(f"{seed}/{number}")
    kind = rng.choices(list(SHARES), list(SHARES.values()))[0]
    base = rng.choice(list(bases[kind]))
    data = bases[kind][base]
    steps = rng.choice(STEPS)
    spoilt = rng.random() < DAMAGED
    names = [rng.choice(NAMES) for _ in range(steps * ATTEMPTS)]
    recipe: list[str] = []
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:
        model, spoilt = onnx.ModelProto(), True
    else:
        for step in range(steps):
            if keep is not None and step not in keep:
                continue
            for attempt in range(ATTEMPTS):
                name = names[step * ATTEMPTS + attempt]
                if EDITS[name](model, Random(f"{seed}/{number}/{step}/{attempt}")):
                    recipe.append(name)
                    break
        try:
            data = model.SerializeToString(deterministic=True)
        except (EncodeError, ValueError):  # nested too deeply to be written
            recipe.append("not written")
    if spoilt and (keep is None or -1 in keep):
        data = edit_models.damage(data, Random(f"{seed}/{number}/damage"))
        recipe.append("damage")
    return Mutant(number, f"{kind}/{base}", tuple(recipe), data)


def parses(data: bytes) -> bool:
    """Whether the bytes are still a protobuf of a model with a graph."""
    try:
        return onnx.ModelProto.FromString(data).HasField("graph")
    except DecodeError:
        return False
