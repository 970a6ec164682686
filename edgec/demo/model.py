"""The fused multimodal graph: a committed graph without weights, filled from the packages.

    image          float32 [images, 3, 224, 224]  ->  image_embedding  float32 [images, 256]
    input_ids      int64 [captions, tokens]       ->  text_embedding   float32 [captions, 256]
    attention_mask int64 [captions, tokens]       ->  score            float32 [images, captions]

`assets/weights.json` says for every missing initialiser which arrays it is made of.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgec.demo import towers
from edgec.demo.checkpoints import Tensors
from edgec.errors import InputError, InternalError

ASSETS = Path(__file__).parent / "assets"
_BATCH_NORM_EPSILON = np.float32(1e-3)

Recipe = Mapping[str, str]


def compose(into: Path) -> Path:
    """Write the model as one ONNX file (opset 18, about 106 MB) to `into` and return `into`.

    Fetches the towers if they are not in the cache. The same inputs give the same bytes.
    Raises ToolchainError when the towers cannot be had, InputError when `into` cannot be written.
    """
    model = ir.load(ASSETS / "graph.onnx")
    recipes: dict[str, Recipe] = json.loads((ASSETS / "weights.json").read_text("utf-8"))
    fill(model, recipes, sources())
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=into.parent, prefix=".compose-") as folder:
            ir.save(model, Path(folder) / into.name)
            os.replace(Path(folder) / into.name, into)
    except OSError as error:
        raise InputError(
            f"cannot write {into}: {error}", hint="choose a folder that has 110 MB free"
        ) from error
    return into


def sources() -> dict[str, Tensors]:
    """The arrays that the recipes name: `vision`, `text` and `heads`."""
    with np.load(ASSETS / "heads.npz", allow_pickle=False) as archive:
        heads = {name: archive[name].astype(np.float32) for name in archive.files}
    return {"vision": towers.vision_weights(), "text": towers.text_weights(), "heads": heads}


def fill(model: ir.Model, recipes: Mapping[str, Recipe], tensors: Mapping[str, Tensors]) -> None:
    """Give every initialiser that has a recipe its value, in place."""
    for name, recipe in recipes.items():
        value = model.graph.initializers[name]
        array = cook(recipe, tensors[recipe["source"]])
        if value.shape is None or tuple(value.shape) != array.shape:
            raise InternalError(f"{name}: the graph wants {value.shape}, got {array.shape}")
        value.const_value = ir.tensor(array, name=name)


def cook(recipe: Recipe, tensors: Tensors) -> npt.NDArray[np.float32]:
    """Make one initialiser: a copy, a transpose, or half of a Conv with its BatchNorm folded in.

    For the folded forms, with s = gamma / sqrt(variance + epsilon): weight * s per output
    channel, and beta - mean * s. Source: Jacob et al. 2018 (arXiv:1712.05877), section 3.2.
    """
    match recipe["form"]:
        case "copy":
            return _float32(tensors[recipe["key"]])
        case "transpose":
            return _float32(tensors[recipe["key"]].T)
        case "folded weight":
            weight = tensors[recipe["key"]]
            return _float32(weight * _scale(tensors, recipe["norm"])[:, None, None, None])
        case "folded bias":
            norm = recipe["norm"]
            shift = tensors[f"{norm}.running_mean"] * _scale(tensors, norm)
            return _float32(tensors[f"{norm}.bias"] - shift)
        case form:
            raise InternalError(f"weights.json holds an unknown form {form!r}")


def _scale(tensors: Tensors, norm: str) -> npt.NDArray[Any]:
    deviation = np.sqrt(tensors[f"{norm}.running_var"] + _BATCH_NORM_EPSILON)
    return np.asarray(tensors[f"{norm}.weight"] / deviation)


def _float32(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.array(array, np.float32, order="C")
