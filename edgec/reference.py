"""The float model as it was given, run by ONNX Runtime: what everything is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgec.errors import EmitError, InputError
from edgec.runtime import npz
from edgec.types import Feeds

SLEEP = ("session.intra_op.allow_spinning", "0")  # idle threads: nothing here is timed
LEVELS = ("ORT_ENABLE_ALL", "ORT_ENABLE_BASIC", "ORT_DISABLE_ALL")


class RunError(InputError):
    """A sample that the float model does not run on."""


class Reference:
    """An ONNX file in float. Where an optimiser pass breaks the graph, it runs with fewer."""

    def __init__(
        self,
        path: Path,
        threads: int,
        library: Path | None = None,
        disabled: Sequence[str] = (),
        levels: Sequence[str] = LEVELS,
    ) -> None:
        """`library`: of custom ops; `disabled`: optimiser passes of ONNX Runtime, by name.

        `levels` of optimisation are tried in this order.

        Raises EmitError where none of them opens the file.
        """
        import onnxruntime

        reason = ""
        for level in levels:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            options.enable_mem_pattern = False  # it keeps blocks of memory for every set of shapes
            options.intra_op_num_threads = threads
            options.add_session_config_entry(*SLEEP)
            if library is not None:
                options.register_custom_ops_library(str(library))
            options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
            try:
                self._session = onnxruntime.InferenceSession(
                    path,
                    options,
                    providers=["CPUExecutionProvider"],
                    disabled_optimizers=list(disabled),
                )
                break
            except Exception as error:  # onnxruntime's exceptions share no base but this
                reason = reason or str(error).strip().splitlines()[0][:300]
        else:
            raise EmitError(
                f"ONNX Runtime cannot open the float model: {reason}",
                hint="check that the original file runs in ONNX Runtime",
            )
        self.outputs = tuple(str(value.name) for value in self._session.get_outputs())

    def run(self, feeds: Mapping[str, np.ndarray], names: Sequence[str] = ()) -> Feeds:
        """Named outputs, all by default. A name that is fed is handed through."""
        wanted = [name for name in names or self.outputs if name not in feeds]
        made = self._session.run(wanted, dict(feeds)) if wanted else []
        found = dict(zip(wanted, made, strict=True))
        return {n: found[n] if n in found else feeds[n] for n in names or self.outputs}

    def run_sample(self, feeds: Mapping[str, np.ndarray], names: Sequence[str] = ()) -> Feeds:
        """As `run`, on what a user gave. Raises RunError where the model does not run on it."""
        try:
            return self.run(feeds, names)
        except Exception as error:  # onnxruntime's exceptions share no base but this
            raise RunError(
                f"the float model does not run on it: {str(error).strip()[:300]}",
                hint="leave the sample out, or repair it: an index may be past a table's end, say",
            ) from error


def outputs(path: Path, files: Sequence[Path], threads: int, levels: Sequence[str]) -> list[Feeds]:
    """All outputs on the samples in `files`, one each; see `Reference`."""
    session = Reference(path, threads, levels=levels)
    return [session.run(npz.read(file, str(file))) for file in files]
