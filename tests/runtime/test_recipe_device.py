"""A bundle prepares its own inputs, as the compiler did: in Python, on the command line, on 3.8."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundles
import media
import numpy as np
import pytest

from edgec import pack
from edgec.binding import Bound, bind, stored
from edgec.errors import InputError
from edgec.inputs import Input
from edgec.recipe import load_recipe
from edgec.runtime import Bundle, load
from edgec.runtime.recipe import Recipe, open_recipe, parse, prepare

PAIRS = """
summary = "pairs"
method = "minmax"
files = 9
[readers.image]
kind = "image"
mean = [0.4, 0.5, 0.6]
[readers.text]
kind = "text"
"""
ALL = (
    PAIRS
    + """
[readers.sound]
kind = "audio"
form = "mel"
log = "ln"
normalise = "standard"
[readers.gain]
kind = "numbers"
[readers.bias]
kind = "numbers"
input = "bias"
value = 0.5
"""
)
# Refuses every module but the standard library, the bundle, numpy, and what a recipe may need.
ONLY = """
import sys
class Only:
    allowed = {"numpy", "onnxruntime", "edgec", "sitecustomize", "__main__"} | set(WITH)
    allowed |= set(sys.stdlib_module_names)
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.allowed:
            raise ModuleNotFoundError("not on the device: " + name, name=name.partition(".")[0])
sys.meta_path.insert(0, Only())
"""
PREPARE = """
import sys, json, numpy
from edgec.runtime import Bundle
from edgec.runtime.recipe import prepare
with Bundle(sys.argv[1]) as bundle:
    numpy.savez(sys.argv[3], **prepare(bundle, json.loads(sys.argv[2])))
"""


def need(value: dict[str, Any]) -> Input:
    return Input(value["name"], np.dtype(value["dtype"]), tuple(value["shape"]), ())


FLOATS = {"dtype": "float32"}
MORE = [
    {"name": "mel", "shape": ["n", 20, "t"], **FLOATS},
    {"name": "gain", "shape": ["n", 2], **FLOATS},
    {"name": "bias", "shape": [1], **FLOATS},
]


def bound(folder: Path, text: str, *more: dict[str, Any]) -> Bound:
    media.write(folder / "tokenizer.json", media.tokenizer_bytes())
    path = media.write(folder / "mine.toml", text)
    needs = [need(value) for value in (bundles.IMAGE, bundles.TOKENS, *more)]
    return bind(load_recipe(str(path)), needs, [folder])


def write(path: Path, recipe: Bound, folder: bool = False) -> Path:
    described, files = bundles.parts(2)
    described["recipe"] = "recipe.json"
    return pack.write_bundle(described, {**files, **recipe.files}, path, force=False, folder=folder)


@pytest.fixture
def pairs(tmp_path: Path) -> Bound:
    return bound(tmp_path / "recipe", PAIRS)


@pytest.fixture
def bundle(pairs: Bound, tmp_path: Path) -> Path:
    return write(tmp_path / "model.edgec", pairs)


@pytest.fixture
def items(tmp_path: Path) -> dict[str, Any]:
    """Files and texts for every reader of ALL."""
    data = media.picture(media.pixels(50, 40), "JPEG", quality=90)
    media.write(tmp_path / "cat.jpg", data)
    media.write(tmp_path / "a.wav", media.wav16(media.tone(20000), 22050))
    found = {"image": str(tmp_path / "cat.jpg"), "text": "a cat on the red mat"}
    return {**found, "sound": str(tmp_path / "a.wav"), "gain": [1, 0.5]}


@pytest.fixture
def device(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The environment of a device that has just the named packages."""

    def environment(*packages: str) -> dict[str, str]:
        media.write(tmp_path / "site/sitecustomize.py", ONLY.replace("WITH", repr(packages)))
        return {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"}

    return environment


def python(
    env: dict[str, str], *words: str | Path, interpreter: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    line = [interpreter, *map(str, words)]
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=300)


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def failed(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


# Both sides agree


@pytest.mark.parametrize("folder", [False, True])
def test_parity(
    folder: bool, items: dict[str, Any], device: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    """The compiler's arrays and those of the bundle's own copy of the code, byte for byte."""
    recipe = bound(tmp_path / "recipe", ALL, *MORE)
    path = write(tmp_path / "b", recipe, folder)
    env = device("PIL", "tokenizers")
    env["PYTHONPATH"] += os.pathsep + str(path)
    good(python(env, "-c", PREPARE, path, json.dumps(items), tmp_path / "out.npz"))
    wanted = recipe.open().prepare(items)
    assert set(wanted) == {"image", "tokens", "mel", "gain", "bias"}
    with np.load(tmp_path / "out.npz") as found:
        assert set(found.files) == set(wanted)
        for name, array in wanted.items():
            assert found[name].tobytes() == array.tobytes(), name
            np.testing.assert_array_equal(found[name], array, strict=True)


@pytest.mark.py38
def test_parity_on_python_3_8(items: dict[str, Any], tmp_path: Path, python38: str) -> None:
    """Other versions of numpy, Pillow and tokenizers: lossless files and tokens to the bit."""
    media.write(tmp_path / "cat.png", media.picture(media.pixels(50, 40)))
    items["image"] = str(tmp_path / "cat.png")
    recipe = bound(tmp_path / "recipe", ALL, *MORE)
    path = write(tmp_path / "b", recipe)
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(path)}
    script = "import sys\nassert sys.version_info[:2] == (3, 8)\n" + PREPARE
    words = ["-c", script, path, json.dumps(items), tmp_path / "out.npz"]
    good(python(env, *words, interpreter=python38))
    with np.load(tmp_path / "out.npz") as found:
        for name, array in recipe.open().prepare(items).items():
            if name == "mel":  # another FFT rounds otherwise, in the last bit of a double
                np.testing.assert_allclose(found[name], array, atol=1e-5)
            else:
                np.testing.assert_array_equal(found[name], array, strict=True)


@pytest.mark.py38
def test_a_picture_and_a_text_on_python_3_8(
    bundle: Path, pairs: Bound, items: dict[str, Any], tmp_path: Path, python38: str
) -> None:
    words = ["run", "--image", items["image"], "--text", items["text"]]
    out = tmp_path / "out.npz"
    told = good(
        python({"PATH": "/usr/bin:/bin"}, bundle, *words, "--outputs", out, interpreter=python38)
    )
    assert "score: float32[1, 5] min " in told
    feeds = pairs.open().prepare({name: items[name] for name in ("image", "text")})
    with np.load(out) as found:
        for name, array in bundles.expected(feeds).items():
            np.testing.assert_allclose(found[name], array, atol=2e-3)


# Running a bundle on what its recipe reads


def test_run(
    bundle: Path,
    pairs: Bound,
    items: dict[str, Any],
    device: Callable[..., dict[str, str]],
    tmp_path: Path,
) -> None:
    env, out = device("PIL", "tokenizers"), tmp_path / "out.npz"
    words = ["run", "--image", items["image"], "--text", items["text"], "--outputs", out]
    assert "score: float32[1, 5] min " in good(python(env, bundle, *words))
    feeds = pairs.open().prepare({name: items[name] for name in ("image", "text")})
    with np.load(out) as found:
        for name, array in bundles.expected(feeds).items():
            np.testing.assert_allclose(found[name], array, atol=1e-5)
    by_name = ["run", "--item", "image=" + items["image"], "--item", "text=" + items["text"]]
    assert good(python(env, bundle, *by_name)) == good(python(env, bundle, *words[:-2]))


def test_the_compiler_s_own_run_does_the_same(bundle: Path, items: dict[str, Any]) -> None:
    words = ["-m", "edgec", "run", bundle, "--image", items["image"], "--text", items["text"]]
    assert "score: float32[1, 5] min " in good(python(dict(os.environ), *words))


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--golden", "--text", "a cat"],
        ["--inputs", "x.npz", "--image", "x.png"],
        ["--inputs", "x.npz", "--golden"],
        ["--item", "image"],
        ["--item", "image=x", "--item", "image=y"],
    ],
)
def test_wrong_usage(words: list[str], bundle: Path, device: Callable[..., dict[str, str]]) -> None:
    done = python(device(), bundle, "run", *words)
    assert done.returncode == 2
    assert "usage: " in done.stderr


def test_errors(
    bundle: Path, items: dict[str, Any], device: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    env = device("PIL", "tokenizers")

    def run(*words: str) -> str:
        return failed(python(env, bundle, "run", *words), 3)

    told = run("--text", "a cat")
    assert "missing item image" in told
    assert "hint: The recipe reads image (a picture), text (a text)" in told
    assert "--audio: the recipe has no single free reader for it" in run("--audio", "a.wav")
    assert "unknown item sound" in run("--item", "sound=x", "--image", "x.png", "--text", "a")
    told = run("--image", "x.png", "--item", "image=y.png", "--text", "a")
    assert "--image: the recipe has no single free reader" in told
    assert "error: no.png: cannot be read: No such file" in run("--image", "no.png", "--text", "a")
    assert "error: text: the text is empty" in run("--image", items["image"], "--text", " ")
    broken = media.write(tmp_path / "broken.png", b"\x89PNG")
    assert f"error: {broken}: " in run("--image", str(broken), "--text", "a")


def test_a_bundle_without_a_recipe(tmp_path: Path, device: Callable[..., dict[str, str]]) -> None:
    path = bundles.write(tmp_path / "plain.edgec")
    told = failed(python(device(), path, "run", "--text", "a cat"), 3)
    assert "plain.edgec holds no recipe for pictures, texts or sounds" in told
    assert "hint: Give arrays, or build it with --recipe" in told
    with Bundle(path) as opened:
        assert stored(opened) == Bound()


@pytest.mark.parametrize(("there", "package"), [("PIL", "tokenizers"), ("tokenizers", "pillow")])
def test_a_package_that_is_missing(
    there: str,
    package: str,
    bundle: Path,
    items: dict[str, Any],
    device: Callable[..., dict[str, str]],
) -> None:
    env = device(there)
    words = ["--image", items["image"], "--text", items["text"]]
    told = failed(python(env, bundle, "run", *words), 5)
    assert f"needs the package {package}, which is not installed" in told
    assert f"hint: pip install {package}" in told
    good(python(env, bundle, "run", "--golden"))  # arrays need neither


# In Python


def test_prepare(bundle: Path, pairs: Bound, items: dict[str, Any]) -> None:
    chosen = {"image": Path(items["image"]), "text": items["text"]}
    with load(bundle) as model:
        feeds = prepare(model.bundle, chosen)
        assert open_recipe(model.bundle) is open_recipe(model.bundle)
        outputs = model.run(feeds)
    for name, array in bundles.expected(feeds).items():
        np.testing.assert_allclose(outputs[name], array, atol=1e-5)
    pixels = media.pixels(20, 20)
    data = media.picture(pixels)
    by_bytes = pairs.open().prepare({"image": data, "text": "a"})
    by_array = pairs.open().prepare({"image": pixels, "text": "a"})
    np.testing.assert_array_equal(by_bytes["image"], by_array["image"], strict=True)


def test_a_bundle_s_recipe_is_the_one_it_was_built_with(bundle: Path, pairs: Bound) -> None:
    with Bundle(bundle) as opened:
        found = stored(opened)
    assert found == pairs
    assert found.fingerprint == pairs.fingerprint


def test_labels(pairs: Bound) -> None:
    with pytest.raises(InputError, match=r"^row 3: the text is empty"):
        pairs.open().prepare({"image": media.pixels(9, 9), "text": ""}, {"text": "row 3"})


# Recipes that mean harm


def changed(page: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(page))
    *parents, last = place.split(".")
    inner = copy
    for key in parents:
        inner = inner[key]
    if value is KeyError:
        del inner[last]
    else:
        inner[last] = value
    return copy


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("version", 2, "version: expected 1"),
        ("version", KeyError, "missing version"),
        ("more", 1, "more: not known in this schema"),
        ("readers", [], "readers: expected object"),
        ("readers.image", 3, "readers.image.kind: expected image or text"),
        ("readers.image.kind", "video", "readers.image.kind: expected image or text"),
        ("readers.image.kind", ["image"], "readers.image.kind: expected image or text"),
        ("readers.image.kind", "text", "readers.image: missing tokenizer"),
        ("readers.a b", {}, "'a b' is not allowed here"),
        ("readers.image.size", [1 << 20, 1], "readers.image.size[0]: 1048576 is out of range"),
        ("readers.image.size", [32, 32, 32], "readers.image.size: 3 items"),
        ("readers.image.crop", 1e-400, "readers.image.crop: 0.0 is out of range"),
        ("readers.image.std", [0], "readers.image.std[0]: 0 is out of range"),
        ("readers.image.scale", float("inf"), "readers.image.scale: inf is out of range"),
        ("readers.image.mean", [float("nan")], "readers.image.mean[0]: nan is out of range"),
        ("readers.image.mean", [0, 0], "readers.image: mean: 2 numbers for 3 channels"),
        ("readers.image.shell", "rm", "readers.image.shell: not known in this schema"),
        ("readers.image.inputs", {}, "readers.image.inputs: missing pixels"),
        ("readers.image.inputs.pixels.layout", "nmt", "expected one of nchw"),
        ("readers.image.inputs.pixels.dtype", "object", "expected one of float32"),
        ("readers.image.inputs.pixels.name", "tokens", "input 'tokens' is fed twice"),
        ("readers.text.tokens", [1, 1 << 30], "readers.text.tokens[1]: 1073741824 is out"),
        ("readers.text.tokens", [9, 3], "readers.text: tokens = [9, 3]"),
        ("readers.text.tokenizer", "../../etc/passwd", "the bundle has no file '../../etc/passwd'"),
        ("readers.text.tokenizer", "recipe.json", "not readable as a tokenizer.json"),
    ],
)
def test_hostile_recipes(place: str, value: Any, words: str, pairs: Bound, tmp_path: Path) -> None:
    page = changed(dict(pairs.page), place, value)
    described, files = bundles.parts(2)
    described["recipe"] = "recipe.json"
    files |= {**pairs.files, "recipe.json": json.dumps(page).encode()}
    path = pack.write_bundle(described, files, tmp_path / "b.edgec", force=False)
    with Bundle(path) as opened, pytest.raises(InputError) as caught:
        prepare(opened, {"image": media.pixels(9, 9), "text": "a cat"})
    assert words in caught.value.message


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000, b"null", b"[]"])
def test_a_recipe_that_is_not_json(data: bytes) -> None:
    with pytest.raises(InputError, match=r"recipe\.json"):
        parse(data)


def test_too_many_readers(pairs: Bound) -> None:
    readers = {f"n{i}": pairs.page["readers"]["image"] for i in range(65)}
    with pytest.raises(InputError, match="more than 64 readers"):
        Recipe({**pairs.page, "readers": readers}, lambda _: b"")


def test_a_recipe_that_the_bundle_does_not_list(tmp_path: Path) -> None:
    described, files = bundles.parts(2)
    described["recipe"] = "recipe.json"
    path = pack.write_bundle(described, files, tmp_path / "b.edgec", force=False)
    with Bundle(path) as opened, pytest.raises(InputError, match=r"no file 'recipe\.json'"):
        prepare(opened, {})
