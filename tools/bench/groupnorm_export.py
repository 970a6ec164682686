"""timm's `resnet50_gn`, seeded, as an exporter of torch writes it: groupnorm_export.py FORM FILE.

FORM: dynamo21 has GroupNormalization, dynamo18 and torchscript17 the form with
InstanceNormalization. Weights are timm's initial ones, but the last scale of a block is 0.5 instead
of 0, which would leave nothing of the blocks.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.library import Library

# The torchvision of the package registry needs CUDA for its own operators. timm wants none of them,
# but torchvision does not load unless these are declared.
DECLARED = Library("torchvision", "DEF")
for NAME in ("nms", "qnms"):
    DECLARED.define(NAME + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm  # noqa: E402

SEED, LAST_SCALE, SIDE = 0, 0.5, 224
FORMS = {"dynamo21": (True, 21), "dynamo18": (True, 18), "torchscript17": (False, 17)}


def network() -> torch.nn.Module:
    torch.manual_seed(SEED)
    made = timm.create_model("resnet50_gn", pretrained=False)
    for name, weight in made.named_parameters():
        if name.startswith("layer") and name.endswith("bn3.weight"):
            torch.nn.init.constant_(weight, LAST_SCALE)
    return made.eval()


def main(form: str, path: Path) -> None:
    dynamo, opset = FORMS[form]
    sizes = {"image": {0: torch.export.Dim("batch") if dynamo else "batch"}}
    torch.onnx.export(
        network(),
        (torch.zeros(2, 3, SIDE, SIDE),),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        opset_version=opset,
        dynamo=dynamo,
        external_data=False,
        **({"dynamic_shapes": {"x": sizes["image"]}} if dynamo else {"dynamic_axes": sizes}),
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
