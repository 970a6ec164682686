"""Models of public libraries have the parts that people know, and lose nothing by being cut."""

from __future__ import annotations

import graphs
import pytest
import small

from edgec.graphs import extract, inner
from edgec.join import _ordered
from edgec.partition import partition
from edgec.types import Scheme

# name, kind, modality of each part, by model
VISION, TEXT = ("vision", "transformer", "vision"), ("text", "transformer", "text")
CLIP = {VISION, TEXT, ("fusion", "fusion", "mixed")}
CROSS = {VISION, TEXT, ("fusion", "transformer", "mixed")}
DECODER = ("decoder", "transformer", "text")
SPEECH = {("encoder", "transformer", "audio"), DECODER}
EXPECTED = {
    "clip_dynamo": CLIP,
    "clip_script": CLIP,
    "whisper_dynamo": SPEECH,
    "whisper_script": SPEECH,
    "whisper_past_dynamo": SPEECH,
    "whisper_past_script": SPEECH,
    "whisper_step": {DECODER},
    "t5": {("encoder", "transformer", "text"), DECODER},
    "blip_dynamo": CROSS,
    "blip_script": CROSS,
    "retinanet": {("vision", "cnn", "vision"), ("head", "glue", "vision")},
    "faster_rcnn": {("vision", "cnn", "vision"), ("head", "mlp", "vision")},
    "trimodal": CROSS | {("audio", "transformer", "audio")},
}


def test_every_model_has_its_expectation() -> None:
    assert {f"library/{name}" for name in EXPECTED} == set(graphs.exported())


@pytest.mark.parametrize("name", EXPECTED)
def test_parts(name: str) -> None:
    found = small.parts(f"library/{name}")
    assert {(part.name, str(part.kind), str(part.modality)) for part in found} == EXPECTED[name]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", EXPECTED)
def test_the_parts_together_equal_the_whole_bit_for_bit(name: str, seed: int) -> None:
    found = small.fixture(f"library/{name}")
    feeds = graphs.load_feeds(f"library/{name}", seed, **({"batch": 3} if seed else {}))
    whole, known = small.run(found.model, feeds), dict(feeds)
    parts = partition(found)
    for part in _ordered(parts, {part.name: ("", Scheme.FLOAT32) for part in parts}):
        piece = extract(found.model, part.inputs, part.outputs)
        made = small.run(piece, known)
        assert set(made) == set(part.outputs)
        known.update(made)
    for key, array in whole.items():
        assert known[key].shape == array.shape
        assert known[key].tobytes() == array.tobytes(), key


def test_a_cross_attention_reads_one_value_of_the_tower_it_attends_to() -> None:
    """Its keys and values, two of each layer, depend on that tower alone and are none of it."""
    counts = {"blip_dynamo": 1, "blip_script": 1, "whisper_script": 1, "whisper_past_script": 1}
    counts["t5"] = 2  # and its mask
    for name, count in counts.items():
        parts = small.parts(f"library/{name}")
        tower = next(part for part in parts if part.name in ("vision", "encoder"))
        assert len(set(parts[-1].inputs) & set(tower.outputs)) == count, name


def test_states_go_into_the_decoder_and_out_of_it() -> None:
    for name in ("whisper_past_dynamo", "whisper_past_script", "whisper_step"):
        (decoder,) = (p for p in small.parts(f"library/{name}") if p.name == "decoder")
        carried = {f"{what}_{layer}" for what in ("key", "value") for layer in (0, 1)}
        assert carried <= set(decoder.inputs)
        assert {f"next_{one}" for one in carried} <= set(decoder.outputs)


def test_boxes_are_picked_behind_the_last_convolution() -> None:
    found = small.fixture("library/retinanet")
    vision, head = small.parts("library/retinanet")
    kinds = {node.name: node.op_type for node in found.model.graph}
    assert {kinds[name] for name in head.nodes}.isdisjoint({"Conv", "Relu"})
    picks = [node for node in found.model.graph if node.name in head.nodes]
    assert "NonMaxSuppression" in {one.op_type for node in picks for one in inner(node)}
    assert set(vision.outputs) == set(head.inputs)
    assert set(head.outputs) == {"boxes", "scores", "labels"}
