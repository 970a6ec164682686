"""What the tasks of `tools/bench/peers` score, on outputs whose figures are known."""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "bench"))

import peers_onnx
import peers_papers
import peers_text
import peers_towers
import peers_vision
import real_graphs_ocr as ocr
from peers_models import MODELS
from peers_types import Folder


def logits(classes: list[int]) -> dict[str, np.ndarray]:
    return {"logits": np.eye(5, dtype=np.float32)[classes][:, None]}


def test_classes_asks_labels_of_the_central_views_alone() -> None:
    labels = {"label": np.array([1, 2])}
    before = logits([1, 0, 0, 3, 0, 0])
    scores = peers_vision.classes(before, logits([1, 0, 4, 2, 0, 0]), labels)
    assert scores == {"top-1": 1.0, "agreement": 4 / 6}
    assert peers_vision.classes(before, before, labels) == {"top-1": 0.5, "agreement": 1.0}


def test_retrieval_counts_the_right_caption_and_agreement() -> None:
    captions = np.eye(3, 4, dtype=np.float32)[:, None]
    before = {"image_embedding": captions, "text_embedding": captions}
    after = {"image_embedding": captions[[0, 1, 1]], "text_embedding": captions}
    scores = peers_towers.retrieval(before, after, {"label": np.arange(3)})
    assert scores == {"recall@1": 2 / 3, "agreement": 2 / 3}


def test_rated_is_one_for_the_similarities_themselves() -> None:
    rng = np.random.default_rng(0)
    units = rng.normal(size=(peers_text.DOCUMENTS + 8, 16))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    documents = units[: peers_text.DOCUMENTS]
    weights = rng.normal(size=16)
    labels = {
        "similarity": documents @ documents.T,
        "positive": units[peers_text.DOCUMENTS :] @ weights > 0.0,
        "weights": weights,
        "bias": np.array(0.0),
    }
    found = {"sentence": units[:, None] * 3.0}
    scores = peers_text.rated(found, found, labels)
    assert scores["Lee Pearson"] > 0.999999
    assert (scores["sentiment"], scores["agreement"]) == (1.0, 1.0)
    scores = peers_text.rated(found, {"sentence": -units[:, None]}, labels)
    assert (scores["sentiment"], scores["agreement"]) == (0.0, 0.0)
    assert scores["Lee Pearson"] > 0.999999


def test_reduced_lines_read_as_the_probabilities_do() -> None:
    alphabet = ["a", "b", "c"]
    probabilities = np.eye(5, dtype=np.float32)[[0, 1, 1, 0, 1, 4, 3, 3, 0]][None]
    text = ocr.decode(probabilities, alphabet)
    assert text == "aa c"
    reduced = peers_papers.characters({"y": probabilities})
    found = {"y": np.stack([reduced["y"]] * 2)}
    labels = {
        "text": np.frombuffer(f"{text}\nother".encode(), np.uint8),
        "alphabet": np.frombuffer("\n".join(alphabet).encode(), np.uint8),
    }
    assert peers_papers.exact(found, found, labels) == {"exact": 0.5, "agreement": 1.0}


def test_lines_found_counts_hits_and_false_boxes() -> None:
    page = np.zeros((1, 1, 40, 60), np.float32)
    page[0, 0, 5:15, 10:50] = 1.0
    page[0, 0, 30:38, 2:12] = 1.0
    ((*box,), _) = ocr.boxes(page[0, 0])
    labels = {"boxes": np.array([[0, *box], [0, 0, 20, 5, 25]], np.float64)}
    scores = peers_papers.lines_found({}, {"map": page[None]}, labels)
    assert scores == {"lines found": 0.5, "false": 0.5}


def test_a_cut_network_has_fixed_shapes_and_its_own_output(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["hidden"], "first"),
        helper.make_node("Relu", ["hidden"], ["y"], "second"),
    ]
    shape = ["batch", 3]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    part = peers_onnx.cut(model, ["x"], "hidden", shape)
    peers_onnx.rename_output(part, "out")
    peers_onnx.save(peers_onnx.fixed(part, {"x": (1, 3)}), tmp_path / "part.onnx")
    session = ort.InferenceSession(str(tmp_path / "part.onnx"))
    assert [one.shape for one in (*session.get_inputs(), *session.get_outputs())] == [[1, 3]] * 2
    negative = -np.ones((1, 3), np.float32)
    np.testing.assert_array_equal(session.run(["out"], {"x": negative})[0], negative)


def test_every_model_names_the_sources_that_its_cache_follows() -> None:
    bench = Path(peers_onnx.__file__).parent
    for model in MODELS:
        assert model.sources, model.name
        assert all((bench / f"peers_{name}.py").is_file() for name in model.sources), model.name
        assert Folder(Path(model.name)).sample.name == "000.npz"
