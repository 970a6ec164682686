"""How weights are rounded: to nearest, or to what calibration data prefers where it is known."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from edgec.graphs import weight
from edgec.moments import Moments, Stored, divided, mean, shrunk
from edgec.quantize.weights import (
    FULL,
    REDUCED,
    Quantized,
    channel_axis,
    quantize_weight,
    under_taps,
)
from edgec.recover import gptq
from edgec.types import Grid, Statistics

NONE: Moments = MappingProxyType({})


class Rounding:
    """Rounds the weights of a model's nodes; made before any of them is rewritten."""

    def __init__(
        self, model: ir.Model, moments: Moments, nodes: frozenset[str], grid: Grid
    ) -> None:
        """`nodes`: those of `moments` that are rounded by them."""
        self._moments, self._nodes, self._grid = moments, nodes, grid
        self._sharing: dict[tuple[str, int], list[str]] = {}  # nodes by weight and its axis
        for node in model.graph if nodes else ():
            value = weight(node)
            if value is not None and node.name in nodes:
                key = str(value.name), channel_axis(node)
                self._sharing.setdefault(key, []).append(str(node.name))

    def __call__(
        self,
        node: ir.Node,
        array: np.ndarray,
        axis: int,
        *,
        least: np.ndarray | None = None,
        factors: np.ndarray | None = None,
        corrected: bool = False,
    ) -> Quantized:
        """Quantize `array`, the weight of `node`, whose input was divided by `factors` [G, K].

        `axis`, `least`: see `quantize_weight`. `corrected`: a bias takes up what the error adds on
        average, so that the rest of it alone counts.
        """
        quantized = quantize_weight(array, axis, self._grid, least)
        if node.name not in self._nodes:
            return quantized
        most = REDUCED if self._grid.reduce_range else FULL
        own = self._moments[str(node.name)]
        moments = [self._moments[name] for name in self._readers(str(node.name), factors)]
        moments = [one for one in moments if one.shape == own.shape]
        digest = hashlib.sha256(f"{array.shape} {axis} {most} {corrected}".encode())
        for part in (array, quantized.scale, np.zeros(0) if factors is None else factors):
            digest.update(np.ascontiguousarray(part).data)
        for one in moments:
            digest.update(_identity(one))

        def compute() -> np.ndarray:
            found = [shrunk(divided(one, factors), centred=corrected) for one in moments]
            moment = found[0] if len(found) == 1 else np.sum(found, axis=0)
            return gptq.laid_out(array, axis, quantized.scale, most, moment)

        return replace(quantized, data=self._remembered(digest.hexdigest(), compute))

    def mean(self, node: ir.Node, size: int, statistics: Statistics) -> np.ndarray | None:
        """E[x] [G, K] of what the weight of a node is multiplied by, where known; `size`: K."""
        if node.name in self._nodes:
            return mean(self._moments[str(node.name)])
        seen = statistics.values.get(str(node.inputs[0].name))  # type: ignore[union-attr]
        known = None if seen is None else seen.channel_mean
        return None if known is None else under_taps(node, known, size)

    def _readers(self, name: str, factors: np.ndarray | None) -> list[str]:
        """The nodes whose inputs a weight is rounded for: all that share it, in one order.

        Where its input is scaled, other readers have other factors, and so another weight.
        """
        sharing = next((names for names in self._sharing.values() if name in names), [name])
        return [name] if factors is not None else sharing

    def _remembered(self, digest: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """A rounded weight by its hash: one build needs the same ones many times."""
        if not isinstance(self._moments, Stored):
            return compute()
        path = self._moments.rounded / f"{digest}.npy"
        if not path.exists():
            partial = path.with_suffix(".partial.npy")
            np.save(partial, compute())
            partial.replace(path)
        return np.asarray(np.load(path))


def _identity(moment: np.ndarray) -> bytes:
    """What tells one moment from another: its file, which is written once, or its content."""
    if isinstance(moment, np.memmap):
        return str(moment.filename).encode()
    return np.ascontiguousarray(moment).tobytes()
