"""Buckets follow from the data's own lengths, and only where the model honours its mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import encoders
import graphs
import numpy as np
import onnx_ir as ir
import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec import bucket_proof, buckets, samples
from edgec.bucket_proof import examine, prove
from edgec.buckets import Mode, Proposal, Wish, choose, find, parse_wish, trim
from edgec.errors import InputError
from edgec.reference import Reference
from edgec.runtime.buckets import Axis, Buckets, fit
from edgec.types import Graph, Range

LENGTHS = [5, 7, 6, 12, 14, 7, 5, 16, 6]
Array = np.ndarray


def opened(graph: Graph, folder: Path) -> samples.Samples:
    return samples.open_samples(folder, samples.inputs(graph), 99)


def proposed(graph: Graph, folder: Path, wish: str = "auto", *, few: bool = True) -> Proposal:
    inputs = samples.inputs(graph)
    return find(graph, opened(graph, folder), inputs, parse_wish(wish), few=few)


def inputs_of(text: str) -> Graph:
    """A graph with these inputs that need not compute anything of use."""
    return small.graph(small.model(f"g ({text}) => (int64[k] y) {{ y = Shape (mask) }}"))


def write(folder: Path, *files: dict[str, Array]) -> Path:
    folder.mkdir(exist_ok=True)
    for number, arrays in enumerate(files):
        np.savez(folder / f"{number}.npz", **arrays)  # type: ignore[arg-type]
    return folder


def refused(proposal: Proposal, message: str, *, notable: bool = True) -> None:
    assert proposal.buckets is None
    assert proposal.notable == notable
    assert proposal.reason.startswith("no buckets: ")
    assert message in proposal.reason
    assert proposal.saved == 0


# -- what the user wants ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("auto", Wish()),
        ("none", Wish(Mode.NONE)),
        ("exact", Wish(Mode.EXACT)),
        ("16", Wish(Mode.GIVEN, (16,))),
        ("16,32,64", Wish(Mode.GIVEN, (16, 32, 64))),
    ],
)
def test_wishes(text: str, wish: Wish) -> None:
    assert parse_wish(text) == wish


@pytest.mark.parametrize(
    "text",
    ["", "given", "Auto", "0", "0,8", "-8", "16,8", "8,8", "8,", "8, 16", "8.0", "٣", "2000000"],
)
def test_what_is_no_wish(text: str) -> None:
    with pytest.raises(InputError, match="not sizes") as caught:
        parse_wish(text)
    assert "16,32,64" in caught.value.hint


# -- the sizes -------------------------------------------------------------------------------


def cost(counts: dict[int, int], sizes: tuple[int, ...]) -> int:
    """In fiftieths of a token, as the docstring of `choose` says."""
    tokens = sum(count * min(s for s in sizes if s >= n) for n, count in counts.items())
    in_use = sum(n * count for n, count in counts.items())
    return tokens * buckets.WORTH + len(sizes) * in_use


@settings(deadline=None, max_examples=300)
@given(
    st.dictionaries(st.integers(1, 40), st.integers(1, 50), min_size=1, max_size=12),
    st.integers(1, 4),
    st.sampled_from([3, 4, 8]),
    st.integers(1, 20),
    st.sampled_from([0, 40, 43, 64]),
)
def test_the_sizes_are_the_best_of_all(
    counts: dict[int, int], most: int, step: int, low: int, high: int
) -> None:
    multiples = {n for n in range(low + 1, max(counts) + step) if n % step == 0} | {step}
    allowed = {min(max(low, n), high or 99) for n in multiples} | ({low} - {1})
    every = [
        sizes
        for number in range(1, most + 1)
        for sizes in combinations(sorted(allowed), number)
        if sizes[-1] >= max(counts)
    ]
    found = choose(counts, low, high, most, step)
    assert found in every
    assert cost(counts, found) == min(cost(counts, sizes) for sizes in every)


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(1, 64), st.integers(1, 50), min_size=1, max_size=20),
    st.integers(1, 4),
)
def test_multiples_of_eight_are_the_best_of_all(counts: dict[int, int], most: int) -> None:
    every = [
        sizes
        for number in range(1, most + 1)
        for sizes in combinations(range(8, 65, 8), number)
        if sizes[-1] >= max(counts)
    ]
    found = choose(counts, most=most)
    assert cost(counts, found) == min(cost(counts, sizes) for sizes in every)


def test_sizes_of_an_example() -> None:
    assert choose({5: 1}) == (8,)
    assert choose({5: 10, 6: 10, 40: 1}) == (8, 40)
    assert choose({5: 10, 70: 1}, high=77) == (8, 72)
    assert choose({5: 10, 76: 1}, high=77) == (8, 77)
    assert choose({5: 10, 30: 10}, low=16) == (16, 32)
    assert len(choose(dict.fromkeys(range(1, 129), 1))) == buckets.MOST
    # one caption in a thousand is not worth a size of its own
    assert choose({16: 1000, 15: 1, 8: 1}) == (16,)


def test_very_long_sequences_get_coarser_sizes() -> None:
    counts = dict.fromkeys(range(1000, 200_000, 777), 1)
    sizes = choose(counts)
    assert sizes[-1] >= max(counts)
    assert all(size % 1024 == 0 for size in sizes)


# -- finding ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder() -> Graph:
    return small.graph(encoders.encoder())


def test_padded_captions(encoder: Graph, tmp_path: Path) -> None:
    folder = encoders.write_captions(tmp_path / "s", LENGTHS)
    found = proposed(encoder, folder)
    assert found.buckets == Buckets(
        "t", "mask", (Axis("ids", 1, encoders.PAD), Axis("mask", 1)), (), (8, 16)
    )
    calibrate = [n for i, n in enumerate(LENGTHS) if i % samples.VERIFY_EVERY != 1]
    run = sum(8 if n <= 8 else 16 for n in calibrate)
    assert found.saved == pytest.approx(1 - run / (24 * len(calibrate)))
    share = f"{found.saved:.0%} fewer tokens run"
    assert found.reason == f"buckets: mask keeps 5 to 12 of 24 t; padded to 8 or 16: {share}"


def test_where_shapes_cost_nothing_every_length_runs(encoder: Graph, tmp_path: Path) -> None:
    folder = encoders.write_captions(tmp_path / "s", LENGTHS)
    found = proposed(encoder, folder, few=False)
    assert found == proposed(encoder, folder, "exact").__class__(
        found.buckets, found.reason, found.saved
    )
    assert found.buckets is not None
    assert found.buckets.sizes == ()
    assert "; cut: " in found.reason
    assert found.saved > proposed(encoder, folder).saved


def test_given_sizes(encoder: Graph, tmp_path: Path) -> None:
    found = proposed(encoder, encoders.write_captions(tmp_path / "s", LENGTHS), "10,30")
    assert found.wanted
    assert found.buckets is not None
    assert found.buckets.sizes == (10, 30)


def test_switched_off(encoder: Graph, tmp_path: Path) -> None:
    folder = encoders.write_captions(tmp_path / "s", LENGTHS)
    refused(proposed(encoder, folder, "none"), "switched off", notable=False)


@pytest.mark.parametrize("wish", ["auto", "exact", "16"])
def test_without_data(encoder: Graph, tmp_path: Path, wish: str) -> None:
    made_up = samples.synthetic(encoder, tmp_path)
    inputs = samples.inputs(encoder)
    if wish == "auto":
        found = find(encoder, made_up, inputs)
        refused(found, "without --data FOLDER the lengths are not known", notable=False)
    else:
        with pytest.raises(InputError, match="--buckets: without --data"):
            find(encoder, made_up, inputs, parse_wish(wish))


def test_a_batch_runs_as_long_as_its_longest_row(encoder: Graph, tmp_path: Path) -> None:
    files = [encoders.captions([3, 12, 5], 24, seed) for seed in range(3)]
    found = proposed(encoder, write(tmp_path / "s", *files))
    assert found.buckets is not None
    assert found.buckets.sizes == (16,)
    assert found.saved == pytest.approx(1 - 16 / 24)


def test_the_largest_size_is_no_longer_than_what_was_fed(encoder: Graph, tmp_path: Path) -> None:
    folder = encoders.write_captions(tmp_path / "s", [3, 21, 3, 21, 3, 21], 22)
    found = proposed(encoder, folder).buckets
    assert found is not None
    assert found.sizes == (8, 22)


def test_ranges_bound_the_sizes(tmp_path: Path) -> None:
    bounds = (Range(1, 4), Range(10, 64))
    made = small.graph(encoders.encoder())
    made = Graph(made.model, "m", lambda: "0", 1, shapes={"ids": bounds, "mask": bounds})
    folder = encoders.write_captions(tmp_path / "s", LENGTHS)
    found = proposed(made, folder).buckets
    assert found is not None
    assert (found.low, found.high) == (10, 64)
    assert found.sizes == (10, 16)
    for wish in ("8,16", "16,65"):
        with pytest.raises(InputError, match=r"--buckets: t = (8|65) is out of the range"):
            proposed(made, folder, wish)


def test_unpadded_captions_of_many_lengths(encoder: Graph, tmp_path: Path) -> None:
    folder = encoders.write_captions(tmp_path / "s", list(range(3, 21)), 0)
    found = proposed(encoder, folder)
    assert found.buckets is not None
    assert found.buckets.sizes == (8, 16, 20)
    assert found.buckets.inputs[0].pad == 0
    assert found.saved < 0
    assert "the samples come unpadded, with t = 3 to 20; padded to 8, 16 or 20: " in found.reason
    assert "more tokens run" in found.reason
    refused(proposed(encoder, folder, few=False), "and every length may run as it is")
    asked = proposed(encoder, folder, "exact")
    assert asked.saved == 0
    assert asked.buckets is not None


def test_nothing_to_trim(encoder: Graph, tmp_path: Path) -> None:
    alike = encoders.write_captions(tmp_path / "alike", [16] * 6, 0)
    refused(proposed(encoder, alike), "the samples come unpadded, with t = 16")
    full = encoders.write_captions(tmp_path / "full", [16, 16, 15, 16, 16, 16], 16)
    refused(proposed(encoder, full), "mask keeps 15 to 16 of 16 t; padded to 16: 0% fewer")


def test_several_masks_of_one_sequence(tmp_path: Path) -> None:
    made = inputs_of("int64[n, t] ids, int64[n, t] global_mask, int64[n, t] mask")
    files = []
    for seed, length in enumerate(LENGTHS):
        one = encoders.captions([length], 24, seed)
        first = np.zeros_like(one["mask"])
        first[:, 0] = 1
        files.append({**one, "global_mask": first})
    found = proposed(made, write(tmp_path / "s", *files)).buckets
    assert found is not None
    assert found.mask == "mask"
    assert [one.name for one in found.inputs] == ["ids", "global_mask", "mask"]


def test_of_two_sequences_the_one_with_more_padding(tmp_path: Path) -> None:
    made = inputs_of("int64[n, a] ids, int64[n, a] mask, int64[n, b] ids2, int64[n, b] mask2")
    files = []
    for seed, length in enumerate(LENGTHS):
        one, two = encoders.captions([length], 24, seed), encoders.captions([length], 64, seed)
        files.append({**one, "ids2": two["ids"], "mask2": two["mask"]})
    found = proposed(made, write(tmp_path / "s", *files)).buckets
    assert found is not None
    assert found.mask == "mask2"
    assert [one.name for one in found.inputs] == ["ids2", "mask2"]


def test_dimensions_that_an_exporter_named_apart(tmp_path: Path) -> None:
    made = inputs_of("int64[n, ids_1] ids, int64[n, mask_1] mask, int64[n, other] types")
    files = [
        {**encoders.captions([length], 24, seed), "types": np.zeros((1, 9), np.int64)}
        for seed, length in enumerate(LENGTHS)
    ]
    found = proposed(made, write(tmp_path / "s", *files)).buckets
    assert found is not None
    assert found.dimension == "mask_1"
    assert [one.name for one in found.inputs] == ["ids", "mask"]


def test_dimensions_without_a_name(tmp_path: Path) -> None:
    made = inputs_of("int64[n, t] ids, int64[n, t] mask")
    for value in made.model.graph.inputs:
        value.shape = ir.Shape([None, None])
    found = proposed(made, encoders.write_captions(tmp_path / "s", LENGTHS)).buckets
    assert found is not None
    assert found.dimension == "mask_1"
    assert [one.name for one in found.inputs] == ["ids", "mask"]


def test_an_output_that_uses_another_name_of_the_dimension(tmp_path: Path) -> None:
    made = small.graph(encoders.encoder(outputs="(float[n, 8] pooled, float[n, ids_1, 8] hidden)"))
    for value in made.model.graph.inputs:
        value.shape = ir.Shape(["n", f"{value.name}_1"])
    found = proposed(made, encoders.write_captions(tmp_path / "s", LENGTHS)).buckets
    assert found is not None
    assert found.dimension == "mask_1"
    assert found.outputs == (Axis("hidden", 1),)


def test_a_mask_without_the_word_and_features_beside_the_tokens(tmp_path: Path) -> None:
    made = small.graph(
        small.model(
            "g (int64[n, t] ids, bool[n, t] valid, float[n, 2, t, 3] regions, float[n, d] x)"
            " => (int64[k] y) { y = Shape (valid) }"
        )
    )
    files = []
    for seed, length in enumerate(LENGTHS):
        one = encoders.captions([length], 24, seed)
        regions = np.ones((1, 2, 24, 3), np.float32)
        x = np.full((1, 24), 0.5, np.float32)
        valid = one["mask"].astype(bool)
        files.append({"ids": one["ids"], "valid": valid, "regions": regions, "x": x})
    found = proposed(made, write(tmp_path / "s", *files)).buckets
    assert found is not None
    assert found.mask == "valid"
    assert found.inputs == (Axis("ids", 1, encoders.PAD), Axis("valid", 1), Axis("regions", 2))


def flipped(arrays: dict[str, Array]) -> dict[str, Array]:
    return {name: array[:, ::-1].copy() for name, array in arrays.items()}


def altered(arrays: dict[str, Array], **changes: Callable[[Array], Array]) -> dict[str, Array]:
    return {name: changes.get(name, lambda x: x)(array) for name, array in arrays.items()}


REFUSED: list[tuple[str, Callable[[dict[str, Array]], dict[str, Array]], str]] = [
    ("int64[n, t] ids, int64[n, t] mask", flipped, "mask has 0 before 1 in 0.npz: padding must be"),
    (
        "int64[n, t] ids, int64[n, t] mask",
        lambda a: altered(a, mask=lambda m: 1 - m),
        "mask has 0 before 1 in 0.npz",
    ),
    (
        "int64[n, t] ids, int64[n, t] mask",
        lambda a: altered(a, mask=lambda m: m * 2),
        "mask holds other numbers than 0 and 1 in 0.npz",
    ),
    (
        "int64[n, t] ids, float[n, t] mask",
        lambda a: altered(a, mask=lambda m: (-1e4 * (1 - m)).astype(np.float32)),
        "mask holds other numbers than 0 and 1 in 0.npz",
    ),
    (
        "int64[n, t] ids, int64[n, t] mask",
        lambda a: altered(a, mask=np.zeros_like),
        "mask is 0 in all samples",
    ),
    ("int64[n, 24] ids, int64[n, 24] mask", dict, "mask is fixed at 24 columns: export"),
    (
        "int64[n, t] ids, int64[n, h, w] mask",
        lambda a: altered(a, mask=lambda m: m[:, None, :]),
        "mask is no matrix [rows, columns]",
    ),
    (
        "int64[n, 24] ids, int64[n, t] mask",
        dict,
        "no other input shares t with mask",
    ),
    (
        "float[n, t, t] ids, int64[n, t] mask",
        lambda a: {**a, "ids": np.zeros((1, 24, 24), np.float32)},
        "input 'ids' has t in dimension 1 and 2",
    ),
    (
        "float[t, n] ids, int64[n, t] mask",
        lambda a: {**a, "ids": np.zeros((24, 1), np.float32)},
        "input 'ids' has t in dimension 0",
    ),
    (
        "int64[n, t] ids, int64[n, t] mask, bool[n, t] valid",
        lambda a: {**flipped(a), "valid": a["mask"] == 1},
        "mask has 0 before 1",  # a refused mask is not replaced by something without the name
    ),
]


@pytest.mark.parametrize(("text", "change", "message"), REFUSED)
def test_what_is_refused_and_why(
    tmp_path: Path,
    text: str,
    change: Callable[[dict[str, Array]], dict[str, Array]],
    message: str,
) -> None:
    made = inputs_of(text)
    files = [change(encoders.captions([length], 24, i)) for i, length in enumerate(LENGTHS)]
    folder = write(tmp_path / "s", *files)
    refused(proposed(made, folder), message)
    with pytest.raises(InputError) as caught:
        proposed(made, folder, "8,16")
    assert message in caught.value.message
    assert "--buckets none" in caught.value.hint


def test_an_output_with_the_dimension_twice(tmp_path: Path) -> None:
    made = small.graph(encoders.encoder(outputs="(float[n, 8] pooled, float[n, t, t] p)"))
    folder = encoders.write_captions(tmp_path / "s", LENGTHS)
    refused(proposed(made, folder), "output 'p' has t twice")


@pytest.mark.parametrize("name", ["vit", "lstm", "mlp"])
def test_models_without_a_mask(tmp_path: Path, name: str) -> None:
    folder = graphs.write_samples(name, tmp_path / "s", 3)
    found = proposed(small.fixture(name), folder)
    refused(found, "no input is a mask, a matrix of ones followed by zeros", notable=False)


# -- proving ---------------------------------------------------------------------------------


def proven(
    made: ir.Model, tmp_path: Path, lengths: list[int], columns: int = 24, wish: str = "auto"
) -> Proposal:
    """Find and prove, in a process of its own as a build does."""
    path = small.save(made, tmp_path / "model.onnx")
    graph = small.graph(made)
    folder = encoders.write_captions(tmp_path / "s", lengths, columns)
    found = proposed(graph, folder, wish)
    return prove(path, found, opened(graph, folder), samples.inputs(graph), 1)


def test_a_model_that_honours_its_mask(tmp_path: Path) -> None:
    found = proven(encoders.encoder(), tmp_path, LENGTHS)
    assert found.buckets is not None
    assert found.buckets.sizes == (8, 16)
    # three samples verify; a fourth run cuts one short
    assert "proven on the float model" in found.reason
    assert found.reason.endswith("in 4 runs")


@pytest.mark.parametrize("wish", ["auto", "exact", "5,40"])
@pytest.mark.parametrize(
    ("made", "output"),
    [
        (encoders.encoder(encoders.BLIND), "pooled"),  # the mean counts the padding
        (encoders.encoder(penalty=0.0), "pooled"),  # attention reads the padding
        (encoders.encoder(penalty=-3.0), "pooled"),  # and here a little of it
    ],
    ids=["pooling", "attention", "weak"],
)
def test_a_model_that_ignores_its_mask(
    tmp_path: Path, made: ir.Model, output: str, wish: str
) -> None:
    message = f"the model does not honour its mask: output '{output}' changes by "
    if wish == "auto":
        found = proven(made, tmp_path, LENGTHS, wish=wish)
        refused(found, message)
        assert ".npz runs at t = " in found.reason or "was cut runs at t = " in found.reason
    else:
        with pytest.raises(InputError, match=f"--buckets: {message}"):
            proven(made, tmp_path, LENGTHS, wish=wish)


def verdict(
    made: ir.Model, tmp_path: Path, lengths: list[int], sizes: tuple[int, ...], columns: int = 24
) -> bucket_proof.Verdict:
    """The proof in this process, on all files."""
    path = small.save(made, tmp_path / "model.onnx")
    folder = encoders.write_captions(tmp_path / "s", lengths, columns)
    one = Buckets("t", "mask", (Axis("ids", 1, encoders.PAD), Axis("mask", 1)), (), sizes)
    inputs = samples.inputs(small.graph(made))
    return examine(path, one, sorted(folder.iterdir()), inputs, 1)


def test_the_tolerance_is_measured_not_assumed(tmp_path: Path) -> None:
    leaks = [verdict(encoders.encoder(penalty=p), tmp_path, LENGTHS, (8, 16)) for p in (-15, -20)]
    assert all(not one.problem for one in leaks)
    assert bucket_proof.TOLERANCE > leaks[0].error > leaks[1].error > 0
    assert "changes by" in verdict(encoders.encoder(penalty=-6), tmp_path, LENGTHS, (8,)).problem


def test_every_size_is_tried_also_those_that_no_sample_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    run = Reference.run

    def spy(self: Reference, feeds: dict[str, Array], names: tuple[str, ...] = ()) -> object:
        seen.append(feeds["ids"].shape[1])
        return run(self, feeds, names)

    monkeypatch.setattr(Reference, "run", spy)
    found = verdict(encoders.encoder(), tmp_path, [12, 14], (4, 16, 40, 64))
    assert not found.problem
    assert set(seen) == {24, 4, 16, 40, 64, 7}
    assert found.runs == 6


def test_unpadded_samples_prove_something_too(tmp_path: Path) -> None:
    for sizes in ((), (16,)):
        good = verdict(encoders.encoder(), tmp_path, [16, 16], sizes, 16)
        assert (good.problem, good.runs) == ("", 1)
        blind = verdict(encoders.encoder(encoders.BLIND), tmp_path, [16, 16], sizes, 16)
        assert "a sample that was cut runs at t = 8 instead of 16" in blind.problem


def test_samples_that_prove_nothing(tmp_path: Path) -> None:
    found = verdict(encoders.encoder(), tmp_path, [1, 1], (), 1)
    assert found.problem == "the verification samples are too alike to prove the mask"


def test_an_output_that_keeps_the_dimension(tmp_path: Path) -> None:
    for declared in (
        "float[n, t, 8] hidden",
        "float[n, other, 8] hidden",
        "float[n, 24, 8] hidden",
    ):
        made = encoders.encoder(outputs=f"(float[n, 8] pooled, {declared})")
        found = proven(made, tmp_path, LENGTHS)
        assert found.buckets is not None
        assert found.buckets.outputs == (Axis("hidden", 1),)
        assert "output hidden holds zeros behind what the mask keeps" in found.reason


def test_outputs_that_cannot_be_restored(tmp_path: Path) -> None:
    made = encoders.encoder(outputs="(float[n, 8] pooled, float[n, u, v] p)")
    found = verdict(made, tmp_path, LENGTHS, (8, 16))
    assert "output 'p' changes its shape from (1, 24, 24) to (1, 8, 8), not in t alone" in (
        found.problem
    )
    more = "\n twice = Concat <axis = 1> (hidden, hidden)"
    made = encoders.encoder(outputs="(float[n, 8] pooled, float[n, u, 8] twice)", more=more)
    found = verdict(made, tmp_path, LENGTHS, (8, 16))
    assert "output 'twice' changes its shape from (1, 48, 8) to (1, 16, 8)" in found.problem


def test_an_output_that_only_claims_the_dimension(tmp_path: Path) -> None:
    made = encoders.encoder(outputs="(float[n, t] pooled)")
    found = proven(made, tmp_path, LENGTHS)
    refused(found, "output 'pooled' changes its shape from (1, 8) to (1, 8), not in t alone")


def test_a_length_that_is_fixed_inside(tmp_path: Path) -> None:
    refused(
        proven(encoders.encoder(encoders.FIXED), tmp_path, LENGTHS),
        "the model fails where 001.npz runs at t = 8 instead of 24: ",
    )


def test_whole_numbers_must_be_equal(tmp_path: Path) -> None:
    counts = "\n length = Size (mask)"
    made = encoders.encoder(outputs="(float[n, 8] pooled, int64 length)", more=counts)
    found = verdict(made, tmp_path, LENGTHS, (8, 16))
    assert found.problem.startswith("the model does not honour its mask: output 'length' changes")
    best = "\n best = ArgMax <axis = 1, keepdims = 0> (pooled)"
    made = encoders.encoder(outputs="(float[n, 8] pooled, int64[n] best)", more=best)
    assert not verdict(made, tmp_path, LENGTHS, (8, 16)).problem


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    # the sum of what the mask excludes is infinite where there is something to exclude
    more = "\n none = Log (missing)\n missing = ReduceSum <keepdims = 1> (free, axis1)"
    more = more.split("\n")[2] + "\n" + more.split("\n")[1]
    made = encoders.encoder(outputs="(float[n, 8] pooled, float[n, 1] none)", more="\n" + more)
    found = verdict(made, tmp_path, [8, 8, 8], (8,))
    assert "output 'none' has NaN or infinity elsewhere" in found.problem


def test_half_precision_gets_its_own_tolerance(tmp_path: Path) -> None:
    more = "\n half = Cast <to = 10> (pooled)"
    made = encoders.encoder(outputs="(float16[n, 8] half)", penalty=-10.0, more=more)
    whole = encoders.encoder(penalty=-10.0)
    assert verdict(whole, tmp_path, LENGTHS, (8, 16)).problem
    found = verdict(made, tmp_path, LENGTHS, (8, 16))
    assert not found.problem
    assert bucket_proof.TOLERANCE < found.error < bucket_proof.HALF_TOLERANCE == found.limit


def test_a_crash_of_the_proof_is_a_reason(encoder: Graph, tmp_path: Path) -> None:
    folder = encoders.write_captions(tmp_path / "s", LENGTHS)
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    inputs = samples.inputs(encoder)
    found = prove(
        tmp_path / "broken.onnx",
        proposed(encoder, folder),
        opened(encoder, folder),
        inputs,
        1,
    )
    refused(found, "the proof on the float model broke off: ONNX Runtime cannot open")


def test_nothing_to_prove(tmp_path: Path) -> None:
    none = Proposal(None, "no buckets: a reason")
    assert prove(tmp_path / "missing", none, None, (), 1) is none  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["clip_dynamo", "clip_torchscript", "trimodal_cross", "trimodal_dynamo", "weight_only"]
)
def test_exported_text_towers_honour_their_masks(tmp_path: Path, name: str) -> None:
    graph = small.fixture(name)
    folder = graphs.write_samples(name, tmp_path / "s", 9, sequence=24)
    inputs = samples.inputs(graph)
    found = proposed(graph, folder)
    assert found.buckets is not None
    assert found.buckets.dimension == "sequence"
    assert [(one.name, one.pad) for one in found.buckets.inputs] == [("ids", 0), ("mask", 0)]
    proof = prove(graphs.path(name), found, opened(graph, folder), inputs, 1)
    assert proof.buckets == found.buckets
    assert "proven on the float model" in proof.reason


# -- trimming the samples --------------------------------------------------------------------


def test_samples_of_one_name_stay_apart(encoder: Graph, tmp_path: Path) -> None:
    files = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        files.append(tmp_path / str(number) / "caption.npz")
        np.savez(files[-1], **encoders.captions([number + 1], 24, number))  # type: ignore[arg-type]
    before = samples.Samples((files[0], files[2]), (files[1],), "f", "three")
    one = Buckets("t", "mask", (Axis("ids", 1), Axis("mask", 1)), (), (8,))
    after = trim(before, one, samples.inputs(encoder), tmp_path / "trimmed")
    found = [samples.read(path, samples.inputs(encoder))["mask"].sum() for path in after.files]
    assert found == [1, 2, 3]
    assert len(after.calibration) == 2


def test_trimmed_samples(encoder: Graph, tmp_path: Path) -> None:
    lengths = [5, 7, 16, 12, 3, 24]
    folder = encoders.write_captions(tmp_path / "s", lengths)
    before, inputs = opened(encoder, folder), samples.inputs(encoder)
    found = proposed(encoder, folder, "8,16").buckets
    assert found is not None
    after = trim(before, found, inputs, tmp_path / "trimmed")
    assert [path.name for path in after.calibration] == [p.name for p in before.calibration]
    assert [path.name for path in after.verification] == [p.name for p in before.verification]
    assert after.origin == before.origin
    assert after.fingerprint != before.fingerprint
    places = {path.name: path for path in after.files}
    seen = Counter()
    for path, length in zip(before.files, lengths, strict=True):
        arrays = samples.read(places[path.name], inputs)
        assert arrays.keys() == {"ids", "mask"}
        expected = fit(samples.read(path, inputs), found)
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, expected[name], strict=True)
        assert arrays["mask"].sum() == length
        seen[arrays["ids"].shape[1]] += 1
    assert seen == {8: 3, 16: 2, 24: 1}
    assert [path.name for path in after.files] == [path.name for path in before.files]
    assert trim(before, found, inputs, tmp_path / "t2").fingerprint == after.fingerprint
    other = found._replace(sizes=(8,))
    assert trim(before, other, inputs, tmp_path / "t3").fingerprint != after.fingerprint
