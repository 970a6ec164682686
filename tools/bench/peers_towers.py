"""The demonstration: two towers and a score in one file, a picture and a caption at a time.

The gallery is the captions of the 768 pictures, half of the demonstration's: one run a pair.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
import peers_onnx
from peers_types import Arrays, Folder, Scores

from edgec.demo import data
from edgec.demo.model import compose
from edgec.demo.pictures import normalise
from edgec.runtime import npz

SAMPLES = 64


def demonstration(folder: Folder, packages: Path) -> None:
    """The composed model for one picture and one caption of 64 tokens."""
    with tempfile.TemporaryDirectory() as work:
        model = onnx.load(compose(Path(work) / "fused.onnx"))
        data.write_calibration(Path(work))
        folder.calibration.mkdir(exist_ok=True)
        for number, path in enumerate(sorted(Path(work).glob("*.npz"))[:SAMPLES]):
            shutil.move(path, folder.calibration / f"{number:03}.npz")
    text = (1, data.TOKENS)
    shapes = {"image": (1, 3, 224, 224), "input_ids": text, "attention_mask": text}
    peers_onnx.save(peers_onnx.fixed(model, shapes), folder.model)
    found = data.evaluation()
    folder.heldout.mkdir(exist_ok=True)
    np.save(folder.heldout / "image.npy", np.stack([normalise(one) for one in found.images]))
    np.save(folder.heldout / "input_ids.npy", found.input_ids[found.labels])
    np.save(folder.heldout / "attention_mask.npy", found.attention_mask[found.labels])
    npz.write(folder.labels, {"label": np.arange(len(found.labels))})


def retrieval(reference: Arrays, outputs: Arrays, labels: Arrays) -> Scores:
    """Image-to-text recall@1, and how often the nearest caption is FP32's."""
    nearest, once = (_nearest(one) for one in (outputs, reference))
    return {
        "recall@1": float(np.mean(nearest == labels["label"])),
        "agreement": float(np.mean(nearest == once)),
    }


def _nearest(outputs: Arrays) -> np.ndarray:
    """The nearest caption of each picture."""
    rows = [outputs[name] for name in ("image_embedding", "text_embedding")]
    images, texts = (np.nan_to_num(one.reshape(len(one), -1)) for one in rows)
    return np.asarray(np.argmax(images @ texts.T, axis=1))
