"""What the OCR models are asked, of the original and of the bundle: each answer is a table cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import real_graphs_ocr as ocr
from real_graphs_ocr import Array, Run


def turned(picture: Array, upside_down: int) -> Array:
    return np.ascontiguousarray(picture[::-1, ::-1]) if upside_down else picture


def recognition(before: Run, after: Run, faces: Sequence[Path], alphabet: Sequence[str]) -> str:
    """Lines read without a mistake, and how often both read the same."""
    right, same, count = [0, 0], 0, 200
    for line in ocr.lines(ocr.VERIFY, count, faces):
        x = ocr.strip(line.picture, 160, wider=True)
        texts = [ocr.decode(run(x), alphabet) for run in (before, after)]
        right = [n + (text == line.text) for n, text in zip(right, texts, strict=True)]
        same += texts[0] == texts[1]
    first, second = (n / count for n in right)
    return f"lines read exactly {first:.1%} → {second:.1%}, agreement {same / count:.1%}"


def detection(before: Run, after: Run, faces: Sequence[Path]) -> str:
    """Rendered lines that were found, boxes too many, and the cosine of the probability maps."""
    hits, extra, lines, cosines = [0, 0], [0, 0], 0, []
    for page in ocr.pages(ocr.VERIFY, 24, faces):
        maps = [run(ocr.whole(page))[0, 0] for run in (before, after)]
        lines += len(page.boxes)
        for index, one in enumerate(maps):
            found = ocr.boxes(one)
            hits[index] += ocr.matched(page.boxes, found)
            extra[index] += len(found) - ocr.matched(found, page.boxes)
        first, second = (one.ravel() for one in maps)
        cosines.append(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
    first, second = (n / lines for n in hits)
    return (
        f"lines found {first:.1%} → {second:.1%} of {lines}, false boxes {extra[0]} → {extra[1]}, "
        f"map cosine {np.mean(cosines):.4f}"
    )


def classification(before: Run, after: Run, faces: Sequence[Path]) -> str:
    """Lines whose orientation, 0 or 180 degrees, is told."""
    right, same, count = [0, 0], 0, 0
    for line in ocr.lines(ocr.VERIFY, 100, faces):
        for truth in (0, 1):
            x = ocr.strip(turned(line.picture, truth), 192, wider=False)
            said = [int(run(x).argmax()) for run in (before, after)]
            right = [n + (one == truth) for n, one in zip(right, said, strict=True)]
            same += said[0] == said[1]
            count += 1
    first, second = (n / count for n in right)
    return f"0° or 180° told {first:.1%} → {second:.1%}, agreement {same / count:.1%}"
