"""A model that crashes while it is timed is told apart from those that run."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import graphs
import pytest
import small
import trials

import edgec
from edgec.errors import EmitError, InputError
from edgec.results import Speed
from edgec.runtime.bench import Ratio
from edgec.runtime.npz import write
from edgec.timing import MORE, ROUNDS, busy, race, time_part, undecided
from edgec.verify import PartFiles

# In the sixth call of a session whose file is called so, the process dies.
CRASH = """
import os, resource, signal, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
class Finder:
    def find_spec(self, name, *_):
        if name == "edgec.runtime.onnxruntime_session":
            import onnxruntime
            class Session(onnxruntime.InferenceSession):
                left = 5
                def __init__(self, path, *arguments, **named):
                    self.bad = "bad" in str(path)
                    super().__init__(path, *arguments, **named)
                def run(self, *arguments):
                    self.left -= self.bad
                    if self.left < 0:
                        os.kill(os.getpid(), signal.SIGSEGV)
                    return super().run(*arguments)
            onnxruntime.InferenceSession = Session
sys.meta_path.insert(0, Finder())
"""
FEEDS = graphs.load_feeds("mlp", 0)
DEATH = "case {!r} failed: signal SIGSEGV"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Copies of a model by name, of which "bad" ones crash."""
    (tmp_path / "sitecustomize.py").write_text(CRASH)
    root = str(Path(edgec.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), root]))
    write(tmp_path / "feeds.npz", FEEDS)

    def made(name: str) -> Path:
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(graphs.path("mlp").read_bytes())
        return path

    return made


def test_a_whole_model_that_crashes_has_no_speed(model: Callable[[str], Path]) -> None:
    models = {name: model(name) for name in ("good", "bad")}
    found = race(model("source"), models, FEEDS, 1)
    assert list(found) == ["good", "bad"]
    good, bad = found["good"], found["bad"]
    assert isinstance(good, Speed)
    assert good.gain.median > 0
    assert isinstance(bad, EmitError)
    assert bad.message == DEATH.format("bad")
    only = race(model("source"), {"bad": models["bad"]}, FEEDS, 1)
    assert isinstance(only["bad"], EmitError)


def test_a_source_that_crashes_is_nobodys_failure(model: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match="case 'FP32' failed"):
        race(model("bad"), {"good": model("good")}, FEEDS, 1)


def test_a_part_that_crashes_is_the_backends_failure(model: Callable[[str], Path]) -> None:
    (part,) = small.parts("mlp")
    feeds = model("feeds").with_suffix(".npz")
    files = PartFiles(part, model("float"), model("bad"), feeds, "onnxruntime", {})
    with pytest.raises(EmitError) as caught:
        time_part(files, 20.0, 1)
    assert caught.value.message == DEATH.format("model built")
    with pytest.raises(InputError, match="case 'model float' failed"):
        time_part(replace(files, source=model("bad")), 20.0, 1)
    speed = time_part(replace(files, built=model("good")), 20.0, 1)
    assert speed.gain.median > 0


def test_models_that_are_about_as_fast_get_more_rounds(model: Callable[[str], Path]) -> None:
    """Twins: their quartiles overlap, or one is faster by chance in all the rounds there are."""
    found = race(model("source"), {"one": model("one"), "two": model("two")}, FEEDS, 1)
    speeds = [one for one in found.values() if isinstance(one, Speed)]
    rounds = {len(one.built.medians) for one in speeds}
    assert rounds in ({ROUNDS}, {MORE})
    assert not undecided([Ratio(2.0, 1.9, 2.1)])
    assert not undecided([Ratio(2.0, 1.9, 2.1), Ratio(1.5, 1.4, 1.8)])
    assert undecided([Ratio(1.5, 1.4, 2.0), Ratio(2.0, 1.9, 2.1)])


def test_a_busy_machine_is_told() -> None:
    one = trials.speed("vision", 2.0)
    steady = one.float_form._replace(medians=(20.0, 20.1, 20.1, 20.2, 20.4, 20.5, 49.0))
    unsteady = one.float_form._replace(medians=(20.0, 21.0, 22.0, 30.0, 31.0, 40.0, 49.0))
    assert busy([replace(one, float_form=steady)]) == ""
    told = busy([replace(one, float_form=steady), replace(one, float_form=unsteady)])
    assert "FP32 took 20 to 49 ms" in told
