"""Numbers: what the graph takes beside pictures, texts and sounds; also constants."""

from __future__ import annotations

from typing import Any

from edgec.binding.reader import Reader, describe, fixed


def bind(reader: Reader) -> dict[str, Any]:
    """The bound reader's table."""
    need = reader.choose("input", reader.shared.needs)
    if need.shape is None:
        raise reader.error(f"input {describe(need)}", "give its shape by --shape")
    feed = {"name": need.name, "dtype": str(need.dtype), "layout": "as given"}
    return {
        "inputs": {"numbers": feed},
        "shape": [fixed(need, axis) for axis in range(len(need.shape))],
        **({"value": reader.options["value"]} if "value" in reader.options else {}),
    }
