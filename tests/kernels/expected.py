"""What the shipped custom ops compute, in numpy, and the inputs that they are tried on.

Written after the papers, not after the references: loops where these are the plain form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One node: its inputs and attributes."""

    label: str
    feeds: Feeds
    attributes: Mapping[str, int | float]


@dataclass(frozen=True)
class Expected:
    """An op: its outputs, and cases, the odd ones among them. `tolerance`: of the largest number,
    reference against numpy; that of a native kernel stands in its kernel.toml.
    """

    compute: Callable[..., list[np.ndarray]]
    cases: Callable[[np.random.Generator], Iterator[Case]]
    tolerance: float


def group_norm_silu(
    x: np.ndarray, scale: np.ndarray, bias: np.ndarray, *, num_groups: int, epsilon: float = 1e-5
) -> list[np.ndarray]:
    wide = x.astype(np.float64)
    rows = wide.reshape(x.shape[0], num_groups, -1)
    mean, variance = rows.mean(-1, keepdims=True), rows.var(-1, keepdims=True)
    normal = ((rows - mean) / np.sqrt(variance + epsilon)).reshape(x.shape)
    column = (-1,) + (1,) * (x.ndim - 2)
    v = normal * scale.reshape(column) + bias.reshape(column)
    return [(v / (1 + np.exp(-v))).astype(np.float32)]


def _norms(random: np.random.Generator) -> Iterator[Case]:
    shapes = [
        ((1, 1, 1), 1),
        ((1, 2, 1, 1), 1),
        ((2, 6, 5, 7), 3),
        ((3, 8, 13), 8),
        ((1, 32, 17, 19), 32),
        ((2, 10, 3, 5, 7), 5),
        ((1, 64, 33, 31), 8),
        ((5, 4, 2, 129), 1),
    ]
    for shape, groups in shapes:
        scale, bias = (random.normal(0, 2, shape[1]).astype(np.float32) for _ in range(2))
        x = random.normal(1, 3, shape).astype(np.float32)
        feeds = {"x": x, "scale": scale, "bias": bias}
        yield Case(f"{shape} in {groups}", feeds, {"num_groups": groups, "epsilon": 1e-5})
    one = {"scale": np.ones(4, np.float32), "bias": np.zeros(4, np.float32)}
    far = {"x": (1000 + random.normal(0, 1, (1, 4, 8, 8))).astype(np.float32), **one}
    yield Case("far from zero", far, {"num_groups": 2, "epsilon": 1e-5})
    flat = {"x": np.full((1, 4, 3, 3), 7, np.float32), **one}
    yield Case("all alike", flat, {"num_groups": 2, "epsilon": 1e-3})
    loud = {**one, "x": random.normal(0, 1, (1, 4, 9, 9)).astype(np.float32)}
    loud["scale"] = np.array([90, -90, 1e3, 0], np.float32)
    yield Case("saturated gates", loud, {"num_groups": 4, "epsilon": 1e-5})


def deformable_attention(
    value: np.ndarray,
    spatial_shapes: np.ndarray,
    level_start_index: np.ndarray,
    sampling_locations: np.ndarray,
    attention_weights: np.ndarray,
) -> list[np.ndarray]:
    n, _, heads, depth = value.shape
    queries, levels, points = sampling_locations.shape[1], *sampling_locations.shape[3:5]
    made = np.zeros((n, queries, heads, depth))
    where = np.ndindex(n, queries, heads, levels, points)
    for one, query, head, level, point in where:
        height, width = spatial_shapes[level]
        first = level_start_index[level]
        grid = value[one, first : first + height * width, head].reshape(height, width, depth)
        u, v = sampling_locations[one, query, head, level, point]
        x, y = np.float32(u * np.float32(width)) - 0.5, np.float32(v * np.float32(height)) - 0.5
        weight = attention_weights[one, query, head, level, point]
        for column in (int(np.floor(x)), int(np.floor(x)) + 1):
            for row in (int(np.floor(y)), int(np.floor(y)) + 1):
                if 0 <= column < width and 0 <= row < height:
                    near = (1 - abs(x - column)) * (1 - abs(y - row))
                    made[one, query, head] += weight * near * grid[row, column]
    return [made.reshape(n, queries, heads * depth).astype(np.float32)]


def _attentions(random: np.random.Generator) -> Iterator[Case]:
    grids = [
        ([(1, 1)], 1, 1, 1, 1, 1),
        ([(3, 5)], 2, 3, 2, 4, 4),
        ([(4, 4), (2, 2)], 1, 7, 4, 8, 2),
        ([(13, 17), (7, 9), (1, 3)], 1, 11, 2, 5, 3),
        ([(2, 31), (31, 2)], 3, 1, 1, 32, 4),
    ]
    for sizes, n, queries, heads, depth, points in grids:
        shapes = np.array(sizes, np.int64)
        areas = shapes.prod(1)
        outer = (n, queries, heads, len(sizes), points)
        feeds = {
            "value": random.normal(0, 1, (n, areas.sum(), heads, depth)).astype(np.float32),
            "spatial_shapes": shapes,
            "level_start_index": np.concatenate([[0], np.cumsum(areas)[:-1]]).astype(np.int64),
            "sampling_locations": random.uniform(-0.3, 1.3, (*outer, 2)).astype(np.float32),
            "attention_weights": random.uniform(0, 1, outer).astype(np.float32),
        }
        yield Case(f"{sizes}, {queries} queries", feeds, {})
    edge = dict(feeds)
    edge["sampling_locations"] = random.choice(
        [0.0, 0.25, 0.5, 1.0], edge["sampling_locations"].shape
    ).astype(np.float32)
    yield Case("on the edges", edge, {})


def squareplus(x: np.ndarray, *, b: float = 4.0) -> list[np.ndarray]:
    wide = x.astype(np.float64)
    return [((wide + np.sqrt(wide * wide + b)) / 2).astype(np.float32)]


def _ramps(random: np.random.Generator) -> Iterator[Case]:
    for shape in [(), (1,), (7,), (3, 5), (2, 3, 4, 5, 6), (1, 65537), (4, 0, 2)]:
        x = random.normal(0, 5, shape).astype(np.float32)
        yield Case(str(shape), {"x": np.asarray(x)}, {"b": float(random.uniform(0, 9))})


OPS: Mapping[str, Expected] = {
    "edgec.kernels::GroupNormSilu": Expected(group_norm_silu, _norms, 1e-4),
    "edgec.kernels::MultiScaleDeformableAttention": Expected(
        deformable_attention, _attentions, 1e-5
    ),
    "edgec.kernels::Squareplus": Expected(squareplus, _ramps, 1e-6),
}
