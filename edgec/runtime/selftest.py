"""Is this machine's result the one that the bundle promises? Golden inputs, golden outputs."""

from typing import Any, List, Mapping, NamedTuple, Sequence

import numpy as np

MIN_COSINE = 0.999
CLOSE_DB = 3.0  # how much further from float than the build's own result an output may be


class OutputCheck(NamedTuple):
    """One output against its golden array.

    `max_abs` and `cosine` are over the finite elements; `limit` bounds `max_abs`. `problem` is
    "" where the output passes. `against`: golden, or float where that decided.
    """

    name: str
    max_abs: float
    cosine: float
    limit: float
    problem: str
    against: str = "golden"

    @property
    def passed(self) -> bool:
        """Whether the output is within the tolerance."""
        return not self.problem


class SelfTest(NamedTuple):
    """All outputs of the golden sample."""

    outputs: Sequence[OutputCheck]

    @property
    def passed(self) -> bool:
        """Whether there are outputs and each one passes."""
        return bool(self.outputs) and all(check.passed for check in self.outputs)


def compare(got: Mapping[str, Any], golden: Mapping[str, Any], relative: float) -> SelfTest:
    """Compare all arrays of `golden`. Passes: the same shape, dtype and non-finite elements,
    cosine >= MIN_COSINE and max abs error <= relative * max |golden|; whole numbers are equal.

    Kernels of another instruction set round differently in their float parts, hence the tolerance.
    """
    checks: List[OutputCheck] = []
    for name in sorted(golden):
        if name in got:
            checks.append(_compare_one(name, got[name], golden[name], relative))
        else:
            checks.append(OutputCheck(name, np.inf, 0.0, 0.0, "no such output"))
    return SelfTest(checks)


def compare_with_float(
    got: Mapping[str, Any], golden: Mapping[str, Any], exact: Mapping[str, Any], relative: float
) -> SelfTest:
    """As `compare`; but an output that is as close to the original's float output as the golden one
    is, within CLOSE_DB, passes too.

    Kernels of another backend round INT8 elsewhere, and a fallback computes in other numbers.
    """
    checks: List[OutputCheck] = []
    for check in compare(got, golden, relative).outputs:
        name = check.name
        if not check.passed and name in got and name in exact:
            ours, theirs = sqnr(exact[name], got[name]), sqnr(exact[name], golden[name])
            if np.isfinite(theirs) and ours >= theirs - CLOSE_DB:
                check = check._replace(problem="", against="float")
        checks.append(check)
    return SelfTest(checks)


def sqnr(exact: Any, close: Any) -> float:
    """Signal to noise in dB; infinite where they are equal, -inf where they cannot be compared."""
    if exact.shape != close.shape or exact.dtype != close.dtype or exact.dtype.kind != "f":
        return -float("inf")
    a, b = np.float64(exact).ravel(), np.float64(close).ravel()
    noise, signal = float(np.sum((a - b) ** 2)), float(np.sum(a * a))
    if not np.isfinite(noise):
        return -float("inf")
    return float("inf") if noise == 0 else float(10 * np.log10(max(signal, 1e-300) / noise))


def _compare_one(name: str, got: Any, golden: Any, relative: float) -> OutputCheck:
    if got.shape != golden.shape or got.dtype != golden.dtype:
        problem = "{}{} instead of {}{}".format(
            got.dtype, list(got.shape), golden.dtype, list(golden.shape)
        )
        return OutputCheck(name, np.inf, 0.0, 0.0, problem)
    whole = golden.dtype.kind != "f"
    a, b = np.float64(got).reshape(-1), np.float64(golden).reshape(-1)
    finite = np.isfinite(a) & np.isfinite(b)
    alike = np.array_equal(a[~finite], b[~finite], equal_nan=True)
    a, b = a[finite], b[finite]
    largest = float(np.max(np.abs(b), initial=0.0))
    limit = 0.0 if whole else relative * largest
    max_abs = float(np.max(np.abs(a - b), initial=0.0))
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    cosine = float(np.dot(a, b) / norms) if norms else float(np.array_equal(a, b))
    problem = ""
    if not alike:
        problem = "NaN or infinity at other places"
    elif max_abs > limit:
        problem = "max abs error {:.3g} > {:.3g}".format(max_abs, limit)
    elif cosine < MIN_COSINE:
        problem = "cosine {:.6f} < {}".format(cosine, MIN_COSINE)
    return OutputCheck(name, max_abs, cosine, limit, problem)
