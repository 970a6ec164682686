"""Export the fused model and take its weights out again: graph.onnx and weights.json."""

import re
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from networks import Fused, MiniLM, Vision

from edgec.demo.checkpoints import Tensors
from edgec.demo.model import Recipe, cook

OPSET = 18
OUTPUTS = ["score", "image_embedding", "text_embedding"]
KEPT_METADATA = {"namespace", "pkg.torch.onnx.name_scopes"}
NORMS = {
    "_conv_stem": "_bn0",
    "_conv_head": "_bn1",
    "_expand_conv": "_bn0",
    "_depthwise_conv": "_bn1",
    "_project_conv": "_bn2",
}


def assemble(vision: Tensors, text: Tensors) -> Fused:
    """The fused model with pretrained towers and fresh heads, in evaluation mode."""
    torch.manual_seed(0)
    tower, encoder = Vision.from_name("efficientnet-lite0"), MiniLM()
    tower.load_state_dict(_torch(vision))
    unused = ("pooler.", "embeddings.position_ids")
    encoder.load_state_dict(_torch({k: v for k, v in text.items() if not k.startswith(unused)}))
    return Fused(tower, encoder).eval()


def export(fused: Fused) -> ir.Model:
    """Run torch's exporter with dynamic images, captions and tokens."""
    images, captions, tokens = (torch.export.Dim(d) for d in ("images", "captions", "tokens"))
    program = torch.onnx.export(
        fused,
        example(),
        dynamo=True,
        opset_version=OPSET,
        input_names=["image", "input_ids", "attention_mask"],
        output_names=OUTPUTS,
        dynamic_shapes=({0: images}, {0: captions, 1: tokens}, {0: captions, 1: tokens}),
    )
    assert program is not None
    return _tidy(program.model)


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two pictures of noise and three captions of up to 16 tokens."""
    random = torch.Generator().manual_seed(0)
    mask = torch.ones(3, 16, dtype=torch.int64)
    mask[1, 9:] = 0
    ids = torch.randint(1000, 20000, (3, 16), generator=random)
    return torch.randn(2, 3, 224, 224, generator=random), ids, mask


def recipes(model: ir.Model, sources: dict[str, Tensors]) -> dict[str, Recipe]:
    """Find out what every initialiser is made of; give transposed weights a readable name.

    Asserts that each recipe gives what the exporter wrote.
    """
    found: dict[str, Recipe] = {}
    transposed = {
        array.T.tobytes(): key
        for key, array in sources["text"].items()
        if array.ndim == 2 and "Layer" not in key and "embeddings" not in key
    }
    for value in list(model.graph.initializers.values()):
        assert value.name is not None
        assert value.const_value is not None
        array = value.const_value.numpy()
        if re.fullmatch(r"val_\d+", value.name) and (key := transposed.get(array.tobytes())):
            value.name = f"text.{key}.transposed"
            recipe = {"source": "text", "form": "transpose", "key": key}
        elif value.name.startswith("vision."):
            value.name = value.name.replace(".weight_bias", ".bias")
            recipe = _folded(value.name.removeprefix("vision."))
        elif value.name.startswith("text."):
            recipe = {"source": "text", "form": "copy", "key": value.name.removeprefix("text.")}
        elif value.name in sources["heads"]:
            recipe = {"source": "heads", "form": "copy", "key": value.name}
        else:
            assert array.size < 8, f"{value.name} {array.shape} has no source"
            continue
        if recipe["source"] != "heads":
            np.testing.assert_allclose(cook(recipe, sources[recipe["source"]]), array, 1e-5, 1e-6)
        found[value.name] = recipe
    return found


def write_weightless(model: ir.Model, names: set[str], path: Path) -> None:
    """Save the graph with only dtype and shape of the named initialisers (in place)."""
    for name in names:
        value = model.graph.initializers[name]
        assert value.const_value is not None
        size = value.const_value.nbytes
        shape = ir.Shape(value.const_value.shape)
        value.const_value = ir.ExternalTensor(
            "weights", 0, size, value.const_value.dtype, shape=shape, name=name
        )
    ir.save(model, path)


def _folded(parameter: str) -> Recipe:
    conv, kind = parameter.rsplit(".", 1)
    *block, name = conv.split(".")
    norm = ".".join([*block, NORMS[name]])
    return {"source": "vision", "form": f"folded {kind}", "key": f"{conv}.weight", "norm": norm}


def _tidy(model: ir.Model) -> ir.Model:
    """Drop what the exporter notes about source files."""
    for node in model.graph:
        for key in set(node.metadata_props) - KEPT_METADATA:
            del node.metadata_props[key]
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.graph.name = "emoji_retrieval"
    return model


def _torch(tensors: Tensors) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}
