"""What the metrics of text share: scores of tokens become texts, which meet their labels.

ctc: the best class of each step, repetitions once, blanks away (Graves et al. 2006, "best path
decoding"). argmax: the best class of each step, up to the end token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np

from edgec.errors import InputError
from edgec.metrics import Measure, Metric, Outputs, Scored
from edgec.metrics.labels import Labels, Wants
from edgec.metrics.options import Options
from edgec.metrics.outputs import pick
from edgec.metrics.vocabulary import MOST_TOKENS, Tokenizer, Tokens, read
from edgec.runtime.reading import require

NO_END = -1


@dataclass(frozen=True)
class Steps:
    """The best class of each step [steps], out of `classes`; 0: the output held the best alone."""

    ids: np.ndarray
    classes: int


@dataclass(frozen=True)
class Decoder:
    """`blank`: the class of CTC's blank, counted from the end where negative.

    `tokens`: how many the vocabulary has, 0 where that does not tell the number of classes.
    """

    ctc: bool
    blank: int
    end: int
    tokens: int
    vocabulary: Tokens | Tokenizer

    def text(self, steps: Steps) -> str:
        """The text of one sample, without white space at its ends.

        Classes below 0, with which a graph that decodes by itself pads, say nothing.
        """
        ids = [one for one in steps.ids.tolist() if 0 <= one < MOST_TOKENS]
        if self.ctc:
            if self.blank < 0 and not steps.classes:
                raise InputError(
                    f"blank={self.blank} counts from the last class, which classes do not tell",
                    hint="give the blank's own class, or an output with scores",
                )
            blank = self.blank if self.blank >= 0 else steps.classes + self.blank
            # a vocabulary that leaves the blank out counts the classes behind it one lower
            gap = self.tokens > 0 and steps.classes == self.tokens + 1
            ids = [one - (gap and one > blank) for one, _ in groupby(ids) if one != blank]
        elif self.end in ids:
            ids = ids[: ids.index(self.end)]
        return self.vocabulary.join(ids).strip()


def make(options: Options, rows: Callable[[str, str], Sequence[float]], measure: Measure) -> Metric:
    """A metric of decoded texts; `rows`: (label, text) -> the row of one sample."""
    decoder = _decoder(options)
    axes, output = options.choice("axes", "btv", "tbv", default="btv"), options.text("output")
    if axes == "tbv" and not output:
        raise options.wrong("axes", "tbv says where one output has its batch", "add output=NAME")
    return Metric(
        name=options.metric,
        labels=Wants.TEXTS,
        take=partial(_take, name=output, axes=axes, tokens=decoder.tokens, ctc=decoder.ctc),
        score=partial(_score, decoder=decoder, rows=rows),
        measures=(measure,),
        answer="text",
    )


def levenshtein() -> Callable[[Sequence[str], Sequence[str]], int]:
    """The fewest insertions, deletions and substitutions between two sequences (Levenshtein 1966).

    Raises ToolchainError without rapidfuzz.
    """
    library = require("rapidfuzz.distance", "rapidfuzz", "an error rate of texts")
    found: Callable[[Sequence[str], Sequence[str]], int] = library.Levenshtein.distance
    return found


def rate(rows: np.ndarray) -> float:
    """Errors by length, both summed over rows [samples, 2]; NaN where all labels are empty."""
    errors, length = rows.sum(axis=0)
    return float(errors / length) if length else float("nan")


def _decoder(options: Options) -> Decoder:
    ctc = options.choice("decoder", "ctc", "argmax") == "ctc"
    blank = options.integer("blank", 0, -MOST_TOKENS, MOST_TOKENS)
    end = options.integer("end", NO_END, NO_END, MOST_TOKENS)
    space = options.text("space")
    path = options.file("vocabulary", "a file with a token a line, or a tokenizer.json")
    vocabulary = read(path, space)
    tokens = len(vocabulary.texts) if isinstance(vocabulary, Tokens) else 0
    if blank < -(tokens or MOST_TOKENS) or (tokens and blank > tokens):
        raise options.wrong("blank", f"{blank} of {tokens} tokens", "-1 is the last class")
    return Decoder(ctc, blank, end, tokens, vocabulary)


def _take(
    outputs: Outputs, count: int, name: str, axes: str, tokens: int, ctc: bool
) -> list[Steps]:
    """The best class of each step of each sample. A named output may hold these itself."""
    if axes == "tbv" and name in outputs and outputs[name].ndim > 1:
        outputs = {name: np.swapaxes(outputs[name], 0, 1)}
        count = len(outputs[name])
    if name in outputs and outputs[name].dtype.kind in "iu":
        ids = pick(outputs, count, name, lambda one: one.ndim == 1, "classes [batch, steps]")
        return [Steps(one, 0) for one in ids]
    allowed = (tokens, tokens + 1)[: 1 + ctc] if tokens else ()
    what = "scores [batch, steps, classes]"
    if allowed:
        what += f" of {' or '.join(map(str, allowed))} classes for a vocabulary of {tokens} tokens"
    found = pick(outputs, count, name, partial(_fits, allowed=allowed), what)
    return [Steps(np.nan_to_num(a, nan=-np.inf).argmax(axis=1), a.shape[1]) for a in found]


def _fits(array: np.ndarray, allowed: tuple[int, ...]) -> bool:
    many = array.ndim == 2 and (array.shape[1] in allowed if allowed else array.shape[1] > 1)
    return array.dtype.kind == "f" and many


def _score(
    taken: Sequence[Steps],
    labels: Labels,
    decoder: Decoder,
    rows: Callable[[str, str], Sequence[float]],
) -> Scored:
    texts = [decoder.text(one) for one in taken]
    pairs = zip(labels.values, texts, strict=True)
    return Scored(np.array([rows(label.strip(), text) for label, text in pairs], float), texts)
