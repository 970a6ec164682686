"""PP-OCR's detector and recogniser on rendered text, at one size each (see `real_graphs_ocr`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import peers_onnx
import real_graphs_ocr as ocr
from peers_types import Arrays, Folder, Scores

from edgec.runtime import npz

SAMPLES, LINES, PAGES = 64, 200, 24
PAGE, WIDTH = (480, 640), 480  # pixels: a page, and the width of a line that is 48 high


def recognition(folder: Folder, packages: Path) -> None:
    """x [1, 3, 48, 480] -> probabilities of characters."""
    source = _model(folder, packages, "PP-OCRv6_rec_small", (1, 3, 48, WIDTH))
    alphabet = next(one.value for one in source.metadata_props if one.key == "character")
    faces = _faces(packages)
    calibration = ocr.lines(ocr.CALIBRATE, SAMPLES, faces)
    found = list(ocr.lines(ocr.VERIFY, LINES, faces))
    _write(
        folder,
        [_strip(line) for line in calibration],
        [_strip(line) for line in found],
        {
            "text": _bytes([line.text for line in found]),
            "alphabet": _bytes(alphabet.splitlines()),
        },
    )


def detection(folder: Folder, packages: Path) -> None:
    """x [1, 3, 480, 640] -> a map of probabilities that a pixel is text."""
    _model(folder, packages, "PP-OCRv6_det_small", (1, 3, *PAGE))
    faces = _faces(packages)
    found = list(_pages(ocr.VERIFY, PAGES, faces))
    boxes = [(number, *box) for number, page in enumerate(found) for box in page.boxes]
    calibration = [ocr.whole(page) for page in _pages(ocr.CALIBRATE, SAMPLES, faces)]
    held = [ocr.whole(page) for page in found]
    _write(folder, calibration, held, {"boxes": np.array(boxes, np.float64)})


def characters(outputs: Arrays) -> Arrays:
    """The likeliest class of each step; the probabilities of 18,000 would fill gigabytes."""
    return {name: array.argmax(-1).astype(np.int32) for name, array in outputs.items()}


def exact(reference: Arrays, outputs: Arrays, labels: Arrays) -> Scores:
    """Lines read without a mistake, and lines read as FP32 reads them."""
    alphabet, texts = _texts(labels["alphabet"]), _texts(labels["text"])
    said, before = (
        [_read(one, alphabet) for one in _first(stack)] for stack in (outputs, reference)
    )
    return {
        "exact": float(np.mean([a == b for a, b in zip(said, texts, strict=True)])),
        "agreement": float(np.mean([a == b for a, b in zip(said, before, strict=True)])),
    }


def lines_found(reference: Arrays, outputs: Arrays, labels: Arrays) -> Scores:
    """Rendered lines that were found, and false boxes for each of them."""
    boxes, hits, extra = labels["boxes"], 0, 0
    for number, one in enumerate(_first(outputs)):
        wanted = [tuple(box[1:]) for box in boxes if box[0] == number]
        found = ocr.boxes(one[0, 0])
        hits += ocr.matched(wanted, found)
        extra += len(found) - ocr.matched(found, wanted)
    return {"lines found": hits / len(boxes), "false": extra / len(boxes)}


def _read(steps: np.ndarray, alphabet: list[str]) -> str:
    """`ocr.decode` for classes [1, steps] instead of probabilities."""
    best = steps[0]
    kept = best[np.insert(best[1:] != best[:-1], 0, True) & (best != 0)]
    letters = ["", *alphabet, " "]
    return "".join(letters[index] for index in kept)


def _first(outputs: Arrays) -> np.ndarray:
    return next(iter(outputs.values()))


def _model(folder: Folder, packages: Path, name: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    model = onnx.load(packages / "rapidocr" / "models" / f"{name}.onnx")
    peers_onnx.save(peers_onnx.fixed(model, {model.graph.input[0].name: shape}), folder.model)
    return model


def _faces(packages: Path) -> list[Path]:
    system = Path("/usr/share/fonts/truetype/dejavu")
    return ocr.fonts([system, packages / "matplotlib" / "mpl-data" / "fonts" / "ttf"])


def _strip(line: ocr.Line) -> np.ndarray:
    return ocr.strip(line.picture, WIDTH, wider=False)


def _pages(split: str, count: int, faces: list[Path]) -> Iterator[ocr.Page]:
    """Pages of the one size."""
    several = ocr.pages(split, count * len(ocr.PAGES), faces)
    return (page for page in several if page.picture.shape[:2] == PAGE)


def _write(
    folder: Folder, calibration: list[np.ndarray], held: list[np.ndarray], labels: Arrays
) -> None:
    name = onnx.load(folder.model, load_external_data=False).graph.input[0].name
    folder.calibration.mkdir(exist_ok=True)
    folder.heldout.mkdir(exist_ok=True)
    for number, array in enumerate(calibration):
        npz.write(folder.calibration / f"{number:03}.npz", {name: array})
    np.save(folder.heldout / f"{name}.npy", np.concatenate(held))
    npz.write(folder.labels, labels)


def _bytes(texts: list[str]) -> np.ndarray:
    """Texts as UTF-8 in one array, a line each: `.npz` files hold numbers."""
    return np.frombuffer("\n".join(texts).encode(), np.uint8)


def _texts(array: np.ndarray) -> list[str]:
    return array.tobytes().decode().split("\n")
