"""Asking for a metric, figures of two models, and their intervals against the truth."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from edgec import metrics
from edgec.cli.verify import command
from edgec.errors import InputError
from edgec.metrics import Measure, compare, known, mean, metric, paired
from edgec.metrics.labels import NO_LABELS, Label, Labels
from edgec.metrics.options import Options
from edgec.metrics.outputs import count, pick, split

RNG = np.random.default_rng(0)
SCORES = RNG.normal(0, 1, (60, 12)).astype(np.float32)
VALUES = np.where(RNG.random(60) < 0.5, SCORES.argmax(axis=1), RNG.integers(0, 12, 60)).tolist()
LABELS = Labels(tuple(Label(value, "labels.csv") for value in VALUES))
TEXTUAL = ("wer", "cer", "exact")


@pytest.fixture
def spelled(tmp_path: Path) -> dict[str, str]:
    """Every metric with the options that it cannot be without."""
    path = tmp_path / "tokens.txt"
    path.write_text("a\nb\n")
    needs = {"map": ":boxes=found", **dict.fromkeys(TEXTUAL, f":decoder=ctc,vocabulary={path}")}
    return {name: name + needs.get(name, "") for name in known()}


@pytest.mark.parametrize("name", list(known()))
def test_every_metric_can_be_asked_for(name: str, spelled: dict[str, str]) -> None:
    made = metric(spelled[name])
    assert made.name == name
    assert made.measures
    assert made.answer
    pickle.loads(pickle.dumps(made.take))  # it runs in another process


@pytest.mark.parametrize("name", list(known()))
def test_help_names_every_metric_and_option(name: str, spelled: dict[str, str]) -> None:
    text = CliRunner().invoke(command, ["--help"]).output
    options = Options(name, spelled[name].partition(":")[2])
    known()[name](options)
    assert name in text
    assert options.asked
    for option in options.asked:
        assert f"{option}=" in text


def test_help_tells_how_often_it_resamples() -> None:
    from edgec.metrics import map as average_precision

    text = CliRunner().invoke(command, ["--help"]).output
    assert f"{metrics.RESAMPLES} times; map {average_precision.RESAMPLES} times" in text


@pytest.mark.parametrize("name", list(known()))
def test_labels_are_needed(name: str, spelled: dict[str, str]) -> None:
    made = metric(spelled[name])
    assert made.optional == (name == "retrieval")
    if not made.optional:
        with pytest.raises(InputError, match=f"metric {name} needs labels") as caught:
            compare(made, [], [])
        assert "--labels" in caught.value.hint


def test_an_unknown_metric_lists_the_choices() -> None:
    with pytest.raises(InputError, match="unknown metric 'accuracy'") as caught:
        metric("accuracy")
    for name in (*known(), "module:function"):
        assert name in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("top1:outptu=y", "has no option 'outptu'", "it has output"),
        ("top1:output=y,output=z", "stands there twice", "top1:option=value"),
        ("top1:output=", "is no option=value", "top1:option=value"),
        ("f1:average=mean", "average: 'mean' is none of macro, micro, binary", "write macro or"),
        ("f1:threshold=nan", "threshold: 'nan' is no number", "finite"),
        ("f1:positive=-1", "positive: '-1' is no such number", "0 to"),
        ("f1:positive=1e3", "positive: '1e3' is no such number", "0 to"),
        ("retrieval:query=a", "query and gallery: one is missing", "both"),
        ("map", "needs the option boxes", "map:boxes="),
        ("map:boxes=b,classes=c", "classes: without scores", "scores=NAME"),
        ("map:boxes=b,size=640", "size: '640' is no size", "640x640"),
        ("map:boxes=b,fit=center", "fit: center needs the input's size", "size="),
        ("map:boxes=b,first=one", "first: 'one' is no such number", "0 to"),
        ("wer", "needs the option decoder", "ctc or argmax"),
        ("cer:decoder=ctc", "needs the option vocabulary", "a token a line"),
        ("exact:decoder=ctc,vocabulary=no.txt", "no.txt: no such file", "a token a line"),
        ("wer:decoder=beam", "decoder: 'beam' is none of ctc, argmax", "write ctc or argmax"),
    ],
)
def test_options_that_are_wrong(text: str, message: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        metric(text)
    assert message in caught.value.message
    assert text.partition(":")[0] in caught.value.message
    assert hint in caught.value.hint


def test_a_value_may_hold_a_comma() -> None:
    options = Options("wer", "vocabulary=a,b.txt,space=,,output=x=y")
    assert options.text("vocabulary") == "a,b.txt"
    assert options.text("space") == ","
    assert options.text("output") == "x=y"
    options.done()


# outputs


@pytest.mark.parametrize(
    ("feeds", "outputs", "expected"),
    [
        ([(4, 3, 8, 8)], [(4, 10)], 4),
        ([(1, 3, 8, 8)], [(1, 10)], 1),
        ([(1, 3, 8, 8)], [(7, 4), (7,)], 1),  # boxes after NonMaxSuppression
        ([(1, 3, 8, 8)], [(1, 7, 4), (1,)], 1),
        ([(4, 3, 8, 8)], [(4, 10), ()], 4),
        ([(4, 12), (4, 12)], [(4, 12, 8), (7, 4)], 4),
        ([(4, 12), (2, 4, 16)], [(4, 10)], 4),  # a recurrent state
        ([(9, 1, 20)], [(9, 1, 6)], 9),  # time first: tbv says so
        ([(2, 8), (3, 8)], [(2, 3)], 2),
        ([(2, 8), (3, 8)], [(2, 5), (3, 5)], 1),  # nothing to pair
        ([()], [()], 1),
    ],
)
def test_how_many_samples_a_file_holds(
    feeds: list[tuple[int, ...]], outputs: list[tuple[int, ...]], expected: int
) -> None:
    sides = [{str(i): np.zeros(shape) for i, shape in enumerate(one)} for one in (feeds, outputs)]
    assert count(*sides) == expected


def test_samples_of_an_output() -> None:
    array = np.arange(12).reshape(3, 4)
    assert [one.tolist() for one in split(array, 3)] == array.tolist()
    assert split(array, 2) == []
    (whole,) = split(array, 1)
    assert whole.shape == (3, 4)
    (own,) = split(array[:1], 1)
    assert own.shape == (4,)


def test_an_output_is_chosen_or_named() -> None:
    outputs = {"a": np.zeros((2, 3)), "b": np.ones((2, 3))}

    def any_of_ones(array: np.ndarray) -> bool:
        return bool(array.all())

    assert pick(outputs, 2, "", any_of_ones, "ones")[0].tolist() == [1, 1, 1]
    with pytest.raises(InputError, match=r"output a float64\[2, 3\].* is not ones"):
        pick(outputs, 2, "a", any_of_ones, "ones")
    with pytest.raises(InputError, match="no output 'c'") as caught:
        pick(outputs, 2, "c", any_of_ones, "ones")
    assert "a float64[2, 3], b float64[2, 3]" in caught.value.hint
    with pytest.raises(InputError, match="no output looks like ones") as caught:
        pick(outputs, 5, "", any_of_ones, "ones")
    assert "output=NAME" in caught.value.hint


# a metric of one's own

OWN = """
import numpy as np
def distance(outputs, labels):
    return -np.abs(outputs["y"][:, 0] - labels)
def lengths(outputs, labels):
    assert labels is None
    return [len(one) for one in outputs["boxes"]]
def words(outputs, labels):
    return [text == "yes" for text in labels]
def single(outputs, labels):
    return np.zeros(1)
def fails(outputs, labels):
    return outputs["nothing"]
number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "edgec_own_metric.py").write_text(OWN)
    (tmp_path / "edgec_broken_metric.py").write_text("def f(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "edgec_own_metric", raising=False)
    return tmp_path


def taken(name: str, *files: dict[str, np.ndarray]) -> list[object]:
    made = metric(f"edgec_own_metric:{name}")
    return [one for outputs in files for one in made.take(outputs, 1)]


@pytest.mark.usefixtures("own")
def test_a_module_and_function() -> None:
    chosen = metric("edgec_own_metric:distance")
    first = taken("distance", {"y": np.array([[1.0]])}, {"y": np.array([[4.0]])})
    second = taken("distance", {"y": np.array([[2.0]])}, {"y": np.array([[5.0]])})
    labels = Labels((Label(1.0, ""), Label(2.0, "")))
    (found,) = compare(chosen, first, second, labels)
    assert found.metric == "edgec_own_metric:distance"
    assert (found.original, found.built, found.difference) == (-1, -2, -1)
    assert (found.agreement, found.agreement_kind) == (0, "score")


@pytest.mark.usefixtures("own")
def test_outputs_whose_shapes_differ_come_as_a_list() -> None:
    files = [{"boxes": np.zeros((n, 4))} for n in (3, 1, 0, 5)]
    made = metric("edgec_own_metric:lengths")
    scored = made.score(taken("lengths", *files), NO_LABELS)
    assert scored.rows.tolist() == [3, 1, 0, 5]


@pytest.mark.usefixtures("own")
def test_labels_of_ones_own_metric_may_be_texts() -> None:
    made = metric("edgec_own_metric:words")
    files = taken("words", {"y": np.zeros((1, 1))}, {"y": np.zeros((1, 1))})
    labels = Labels((Label("yes", ""), Label("no", "")))
    assert made.score(files, labels).rows.tolist() == [1, 0]


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "words"), [("single", "for 2 samples"), ("fails", "line 13: KeyError: 'nothing'")]
)
def test_a_score_per_sample_is_needed(name: str, words: str) -> None:
    files = taken(name, {"y": np.zeros((1, 1))}, {"y": np.zeros((1, 1))})
    with pytest.raises(InputError) as caught:
        compare(metric(f"edgec_own_metric:{name}"), files, files)
    assert words in caught.value.message


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("edgec_no_such_module:f", "edgec_no_such_module"),
        ("edgec_own_metric:nothing", "nothing"),
        ("edgec_broken_metric:f", "SyntaxError"),
        ("top1:nothing", "top1"),
    ],
)
def test_what_cannot_be_imported(name: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        metric(name)
    assert caught.value.message.startswith(f"metric {name!r}: ")
    assert words in caught.value.message


# intervals

MEAN = Measure("mean", mean)


def test_the_interval_contains_the_truth_about_as_often_as_it_says() -> None:
    truth, inside, trials = -0.05, 0, 60
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        original = rng.normal(0.5, 1, 80)
        built = original + rng.normal(truth, 0.2, 80)
        figure = paired(MEAN, original, built)
        assert figure.low <= figure.difference <= figure.high
        inside += figure.low <= truth <= figure.high
    assert 0.85 * trials <= inside <= trials


def test_pairing_is_what_makes_the_interval_narrow() -> None:
    rng = np.random.default_rng(1)
    original = rng.normal(0, 5, 100)
    built = original + rng.normal(0.1, 0.05, 100)
    figure = paired(MEAN, original, built)
    assert figure.low > 0
    assert figure.high - figure.low < 0.05
    unpaired = paired(MEAN, original, rng.permutation(built))
    assert unpaired.high - unpaired.low > 1


def test_equal_models_have_no_difference() -> None:
    chosen = metric("top1")
    answers = chosen.take({"y": SCORES}, 60)
    (figure,) = compare(chosen, answers, list(answers), LABELS)
    assert (figure.difference, figure.low, figure.high) == (0, 0, 0)
    assert (figure.agreement, figure.agreement_kind) == (1, "class")
    assert figure.samples == 60


def test_agreement_is_no_matter_of_being_right() -> None:
    chosen = metric("top1")
    labels = Labels(tuple(Label(0, "") for _ in range(4)))
    first = chosen.take({"y": np.eye(4)}, 4)
    second = chosen.take({"y": np.eye(4)[[0, 2, 1, 3]]}, 4)
    (figure,) = compare(chosen, first, second, labels)
    assert (figure.original, figure.built, figure.difference) == (0.25, 0.25, 0)
    assert figure.agreement == 0.5


def test_the_interval_is_the_same_every_time() -> None:
    first, again = (paired(MEAN, SCORES[:, 0], SCORES[:, 1], agreement=1.0) for _ in range(2))
    assert first == again


def test_resamples_without_a_figure_are_left_out() -> None:
    only_even = Measure("even", lambda rows: rows[:, 1].mean() if rows[:, 0].any() else math.nan)
    rows = np.array([[1.0, 5.0], [0.0, 7.0], [0.0, 9.0]])
    figure = paired(only_even, rows, rows + np.array([0, 1]))
    assert (figure.low, figure.high) == pytest.approx((1, 1))
    none = paired(Measure("none", lambda rows: math.nan), rows, rows)
    assert math.isnan(none.low)
    assert math.isnan(none.high)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(-1e3, 1e3))
def test_a_shift_of_all_samples_is_the_difference(values: list[float], shift: float) -> None:
    rows = np.array(values)
    figure = paired(Measure("mean", mean, resamples=20), rows, rows + shift)
    for bound in (figure.low, figure.difference, figure.high):
        assert bound == pytest.approx(shift, abs=1e-6)


@pytest.mark.parametrize(("first", "second"), [(3, 4), (0, 0)])
def test_scores_that_do_not_pair(first: int, second: int) -> None:
    with pytest.raises(InputError, match=f"{first} and {second} scores do not pair"):
        paired(MEAN, np.zeros(first), np.zeros(second))
    assert metrics.RESAMPLES >= 1000


def test_models_that_give_other_numbers_of_samples_do_not_pair() -> None:
    chosen = metric("top1")
    answers = chosen.take({"y": SCORES}, 60)
    with pytest.raises(InputError, match="60 and 59 samples of the models and 60 labels"):
        compare(chosen, answers, answers[1:], LABELS)
    with pytest.raises(InputError, match="59 and 59 samples of the models and 60 labels"):
        compare(chosen, answers[1:], answers[1:], LABELS)
