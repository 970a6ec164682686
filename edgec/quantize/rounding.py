"""How weights are rounded: to nearest, or to what calibration data prefers where it is known."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from edgec.graphs import weight
from edgec.quantize.weights import FULL, REDUCED, Quantized, channel_axis, quantize_weight
from edgec.recover import gptq
from edgec.types import Grid

Moments = Mapping[str, np.ndarray]  # E[x x^T] [G, K, K] by the name of the node
NONE: Moments = MappingProxyType({})
KEPT_BYTES = 256 << 20  # of rounded weights that are remembered

_known: OrderedDict[bytes, np.ndarray] = OrderedDict()


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
    ) -> Quantized:
        """Quantize `array`, the weight of `node`, which `factors` [K] may have smoothed already.

        `axis`, `least`: see `quantize_weight`.
        """
        quantized = quantize_weight(array, axis, self._grid, least)
        if node.name not in self._nodes:
            return quantized
        moment = self._moment(str(node.name), factors)
        most = REDUCED if self._grid.reduce_range else FULL
        return replace(quantized, data=_rounded(array, axis, quantized.scale, most, moment))

    def _moment(self, name: str, factors: np.ndarray | None) -> np.ndarray:
        """What `name` multiplies its weight by; x / s where it is smoothed.

        A weight that several nodes share is rounded for all that they read, and stays one.
        """
        moment = self._moments[name]
        if factors is not None:  # another reader has other factors, and so another weight
            return np.asarray(moment / np.multiply.outer(factors, factors))
        sharing = next((names for names in self._sharing.values() if name in names), [name])
        all_of_them = [self._moments[one] for one in sharing]
        same = [one for one in all_of_them if one.shape == moment.shape]
        return moment if len(same) == 1 else np.sum(same, axis=0)


def _rounded(
    array: np.ndarray, axis: int, scale: np.ndarray, most: int, moment: np.ndarray
) -> np.ndarray:
    """GPTQ, remembered by content: one build quantizes the same weights many times."""
    digest = hashlib.sha256(f"{array.shape} {axis} {most}".encode())
    for part in (array, scale, moment):
        digest.update(np.ascontiguousarray(part).data)
    key = digest.digest()
    if key not in _known:
        _known[key] = gptq.laid_out(array, axis, scale, most, moment)
        while len(_known) > 1 and sum(one.nbytes for one in _known.values()) > KEPT_BYTES:
            _known.popitem(last=False)
    _known.move_to_end(key)
    return _known[key]
