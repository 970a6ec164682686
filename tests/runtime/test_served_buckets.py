"""A bundle with buckets computes the same for every padding, on few shapes, and never guesses."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bundles
import encoders
import graphs
import jsonschema
import numpy as np
import onnx_ir as ir
import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st
from test_device_schema import JUNK, changed, places

from edgec import pack
from edgec.errors import InputError
from edgec.runtime import load
from edgec.runtime import manifest as manifests
from edgec.runtime.buckets import Axis, Buckets, as_json, fit, mute, parse, resize, serve, takes
from edgec.runtime.onnxruntime_session import OnnxRuntimeSession
from edgec.runtime.schema import first_error
from edgec.runtime.values import values

Feeds = dict[str, Any]
BOTH = f"(float[n, {encoders.WIDTH}] pooled, float[n, t, {encoders.WIDTH}] hidden)"
SIZES = [8, 16]
BUCKETS = Buckets(
    dimension="t",
    mask="mask",
    inputs=(Axis("ids", 1, encoders.PAD), Axis("mask", 1)),
    outputs=(Axis("hidden", 1),),
    sizes=tuple(SIZES),
)


def described(name: str, shape: list[Any], dtype: str = "int64", *bounds: Any) -> dict[str, Any]:
    return {
        "name": name,
        "dtype": dtype,
        "shape": shape,
        **({"range": [*bounds]} if bounds else {}),
    }


def page(model: bytes, buckets: Buckets | None, *bounds: Any) -> tuple[dict[str, Any], Any]:
    """Manifest and files of the encoder's bundle."""
    engine = bundles.engine("text", ["ids", "mask"], ["pooled", "hidden"])
    made = bundles.manifest([engine])
    made["inputs"] = [described(name, ["n", "t"], "int64", *bounds) for name in ("ids", "mask")]
    made["outputs"] = [
        described("pooled", ["n", encoders.WIDTH], "float32"),
        described("hidden", ["n", "t", encoders.WIDTH], "float32"),
    ]
    if buckets is not None:
        made["buckets"] = as_json(buckets)
    golden = encoders.captions([5], 24)
    with np.errstate(all="ignore"):
        expected = reference(golden)
    files = {
        "engines/text.onnx": model,
        "golden/inputs.npz": pack.npz_bytes(golden),
        "golden/outputs.npz": pack.npz_bytes(mute(expected, golden, buckets)),
    }
    return made, files


def encoder() -> ir.Model:
    return encoders.encoder(outputs=BOTH)


def reference(feeds: Feeds) -> Feeds:
    return small.run(encoder(), feeds)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    def made(buckets: Buckets | None = BUCKETS, *bounds: Any) -> Path:
        model = ir.to_proto(encoder()).SerializeToString()
        output = tmp_path / "text.edgec"
        return pack.write_bundle(*page(model, buckets, *bounds), output, force=True)

    return made


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of `ids` that engines saw."""
    seen: list[tuple[int, ...]] = []
    run = OnnxRuntimeSession.run

    def spy(self: OnnxRuntimeSession, feeds: Any) -> Any:
        assert feeds["ids"].shape == feeds["mask"].shape
        assert feeds["ids"].flags.c_contiguous
        seen.append(feeds["ids"].shape)
        return run(self, feeds)

    monkeypatch.setattr(OnnxRuntimeSession, "run", spy)
    return seen


def close(left: Feeds, right: Feeds) -> None:
    assert set(left) == set(right)
    for name in left:
        assert left[name].dtype == right[name].dtype
        np.testing.assert_allclose(left[name], right[name], rtol=1e-5, atol=1e-6)


def test_every_padding_gives_the_same_bits(make: Callable[..., Path], shapes: list[Any]) -> None:
    with load(make()) as model:
        outputs = []
        for columns in (5, 6, 8, 13, 16, 24, 40):
            feeds = encoders.captions([5], 64)
            feeds = {name: array[:, :columns] for name, array in feeds.items()}
            got = model.run(feeds)
            close(got, mute(reference(feeds), feeds, BUCKETS))
            assert got["hidden"].shape == (1, columns, encoders.WIDTH)
            assert not got["hidden"][:, 5:].any()
            outputs.append(got)
    assert set(shapes) == {(1, 8)}
    for got in outputs:
        np.testing.assert_array_equal(got["pooled"], outputs[0]["pooled"])
        np.testing.assert_array_equal(got["hidden"][:, :5], outputs[0]["hidden"][:, :5])


def test_what_stands_behind_the_mask_is_of_no_account(make: Callable[..., Path]) -> None:
    feeds = encoders.captions([5], 24)
    other = {**feeds, "ids": np.where(feeds["mask"] == 1, feeds["ids"], 31)}
    with load(make()) as model:
        one, two = model.run(feeds), model.run(other)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


@pytest.mark.parametrize(
    ("lengths", "columns", "shape"),
    [
        ([5, 1, 12], 24, (3, 16)),  # the longest row decides
        ([8], 24, (1, 8)),
        ([9], 9, (1, 16)),
        ([16, 16], 16, (2, 16)),
        ([17], 24, (1, 17)),  # longer than the largest bucket: as long as it is
        ([40], 40, (1, 40)),
        ([0, 5], 24, (2, 8)),
        ([0], 24, (1, 8)),  # nothing is kept: one bucket, never an empty tensor
        ([0, 0], 3, (2, 8)),
        ([0], 0, (1, 8)),
    ],
)
def test_the_shape_that_runs(
    make: Callable[..., Path],
    shapes: list[Any],
    lengths: list[int],
    columns: int,
    shape: tuple[int, int],
) -> None:
    feeds = encoders.captions(lengths, columns)
    with load(make()) as model:
        got = model.run(feeds)
    assert shapes == [shape]
    assert got["pooled"].shape == (len(lengths), encoders.WIDTH)
    assert got["hidden"].shape == (len(lengths), columns, encoders.WIDTH)
    if min(lengths):
        close(got, mute(reference(feeds), feeds, BUCKETS))


def test_without_sizes_every_length_runs_as_it_is(
    make: Callable[..., Path], shapes: list[Any]
) -> None:
    exact = BUCKETS._replace(sizes=())
    with load(make(exact)) as model:
        for length in (1, 5, 24):
            feeds = encoders.captions([length], 24)
            close(model.run(feeds), mute(reference(feeds), feeds, exact))
    assert shapes == [(1, 1), (1, 5), (1, 24)]


def test_masks_with_holes_or_padding_on_the_left_keep_their_columns(
    make: Callable[..., Path], shapes: list[Any]
) -> None:
    left = encoders.captions([20], 24)
    left = {name: array[:, ::-1].copy() for name, array in left.items()}
    holes = encoders.captions([6], 24)
    holes["mask"][0, 2] = 0
    with load(make()) as model:
        for feeds in (left, holes):
            got, expected = model.run(feeds), mute(reference(feeds), feeds, BUCKETS)
            np.testing.assert_allclose(got["pooled"], expected["pooled"], rtol=1e-5, atol=1e-6)
    assert shapes == [(1, 24), (1, 8)]


def test_bounds_hold_for_what_runs_not_for_what_is_fed(make: Callable[..., Path]) -> None:
    path = make(BUCKETS._replace(sizes=(8, 16)), [1, 2], [4, 20])
    with load(path) as model:
        assert str(model.inputs[0]) == "ids: int64[n=1..2, t=4..20]"
        for length, columns in ((2, 2), (3, 100), (20, 100)):
            feeds = encoders.captions([length], columns)
            close(model.run(feeds), mute(reference(feeds), feeds, BUCKETS))
        with pytest.raises(InputError, match="'mask': t = 21 is in use, the model takes up to 20"):
            model.run(encoders.captions([21], 100))
        with pytest.raises(InputError, match="expected n from 1 to 2"):
            model.run(encoders.captions([5, 5, 5], 24))
    with load(make(BUCKETS._replace(sizes=()), [1, 2], [4, 20])) as model:
        assert model.run(encoders.captions([1], 1))["hidden"].shape[1] == 1


def test_inputs_of_different_lengths(make: Callable[..., Path]) -> None:
    feeds = encoders.captions([5], 24)
    with load(make()) as model, pytest.raises(InputError, match="t is 12 here and 24 in"):
        model.run({**feeds, "mask": feeds["mask"][:, :12]})
    with pytest.raises(InputError, match="t is 24 in input 'ids' and 12 in input 'mask'") as caught:
        fit({**feeds, "mask": feeds["mask"][:, :12]}, BUCKETS)
    assert caught.value.hint


def test_an_output_that_lost_the_dimension() -> None:
    feeds = encoders.captions([5], 24)
    for made in (np.zeros((1, 24, 8)), np.zeros(1)):
        with pytest.raises(InputError, match=r"output 'hidden' has shape .* without t = 8"):
            serve(lambda _, made=made: {"hidden": made}, feeds, BUCKETS)


def test_many_threads(make: Callable[..., Path]) -> None:
    samples = [encoders.captions([1 + seed % 20], 24, seed) for seed in range(12)]
    with load(make(), threads=1) as model:
        alone = [model.run(sample) for sample in samples]
        with ThreadPoolExecutor(4) as pool:
            for index, got in enumerate(pool.map(model.run, samples * 20)):
                for name, array in alone[index % 12].items():
                    np.testing.assert_array_equal(got[name], array)


def test_the_golden_sample_goes_through_the_buckets(
    make: Callable[..., Path], shapes: list[Any]
) -> None:
    with load(make()) as model:
        assert model.golden_inputs()["ids"].shape == (1, 24)
        assert model.self_test().passed
    assert shapes == [(1, 8)]


def test_a_fixture_from_an_exporter(tmp_path: Path, shapes: list[Any]) -> None:
    engine = bundles.engine("clip", ["image", "ids", "mask"], ["score", "text_embedding"])
    made = bundles.manifest([engine])
    made["inputs"] = [
        described("image", ["images", 3, "height", "width"], "float32"),
        described("ids", ["texts", "sequence"]),
        described("mask", ["texts", "sequence"]),
    ]
    made["outputs"] = [
        described("score", ["a", "b"], "float32"),
        described("text_embedding", ["b", "c"], "float32"),
    ]
    buckets = BUCKETS._replace(dimension="sequence", outputs=(), sizes=(8, 16, 24))
    made["buckets"] = as_json(buckets)
    feeds = graphs.load_feeds("clip_torchscript", 3, sequence=30)
    feeds["mask"][:, 11:] = 0
    files = {
        "engines/clip.onnx": graphs.path("clip_torchscript").read_bytes(),
        "golden/inputs.npz": pack.npz_bytes(feeds),
        "golden/outputs.npz": pack.npz_bytes({}),
    }
    pack.write_bundle(made, files, tmp_path / "clip.edgec", force=False)
    with load(tmp_path / "clip.edgec") as model:
        got = model.run(feeds)
    expected = small.run(graphs.path("clip_torchscript"), feeds, ["score", "text_embedding"])
    close(got, expected)
    assert shapes == [(3, 16)]


# -- the functions ---------------------------------------------------------------------------

masks = st.tuples(st.integers(1, 3), st.integers(1, 20)).flatmap(
    lambda shape: st.lists(
        st.lists(st.integers(0, 1), min_size=shape[1], max_size=shape[1]),
        min_size=shape[0],
        max_size=shape[0],
    )
)
ladders = st.lists(st.integers(1, 24), max_size=4, unique=True).map(lambda x: tuple(sorted(x)))


def oracle(feeds: Feeds) -> Feeds:
    """A model that honours its mask, in whole numbers; it keeps what it was fed."""
    ids, mask = feeds["ids"], feeds["mask"]
    return {"pooled": (ids * mask).sum(axis=1), "hidden": ids[:, :, None] * mask[:, :, None]}


def some_ids(mask: np.ndarray) -> np.ndarray:
    return np.random.default_rng(mask.size).integers(1, 99, mask.shape)


@settings(deadline=None)
@given(masks, ladders, st.integers(0, 30))
def test_trimmed_and_restored_is_the_same(rows: Any, sizes: Any, extra: int) -> None:
    mask = np.array(rows, np.int64)
    feeds = {"ids": some_ids(mask), "mask": mask, "other": np.arange(3)}
    buckets = BUCKETS._replace(sizes=sizes)
    before = {name: array.copy() for name, array in feeds.items()}
    expected = oracle(feeds)
    got = serve(oracle, feeds, buckets)
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name], strict=True)
        np.testing.assert_array_equal(mute(expected, feeds, buckets)[name], expected[name])
    for name, array in before.items():
        np.testing.assert_array_equal(feeds[name], array)

    fitted = fit(feeds, buckets)
    length = max(1, int((mask.any(axis=0) * np.arange(1, mask.shape[1] + 1)).max()))
    size = min([one for one in sizes if one >= length], default=length)
    assert fitted["ids"].shape == fitted["mask"].shape == (len(mask), size)
    assert fitted["other"] is feeds["other"]
    assert (fitted["ids"][:, length:] == encoders.PAD).all()
    assert not fitted["mask"][:, length:].any()
    np.testing.assert_array_equal(fitted["ids"][:, :length], feeds["ids"][:, :length])
    for name, array in fit(fitted, buckets).items():
        assert array is fitted[name] or np.array_equal(array, fitted[name])

    wider = [(0, 0), (0, extra)]
    padded = {
        **feeds,
        "ids": np.pad(feeds["ids"], wider, constant_values=77),
        "mask": np.pad(mask, wider),
    }
    for name, array in fit(padded, buckets).items():
        np.testing.assert_array_equal(array, fitted[name], strict=True)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 2))
def test_resize(before: int, keep: int, size: int, axis: int) -> None:
    shape = [2, 2, 2]
    shape[axis] = before
    array = np.arange(1, np.prod(shape) + 1).reshape(shape)
    made = np.moveaxis(resize(array, Axis("x", axis, -1), keep, size), axis, 0)
    kept = min(before, keep, size)
    assert len(made) == size
    np.testing.assert_array_equal(made[:kept], np.moveaxis(array, axis, 0)[:kept])
    assert (made[kept:] == -1).all()


def test_an_array_that_needs_no_change_is_not_copied() -> None:
    feeds = encoders.captions([8], 8)
    fitted = fit(feeds, BUCKETS)
    assert fitted["ids"] is feeds["ids"]
    assert fitted["mask"] is feeds["mask"]


def test_without_buckets_nothing_happens() -> None:
    feeds = encoders.captions([5], 24)
    assert serve(lambda fed: fed, feeds, None) == feeds
    assert mute({"a": 1}, feeds, None) == {"a": 1}
    assert parse({}) is None
    inputs = values([described("ids", ["n", "t"])])
    assert takes(inputs, None) == inputs


def test_the_manifest_brings_the_buckets_back() -> None:
    made, _ = page(b"", BUCKETS, [1, 2], [4, 20])
    assert parse(json.loads(json.dumps(made))) == BUCKETS._replace(low=4, high=20)
    made, _ = page(b"", BUCKETS, None, None)
    assert parse(made) == BUCKETS
    assert str(BUCKETS) == "t is cut to what mask keeps, in sizes 8, 16"
    assert str(BUCKETS._replace(sizes=())) == "t is cut to what mask keeps"


# -- hostile manifests -----------------------------------------------------------------------


def complete(*bounds: Any) -> dict[str, Any]:
    made, files = page(b"", BUCKETS, *bounds)
    bundles.list_files(made, files)
    return made


def rows(**wrong: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda page: page["buckets"].update(wrong)


def row(what: str, index: int, **wrong: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda page: page["buckets"][what][index].update(wrong)


def shape(what: str, index: int, dims: list[Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda page: page[what][index].update(shape=dims)


HOSTILE: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (rows(sizes=[-8, 8]), r"buckets.sizes\[0\]: -8 is out of range"),
    (rows(sizes=[0]), r"buckets.sizes\[0\]: 0 is out of range"),
    (rows(sizes=[8, 2**20 + 1]), r"sizes\[1\]: 1048577 is out of range"),
    (rows(sizes=[8, 10**30]), "too large|out of range"),
    (rows(sizes=[8.0]), "expected integer"),
    (rows(sizes=list(range(1, 18))), "17 items are too few or too many"),
    (rows(sizes=[16, 8]), "the sizes do not ascend"),
    (rows(sizes=[8, 8]), "the sizes do not ascend"),
    (rows(sizes=[2, 8]), "size 2 is out of the range of 'ids'"),
    (rows(sizes=[8, 21]), "size 21 is out of the range of 'ids'"),
    (rows(mask="x"), "mask 'x' is not among its inputs"),
    (rows(mask="ids"), r"input 'ids' cannot be padded with 3"),
    (rows(dimension="x"), r"mask 'mask' is not \[rows, x\]"),
    (rows(inputs=[]), "0 items are too few"),
    (rows(more=1), "not known in this schema"),
    (lambda page: page["buckets"].pop("sizes"), "missing sizes"),
    (lambda page: page["buckets"]["inputs"].pop(0), "input 'ids' has t in dimension 1, which is"),
    (lambda page: page["buckets"]["outputs"].pop(), "output 'hidden' has t in dimension 1, which"),
    (row("inputs", 0, name="x"), "input 'x' is none of the model's"),
    (row("inputs", 0, name="mask"), "input 'mask' stands there twice"),
    (row("inputs", 0, axis=0), r"inputs\[0\].axis: 0 is out of range"),
    (row("inputs", 0, axis=-1), r"inputs\[0\].axis: -1 is out of range"),
    (row("inputs", 0, axis=2), "input 'ids' has no dimension 2"),
    (row("inputs", 0, pad=2**63), "cannot be padded with|too large"),
    (row("inputs", 0, pad=0.5), "expected integer"),
    (row("inputs", 1, pad=1), "input 'mask' cannot be padded with 1"),
    (row("outputs", 0, name="x"), "output 'x' is none of the model's"),
    (row("outputs", 0, axis=3), "output 'hidden' has t in dimension 1, which is not listed"),
    (row("outputs", 0, axis=0), "output 'hidden' has t in dimension 1, which is not listed"),
    (lambda page: page["buckets"]["outputs"].append({"name": "hidden", "axis": 2}), "stands there"),
    (shape("inputs", 0, ["n", 24]), "input 'ids' is fixed in dimension 1"),
    (shape("inputs", 0, ["t", "t"]), "input 'ids' has t in dimension 0, which is not listed"),
    (shape("inputs", 1, ["n", "t", 1]), "range and shape differ|is not .rows, t."),
    (shape("inputs", 1, ["n"]), "range and shape differ"),
]


@pytest.mark.parametrize(("change", "message"), HOSTILE)
def test_a_hostile_manifest(change: Callable[[dict[str, Any]], Any], message: str) -> None:
    made = complete([1, 2], [4, 20])
    manifests.check(made)
    change(made)
    with pytest.raises(InputError, match=message) as caught:
        manifests.parse(json.dumps(made).encode())
    assert caught.value.message.startswith("manifest.json")


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [
        ("uint8", [0, 255], [-1, 256]),
        ("int8", [-128, 127], [128]),
        ("bool", [0, 1], [2, -1]),
        ("float16", [0, -65504], [65505]),
        ("float32", [0, 10**18], []),
        ("uint64", [0, 2**63], [-1]),
    ],
)
def test_the_padding_fits_the_dtype(dtype: str, good: list[int], bad: list[int]) -> None:
    made = complete()
    made["inputs"][0]["dtype"] = dtype
    for pad in good:
        made["buckets"]["inputs"][0]["pad"] = pad
        manifests.check(made)
        ids = np.zeros((1, 1), dtype)
        assert resize(ids, Axis("ids", 1, pad), 1, 2)[0, 1] == pad
    for pad in bad:
        made["buckets"]["inputs"][0]["pad"] = pad
        with pytest.raises(InputError, match=f"cannot be padded with {pad}"):
            manifests.check(made)


@pytest.mark.parametrize("claim", [[], ["n"], ["n", 24, 8], ["n", "other", 8]])
def test_an_output_may_have_the_dimension_whatever_the_model_claims(claim: list[Any]) -> None:
    made = complete()
    made["outputs"][1]["shape"] = claim
    manifests.check(made)


def test_damaged_buckets_are_fine_or_an_input_error() -> None:
    document = complete([1, 2], [4, 20])
    schema = manifests.schema()
    published = jsonschema.Draft202012Validator(schema)
    counts = {True: 0, False: 0}
    for path in places({"buckets": document["buckets"]}):
        damaged = [changed(document, path, lambda place, key: place.pop(key))]
        for junk in JUNK:
            damaged.append(
                changed(document, path, lambda place, key, junk=junk: place.__setitem__(key, junk))
            )
        for one in damaged:
            assert (first_error(one, schema) is None) == published.is_valid(one)
            message = ""
            try:
                assert manifests.parse(json.dumps(one).encode()) == one
            except InputError as error:
                message = error.message
            assert not message or message.startswith("manifest.json")
            counts[not message] += 1
    assert counts[False] > 200
    assert counts[True] >= 1
