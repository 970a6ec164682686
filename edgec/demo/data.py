"""The demonstration's data: pictures to calibrate with, pictures and captions to be judged by.

The gallery is the captions of 1,497 concepts. The evaluation pictures are drawn in Google's
style, which the heads were never trained on; the calibration pictures in Twitter's, and of
other concepts. `assets/NOTICE.md` has the sources and licences.
"""

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from edgec.demo import towers
from edgec.demo.model import ASSETS
from edgec.demo.pictures import decode, normalise

TOKENS = 64

Integers: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float32]
Run: TypeAlias = Callable[[Mapping[str, npt.NDArray[Any]]], Mapping[str, npt.NDArray[Any]]]


@dataclass(frozen=True)
class Evaluation:
    """Pictures and the gallery of captions.

    images uint8 [768, 64, 64, 3]; labels int64 [768], each the index of the right caption;
    captions, 1,497 texts; input_ids and attention_mask int64 [1497, 64].
    """

    images: npt.NDArray[np.uint8]
    labels: Integers
    captions: tuple[str, ...]
    input_ids: Integers
    attention_mask: Integers

    def feeds(self, start: int, stop: int) -> dict[str, npt.NDArray[Any]]:
        """Pictures and captions number `start` to `stop`, as the fused graph takes them.

        Past the end of either the first one stands in, because all inputs are always fed.
        """
        rows = slice(start, stop)
        captions = rows if start < len(self.captions) else slice(0, 1)
        pictures = self.images[rows] if start < len(self.images) else self.images[:1]
        return {
            "image": np.stack([normalise(picture) for picture in pictures]),
            "input_ids": self.input_ids[captions],
            "attention_mask": self.attention_mask[captions],
        }


def evaluation() -> Evaluation:
    """The evaluation set. Needs the text tower's package for its tokenizer."""
    concepts = _concepts()
    place = {concept: index for index, concept in enumerate(concepts)}
    pictures = _pictures("evaluation.zip")
    captions = tuple(concepts.values())
    input_ids, attention_mask = tokenize(captions)
    return Evaluation(
        images=np.stack(list(pictures.values())),
        labels=np.array([place[concept] for concept in pictures], np.int64),
        captions=captions,
        input_ids=input_ids,
        attention_mask=attention_mask,
    )


def write_calibration(folder: Path) -> Path:
    """Write 128 `.npz` files (77 MB), each one picture with its caption; return `folder`.

    image float32 [1, 3, 224, 224]; input_ids and attention_mask int64 [1, 64].
    """
    concepts = _concepts()
    pictures = _pictures("calibration.zip")
    input_ids, attention_mask = tokenize(tuple(concepts[concept] for concept in pictures))
    folder.mkdir(parents=True, exist_ok=True)
    for index, (concept, picture) in enumerate(pictures.items()):
        np.savez(
            folder / f"{index:03d}-{concept}.npz",
            image=normalise(picture)[None],
            input_ids=input_ids[index : index + 1],
            attention_mask=attention_mask[index : index + 1],
        )
    return folder


def tokenize(captions: tuple[str, ...]) -> tuple[Integers, Integers]:
    """Token ids and mask of each caption, both int64 [captions, 64]: cut or padded to 64."""
    tokenizer = Tokenizer.from_str(towers.tokenizer_json())
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    encodings = tokenizer.encode_batch(list(captions))
    ids = np.array([encoding.ids for encoding in encodings], np.int64)
    return ids, np.array([encoding.attention_mask for encoding in encodings], np.int64)


def embed(run: Run, data: Evaluation, batch: int = 1) -> tuple[Floats, Floats]:
    """Embed every picture [768, 256] and every caption [1497, 256] with a fused graph.

    `run` maps the three inputs to at least `image_embedding` and `text_embedding`. A batch of
    one is what the device runs; dynamic INT8 chooses one scale for a whole batch, so a larger
    batch is faster and changes its results a little.
    """
    pictures: list[Floats] = []
    captions: list[Floats] = []
    for start in range(0, max(len(data.images), len(data.captions)), batch):
        results = run(data.feeds(start, start + batch))
        if start < len(data.images):
            pictures.append(np.array(results["image_embedding"], np.float32))
        if start < len(data.captions):
            captions.append(np.array(results["text_embedding"], np.float32))
    return np.concatenate(pictures), np.concatenate(captions)


def _concepts() -> dict[str, str]:
    """Concept (code points in hex) -> caption, in the order of the gallery."""
    entries: dict[str, str] = json.loads((ASSETS / "captions.json").read_text("utf-8"))
    return entries


def _pictures(archive: str) -> dict[str, npt.NDArray[np.uint8]]:
    """Concept -> picture, in the archive's order."""
    with zipfile.ZipFile(ASSETS / archive) as pictures:
        return {Path(name).stem: decode(pictures.read(name)) for name in pictures.namelist()}
