"""Which parts break a backend: a crash names none, so each is tried alone, in its own process.

What fails alone is guilty; where nothing does, all that failed together are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgec.errors import EmitError

Names = tuple[str, ...]


class Broken(Exception):  # noqa: N818 - it is caught at once, and says which parts to change
    """A backend failed, compiling or running, because of these parts."""

    def __init__(self, parts: Names, error: EmitError) -> None:
        super().__init__(error.message)
        self.parts, self.error = parts, error


def guilty(suspects: Mapping[Names, Callable[[], object]]) -> Names:
    """The names of the suspects whose attempt raises an EmitError; of all, where none does."""
    found = (
        suspects if len(suspects) < 2 else [n for n, attempt in suspects.items() if _fails(attempt)]
    )
    return tuple(name for names in found or suspects for name in names)


def _fails(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except EmitError:
        return True
    return False
