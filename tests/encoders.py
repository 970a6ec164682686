"""Small text encoders with a mask, honoured or not, and captions for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import small

VOCABULARY, WIDTH = 32, 8
PAD = 3  # what fills captions, so that a pad of 0 would show

_HEAD = "encoder (int64[n, t] ids, int64[n, t] mask) => "
_BODY = """
    e = Gather (table, ids)
    q = MatMul (e, weight)
    k = Transpose <perm = [0, 2, 1]> (e)
    s = MatMul (q, k)
    m = Cast <to = 1> (mask)
    free = Sub (one, m)
    gap = Mul (free, penalty)
    row = Unsqueeze (gap, axis1)
    scores = Add (s, row)
    p = Softmax <axis = -1> (scores)
    hidden = MatMul (p, e)
    column = Unsqueeze (m, axis2)
    kept = Mul (hidden, column)
    total = ReduceSum <keepdims = 0> (kept, axis1)
    count = ReduceSum <keepdims = 1> (m, axis1)
"""
MEAN = "pooled = Div (total, count)"
BLIND = "pooled = ReduceMean <axes = [1], keepdims = 0> (hidden)"
FIXED = """
    flat = Reshape (kept, fixed)
    summed = ReduceSum <keepdims = 0> (flat, axis1)
    pooled = Div (summed, count)
"""


def encoder(
    pooled: str = MEAN,
    outputs: str = f"(float[n, {WIDTH}] pooled)",
    penalty: float = -10000.0,
    more: str = "",
) -> ir.Model:
    """Attention and pooling; `pooled` says how, `penalty` is what excluded positions get."""
    text = _HEAD + outputs + " {" + _BODY + pooled + more + "}"
    return small.model(
        text,
        table=small.normal(1, VOCABULARY, WIDTH, spread=0.5),
        weight=small.normal(2, WIDTH, WIDTH, spread=0.5),
        penalty=np.float32(penalty),
        one=np.float32(1),
        axis1=np.array([1]),
        axis2=np.array([2]),
        fixed=np.array([-1, 24, WIDTH]),
    )


def captions(lengths: list[int], columns: int, seed: int = 0) -> dict[str, np.ndarray]:
    """One row for each length, padded to `columns` with PAD."""
    rng = np.random.default_rng(seed)
    mask = (np.arange(columns) < np.array(lengths)[:, None]).astype(np.int64)
    ids = np.where(mask == 1, rng.integers(4, VOCABULARY, mask.shape), PAD)
    return {"ids": ids, "mask": mask}


def write_captions(folder: Path, lengths: list[int], columns: int = 24) -> Path:
    """One file with one caption for each length; `columns` 0: unpadded."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, length in enumerate(lengths):
        arrays = captions([length], columns or length, number)
        np.savez(folder / f"{number:03}.npz", **arrays)  # type: ignore[arg-type]
    return folder
