"""The networks of the bench. As a program it makes one: `peers_models.py NAME FOLDER PACKAGES`.

That is a process of its own, because composing models takes memory that measuring must not feel.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import peers_papers as papers
import peers_text as text
import peers_towers as pair
import peers_vision as vision
from peers_types import Folder, Model

MODELS = (
    Model(
        "resnet50",
        "ResNet-50",
        "timm's architecture, seeded weights: speed counts, fidelity means little",
        vision.resnet50,
        vision.nothing,
        "cnn",
        sources=("vision", "resnet"),
    ),
    Model(
        "lite0",
        "EfficientNet-Lite0",
        "ImageNet weights; top-1 on 20 ImageNet pictures, agreement on ten views of each",
        vision.lite0,
        vision.classes,
        "cnn",
        sources=("vision", "onnx"),
    ),
    Model(
        "minilm",
        "MiniLM",
        "all-MiniLM-L6-v2, 128 tokens; 1,225 rated pairs of documents, 300 film reviews",
        text.minilm,
        text.rated,
        "transformer",
        sources=("text", "onnx"),
    ),
    Model(
        "towers",
        "Two towers in one file",
        "the demonstration: Lite0, MiniLM (64 tokens) and a score; 768 pictures and their captions",
        pair.demonstration,
        pair.retrieval,
        "towers",
        sources=("towers", "onnx"),
    ),
    Model(
        "ocr-rec",
        "PP-OCR recognition",
        "PP-OCRv6_rec_small, 48x480 pixels; 200 rendered lines",
        papers.recognition,
        papers.exact,
        "cnn with attention",
        papers.characters,
        sources=("papers", "onnx"),
    ),
    Model(
        "ocr-det",
        "PP-OCR detection",
        "PP-OCRv6_det_small, 480x640 pixels; 24 rendered pages",
        papers.detection,
        papers.lines_found,
        "cnn",
        sources=("papers", "onnx"),
    ),
)


def main(name: str, into: str, packages: str) -> None:
    model = next(one for one in MODELS if one.name == name)
    partial = Path(into + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.make(Folder(partial), Path(packages))
    shutil.rmtree(into, ignore_errors=True)
    partial.rename(into)


if __name__ == "__main__":
    main(*sys.argv[1:])
