"""What turns an engine into a file that a device opens: one package a backend.

A backend is found by the entry-point group `edgec.backends`; the built-in ones come the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from edgec.errors import InputError
from edgec.types import Artifact, Decision, Engine, Target

GROUP = "edgec.backends"
BUILT_IN = {"onnxruntime": "edgec.backends.onnxruntime:Backend"}


class Backend(Protocol):
    """Emits engines."""

    def emit(
        self,
        engine: Engine,
        decisions: Mapping[str, Decision],
        target: Target,
        into: Path,
        threads: int,
    ) -> Artifact:
        """Write the engine's file into the folder `into`, and read back what became of it.

        Raises EmitError where the backend refuses or crashes.
        """


def backend(name: str) -> Backend:
    """The backend called `name`. Raises InputError where there is none."""
    found = {point.name: point.value for point in entry_points(group=GROUP)} | BUILT_IN
    if name not in found:
        raise InputError(
            f"unknown backend {name!r}", hint=f"choose one of {', '.join(sorted(found))}"
        )
    module, _, attribute = found[name].partition(":")
    made: Backend = getattr(import_module(module), attribute)()
    return made
