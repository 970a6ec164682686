"""edgec, the deployment compiler for edge devices.

    edgec.build(job)         the compiler: model to bundle   (needs edgec[compile])
    edgec.runtime.load(path) the device side: bundle to results

A copy of this file lies in every bundle, so it imports nothing by itself.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["Job", "__version__", "build"]


def __getattr__(name: str) -> Any:
    if name in ("Job", "build"):
        from importlib import import_module

        return getattr(import_module("edgec.build"), name)
    raise AttributeError("module 'edgec' has no attribute " + repr(name))
