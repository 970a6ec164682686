"""How an engine's artifact is opened: a small protocol, and one door for all backends.

Built-in backends stand in a table, because a bundle that runs itself has no package metadata;
the package's own entry points say the same. Others come through the group `edgec.openers`.
"""

from importlib import import_module
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Protocol, Union

from edgec.errors import InputError, ToolchainError

GROUP = "edgec.openers"
BUILT_IN = {
    "onnxruntime": "edgec.runtime.onnxruntime_session:open_artifact",
    "openvino": "edgec.runtime.openvino_session:open_artifact",
    "tensorrt": "edgec.runtime.tensorrt_session:open_artifact",
}


class Session(Protocol):
    """An opened engine. Safe to call from several threads."""

    def run(self, feeds: Mapping[str, Any]) -> Dict[str, Any]:
        """C-contiguous arrays by input name -> arrays by output name that no later call changes."""

    def close(self) -> None:
        """Release the engine."""


# opener(artifact, settings): the artifact is a path, with its data files in the same folder, or
# the bytes of a model that has none. The settings are the manifest's, and may be
# hostile; the model adds `device`, `neighbours` (how many other engines there are) and `threads`.
# InputError: artifact or settings are unusable. ToolchainError: the backend is missing or too old.
Opener = Callable[[Union[Path, bytes], Mapping[str, Any]], Session]


def opener(backend: str) -> Opener:
    """The opener of a backend. ToolchainError: it cannot be imported. InputError: unknown."""
    if backend not in BUILT_IN:
        return _installed(backend)
    module, _, name = BUILT_IN[backend].partition(":")
    try:
        found: Opener = getattr(import_module(module), name)
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "edgec":
            raise
        missing = isinstance(error, ModuleNotFoundError) and error.name == backend
        why = "is not installed" if missing else "cannot be imported: {}".format(error)
        message = "this bundle runs on {}, which {}".format(backend, why)
        raise ToolchainError(message, hint="pip install " + backend) from error
    return found


def _installed(backend: str) -> Opener:
    points = _entry_points()
    if backend not in points:
        known = ", ".join(sorted(set(BUILT_IN) | set(points)))
        message = "no opener for backend {!r}; known are {}".format(backend, known)
        hint = "Install the package that brings the entry point {} of group {}."
        raise InputError(message, hint=hint.format(backend, GROUP))
    found: Opener = points[backend].load()
    return found


def _entry_points() -> Dict[str, Any]:
    from importlib import metadata

    everything: Any = metadata.entry_points()
    if hasattr(everything, "select"):  # Python 3.10 and later
        chosen: List[Any] = list(everything.select(group=GROUP))
    else:
        chosen = list(everything.get(GROUP, ()))
    return {point.name: point for point in chosen}
