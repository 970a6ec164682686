"""Where the data folders are: inside an installed wheel, or in a checkout."""

from __future__ import annotations

from pathlib import Path

from edgec.errors import ToolchainError


def folder(name: str) -> Path:
    """The folder `targets`, `calibration` or `kernels`."""
    package = Path(__file__).parent
    for candidate in (package / "_data" / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise ToolchainError(
        f"the data folder {name!r} is missing from this installation",
        hint="install edgec again",
    )
