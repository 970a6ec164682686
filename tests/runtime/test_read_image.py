"""Pictures: against torchvision's numbers, Pillow's own steps, and files that mean harm."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import media
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgec.errors import InputError, ToolchainError
from edgec.runtime.read_image import MOST_PIXELS, ImageReader, decode

BASE: dict[str, Any] = {
    "kind": "image",
    "column": "image",
    "inputs": {"pixels": {"name": "x", "dtype": "float32", "layout": "nchw"}},
    "size": [32, 32],
    "resize": "shortest",
    "crop": 1.0,
    "interpolation": "bilinear",
    "place": "center",
    "fill": [0, 0, 0],
    "background": [255, 255, 255],
    "color": "rgb",
    "scale": 1 / 255,
    "mean": [0.0],
    "std": [1.0],
}
RAW = {"scale": 1.0}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def spec(layout: str = "nchw", dtype: str = "float32", **changed: Any) -> dict[str, Any]:
    inputs = {"pixels": {"name": "x", "dtype": dtype, "layout": layout}}
    return {**BASE, "inputs": inputs, **changed}


def read(item: Any, layout: str = "nchw", dtype: str = "float32", **changed: Any) -> Any:
    feeds = ImageReader(spec(layout, dtype, **changed), lambda _: b"").read(item, "it")
    assert list(feeds) == ["x"]
    return feeds["x"]


# torchvision 0.29.2 on Pillow 13: Resize(36), CenterCrop(32), ToTensor, Normalize(MEAN, STD)
TORCHVISION = {
    (60, 95): (
        {(0, 0, 0): 1.409795, (1, 31, 0): -0.109944, (2, 16, 17): 0.025621, (1, 5, 9): -1.47549},
        697.486,
    ),
    (95, 60): (
        {(0, 0, 0): -1.295916, (1, 31, 0): -1.30042, (2, 16, 17): 1.873116, (1, 5, 9): 0.607843},
        732.384,
    ),
}


@pytest.mark.parametrize("shape", TORCHVISION)
def test_torchvision(shape: tuple[int, int]) -> None:
    found = read(media.picture(media.pixels(*shape)), crop=0.88, mean=MEAN, std=STD)
    assert (found.shape, found.dtype) == ((1, 3, 32, 32), np.float32)
    points, total = TORCHVISION[shape]
    for place, value in points.items():
        assert found[0][place] == pytest.approx(value, abs=2e-6)
    assert found.sum(dtype=np.float64) == pytest.approx(total, abs=2e-3)


def test_normalisation_is_rounded_once() -> None:
    levels = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (1, 1, 3))
    found = read(levels, "nhwc", size=[1, 256], resize="exact", mean=MEAN, std=STD)
    exact = (np.arange(256)[:, None] / 255 - np.float64(MEAN)) / np.float64(STD)
    np.testing.assert_array_equal(found[0, 0], exact.astype(np.float32))


@pytest.mark.parametrize("how", ["nearest", "box", "bilinear", "bicubic", "lanczos"])
def test_exact_stretches_as_pillow_does(how: str) -> None:
    image = Image.fromarray(media.pixels(40, 50))
    found = read(media.picture(image), "nhwc", resize="exact", interpolation=how, **RAW)
    wanted = image.resize((32, 32), getattr(Image.Resampling, how.upper()))
    np.testing.assert_array_equal(found[0], np.asarray(wanted).astype(np.float32))


def test_box_is_the_mean_of_the_pixels() -> None:
    image = media.pixels(64, 64)
    found = read(image, "nhwc", resize="exact", interpolation="box", **RAW)
    means = image.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(found[0], means, atol=1)


@pytest.mark.parametrize(
    ("shape", "place", "box"),
    [
        ((20, 40), "center", (8, 0, 24, 32)),
        ((40, 20), "center", (0, 8, 32, 24)),
        ((20, 40), "corner", (0, 0, 16, 32)),
        ((32, 32), "center", (0, 0, 32, 32)),
        ((1, 4000), "center", (15, 0, 16, 32)),
    ],
)
def test_pad(shape: tuple[int, int], place: str, box: tuple[int, int, int, int]) -> None:
    white = np.full((*shape, 3), 255, np.uint8)
    found = read(white, "nhwc", resize="pad", place=place, fill=[1, 2, 3], **RAW)[0]
    top, left, bottom, right = box
    assert (found[top:bottom, left:right] == 255).all()
    outside = np.ones((32, 32), bool)
    outside[top:bottom, left:right] = False
    assert (found[outside] == [1, 2, 3]).all()


def test_shortest_keeps_the_middle() -> None:
    image = np.zeros((32, 96, 3), np.uint8)
    image[:, 32:64] = 200
    assert (read(image, **RAW) == 200).all()
    assert (read(image.transpose(1, 0, 2), **RAW) == 200).all()


@pytest.mark.parametrize(
    ("layout", "color", "shape"),
    [
        ("nchw", "rgb", (1, 3, 8, 9)),
        ("nhwc", "rgb", (1, 8, 9, 3)),
        ("chw", "rgb", (3, 8, 9)),
        ("hwc", "rgb", (8, 9, 3)),
        ("nchw", "grey", (1, 1, 8, 9)),
        ("nhwc", "grey", (1, 8, 9, 1)),
        ("nhw", "grey", (1, 8, 9)),
        ("hw", "grey", (8, 9)),
    ],
)
def test_layouts(layout: str, color: str, shape: tuple[int, ...]) -> None:
    image = media.pixels(8, 9)
    found = read(image, layout, color=color, size=[8, 9], **RAW)
    assert found.shape == shape
    assert found.flags.c_contiguous
    if color == "rgb":
        wanted: Any = image.transpose(2, 0, 1) if "chw" in layout else image
    else:
        red, green, blue = np.moveaxis(image.astype(np.int64), 2, 0)
        wanted = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16  # ITU-R 601-2
    np.testing.assert_array_equal(found.reshape(np.shape(wanted)), wanted)


def test_bgr_normalises_in_its_own_order() -> None:
    image = media.pixels(8, 8)
    mean = [104.0, 117.0, 123.0]
    found = read(image, "nhwc", color="bgr", size=[8, 8], mean=mean, **RAW)
    np.testing.assert_array_equal(found[0], image[:, :, ::-1].astype(np.float32) - np.float32(mean))


@pytest.mark.parametrize(
    ("dtype", "changed", "ok"),
    [
        ("uint8", {"scale": 1.0}, True),
        ("int8", {"scale": 1.0, "mean": [128.0]}, True),
        ("int32", {"scale": 1.0}, True),
        ("uint8", {}, False),
        ("int8", {"scale": 1.0}, False),
        ("uint8", {"scale": 1.0, "mean": MEAN}, False),
        ("bool", {"scale": 1.0}, False),
    ],
)
def test_integer_inputs(dtype: str, changed: dict[str, Any], ok: bool) -> None:
    if not ok:
        with pytest.raises(InputError, match=f"do not fit {dtype}") as caught:
            read(media.pixels(8, 8), dtype=dtype, **changed)
        assert "scale = 1.0" in caught.value.hint
        return
    found = read(media.pixels(32, 32), "nhwc", dtype, **changed)[0]
    assert found.dtype == dtype
    offset = int(changed.get("mean", [0.0])[0])
    np.testing.assert_array_equal(found.astype(int) + offset, media.pixels(32, 32))


def test_float16() -> None:
    found = read(media.pixels(32, 32), dtype="float16")
    np.testing.assert_allclose(found, read(media.pixels(32, 32)), atol=5e-4)
    assert found.dtype == np.float16


# Forms of files


@pytest.mark.parametrize("form", ["PNG", "BMP", "WEBP"])
def test_lossless_files_by_path_and_bytes(form: str, tmp_path: Path) -> None:
    image = media.pixels(32, 32)
    data = media.picture(image, form, **({"lossless": True} if form == "WEBP" else {}))
    path = media.write(tmp_path / "it", data)
    for item in (data, path, str(path), image):
        np.testing.assert_array_equal(read(item, "nhwc", **RAW)[0], image)


def test_jpeg() -> None:
    smooth = np.asarray(Image.fromarray(media.pixels(8, 8)).resize((32, 32)))
    found = read(media.picture(smooth, "JPEG", quality=95), "nhwc", **RAW)[0]
    assert np.abs(found - smooth).mean() < 4


def test_the_same_file_gives_the_same_bytes() -> None:
    data = media.picture(media.pixels(77, 50), "JPEG")
    assert read(data).tobytes() == read(data).tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    """Tag 274, as cameras write it; the figures are those of the Exif specification 2.32."""
    image = media.pixels(32, 32)
    stored = {
        1: image,
        2: image[:, ::-1],
        3: image[::-1, ::-1],
        4: image[::-1],
        5: image.transpose(1, 0, 2),
        6: np.rot90(image, 1),
        7: np.rot90(image, 2).transpose(1, 0, 2),
        8: np.rot90(image, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    data = media.picture(np.ascontiguousarray(stored), "PNG", exif=exif)
    np.testing.assert_array_equal(read(data, "nhwc", **RAW)[0], image)


def test_alpha_is_laid_on_the_background() -> None:
    image = np.zeros((32, 32, 4), np.uint8)
    image[..., 0], image[:16, :, 3], image[16:, :, 3] = 200, 255, 51  # opaque, one fifth
    found = read(media.picture(image), "nhwc", background=[100, 50, 0], **RAW)[0]
    assert (found[0, 0] == [200, 0, 0]).all()
    np.testing.assert_allclose(found[-1, -1], [0.2 * 200 + 80, 40, 0], atol=1)


def test_a_transparent_palette_colour() -> None:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([9, 9, 9, 10, 20, 30])
    plain = read(media.picture(image), "nhwc", **RAW)[0]
    assert (plain == [10, 20, 30]).all()
    clear = read(media.picture(image, transparency=1), "nhwc", background=[1, 2, 3], **RAW)[0]
    assert (clear == [1, 2, 3]).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA"])
def test_modes(mode: str) -> None:
    image = Image.fromarray(np.full((32, 32), 255, np.uint8)).convert(mode)
    assert (read(media.picture(image), **RAW) == 255).all()


def test_cmyk() -> None:
    image = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
    found = read(media.picture(image, "JPEG", quality=95), "nhwc", **RAW)[0]
    np.testing.assert_allclose(found[3, 3], [0, 255, 255], atol=6)


def test_sixteen_bits_become_eight_by_division() -> None:
    deep = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    found = read(media.picture(deep), **RAW)[0, 0]
    np.testing.assert_array_equal(found, np.floor(deep / 257 + 0.5))
    assert found.max() == 255
    assert len(np.unique(found)) == 256


def test_the_first_picture_of_an_animation() -> None:
    still = [Image.new("RGB", (32, 32), c) for c in ("#102030", "#405060")]
    data = media.picture(still[0], "WEBP", lossless=True, save_all=True, append_images=still[1:])
    assert (read(data, "nhwc", **RAW)[0] == [0x10, 0x20, 0x30]).all()


# What is refused


def refused(item: Any, *words: str, **changed: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        read(item, **changed)
    assert caught.value.message.startswith("it")
    for word in words:
        assert word in caught.value.message
    assert caught.value.hint
    return caught.value


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def bomb(width: int, height: int) -> bytes:
    """A PNG header of that size with hardly any data."""
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + _chunk(b"IDAT", zlib.compress(b"")) + _chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((9460, 9460), ("9460 x 9460 pixels", str(MOST_PIXELS))),
        ((60000, 60000), ("not readable as a picture", "decompression bomb")),
        ((2**31 - 1, 2**31 - 1), ("not readable as a picture",)),
    ],
)
def test_decompression_bombs(size: tuple[int, int], words: tuple[str, ...]) -> None:
    refused(bomb(*size), *words)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95])
def test_truncated_files(form: str, share: float) -> None:
    data = media.picture(media.pixels(64, 64), form)
    refused(data[: int(share * len(data))])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no PNG, JPEG, WebP or BMP"),
        (b"GIF89a" + bytes(100), "no PNG, JPEG, WebP or BMP"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no PNG, JPEG, WebP or BMP"),
        (b"P6 2 2 255\n" + bytes(12), "no PNG, JPEG, WebP or BMP"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no PNG, JPEG, WebP or BMP"),
    ],
)
def test_other_formats_are_not_tried(data: bytes, words: str) -> None:
    refused(data, words)


@settings(max_examples=150, deadline=None)
@given(flips=st.lists(st.integers(0, 8 * 600), min_size=1, max_size=6), form=st.integers(0, 3))
def test_damaged_files(flips: list[int], form: int) -> None:
    """Read or refused, never anything else; a damaged size must not allocate what it promises."""
    kind = ["PNG", "JPEG", "WEBP", "BMP"][form]
    exif = Image.Exif()
    exif[274], exif[271] = 6, "camera"
    data = bytearray(media.picture(media.pixels(16, 16), kind, exif=exif))
    for flip in flips:
        data[flip // 8 % len(data)] ^= 1 << flip % 8
    try:
        found = read(bytes(data))
    except InputError as error:
        told = error.message
    else:
        assert found.shape == (1, 3, 32, 32)
        return
    assert told.startswith("it: ")


def test_a_narrow_picture_is_not_blown_up() -> None:
    error = refused(media.pixels(1, 100_000), "100000 x 1 pixels are too narrow", size=[224, 224])
    assert 'resize = "pad"' in error.hint


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (np.zeros((4, 4, 3)), "float64[4, 4, 3] is no picture"),
        (np.zeros((4, 4, 4), np.uint8), "uint8[4, 4, 4] is no picture"),
        (np.zeros(4, np.uint8), "is no picture"),
        (np.zeros((0, 4, 3), np.uint8), "4 x 0 pixels"),
        (3, "expected a path or bytes, got int"),
        (None, "got NoneType"),
        ("nowhere.png", "cannot be read: No such file"),
        ("with\0zero.png", "cannot be read"),
        ("/dev/zero", "not a file"),
        ("/", "not a file"),
    ],
)
def test_items_that_are_no_pictures(item: Any, words: str) -> None:
    refused(item, words)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"mean": [1.0, 2.0]}, "mean: 2 numbers for 3 channels"),
        ({"std": [1.0, 2.0], "color": "grey"}, "std: 2 numbers for 1 channels"),
        ({"layout": "hw"}, "layout hw has no channels"),
    ],
)
def test_specs_that_contradict_themselves(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ImageReader(spec(**changed), lambda _: b"")


def test_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image", raising=False)
    with pytest.raises(ToolchainError, match="needs the package pillow") as caught:
        decode(b"", "it", [0, 0, 0])
    assert caught.value.hint == "pip install pillow"


def test_a_pillow_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.__version__", "7.0.0")
    with pytest.raises(ToolchainError, match=r"needs pillow 8 or newer, not 7\.0\.0"):
        decode(b"", "it", [0, 0, 0])
