"""Character error rate: insertions, deletions and substitutions, by the labels' characters.

CER = sum of Levenshtein distances / sum of the labels' lengths, in code points as they are written,
spaces within a text included. It may exceed 1. Lower is better.
"""

from __future__ import annotations

from edgec.metrics import Measure, Metric
from edgec.metrics.options import Options
from edgec.metrics.texts import levenshtein, rate
from edgec.metrics.texts import make as of_texts


def make(options: Options) -> Metric:
    """Of decoded texts; a row is the distance and the label's length in characters."""
    distance = levenshtein()

    def row(label: str, text: str) -> tuple[int, int]:
        return distance(label, text), len(label)

    return of_texts(options, row, Measure(options.metric, rate))
