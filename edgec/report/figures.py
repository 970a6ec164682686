"""Figures and names of an inspection, as people read them."""

from __future__ import annotations

from edgec.inspection import Crossing, PartView
from edgec.macs import Amount

SCALES = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))
LONGEST = 200


def scaled(count: int, unit: str = "") -> str:
    """12 345 678 -> 12.3 M; three figures, powers of 1,000."""
    for scale, letter in SCALES:
        if abs(count) >= scale:
            value = count / scale
            digits = 2 if value < 10 else 1 if value < 100 else 0
            return f"{value:.{digits}f} {letter}{unit}"
    return f"{count} {unit}".rstrip()


def bytes_text(size: int | Amount) -> str:
    """Bytes, powers of 1,000; open dimensions as factors."""
    if isinstance(size, int):
        return scaled(size, "B")
    return amount_text(size, "B")


def amount_text(amount: Amount, unit: str = "") -> str:
    """A number, or a short formula of the open dimensions."""
    if amount.symbols <= frozenset():
        return scaled(amount.per_unit, unit)
    ordered = sorted(amount.terms.items(), key=lambda term: (-len(term[0]), term[0]))
    return plain(
        " + ".join(" · ".join([scaled(n, unit), *map(_symbol, names)]) for names, n in ordered)
    )


def macs_text(view: PartView, *, short: bool = False) -> str:
    """Multiply-accumulates of a part; what cannot be known is said.

    `short`: where the formula is long, what it gives with every open dimension at 1.
    """
    text = amount_text(view.work)
    if short and len(view.work.terms) > 1:
        text = f"{scaled(view.work.per_unit)} at size 1"
    if view.unknown:
        known = f"{text} + " if view.work else ""
        return f"{known}{len(view.unknown)} {'unknown' if short else 'nodes unknown'}"
    return text


def shape_text(shape: tuple[int | str, ...] | None) -> str:
    """[batch, 3, 224, 224]; a value without any shape says so."""
    if shape is None:
        return "of unknown rank"
    return "[" + ", ".join(plain(str(dim)) for dim in shape) + "]" if shape else "scalar"


def crossing_text(one: Crossing) -> str:
    """All of a crossing in a line."""
    size = "size unknown" if one.size is None else bytes_text(one.size)
    return f"{plain(one.name)}: {one.dtype} {shape_text(one.shape)}, {size}"


def plain(text: str) -> str:
    """A text of the model without what a terminal or a page could obey, and not too long."""
    shown = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"


def _symbol(name: str) -> str:
    return name if name.isidentifier() else f"({name})"
