"""Round weights one input at a time; the inputs still to come make up for the error so far.

    min tr(E H E^T), E = Q - W;   H = L L^T, L lower triangular;   from the last input to the first
    q_i = round(w_i - sum_{j>i} L_ji / L_ii e_j),   e_i = q_i - w_i,   in units of the scale

Source: Frantar et al. 2022, "GPTQ", section 3. Its steps with the Cholesky factor of the inverse of
H are these (Chen et al. 2025, "The Geometry of LLM Quantization: GPTQ as Babai's Nearest Plane
Algorithm"); with the factor of H itself nothing is inverted. The scales are given, so that the
order of the inputs costs nothing at run time: the strongest go first, which is last here.
"""

from __future__ import annotations

import numpy as np

from edgec.errors import InternalError

BLOCK = 64  # inputs whose errors are carried on one by one; beyond, by one matrix product
DAMPING = (0.01, 0.1, 1.0)  # shares of the mean diagonal that are added to it, until it factors
PRECISE = 1024  # inputs up to which all is float64; beyond, products are float32 and twice as fast


def rounded(weight: np.ndarray, scale: np.ndarray, most: int, moment: np.ndarray) -> np.ndarray:
    """Integers Q, int8 [..., N, K], such that scale * Q x is close to W x for the inputs seen.

    weight: float [..., N, K]; scale: [..., N], or [] for all; moment: E[x x^T], [..., K, K];
    |Q| <= most. A row that rounding to nearest suits better, by `moment`, is rounded so, and so is
    everything where `moment` is not finite or does not factor.
    """
    *stack, outputs, inputs = weight.shape
    if moment.shape != (*stack, inputs, inputs):
        raise InternalError(f"a weight {weight.shape} has moments {moment.shape}")
    by = np.broadcast_to(scale, weight.shape[:-1])[..., None]
    nearest = np.clip(np.rint(weight / by), -most, most)
    if not nearest.size:
        return np.asarray(nearest, np.int8)
    kind = np.float64 if inputs <= PRECISE else np.float32
    moment = _usable(moment.reshape(-1, inputs, inputs))
    real = (weight / by.astype(np.float64)).reshape(-1, outputs, inputs).mT.astype(kind)
    found = _carried(real, most, moment)
    plain = nearest.reshape(-1, outputs, inputs).mT.astype(kind)
    # a^T H a - b^T H b = (a - b)^T H (a + b)
    ahead = (found + plain - 2 * real) * (moment.astype(kind) @ (found - plain))
    better = ahead.sum(axis=1, keepdims=True, dtype=np.float64) < 0
    best = np.where(better, found, plain)
    return np.asarray(best.mT.reshape(weight.shape).astype(np.int8))


def laid_out(
    weight: np.ndarray, axis: int, scale: np.ndarray, most: int, moment: np.ndarray
) -> np.ndarray:
    """The same for a weight as a node has it: int8, in the shape of `weight`.

    weight: [N, C / G, ...] of a Conv with G groups or [N, K] where `axis` is 0, [K, N] where it is
    1; scale: [N] or []; moment: [G, K, K] with K = C / G times the taps of the kernel.
    """
    rows = weight.T if axis else weight
    groups = len(moment)
    per_group = rows.reshape(groups, len(rows) // groups, -1)
    scales = scale.reshape(groups, -1) if scale.ndim else scale
    found = rounded(per_group, scales, most, moment).reshape(rows.shape)
    return np.ascontiguousarray(found.T if axis else found)


def _usable(moment: np.ndarray) -> np.ndarray:
    """Moments [S, K, K], the identity in the place of those that are no use."""
    diagonal = np.diagonal(moment, axis1=1, axis2=2)
    fine = np.isfinite(moment).all(axis=(1, 2)) & (diagonal.mean(axis=1) > 0)
    if fine.all():
        return moment
    return np.where(fine[:, None, None], moment, np.eye(moment.shape[1]))


def _carried(real: np.ndarray, most: int, moment: np.ndarray) -> np.ndarray:
    """The rounding itself: real [S, K, N] -> integers as floats, by moments [S, K, K]."""
    one = np.arange(len(real))[:, None]
    order = np.argsort(np.diagonal(moment, axis1=1, axis2=2), axis=1, kind="stable")
    real = real[one, order]
    carry = _carry(moment[one[:, None], order[:, :, None], order[:, None, :]]).astype(real.dtype)
    integers, error = np.empty_like(real), np.empty_like(real)
    for stop in range(real.shape[1], 0, -BLOCK):
        start = max(stop - BLOCK, 0)
        want = real[:, start:stop] - carry[:, stop:, start:stop].mT @ error[:, stop:]
        near = np.ascontiguousarray(carry[:, start:stop, start:stop].mT)
        for i in reversed(range(start, stop)):
            brought = near[:, i - start, None, i - start + 1 :] @ error[:, i + 1 : stop]
            integers[:, i] = np.clip(np.rint(want[:, i - start] - brought[:, 0]), -most, most)
            error[:, i] = integers[:, i] - real[:, i]
    found = np.empty_like(integers)
    found[one, order] = integers
    return found


def _carry(moment: np.ndarray) -> np.ndarray:
    """L_ji / L_ii at [j, i], of the damped moments."""
    try:
        factor = _factor(moment, DAMPING[0])
    except np.linalg.LinAlgError:
        factor = np.stack([_alone(one) for one in moment])
    return np.asarray(factor / np.diagonal(factor, axis1=1, axis2=2)[:, None, :])


def _alone(moment: np.ndarray) -> np.ndarray:
    for damping in DAMPING:
        try:
            return _factor(moment, damping)
        except np.linalg.LinAlgError:
            continue
    return np.eye(len(moment))  # nothing is carried on: every weight goes to the nearest


def _factor(moment: np.ndarray, damping: float) -> np.ndarray:
    """The Cholesky factor of H + damping * mean(diag H) * I.

    An input that was never seen has a zero row: damped, it is rounded to nearest, on its own.
    """
    damped = moment.astype(np.float64)
    places = np.arange(moment.shape[-1])
    mean = np.trace(damped, axis1=-2, axis2=-1) / len(places)
    damped[..., places, places] += damping * mean[..., None]
    return np.asarray(np.linalg.cholesky(damped))
