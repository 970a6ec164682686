"""Pictures: the one float input of four dimensions, channels where one or three are fixed."""

from __future__ import annotations

from typing import Any

from edgec.binding.reader import Reader, describe, fixed
from edgec.inputs import Input
from edgec.recipe import AUTO
from edgec.runtime.read_image import CHANNELS

WORDS = ("image", "pixel", "img", "picture", "photo", "vision")
LAYOUTS = {4: ("nchw", "nhwc"), 3: ("chw", "hwc")}


def bind(reader: Reader) -> dict[str, Any]:
    """The bound reader's table."""
    need = reader.choose("input", reader.fits([4], "f") or reader.fits([4], "iu"), WORDS)
    layout = reader.options.get("layout", AUTO)
    layout = _layout(reader, need) if layout == AUTO else layout
    feed = reader.feed(need, layout)
    channels = layout.find("c")
    color = reader.options.get("color", AUTO)
    if color == AUTO:
        color = "grey" if channels < 0 or fixed(need, channels) == 1 else "rgb"
    if channels >= 0:
        reader.agree(f"color {color}: channels", need, CHANNELS[color], channels)
    axes = [layout.index(letter) for letter in "hw"]
    size = reader.options.get("size") or [fixed(need, axis) for axis in axes]
    if None in size:
        raise reader.error(
            f"input {describe(need)} has no fixed height and width",
            f"set size = [height, width], or fix them by --shape {need.name}=…",
        )
    for wanted, axis in zip(size, axes, strict=True):
        reader.agree("size", need, wanted, axis)
    return {
        "inputs": {"pixels": feed},
        "size": list(size),
        "color": color,
        **reader.defaults(
            resize="shortest",
            crop=1.0,
            interpolation="bilinear",
            place="center",
            fill=[0, 0, 0],
            background=[255, 255, 255],
            scale=1 / 255,
            mean=[0.0],
            std=[1.0],
        ),
    }


def _layout(reader: Reader, need: Input) -> str:
    """By where one or three channels are fixed; where no dimension tells, channels come first."""
    rank = len(need.shape or ())
    if rank not in LAYOUTS:
        return ""
    plain, last = LAYOUTS[rank]
    at_plain, at_last = (fixed(need, layout.index("c")) in (1, 3) for layout in (plain, last))
    if at_plain != at_last:
        return plain if at_plain else last
    if rank == 4 and not at_plain and None in (fixed(need, 1), fixed(need, 3)):
        return plain
    raise reader.error(
        f"input {describe(need)}: which dimension is the 1 or 3 channels?",
        f'set layout = "{plain}" or "{last}"',
    )
