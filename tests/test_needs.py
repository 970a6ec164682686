"""What calibration watches at first is what any plan of the build asks for."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import small

from edgec.assign import assign, decide
from edgec.needs import needs, union
from edgec.partition import partition
from edgec.placement import place
from edgec.target import load_target, stacks
from edgec.types import Override, Placement, Policy, Scheme

MOST = 60  # plans that are tried of a target


def plans(name: str, target: str, stack: str) -> list[Placement]:
    """Every part on every runtime and every step of its ladder, mixed."""
    found, row = small.fixture(name), load_target(target, stack)
    parts, asked = partition(found), []
    runtimes = [one.name for one in row.runtimes]
    for homes in itertools.product(runtimes, repeat=len(parts)):
        routes = {part.name: home for part, home in zip(parts, homes, strict=True)}
        plan = assign(found, parts, Policy(), row, data=True, routes=routes)
        ladders = [(plan.schemes[p.name], *plan.ladders[p.name]) for p in parts]
        for steps in itertools.islice(itertools.product(*ladders), MOST // len(runtimes)):
            schemes = {part.name: step for part, step in zip(parts, steps, strict=True)}
            tried = decide(found, replace(plan, schemes=schemes), Policy(), row, data=True)
            homes_used = set(tried.runtimes.values())
            asked.append(
                union(
                    place(found.model, tried.decisions, runtime)
                    for runtime in row.runtimes
                    if runtime.name in homes_used
                )
            )
    return asked


@pytest.mark.parametrize("name", ["clip_torchscript", "siamese", "vit", "convnext_like"])
@pytest.mark.parametrize("target", ["x86-vnni", "aarch64-dotprod"])
def test_no_plan_asks_for_more(name: str, target: str) -> None:
    found = small.fixture(name)
    for stack in stacks(target):
        row = load_target(target, stack)
        known = needs(found, partition(found), Policy(), row)
        tried = plans(name, target, stack)
        assert len(tried) > 1
        for asked in tried:
            assert asked.values <= known.values
            assert asked.means <= known.means
            assert asked.extents <= known.extents
        assert union(tried).means  # they do ask for something


def test_a_policy_of_float_needs_nothing() -> None:
    found = small.fixture("clip_torchscript")
    policy = Policy(parts=(Override("*", Scheme.FLOAT32, None, None),))
    known = needs(found, partition(found), policy, small.target("x86-vnni"))
    assert (known.values, known.means, known.extents) == (frozenset(),) * 3
