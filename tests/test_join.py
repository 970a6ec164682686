"""Parts of one home share an engine wherever the order allows it."""

from __future__ import annotations

from itertools import groupby, permutations

import pytest

from edgec.errors import UnsupportedError
from edgec.join import Home, _ordered
from edgec.types import Kind, Modality, Part, Scheme

A: Home = ("a", Scheme.FLOAT32)
B: Home = ("b", Scheme.FLOAT32)
C: Home = ("c", Scheme.FLOAT32)


def part(name: str, *needs: str) -> Part:
    """A part that makes the value of its own name."""
    return Part(name, Kind.MLP, Modality.UNKNOWN, needs, (name,), (), 0, 0, "")


def runs(parts: list[Part], homes: dict[str, Home]) -> list[Home]:
    """The homes of the engines, after a check that each finds its inputs made."""
    found = _ordered(parts, homes)
    made: set[str] = set()
    for one in found:
        assert set(one.inputs) <= made | {"x"}
        made |= set(one.outputs)
    assert len(made) == len(parts)
    return [home for home, _ in groupby(homes[one.name] for one in found)]


def test_a_head_shares_an_engine_with_the_tower_of_its_home() -> None:
    """Taken as they come, vision before text, there would be three."""
    parts = [part("vision", "x"), part("text", "x"), part("fusion", "vision", "text")]
    assert runs(parts, {"vision": A, "text": B, "fusion": A}) == [B, A]
    assert runs(parts, {"vision": B, "text": A, "fusion": A}) == [B, A]
    assert runs(parts, {"vision": A, "text": B, "fusion": C}) == [A, B, C]
    assert runs(parts, {"vision": A, "text": A, "fusion": A}) == [A]


def fewest(parts: list[Part], homes: dict[str, Home]) -> int:
    """Over all orders that are possible."""
    least = len(parts)
    for order in permutations(parts):
        made = {"x"}
        for one in order:
            if not set(one.inputs) <= made:
                break
            made |= set(one.outputs)
        else:
            least = min(least, len(list(groupby(homes[one.name] for one in order))))
    return least


@pytest.mark.parametrize("seed", range(20))
def test_no_order_has_fewer_engines(seed: int) -> None:
    import random

    draw = random.Random(seed)
    names = "pqrstu"
    parts = [
        part(name, "x", *draw.sample(names[:index], draw.randint(0, min(index, 2))))
        for index, name in enumerate(names)
    ]
    homes = {name: draw.choice([A, B, C]) for name in names}
    assert len(runs(parts, homes)) == fewest(parts, homes)


def test_parts_that_need_each_other_are_named() -> None:
    parts = [part("p", "x"), part("q", "p", "r"), part("r", "q")]
    with pytest.raises(UnsupportedError, match="the parts q, r need each other's shapes"):
        _ordered(parts, {"p": A, "q": B, "r": A})
