"""Modules that a library imports at once and that hardly any run needs, loaded when they are used.

onnx_ir computes with symbolic dimensions in sympy, which takes longer to import than all of edgec.
A program calls `defer` before its first import of onnx_ir; a module is then executed as soon as
anything asks it for an attribute. Nothing else changes: https://docs.python.org/3/library/importlib
#importlib.util.LazyLoader.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

DEFERRED = frozenset({"sympy", "onnx_ir._symbolic_shapes"})  # the latter asks sympy for its classes


class _Finder(MetaPathFinder):
    """Finds what Python finds, to be loaded later."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module that is deferred; None for any other."""
        if name not in DEFERRED:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def defer() -> None:
    """Load the modules of `DEFERRED` when they are used; those that are loaded already stay."""
    if not any(isinstance(one, _Finder) for one in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
