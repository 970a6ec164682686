"""One proof for every rewrite: the graph before and after, beside a float64 reference in numpy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import ModuleType

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common
import small

Array = np.ndarray
ROUNDING = 16 * 2.0**-24  # of the largest number: a handful of float32 operations


def named(made: ir.Model) -> ir.Model:
    """Names for all nodes and types for all values, as rules find them in a canonical graph."""
    ir.passes.common.NameFixPass()(made)
    ir.passes.common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(made)
    return made


def prove(
    made: ir.Model,
    rule: ModuleType,
    feeds: Mapping[str, Array],
    expected: Mapping[str, Array] | None = None,
    *,
    tolerance: float = ROUNDING,
    count: int = 1,
) -> Counter[str]:
    """Apply a rule to `made`; its outputs keep names, dtypes and shapes, and are close to float64.

    `expected`: the reference; None: the graph as it was is exact enough. `tolerance`: of the
    largest finite number. Returns the operators that the graph is left with.
    """
    named(made)
    before = small.run(made, feeds)
    assert rule.apply(made) == count
    after = small.run(made, feeds)
    assert list(after) == list(before)
    for name, array in after.items():
        assert array.dtype == before[name].dtype
        reference = before[name] if expected is None else expected[name]
        close(array, reference, tolerance)
        close(before[name], reference, tolerance)  # or the reference is of something else
    assert rule.apply(made) == 0, "a rule must find nothing more in what it made"
    return Counter(node.op_type for node in made.graph)


def close(found: Array, reference: Array, tolerance: float) -> None:
    """NaN and infinities in the same places, and the rest within the tolerance."""
    wide, true = found.astype(np.float64), np.asarray(reference).astype(np.float64)
    assert wide.shape == true.shape
    odd = ~np.isfinite(true)
    np.testing.assert_array_equal(wide[odd], true[odd])
    scale = np.abs(true[~odd]).max(initial=1e-30)
    assert np.abs(wide[~odd] - true[~odd]).max(initial=0) <= tolerance * scale
