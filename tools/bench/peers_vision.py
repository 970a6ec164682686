"""EfficientNet-Lite0 with ImageNet weights, and ResNet-50 with seeded ones, on photographs.

Calibration: 64 crops of the colour photographs of scikit-image and scikit-learn. Held out: the 20
ImageNet pictures of foolbox, which carry their labels in their names, in up to ten views each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import peers_onnx
import peers_resnet
from peers_types import Arrays, Folder, Scores
from PIL import Image

from edgec.demo import towers
from edgec.demo.model import compose
from edgec.runtime import npz

SIDE, SAMPLES = 224, 64
PHOTOGRAPHS = [
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "motorcycle_left.png",
    "rocket.jpg",
    "hubble_deep_field.jpg",
    "ihc.png",
    "retina.jpg",
    "brick.png",
    "grass.png",
]
Pixels = np.ndarray  # uint8 [height, width, 3]
MEAN = np.array((0.485, 0.456, 0.406), np.float32)
DEVIATION = np.array((0.229, 0.224, 0.225), np.float32)


def lite0(folder: Folder, packages: Path) -> None:
    """The demonstration's vision tower up to its pooled features, and its own classifier."""
    with tempfile.TemporaryDirectory() as work:
        fused = onnx.load(compose(Path(work) / "fused.onnx"))
    model = peers_onnx.cut(fused, ["image"], "mean", ["images", 1280])
    tensors = towers.vision_weights()
    graph = model.graph
    for name, key in (("classifier.weight", "_fc.weight"), ("classifier.bias", "_fc.bias")):
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(tensors[key]), name))
    feeds = ["mean", "classifier.weight", "classifier.bias"]
    graph.node.append(onnx.helper.make_node("Gemm", feeds, ["logits"], "classifier", transB=1))
    graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, None)
    )
    peers_onnx.save(peers_onnx.fixed(model, {"image": (1, 3, SIDE, SIDE)}), folder.model)
    _data(folder, packages, lambda pixels: (pixels.astype(np.float32) - 127.0) / 128.0, 10)


def resnet50(folder: Folder, packages: Path) -> None:
    """ResNet-50 with seeded weights; its normalisation statistics come from the photographs."""
    _data(folder, packages, lambda pixels: (pixels / np.float32(255) - MEAN) / DEVIATION, 3)
    files = sorted(folder.calibration.glob("*.npz"))[::4]
    batch = np.concatenate([np.load(file)["image"] for file in files])
    peers_onnx.save(peers_resnet.resnet50(batch), folder.model)


def classes(reference: Arrays, outputs: Arrays, labels: Arrays) -> Scores:
    """Top-1 on the central views, and on all views how often the class is FP32's."""
    said, before = (stack["logits"].argmax(-1).ravel() for stack in (outputs, reference))
    central = slice(None, None, len(said) // len(labels["label"]))
    return {
        "top-1": float(np.mean(said[central] == labels["label"])),
        "agreement": float(np.mean(said == before)),
    }


def nothing(reference: Arrays, outputs: Arrays, labels: Arrays) -> Scores:
    """Random weights have no task."""
    return {}


def _data(
    folder: Folder, packages: Path, prepare: Callable[[Pixels], np.ndarray], views: int
) -> None:
    folder.calibration.mkdir(exist_ok=True)
    folder.heldout.mkdir(exist_ok=True)
    for number, pixels in enumerate(_crops(_photographs(packages))):
        npz.write(folder.calibration / f"{number:03}.npz", {"image": _chw(prepare(pixels))[None]})
    held, labels = [], []
    for path in sorted((packages / "foolbox" / "data").glob("imagenet_*.jpg")):
        labels.append(int(path.stem.rsplit("_", 1)[1]))
        held += [_chw(prepare(view)) for view in _ten(_open(path))[:views]]
    np.save(folder.heldout / "image.npy", np.stack(held))
    npz.write(folder.labels, {"label": np.array(labels)})


def _photographs(packages: Path) -> list[Pixels]:
    import sklearn.datasets

    more = Path(sklearn.datasets.__file__).parent / "images"
    paths = [packages / "skimage" / "data" / name for name in PHOTOGRAPHS]
    return [_open(path) for path in (*paths, more / "china.jpg", more / "flower.jpg")]


def _open(path: Path) -> Pixels:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def _crops(pictures: list[Pixels]) -> Iterator[Pixels]:
    """Random squares of 40 to 100 % of the shorter side, half of them mirrored."""
    rng = np.random.default_rng(0)
    for number in range(SAMPLES):
        picture = pictures[number % len(pictures)]
        shorter = min(picture.shape[:2])
        side = int(shorter * rng.uniform(0.4, 1.0))
        top, left = (int(rng.integers(0, size - side + 1)) for size in picture.shape[:2])
        crop = picture[top : top + side, left : left + side]
        yield _resized(crop[:, ::-1] if rng.random() < 0.5 else crop)


def _ten(picture: Pixels) -> list[Pixels]:
    """The centre and the four corners at 7/8 of the shorter side, each also mirrored."""
    height, width = picture.shape[:2]
    side = int(min(height, width) * 7 / 8)
    corners = [(0, 0), (0, width - side), (height - side, 0), (height - side, width - side)]
    places = [((height - side) // 2, (width - side) // 2), *corners]
    plain = [_resized(picture[y : y + side, x : x + side]) for y, x in places]
    return [view for one in plain for view in (one, one[:, ::-1])]


def _resized(pixels: Pixels) -> Pixels:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _chw(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values.transpose(2, 0, 1), np.float32)
