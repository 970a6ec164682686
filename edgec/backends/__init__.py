"""What turns an engine into a file that a device opens: one package a backend.

A backend is found by the entry-point group `edgec.backends`; the built-in ones come the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from edgec.errors import InputError
from edgec.results import Artifact, Engine
from edgec.types import Decision, Part

GROUP = "edgec.backends"
BUILT_IN = {
    "onnxruntime": "edgec.backends.onnxruntime:Backend",
    "openvino": "edgec.backends.openvino:Backend",
    "tensorrt": "edgec.backends.tensorrt:Backend",
}
PACKAGES = {"openvino": "pip install 'edgec[openvino]'"}  # what a base install lacks


class Backend(Protocol):
    """Emits engines."""

    def emit(
        self, engine: Engine, decisions: Mapping[str, Decision], into: Path, threads: int
    ) -> Artifact:
        """Write the engine's files into the folder `into`, and read back what became of it.

        Raises EmitError where the backend refuses or crashes.
        """

    def cut(self, artifact: Artifact, part: Part, into: Path) -> Path:
        """Take a part out of an emitted engine: a file in the folder `into` that the opener opens.

        Its inputs and outputs are the part's. Where the part computes in INT8, the quantization of
        an input comes along; in a float part that is the error of the part before.
        """


def missing(name: str) -> str:
    """What to install for a built-in backend, or an empty text where it can be imported."""
    known = name not in PACKAGES or find_spec(name) is not None
    return "" if known else PACKAGES[name]


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
