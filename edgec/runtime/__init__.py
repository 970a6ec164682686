"""All that runs on a device: standard library, numpy and one backend; Python 3.8 and later.

    with edgec.runtime.load("model.edgec") as model:
        outputs = model.run({"image": image, "tokens": tokens})

A copy of this package lies in every bundle: `python3 model.edgec run|bench|verify|finish|info`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgec.runtime.bundle import Bundle as Bundle
    from edgec.runtime.model import Model as Model
    from edgec.runtime.model import load as load

__all__ = ["Bundle", "Model", "load"]
_HOMES = {"Bundle": "bundle", "Model": "model", "load": "model"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module("edgec.runtime." + _HOMES[name]), name)
    raise AttributeError("module 'edgec.runtime' has no attribute " + repr(name))
