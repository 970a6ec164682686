"""TensorRT-RTX, really: engines for GPUs that are not here. Running them is not verified."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import engines
import graphs
import numpy as np
import onnx
import pytest
import small
from test_tensorrt import made, row, stand_in

from edgec.backends import backend
from edgec.backends.tensorrt import plan
from edgec.errors import EmitError
from edgec.results import Artifact, Counts
from edgec.runtime import stamp
from edgec.runtime.apart import OutOfMemory, run
from edgec.runtime.bundle import Bundle
from edgec.runtime.finish import Wishes, finish
from edgec.types import Scheme

trt = pytest.importorskip("tensorrt_rtx", reason="needs pip install 'edgec[tensorrt-rtx]'")
GPUS = ["7.5", "8.0", "8.6", "8.9", "12.0", "12.1"]
BUILD = "edgec.runtime.tensorrt_build:build"


def emit(name: str, into: Path, scheme: Scheme | None = None) -> Artifact:
    engine, made_plan = made(name, row("rtx-40"), scheme)
    return backend("tensorrt").emit(engine, made_plan.decisions, into, 1)


@pytest.mark.parametrize(
    ("name", "int8", "least"), [("cnn", 10, 20), ("vit", 12, 28), ("clip_dynamo", 24, 11)]
)
def test_products_are_int8_in_the_engine_itself(
    name: str, int8: int, least: float, tmp_path: Path
) -> None:
    artifact = emit(name, tmp_path)
    assert artifact.path == tmp_path / "main.engine"
    assert artifact.planned.int8 == int8
    assert artifact.optimised == artifact.emitted == artifact.planned
    assert artifact.misplaced == ()
    assert sum(layer.int8 for layer in artifact.layers) >= int8 // 3  # Q, K and V are one
    assert artifact.build["ready"] is True
    assert artifact.build["requires"] == {
        "arch": "x86_64",
        "capabilities": ["8.9"],
        "version": "1.7.1",
    }
    first, *_, last = artifact.build["steps"]
    assert (first["form"], first["typed"], first["model"]) == (
        "explicit",
        True,
        "spares/main.onnx",
    )
    assert last["by"] == "onnxruntime"
    told = "; ".join(artifact.notes)
    assert f"of {artifact.planned.int8 + artifact.planned.float} products {int8} in INT8" in told
    assert "not verified on hardware" in told
    feeds = graphs.load_feeds(name, 0)
    exact = small.run(small.fixture(name).model, feeds)
    for key, array in stand_in(artifact, feeds).items():
        assert small.sqnr(exact[key], array) > least


def test_fp16_computes_in_fp16(tmp_path: Path) -> None:
    artifact = emit("vit", tmp_path, Scheme.FLOAT16)
    products = [layer for layer in artifact.layers if layer.multiplies]
    assert products
    assert all(layer.inputs[0] == "Half" for layer in products)
    assert artifact.optimised == Counts(0, artifact.planned.float)


def test_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        found.append(emit("cnn", folder).path.read_bytes())
    assert found[0] == found[1]


def request(model: Path, into: Path, **changes: object) -> dict[str, object]:
    return {
        "module": "tensorrt_rtx",
        "model": str(model),
        "engine": str(into / "engine"),
        "log": str(into / "log"),
        "precision": "int8",
        "form": "explicit",
        "typed": True,
        "cache": "",
        "batches": "",
        "profiles": [],
        "workspace": 0,
        "timing_cache": "",
        "capabilities": ["8.9"],
        "dla": None,
        "flags": [],
        **changes,
    }


@pytest.fixture
def mlp(tmp_path: Path) -> tuple[Path, list[dict[str, object]]]:
    engine, made_plan = made("mlp", row("rtx-40"))
    artifact = replace(
        backend("tensorrt").emit(
            replace(engine, runtime=row("jetson-thor").runtimes[0]),
            made_plan.decisions,
            tmp_path,
            1,
        )
    )
    return artifact.path, plan.profiles(engine)


@pytest.mark.parametrize("gpu", GPUS)
def test_every_gpu_can_be_built_for(
    gpu: str, mlp: tuple[Path, list[dict[str, object]]], tmp_path: Path
) -> None:
    model, profiles = mlp
    asked = request(model, tmp_path, capabilities=[gpu], profiles=profiles)
    answer = run(BUILD, asked, seconds=120, memory=0)
    assert answer["set"] == ["sm_" + gpu.replace(".", "")]
    assert (tmp_path / "engine").stat().st_size == answer["bytes"] > 10_000
    assert "Engine generation completed" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("gpu", ["8.7", "11.0"])
def test_jetsons_cannot(
    gpu: str, mlp: tuple[Path, list[dict[str, object]]], tmp_path: Path
) -> None:
    asked = request(mlp[0], tmp_path, capabilities=[gpu], profiles=mlp[1])
    with pytest.raises(EmitError, match=f"builds for 7.5, .*, not for {gpu}"):
        run(BUILD, asked, seconds=120, memory=0)
    assert not (tmp_path / "engine").exists()


def test_limits_are_kept(mlp: tuple[Path, list[dict[str, object]]], tmp_path: Path) -> None:
    asked = request(mlp[0], tmp_path, profiles=mlp[1])
    with pytest.raises(OutOfMemory, match="the limit is 40 MB"):
        run(BUILD, asked, seconds=120, memory=40 * 10**6)
    with pytest.raises(EmitError, match="did not end within 0 s"):
        run(BUILD, asked, seconds=0.1, memory=0)
    assert not (tmp_path / "engine").exists()


def test_what_does_not_parse_names_the_node(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2,8] x) => (uint8[2,8] y) { [wrong] y, s, z = DynamicQuantizeLinear (x) }"""
    onnx.save(onnx.parser.parse_model(text), path)
    with pytest.raises(EmitError, match="cannot read the model at DynamicQuantizeLinear 'wrong'"):
        run(BUILD, request(path, tmp_path), seconds=120, memory=0)


def test_finish_builds_the_very_engine_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine whose probe says RTX 40; the engine then finds no GPU to run on."""
    import edgec
    from edgec.types import Limits

    data = graphs.write_samples("mlp", tmp_path / "data", 4)
    bundle = tmp_path / "mlp.edgec"
    job = edgec.Job(
        model=graphs.path("mlp"),
        target="rtx-40",
        data=data,
        output=bundle,
        limits=Limits(part_sqnr_db=None, cosine=None),
    )
    report = edgec.build(job)
    assert [one.backend for one in report.artifacts] == ["tensorrt"]
    assert (tmp_path / "mlp.main.build.log").stat().st_size > 1000
    device = stamp.Device("x86_64", "a PC", "8.9", "13.0", "1.7.1.116", "")
    monkeypatch.setattr(stamp, "probe", lambda _: device)
    monkeypatch.setattr("edgec.runtime.finish._shipped_first", lambda engine, index: False)
    said: list[str] = []
    page = finish(str(bundle), Wishes(), said.append)
    place = Path(page["place"])
    with Bundle(bundle) as opened:
        shipped = opened.read("engines/main.engine")
    assert (place / "main.0.engine").read_bytes() == shipped
    assert "the self-test fails" in " ".join(page["fallbacks"])
    assert page["engines"]["main"]["by"] == "ONNX Runtime"
    again = finish(str(bundle), Wishes(), said.append)
    assert again["engines"] == page["engines"]


@pytest.mark.slow
def test_resnet_50_shrinks_by_two_thirds(tmp_path: Path) -> None:
    """The figure of the README: INT8 against FP32, and two builds of the same bytes."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "bench"))
    from peers_resnet import resnet50

    from edgec.canonicalise import canonicalise
    from edgec.load import load

    rng = np.random.default_rng(0)
    pictures = rng.normal(size=(2, 3, 224, 224)).astype(np.float32)
    onnx.save(resnet50(pictures), tmp_path / "resnet50.onnx")
    graph = canonicalise(load(tmp_path / "resnet50.onnx"), {})
    sizes = {}
    for name, scheme in (("int8", None), ("again", None), ("float32", Scheme.FLOAT32)):
        policy = None if scheme is None else engines.everywhere(scheme)
        into = tmp_path / name
        into.mkdir()
        feeds = [{"image": pictures[:1]}]
        engine, made_plan = engines.engine_for(graph, row("rtx-40"), feeds, policy)
        artifact = backend("tensorrt").emit(engine, made_plan.decisions, into, 1)
        sizes[name] = artifact.path.read_bytes()
        assert artifact.optimised == (Counts(0, 54) if scheme else Counts(54, 0))
    assert sizes["int8"] == sizes["again"]
    assert len(sizes["int8"]) < 0.35 * len(sizes["float32"])
