"""The composed graph: complete, valid, repeatable."""

import json
import re

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from edgec.demo import data, model
from edgec.errors import InputError


def recipes():
    return json.loads((model.ASSETS / "weights.json").read_text("utf-8"))


def session(path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def runner(path):
    opened = session(path)
    names = [output.name for output in opened.get_outputs()]
    return lambda feeds: dict(zip(names, opened.run(None, dict(feeds)), strict=True))


@pytest.fixture
def stand_ins(monkeypatch):
    """Seeded arrays in place of the pretrained towers, of the shapes that the graph wants."""
    random = np.random.default_rng(0)
    graph = ir.load(model.ASSETS / "graph.onnx").graph
    tensors = {"vision": {}, "text": {}, "heads": {}}
    for name, recipe in recipes().items():
        shape = tuple(graph.initializers[name].shape.numpy())
        array = random.normal(0, 0.02, shape).astype(np.float32)
        source = tensors[recipe["source"]]
        match recipe["form"]:
            case "copy" | "folded weight":
                source[recipe["key"]] = array
            case "transpose":
                source[recipe["key"]] = array.T
            case "folded bias":
                for part in ("weight", "bias", "running_mean", "running_var"):
                    source[f"{recipe['norm']}.{part}"] = np.abs(array)
    monkeypatch.setattr(model, "sources", lambda: tensors)


def test_every_missing_weight_has_a_recipe():
    initializers = ir.load(model.ASSETS / "graph.onnx").graph.initializers
    missing = {
        name
        for name, value in initializers.items()
        if isinstance(value.const_value, ir.ExternalTensor)
    }
    assert missing == set(recipes())


def test_the_graph_names_no_folder_of_the_machine_it_was_made_on():
    content = (model.ASSETS / "graph.onnx").read_bytes()
    assert re.findall(rb"[\w/.-]*\.py\b|/(?:home|root|tmp|usr|work)/[\w/.-]*", content) == []


def test_the_heads_alone_are_taken_from_the_wheel():
    with np.load(model.ASSETS / "heads.npz", allow_pickle=False) as heads:
        named = {recipe["key"] for recipe in recipes().values() if recipe["source"] == "heads"}
        assert set(heads.files) == named
        assert all(np.isfinite(heads[name]).all() for name in named)


def test_composes_a_valid_model(stand_ins, tmp_path):
    path = model.compose(tmp_path / "new" / "demo.onnx")
    onnx.checker.check_model(path, full_check=True)
    assert 100e6 < path.stat().st_size < 115e6
    assert [file.name for file in path.parent.iterdir()] == ["demo.onnx"]
    run = runner(path)
    random = np.random.default_rng(1)
    results = run(
        {
            "image": random.normal(size=(2, 3, 224, 224)).astype(np.float32),
            "input_ids": random.integers(0, 30000, (3, 9)),
            "attention_mask": np.ones((3, 9), np.int64),
        }
    )
    shapes = {name: array.shape for name, array in results.items()}
    expected = {"score": (2, 3), "image_embedding": (2, 256), "text_embedding": (3, 256)}
    assert shapes == expected


def test_a_failure_leaves_nothing(stand_ins, tmp_path, monkeypatch):
    def save(graph, path):
        raise OSError("no space left")

    monkeypatch.setattr(ir, "save", save)
    with pytest.raises(InputError, match="no space left"):
        model.compose(tmp_path / "demo.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="session")
def composed(tmp_path_factory):
    return model.compose(tmp_path_factory.mktemp("demo") / "demo.onnx")


@pytest.mark.network
def test_composing_twice_gives_the_same_bytes(composed, tmp_path):
    assert model.compose(tmp_path / "again.onnx").read_bytes() == composed.read_bytes()


@pytest.mark.network
def test_padding_does_not_matter(composed):
    """The mask takes the padding out; the score goes up to 29, so 1e-4 is rounding."""
    run = runner(composed)
    feeds = data.evaluation().feeds(0, 2)
    longest = int(feeds["attention_mask"].sum(1).max())
    short = {name: a if name == "image" else a[:, :longest] for name, a in feeds.items()}
    np.testing.assert_allclose(run(feeds)["score"], run(short)["score"], atol=1e-4)


@pytest.mark.network
def test_the_score_is_the_scaled_product_of_unit_vectors(composed):
    results = runner(composed)(data.evaluation().feeds(0, 4))
    for name in ("image_embedding", "text_embedding"):
        np.testing.assert_allclose(np.linalg.norm(results[name], axis=1), 1.0, atol=1e-5)
    product = results["image_embedding"] @ results["text_embedding"].T
    scale = results["score"] / product
    np.testing.assert_allclose(scale, scale[0, 0], rtol=1e-3)
