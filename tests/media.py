"""Small pictures, sounds and a tokenizer, made the same way every time."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "the", "cat", "dog", "on", "mat", "red", "blue")


def pixels(height: int, width: int, channels: int = 3) -> Array:
    """A pattern with edges in both directions: uint8 [height, width, channels]."""
    y, x, c = np.ogrid[:height, :width, :channels]
    return ((x * 7 + y * 13 + c * 50 + (x * y) // 5) % 256).astype(np.uint8)


def picture(image: Image.Image | Array, form: str = "PNG", **options: Any) -> bytes:
    """An encoded picture."""
    stream = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(stream, form, **options)
    return stream.getvalue()


def tone(count: int = 400) -> Array:
    """A rising tone that fades: float64 [count]."""
    n = np.arange(count)
    return np.sin(0.05 * n + 2e-4 * n * n) * np.linspace(1, 0.2, count)


def wav(
    body: bytes,
    bits: int = 16,
    rate: int = 16000,
    channels: int = 1,
    form: int = 1,
    extra: bytes = b"",
    size: int | None = None,
) -> bytes:
    """A RIFF WAVE file around raw samples; `size` is what the data chunk says of itself."""
    block = channels * bits // 8
    header = struct.pack("<HHIIHH", form, channels, rate, rate * block, block, bits) + extra
    chunks = b"fmt " + struct.pack("<I", len(header)) + header
    chunks += b"data" + struct.pack("<I", len(body) if size is None else size) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def wav16(samples: Array, rate: int = 16000) -> bytes:
    """Samples between -1 and 1, [samples] or [samples, channels], as 16-bit PCM."""
    levels = np.rint(np.asarray(samples) * 32767).astype("<i2")
    return wav(levels.tobytes(), rate=rate, channels=levels[0].size)


def tokenizer(**changed: Any) -> dict[str, Any]:
    """A tokenizer.json of whole words with [CLS] and [SEP] around."""
    special = [(word, WORDS.index(word)) for word in WORDS[:4]]
    page: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": word,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for word, number in special
        ],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {
                word: {"id": word, "ids": [number], "tokens": [word]} for word, number in special
            },
        },
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {word: number for number, word in enumerate(WORDS)},
            "unk_token": "[UNK]",
        },
    }
    return {**page, **changed}


def tokenizer_bytes(**changed: Any) -> bytes:
    """The same as a file's bytes."""
    return json.dumps(tokenizer(**changed)).encode()


def write(path: Path, data: bytes | str) -> Path:
    """Write a file, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path
