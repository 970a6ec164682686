"""Who is beaten: the Pareto front of speed and fidelity, and what it says of edgec."""

from __future__ import annotations

import math
from collections.abc import Sequence

from peers_types import Row

Point = tuple[float, float]
FAR_OFF = 0.97  # cosine; below it edgec's own limits give up a part
FAULTS = f"Slower than FP32, or far off (cosine below {FAR_OFF}), and reported as success"


def point(row: Row) -> Point | None:
    """(times as fast, SQNR in dB), or None where one of them is missing or broken."""
    if row.speed is None or row.fidelity is None or row.fidelity.sqnr_db == -math.inf:
        return None
    return row.speed.ratio, row.fidelity.sqnr_db


def beats(one: Point, other: Point) -> bool:
    """At least as fast and as faithful, and better in one of them."""
    return one[0] >= other[0] and one[1] >= other[1] and one != other


def front(rows: Sequence[Row]) -> set[int]:
    """The numbers of the rows that no row beats."""
    points = {row.number: found for row in rows if (found := point(row)) is not None}
    return {
        number
        for number, own in points.items()
        if not any(beats(other, own) for other in points.values())
    }


def verdict(rows: Sequence[Row]) -> str:
    """Whether edgec is on the front, and if not, which row beats each of its rows."""
    own = [row for row in rows if row.case.family == "edgec"]
    on = sorted(front(rows) & {row.number for row in own})
    if on:
        return f"edgec is on the front ({_listed(on)})."
    reasons = []
    for row in own:
        mine = point(row)
        if mine is None:
            reasons.append(f"row {row.number} has no result")
            continue
        better = [other for other in rows if (p := point(other)) is not None and beats(p, mine)]
        better.sort(key=lambda other: -(point(other) or mine)[0])
        names = ", ".join(f"{other.number} ({_difference(other, row)})" for other in better)
        reasons.append(f"row {row.number} is beaten by {names}")
    return "edgec is not on the front: " + ("; ".join(reasons) or "it was not run") + "."


def faults(row: Row) -> list[str]:
    """What is wrong with a result that its tool reported as success."""
    found = []
    if row.speed is not None and row.speed.high < 1:
        found.append("slower than FP32")
    if row.fidelity is not None and row.fidelity.cosine < FAR_OFF:
        found.append("far off")
    return found


def spoiled(rows: Sequence[Row]) -> str:
    """The peers' rows with faults, and edgec's."""
    texts = []
    for who, mine in (("peers", False), ("edgec", True)):
        listed = [
            f"{row.number} ({' and '.join(found)})"
            for row in rows
            if (row.case.family == "edgec") is mine and (found := faults(row))
        ]
        texts.append(f"{who}: {', '.join(listed) or 'none'}")
    return f"{FAULTS}: {'; '.join(texts)}."


def _difference(other: Row, row: Row) -> str:
    a, b = point(other), point(row)
    assert a is not None
    assert b is not None
    return f"{a[0]:.2f}x and {decibel(a[1])} against {b[0]:.2f}x and {decibel(b[1])}"


def decibel(value: float) -> str:
    """An SQNR for people."""
    if math.isinf(value):
        return "equal" if value > 0 else "broken"
    return f"{value:.1f} dB"


def _listed(numbers: Sequence[int]) -> str:
    word = "row" if len(numbers) == 1 else "rows"
    return f"{word} {', '.join(map(str, numbers))}"
