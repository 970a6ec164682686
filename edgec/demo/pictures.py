"""Pictures as the vision tower wants them.

Source of the normalisation: EfficientNet-Lite's reference code (mean 127, scale 128).
"""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 224


def decode(png: bytes) -> npt.NDArray[np.uint8]:
    """Decode a picture and lay it on white: uint8 [height, width, 3]."""
    with Image.open(io.BytesIO(png)) as picture:
        drawing = picture.convert("RGBA")
    paper = Image.new("RGBA", drawing.size, "white")
    return np.asarray(Image.alpha_composite(paper, drawing).convert("RGB"))


def normalise(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Resize uint8 [height, width, 3] bilinearly; return float32 [3, 224, 224]: (x - 127) / 128."""
    resized = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    values = (np.asarray(resized, np.float32) - 127.0) / 128.0
    return np.ascontiguousarray(values.transpose(2, 0, 1))
