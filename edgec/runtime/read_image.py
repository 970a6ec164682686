"""Pictures as arrays: decoded, turned upright, resized, cropped, normalised.

PNG, JPEG, WebP and BMP by Pillow, whose resampling widens its filter when it shrinks
(https://pillow.readthedocs.io/en/stable/handbook/concepts.html#filters), as torchvision does on
pictures. Sixteen bits become eight, alpha is laid on `background`, colour profiles are ignored.
"""

import io
from typing import Any, Dict, List, Tuple

import numpy as np

from edgec.errors import InputError, ToolchainError
from edgec.runtime.reading import (
    DTYPES,
    Asset,
    Spec,
    arrange,
    choice,
    content,
    integer,
    number,
    reader_table,
    require,
    several,
)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
OLDEST = 8  # the major version of Pillow that can be told which formats to try
MOST_BYTES = 256 << 20
MOST_PIXELS = 89478485  # where Pillow begins to warn of decompression bombs
LAYOUTS = ["nchw", "nhwc", "chw", "hwc", "nhw", "hw"]
CHANNELS = {"rgb": 3, "bgr": 3, "grey": 1}
OPTIONS = {
    "size": several(integer(1, 8192), 2, 2),
    "resize": choice("shortest", "exact", "pad"),
    "crop": number(minimum=0.01, maximum=1),
    "interpolation": choice("nearest", "box", "bilinear", "bicubic", "lanczos"),
    "place": choice("center", "corner"),
    "fill": several(integer(0, 255), 3, 3),
    "background": several(integer(0, 255), 3, 3),
    "color": choice(*CHANNELS),
    "scale": number(exclusiveMinimum=0),
    "mean": several(number(), 1, 3),
    "std": several(number(exclusiveMinimum=0), 1, 3),
}
SCHEMA = reader_table("image", OPTIONS, ["pixels"], LAYOUTS, DTYPES)
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"}
_HINT = "Give a whole PNG, JPEG, WebP or BMP file."


class ImageReader:
    """Reads a picture: a path, a file's bytes, or uint8 [height, width] or [height, width, 3]."""

    takes = "a picture"
    opens_files = True

    def __init__(self, spec: Spec, asset: Asset) -> None:
        """Raises InputError where the normalised pixels do not fit the input's dtype."""
        self._spec = spec
        self._table = _table(spec)

    def read(self, item: Any, label: str) -> Dict[str, Any]:
        """One sample: (pixel * scale - mean) / std for each channel, in the graph's layout."""
        image = resize(decode(item, label, self._spec["background"]), self._spec, label)
        color = self._spec["color"]
        pixels = np.asarray(image.convert("L") if color == "grey" else image)
        pixels = pixels.reshape(pixels.shape[0], pixels.shape[1], CHANNELS[color])
        if color == "bgr":
            pixels = pixels[:, :, ::-1]
        columns = [self._table[c][pixels[:, :, c]] for c in range(pixels.shape[2])]
        feed = self._spec["inputs"]["pixels"]
        grey = "c" not in feed["layout"]
        array = columns[0] if grey else np.stack(columns, axis=2)
        return {feed["name"]: arrange(array, "hw" if grey else "hwc", feed["layout"])}


def _table(spec: Spec) -> Any:
    """What each of the 256 levels becomes, [channels, 256]: computed in float64, rounded once."""
    count = CHANNELS[spec["color"]]
    for key in ("mean", "std"):
        if len(spec[key]) not in (1, count):
            message = "{}: {} numbers for {} channels".format(key, len(spec[key]), count)
            raise InputError(message, hint="Give one number, or one for each channel.")
    if "c" not in spec["inputs"]["pixels"]["layout"] and count != 1:
        message = "layout {} has no channels".format(spec["inputs"]["pixels"]["layout"])
        raise InputError(message, hint='Set color = "grey".')
    mean, std = (np.broadcast_to(np.float64(spec[key]), (count,)) for key in ("mean", "std"))
    exact = (np.arange(256.0) * spec["scale"] - mean[:, None]) / std[:, None]
    dtype = np.dtype(spec["inputs"]["pixels"]["dtype"])
    rounded = np.clip(exact, 0, 1) if dtype.kind == "b" else exact
    if dtype.kind in "iu":
        rounded = np.clip(np.rint(exact), np.iinfo(dtype).min, np.iinfo(dtype).max)
    if dtype.kind != "f" and not np.array_equal(rounded, exact):
        message = "normalised pixels, from {:g} to {:g}, do not fit {}".format(
            exact.min(), exact.max(), dtype
        )
        raise InputError(message, hint="Set scale = 1.0, mean = [0.0] and std = [1.0].")
    return exact.astype(dtype)


def decode(item: Any, label: str, background: List[int]) -> Any:
    """The upright picture as a Pillow image of mode RGB.

    Raises InputError naming `label`: no picture, truncated, too large, a mode without a known
    meaning.
    """
    pillow = _pillow()
    if isinstance(item, np.ndarray):
        if item.dtype != np.uint8 or item.ndim not in (2, 3) or item.shape[2:] not in ((), (3,)):
            message = "{}: {}{} is no picture".format(label, item.dtype, list(item.shape))
            raise InputError(message, hint="Give uint8 [height, width, 3] in the order RGB.")
        _check_size(label, item.shape[1], item.shape[0])
        return pillow.fromarray(np.ascontiguousarray(item)).convert("RGB")
    upright = require("PIL.ImageOps", "pillow", "reading a picture").exif_transpose
    data = content(item, label, MOST_BYTES)
    try:
        with pillow.open(io.BytesIO(data), formats=FORMATS) as opened:
            _check_size(label, *opened.size)
            opened.load()
            return _rgb(pillow, upright(opened), opened.format, background)
    except InputError:
        raise
    except pillow.UnidentifiedImageError as error:
        raise InputError(label + ": no PNG, JPEG, WebP or BMP picture", hint=_HINT) from error
    except Exception as error:  # a hostile file can raise anything that a parser raises
        message = "{}: not readable as a picture: {}".format(label, str(error)[:200])
        raise InputError(message, hint=_HINT) from error


def _pillow() -> Any:
    pillow = require("PIL.Image", "pillow", "reading a picture")
    version = require("PIL", "pillow", "reading a picture").__version__
    if int(version.partition(".")[0]) < OLDEST:
        message = "reading a picture needs pillow {} or newer, not {}".format(OLDEST, version)
        raise ToolchainError(message, hint="pip install --upgrade pillow")
    return pillow


def _check_size(label: str, width: int, height: int) -> None:
    if not 0 < width * height <= MOST_PIXELS:
        message = "{}: {} x {} pixels, not 1 to {}".format(label, width, height, MOST_PIXELS)
        raise InputError(message, hint="Shrink the picture.")


def _rgb(pillow: Any, image: Any, form: str, background: List[int]) -> Any:
    """Mode RGB. Older Pillows open a PNG of sixteen bits in mode I, and would clip it."""
    if image.mode.startswith("I;16") or (image.mode == "I" and form == "PNG"):
        levels = (np.asarray(image).astype(np.int64) * 255 + 32767) // 65535
        image = pillow.fromarray(levels.astype(np.uint8))
    if image.mode not in _MODES:
        raise ValueError("mode {} is not supported".format(image.mode))
    if image.mode.endswith("A") or "transparency" in image.info:
        paper = pillow.new("RGBA", image.size, (*background, 255))
        image = pillow.alpha_composite(paper, image.convert("RGBA"))
    return image.convert("RGB")


def resize(image: Any, spec: Spec, label: str) -> Any:
    """The picture at `size`.

    exact: stretched. shortest: covers size / crop with its proportions kept, then the middle is
    cut out; for a square as torchvision's Resize and CenterCrop. pad: lies within `size` with its
    proportions kept, in the center or the upper left corner, the rest filled.
    """
    pillow = _pillow()
    how = getattr(getattr(pillow, "Resampling", pillow), spec["interpolation"].upper())
    (height, width), (wide, high) = spec["size"], image.size
    if spec["resize"] == "exact":
        return image.resize((width, height), how)
    if spec["resize"] == "pad":
        inner = _within(wide, high, width, height)
        left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
        paper = pillow.new("RGB", (width, height), tuple(spec["fill"]))
        paper.paste(image.resize(inner, how), (left, top) if spec["place"] == "center" else (0, 0))
        return paper
    outer = _over(wide, high, int(width / spec["crop"]), int(height / spec["crop"]))
    if outer[0] * outer[1] > MOST_PIXELS:
        message = "{}: {} x {} pixels are too narrow to fill {} x {}".format(
            label, wide, high, width, height
        )
        raise InputError(message, hint='Leave the picture out, or set resize = "pad".')
    # Python's round, half to even, is what torchvision's CenterCrop takes
    left, top = round((outer[0] - width) / 2), round((outer[1] - height) / 2)
    return image.resize(outer, how).crop((left, top, left + width, top + height))


def _over(wide: int, high: int, width: int, height: int) -> Tuple[int, int]:
    """The smallest size of these proportions that covers `width` x `height`; halves cut off."""
    if wide * height >= width * high:
        return max(width, wide * height // high), height
    return width, max(height, high * width // wide)


def _within(wide: int, high: int, width: int, height: int) -> Tuple[int, int]:
    """The largest size of these proportions that fits into `width` x `height`, rounded."""
    if wide * height >= width * high:
        return width, max(1, (2 * high * width + wide) // (2 * wide))
    return max(1, (2 * wide * height + high) // (2 * high)), height
