"""Whether what a user asks for can be written: told before the work begins, not after it."""

from __future__ import annotations

import os
from pathlib import Path

from edgec.errors import InputError


def check_file(file: Path) -> None:
    """Raises InputError where `file` cannot be made or replaced."""
    if file.exists() and not file.is_file():
        raise InputError(f"{file}: not a file, and not replaced", hint="choose another name")
    check_folder(file)


def check_folder(path: Path) -> None:
    """Raises InputError where the folder that `path` is to lie in cannot be written to."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{path.parent}: no such folder", hint=f"make it first, for {path.name}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(
            f"{path.parent}: no folder that can be written to",
            hint=f"choose another for {path.name}",
        )


def check_new_folder(folder: Path) -> None:
    """Raises InputError where files cannot be written to `folder`, made with all above it."""
    nearest = next(one for one in (folder, *folder.absolute().parents) if os.path.exists(one))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(
            f"{folder}: {nearest} is no folder that can be written to", hint="choose another folder"
        )
    try:
        folder.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:  # a name that is too long
        raise InputError(f"{folder}: {error.strerror}", hint="choose another folder") from error
