"""A metric of the user's own: `module:function`, which runs the user's code.

function(outputs, labels) -> one number a sample, whose mean is the figure. Outputs come by name as
[samples, …]; one whose shape differs between samples comes as a list of arrays, one a sample.
Labels are an array, [samples] float64 or texts, or None without --labels.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from edgec.errors import InputError
from edgec.metrics import Measure, Metric, Outputs, Scored, mean
from edgec.metrics.labels import Labels, Wants
from edgec.metrics.outputs import split

Function = Callable[[Mapping[str, Any], Any], Any]


def make(text: str) -> Metric:
    """The metric `module:function`. Raises InputError where it cannot be imported."""
    module, _, name = text.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function: Function = getattr(importlib.import_module(module), name)
    except Exception as error:  # the user's module may raise anything
        raise _failed(text, error, "the module is looked for in this folder too") from error
    return Metric(
        name=text,
        labels=Wants.ANY,
        take=take,
        score=partial(_score, text=text, function=function),
        measures=(Measure(text, mean),),
        answer="score",
        optional=True,
    )


def take(outputs: Outputs, count: int) -> list[dict[str, np.ndarray]]:
    """All outputs of each sample; an output that does not hold so many is left out."""
    samples: list[dict[str, np.ndarray]] = [{} for _ in range(count)]
    for name, array in outputs.items():
        for sample, own in zip(samples, split(array, count), strict=False):
            sample[name] = own
    return samples


def together(arrays: Sequence[np.ndarray]) -> np.ndarray | list[np.ndarray]:
    """[samples, …] where the shapes agree, else a list.

    An output without a batch, such as boxes [boxes, 4], is taken for one where it has a single row;
    the other samples' ranks tell.
    """
    rank = max(array.ndim for array in arrays)
    whole = [array[None] if array.ndim == rank - 1 else array for array in arrays]
    return np.stack(whole) if len({array.shape for array in whole}) == 1 else whole


def _score(taken: Sequence[Outputs], labels: Labels, text: str, function: Function) -> Scored:
    names = [name for name in taken[0] if all(name in sample for sample in taken)]
    outputs = {name: together([sample[name] for sample in taken]) for name in names}
    try:
        rows = np.asarray(function(outputs, np.array(labels.values) if labels.given else None))
    except Exception as error:  # the user's function may raise anything
        raise _failed(text, error, "it gets (outputs by name, labels)") from error
    if rows.shape != (len(taken),) or rows.dtype.kind not in "biuf":
        raise InputError(
            f"metric {text}: {rows.dtype}{list(rows.shape)} for {len(taken)} samples",
            hint="a metric returns one number per sample",
        )
    return Scored(rows.astype(np.float64), rows.tolist())


def _failed(text: str, error: Exception, hint: str) -> InputError:
    """What the user's code raised, with the line that did."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename != __file__]
    missing = isinstance(error, (ImportError, AttributeError)) or not frames
    place = "" if missing else f"{frames[-1].filename}, line {frames[-1].lineno}: "
    kind = "" if missing else f"{type(error).__name__}: "
    return InputError(f"metric {text!r}: {place}{kind}{error}", hint=hint)
