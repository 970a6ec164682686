"""MiniLM (all-MiniLM-L6-v2) on texts of 128 tokens that people have rated.

Documents: the Lee corpus in gensim, 50 texts whose 1,225 pairs carry a human similarity. Sentiment:
the film reviews of VADER, in sentences; a linear classifier on FP32 embeddings, trained once on
sentences that no case sees, is asked with every case's embeddings.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import peers_onnx
from peers_types import Arrays, Folder, Scores
from tokenizers import Tokenizer

from edgec.demo import towers
from edgec.demo.model import compose
from edgec.runtime import npz

TOKENS, SAMPLES = 128, 64
TRAIN, ASKED = 600, 300  # sentences
RIDGE = 1.0
DOCUMENTS = 50


def minilm(folder: Folder, packages: Path) -> None:
    """The demonstration's text tower up to its mean pool: ids, mask [1, 128] -> [1, 384]."""
    with tempfile.TemporaryDirectory() as work:
        fused = onnx.load(compose(Path(work) / "fused.onnx"))
    model = peers_onnx.cut(fused, ["input_ids", "attention_mask"], "div", ["captions", 384])
    peers_onnx.rename_output(model, "sentence")
    shapes = {"input_ids": (1, TOKENS), "attention_mask": (1, TOKENS)}
    peers_onnx.save(peers_onnx.fixed(model, shapes), folder.model)
    _data(folder, packages)


def rated(reference: Arrays, outputs: Arrays, labels: Arrays) -> Scores:
    """Pearson with people's similarities; sentiment: accuracy, and agreement with FP32."""
    units, before = (_units(stack["sentence"]) for stack in (outputs, reference))
    documents = units[:DOCUMENTS]
    upper = np.triu_indices(DOCUMENTS, 1)
    likeness = (documents @ documents.T)[upper]
    said, once = ((one[DOCUMENTS:] @ labels["weights"]) > labels["bias"] for one in (units, before))
    return {
        "Lee Pearson": float(np.corrcoef(likeness, labels["similarity"][upper])[0, 1]),
        "sentiment": float(np.mean(said == labels["positive"])),
        "agreement": float(np.mean(said == once)),
    }


def _units(embeddings: np.ndarray) -> np.ndarray:
    rows = embeddings.reshape(len(embeddings), -1).astype(np.float64)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30))


def _data(folder: Folder, packages: Path) -> None:
    folder.calibration.mkdir(exist_ok=True)
    folder.heldout.mkdir(exist_ok=True)
    lee = packages / "gensim" / "test" / "test_data"
    sentences, ratings = _reviews(packages)
    order = np.random.default_rng(0).permutation(len(sentences))
    asked, train, spare = np.split(order, [ASKED, ASKED + TRAIN])
    background = _lines(lee / "lee_background.cor")
    half = SAMPLES // 2
    calibration = [*background[:half], *(sentences[index] for index in spare[:half])]
    for number, feeds in enumerate(_feeds(calibration)):
        npz.write(folder.calibration / f"{number:03}.npz", feeds)
    texts = [*_lines(lee / "lee.cor")[:DOCUMENTS], *(sentences[index] for index in asked)]
    for name in ("input_ids", "attention_mask"):
        rows = np.concatenate([feeds[name] for feeds in _feeds(texts)])
        np.save(folder.heldout / f"{name}.npy", rows)
    weights, bias = _classifier(folder, [sentences[index] for index in train], ratings[train] > 0)
    labels = {
        "similarity": np.loadtxt(lee / "similarities0-1.txt"),
        "positive": ratings[asked] > 0,
        "weights": weights,
        "bias": np.array(bias),
    }
    npz.write(folder.labels, labels)


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="latin-1").splitlines() if line.strip()]


def _reviews(packages: Path) -> tuple[list[str], np.ndarray]:
    """Sentences of film reviews and their ratings, -4 to 4, without the neutral ones."""
    (outer,) = packages.glob("[vV]aderSentiment-*.tar.gz")
    inner = _member(outer.read_bytes(), "/hutto_ICWSM_2014.tar.gz")
    text = _member(inner, "/movieReviewSnippets_GroundTruth.txt").decode("utf-8", "replace")
    rows = [line.split("\t", 2) for line in text.splitlines() if line.count("\t") >= 2]
    kept = [(sentence, float(rating)) for _, rating, sentence in rows if float(rating) != 0]
    return [sentence for sentence, _ in kept], np.array([rating for _, rating in kept])


def _member(archive: bytes, ending: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        for member in files:
            if member.name.endswith(ending) and (stream := files.extractfile(member)):
                return stream.read()
    raise FileNotFoundError(ending)


def _feeds(texts: Sequence[str]) -> list[Arrays]:
    """Each text as ids and mask, int64 [1, 128], cut or padded."""
    tokenizer = Tokenizer.from_str(towers.tokenizer_json())
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    return [
        {
            "input_ids": np.array([one.ids], np.int64),
            "attention_mask": np.array([one.attention_mask], np.int64),
        }
        for one in tokenizer.encode_batch(list(texts))
    ]


def _classifier(
    folder: Folder, sentences: Sequence[str], positive: np.ndarray
) -> tuple[np.ndarray, float]:
    """Ridge regression of +-1 on unit embeddings; positive is what lies above the bias."""
    session = ort.InferenceSession(str(folder.model))
    units = _units(np.concatenate([session.run(None, feeds)[0] for feeds in _feeds(sentences)]))
    centre, target = units.mean(0), np.where(positive, 1.0, -1.0)
    x = units - centre
    square = x.T @ x + RIDGE * np.eye(x.shape[1])
    weights = np.linalg.solve(square, x.T @ (target - target.mean()))
    return weights, float(centre @ weights - target.mean())
