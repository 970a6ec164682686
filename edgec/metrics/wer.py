"""Word error rate: insertions, deletions and substitutions of words, by the labels' words.

WER = sum of Levenshtein distances / sum of the labels' lengths, in words between white space; case
and punctuation count. It may exceed 1. Lower is better.
"""

from __future__ import annotations

from edgec.metrics import Measure, Metric
from edgec.metrics.options import Options
from edgec.metrics.texts import levenshtein, rate
from edgec.metrics.texts import make as of_texts


def make(options: Options) -> Metric:
    """Of decoded texts; a row is the distance and the label's length in words."""
    distance = levenshtein()

    def row(label: str, text: str) -> tuple[int, int]:
        return distance(label.split(), text.split()), len(label.split())

    return of_texts(options, row, Measure(options.metric, rate))
