"""Regenerate everything in edgec/demo/assets except NOTICE.md: python -m train WORK_FOLDER.

Seeded: the same processor and thread count (OMP_NUM_THREADS, 2 if unset) give the same bytes.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import concepts
import export
import heads
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime
import torch
from networks import Fused
from onnx_ir.convenience import extract

from edgec.demo import data, model, towers

TOLERANCE = 1e-4
HEADS = ("vision_head.weight", "vision_head.bias", "text_head.weight", "text_head.bias", "scale")


def main(work: Path) -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    found = concepts.read(work / "packages")
    print(f"{len(found)} concepts")
    concepts.write(found, model.ASSETS)

    vision, text = towers.vision_weights(), towers.text_weights()
    fused = export.assemble(vision, text)
    exported = export.export(fused)
    fresh = {name: fused.state_dict()[name].numpy() for name in HEADS}
    recipes = export.recipes(exported, {"vision": vision, "text": text, "heads": fresh})

    with tempfile.TemporaryDirectory() as folder:
        seeing = tower(exported, "vision_head.weight", ["image"], Path(folder))
        reading = tower(exported, "text_head.weight", ["input_ids", "attention_mask"], Path(folder))
        ids, mask = data.tokenize(tuple(concept.caption for concept in found))
        assert mask.sum(1).max() < data.TOKENS, "a caption is cut"
        check_towers(fused, seeing, reading, found, ids, mask)
        texts = [
            reading.run(None, {"input_ids": ids[i : i + 16], "attention_mask": mask[i : i + 16]})[0]
            for i in range(0, len(ids), 16)
        ]
        heads.train(fused, heads.vision_features(seeing, found), np.concatenate(texts))

    trained = {name: fused.state_dict()[name].numpy().astype(np.float16) for name in HEADS}
    np.savez(model.ASSETS / "heads.npz", **trained)
    export.write_weightless(exported, set(recipes), model.ASSETS / "graph.onnx")
    text_of_recipes = json.dumps(recipes, indent=0, sort_keys=True)
    (model.ASSETS / "weights.json").write_text(text_of_recipes + "\n", "utf-8")

    session = onnxruntime.InferenceSession(model.compose(work / "demo.onnx"))
    check_composed(fused, session)
    report(session)


def tower(
    exported: ir.Model, head: str, inputs: list[str], folder: Path
) -> onnxruntime.InferenceSession:
    """Cut one tower out of the exported graph: from its inputs to the input of its head."""
    (gemm,) = exported.graph.initializers[head].consumers()
    features = gemm.inputs[0]
    assert features is not None
    assert features.name is not None
    graph = extract(exported.graph, inputs, [features.name])
    path = folder / f"{head}.onnx"
    ir.save(ir.Model(graph, ir_version=exported.ir_version), path)
    return onnxruntime.InferenceSession(path)


def check_towers(
    fused: Fused,
    seeing: onnxruntime.InferenceSession,
    reading: onnxruntime.InferenceSession,
    found: list[concepts.Concept],
    ids: npt.NDArray[np.int64],
    mask: npt.NDArray[np.int64],
) -> None:
    """Assert that torch and ONNX Runtime agree on the features of real pictures and captions."""
    images = np.stack([data.normalise(concepts.picture(c, "fluent")) for c in found[:8]])
    with torch.no_grad():
        picture = fused.vision(torch.from_numpy(images))
        caption = fused.text(torch.from_numpy(ids[:8]), torch.from_numpy(mask[:8]))
    compare("vision features", picture, seeing.run(None, {"image": images})[0])
    feeds = {"input_ids": ids[:8], "attention_mask": mask[:8]}
    compare("text features", caption, reading.run(None, feeds)[0])


def check_composed(fused: Fused, session: onnxruntime.InferenceSession) -> None:
    """Assert that the composed file gives what the trained torch model gives."""
    inputs = export.example()
    with torch.no_grad():
        wanted = fused(*inputs)
    names = [entry.name for entry in session.get_inputs()]
    got = session.run(None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)})
    for name, a, b in zip(export.OUTPUTS, wanted, got, strict=True):
        compare(name, a, b)


def compare(what: str, wanted: torch.Tensor, got: npt.NDArray[np.float32]) -> None:
    error = float(np.abs(wanted.numpy() - got).max())
    print(f"{what}: torch and ONNX Runtime differ by at most {error:.1e}")
    assert error < TOLERANCE, f"{what}: {error} is not below {TOLERANCE}"


def report(session: onnxruntime.InferenceSession) -> None:
    """Print recall on the unseen style. Text to image: the captions that have a picture."""
    names = [entry.name for entry in session.get_outputs()]
    test = data.evaluation()
    pictures, captions = data.embed(
        lambda feeds: dict(zip(names, session.run(None, dict(feeds)), strict=True)), test, batch=8
    )
    score = pictures @ captions.T
    own = score[np.arange(len(score)), test.labels]
    by_image = (score > own[:, None]).sum(1)
    by_text = (score[:, test.labels] > own[None, :]).sum(0)
    for what, rank in (("image to text", by_image), ("text to image", by_text)):
        recalls = " ".join(f"@{k} {np.mean(rank < k):.3f}" for k in (1, 5, 10))
        print(f"{what}, {len(rank)} queries: recall {recalls}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
