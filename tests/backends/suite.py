"""What every backend has to do; a test module subclasses `Suite` with the backend's name."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import engines
import graphs
import numpy as np
import onnx_ir as ir
import pytest
import small
from test_quantize import FEEDS, block

from edgec.able import unable_part
from edgec.backends import backend
from edgec.errors import EmitError, UnsupportedError
from edgec.results import Artifact, Counts, Engine
from edgec.types import Graph, Plan, Scheme

F, S, D, W = (
    Scheme.FLOAT32,
    Scheme.INT8_STATIC,
    Scheme.INT8_DYNAMIC,
    Scheme.INT8_WEIGHT_ONLY,
)
EXACT = 100.0  # dB: float against float, where only the order of sums differs
FLOATS = ["cnn", "vit", "clip_torchscript", "convtranspose", "groupnorm", "if_capture", "lstm"]
# fixture, scheme (None: the table's), weighted ops in INT8 on both backends, least SQNR in dB
INT8 = [
    ("cnn", S, 10, 21),
    ("siamese", S, 22, 16),
    ("cnn_tf", S, 5, 35),
    ("vit", S, 12, 33),
    ("clip_torchscript", None, 24, 15),
    ("vit", D, 12, 31),
    ("clip_dynamo", D, 14, 30),
    ("mlp", D, 2, 38),
    ("cnn", W, 0, 25),
    ("vit", W, 0, 29),
    ("clip_torchscript", W, 0, 23),
    ("lstm", W, 0, 37),
]


def feeds_of(name: str) -> list[dict[str, np.ndarray]]:
    return [graphs.load_feeds(name, seed) for seed in range(3)]


def weighted(found: Graph) -> int:
    """How many Conv, ConvTranspose, MatMul and Gemm have a weight."""
    ops = ("Conv", "ConvTranspose", "MatMul", "Gemm")
    return sum(
        node.op_type in ops and node.inputs[1].name in found.model.graph.initializers  # type: ignore[union-attr]
        for node in found.model.graph
    )


class Suite:
    """Real engines of the fixture models, on the row of x86 with VNNI, or a backend's own."""

    name: ClassVar[str]
    suffix: ClassVar[str]
    # a target with a runtime of this backend: a name, or a folder
    target: ClassVar[str] = "x86-vnni"
    # fixtures of which the backend's own graph tells less than all weighted ops, and why
    hidden: ClassVar[dict[str, str]] = {}
    # fixtures with fewer products in dynamic INT8 than have weights, and how many
    few: ClassVar[dict[str, int]] = {}

    def made(
        self, name: str, scheme: Scheme | None, *, data: bool = True
    ) -> tuple[Graph, Engine, Plan]:
        """A fixture as an engine; `scheme` everywhere, or what the table says."""
        found = small.fixture(name)
        policy = None if scheme is None else engines.everywhere(scheme)
        feeds = feeds_of(name) if data else []
        return found, *engines.engine(found, self.target, feeds, policy, self.name)

    def lacks(self, name: str) -> bool:
        """Whether the backend's row says that it cannot run a fixture; planning then says why."""
        found, runtime = small.fixture(name), small.runtime(self.target, self.name)
        why = [unable_part(part, found, runtime) for part in small.parts(name)]
        if not any(why):
            return False
        assert self.target != "x86-vnni"  # the built-in backends run all fixtures
        with pytest.raises(UnsupportedError, match=re.escape(next(filter(None, why)))):
            self.made(name, F, data=False)
        return True

    def counted(self, name: str, artifact: Artifact) -> None:
        assert artifact.misplaced == ()
        assert artifact.planned == artifact.emitted
        if name not in self.hidden:
            assert artifact.optimised == artifact.planned

    @pytest.mark.parametrize("name", FLOATS)
    def test_a_float_engine_equals_the_reference(self, name: str, tmp_path: Path) -> None:
        if self.lacks(name):
            return
        found, made, plan = self.made(name, F, data=False)
        artifact = engines.emit(made, plan, tmp_path)
        self.counted(name, artifact)
        assert artifact.planned.int8 == 0
        if "lstm" not in name:
            assert artifact.planned == Counts(0, weighted(found))
        for feeds in (graphs.load_feeds(name, 7), graphs.load_feeds(name, 8, batch=3)):
            exact = small.run(found.model, feeds)
            close = engines.run(artifact, feeds)
            assert set(close) == set(exact)
            for key, array in exact.items():
                assert close[key].shape == array.shape
                assert close[key].dtype == array.dtype
                assert small.sqnr(array, close[key]) > EXACT, key

    @pytest.mark.parametrize(("name", "scheme", "int8", "least"), INT8)
    def test_int8_as_planned_and_close(
        self, name: str, scheme: Scheme | None, int8: int, least: float, tmp_path: Path
    ) -> None:
        if self.lacks(name):
            return
        found, made, plan = self.made(name, scheme)
        artifact = engines.emit(made, plan, tmp_path)
        self.counted(name, artifact)
        if scheme is D and name in self.few:
            int8 = self.few[name]
        assert artifact.planned.int8 == int8
        for feeds in feeds_of(name)[:2]:
            exact = small.run(found.model, feeds)
            close = engines.run(artifact, feeds)
            assert min(small.sqnr(array, close[key]) for key, array in exact.items()) > least

    def test_what_an_artifact_says_of_itself(self, tmp_path: Path) -> None:
        found, made, plan = self.made("clip_dynamo", None)
        artifact = engines.emit(made, plan, tmp_path)
        assert (artifact.engine, artifact.backend, artifact.device) == ("main", self.name, "cpu")
        assert artifact.path == tmp_path / f"main{self.suffix}"
        files = [artifact.path, *artifact.data_files]
        assert sorted(tmp_path.iterdir()) == sorted(files)
        assert artifact.parts == tuple(part.name for part in plan.parts)
        assert artifact.inputs == tuple(v.name for v in found.model.graph.inputs)
        assert artifact.outputs == tuple(v.name for v in found.model.graph.outputs)
        # weights take a quarter; most of so small a model is its graph
        floats = tmp_path / "float"
        floats.mkdir()
        plain = engines.emit(*self.made("clip_dynamo", F)[1:], floats)
        sizes = [
            sum(file.stat().st_size for file in (one.data_files or (one.path,)))
            for one in (artifact, plain)
        ]
        assert sizes[0] < 0.8 * sizes[1]

    @pytest.mark.parametrize("scheme", [F, None])
    def test_a_part_that_is_cut_out_is_that_part(
        self, scheme: Scheme | None, tmp_path: Path
    ) -> None:
        """A float part against the float graph; all parts in turn against the whole engine."""
        name = "trimodal_cross"
        found, made, plan = self.made(name, scheme)
        artifact = engines.emit(made, plan, tmp_path)
        feeds = feeds_of(name)[0]
        between = {v for part in plan.parts for v in (*part.inputs, *part.outputs)} - set(feeds)
        exact = {**feeds, **small.run(small.exposed(found.model, sorted(between)), feeds)}
        known = dict(feeds)
        for part in plan.parts:
            path = backend(self.name).cut(artifact, part, tmp_path)
            alone = engines.run(artifact, {v: exact[v] for v in part.inputs}, path)
            assert set(alone) == set(part.outputs)
            least = EXACT if plan.schemes[part.name] is F else 17
            for value in part.outputs:
                assert small.sqnr(exact[value], alone[value]) > least, value
            known.update(engines.run(artifact, {v: known[v] for v in part.inputs}, path))
        whole = engines.run(artifact, feeds)
        for value, array in whole.items():
            assert small.sqnr(array, known[value]) > EXACT, value

    def test_parts_that_meet_in_int8_are_cut_with_their_quantization(self, tmp_path: Path) -> None:
        made, plan = engines.engine(block(), self.target, FEEDS, engines.everywhere(S), self.name)
        artifact = engines.emit(made, plan, tmp_path)
        assert artifact.planned.int8 == 3
        (whole,) = plan.parts
        first = replace(whole, name="first", inputs=("x",), outputs=("r",))
        second = replace(whole, name="second", inputs=("r",), outputs=("y",))
        for feeds in FEEDS[:2]:
            known = dict(feeds)
            for part in (first, second):
                path = backend(self.name).cut(artifact, part, tmp_path)
                known.update(engines.run(artifact, {v: known[v] for v in part.inputs}, path))
            exact = small.run(small.exposed(block().model, ["r", "y"]), feeds)
            assert small.sqnr(engines.run(artifact, feeds)["y"], known["y"]) > EXACT
            # r is on the grid that the engine has there, and so is what the second part reads
            assert len(np.unique(known["r"])) <= 256
            off = engines.run(artifact, {"r": exact["r"]}, path)["y"]
            assert EXACT > small.sqnr(exact["y"], off) > 20

    @pytest.mark.parametrize("scheme", [F, None])
    def test_two_emits_give_the_same_bytes(self, scheme: Scheme | None, tmp_path: Path) -> None:
        written = []
        for folder in (tmp_path / "first", tmp_path / "second"):
            folder.mkdir()
            _, made, plan = self.made("clip_torchscript", scheme)
            artifact = engines.emit(made, plan, folder)
            written.append(
                {path.name: path.read_bytes() for path in (artifact.path, *artifact.data_files)}
            )
        assert written[0] == written[1]

    def test_an_op_that_the_backend_lacks_is_named(self, tmp_path: Path) -> None:
        _, made, plan = self.made("mlp", F, data=False)
        broken = made.model.clone()
        broken.graph[0].op_type = "Nonsense"
        with pytest.raises(EmitError, match="Nonsense") as caught:
            engines.emit(replace(made, model=broken), plan, tmp_path)
        assert caught.value.exit_code == 6
        assert caught.value.hint

    def test_a_graph_whose_shapes_do_not_fit(self, tmp_path: Path) -> None:
        _, made, plan = self.made("mlp", F, data=False)
        broken = made.model.clone()
        weight = broken.graph.initializers["3.weight"]
        weight.const_value = ir.tensor(small.normal(0, 5, 7), name="3.weight")
        weight.shape = ir.Shape((5, 7))
        with pytest.raises(EmitError) as caught:
            engines.emit(replace(made, model=broken), plan, tmp_path)
        assert caught.value.exit_code == 6

    def test_a_plan_that_was_never_emitted_is_reported(self, tmp_path: Path) -> None:
        _, made, plan = self.made("cnn", S)
        artifact = engines.emit(replace(made, model=made.source.clone()), plan, tmp_path)
        assert artifact.planned.int8 == 10
        assert artifact.emitted == artifact.optimised == Counts(0, weighted(small.fixture("cnn")))
        assert len(artifact.misplaced) == 10

    def test_a_large_embedding_keeps_a_scale_per_row(self, tmp_path: Path) -> None:
        rows = np.geomspace(1e-3, 1e3, 2100, dtype=np.float32)[:, None]
        table = small.normal(0, 2100, 32) * rows
        text = "g (int64[n,t] ids) => (float[n,t,32] e) { [look] e = Gather (table, ids) }"
        found = small.canonical(small.model(text, table=table))
        made, plan = engines.engine(found, self.target, [], engines.everywhere(W), self.name)
        assert plan.decisions["look"].scheme is W
        artifact = engines.emit(made, plan, tmp_path)
        ids = np.array([[0, 5, 1000], [1500, 2000, 2099]])
        close = engines.run(artifact, {"ids": ids})["e"]
        for row, vector in zip(ids.ravel(), close.reshape(-1, 32), strict=True):
            assert small.sqnr(table[row], vector) > 38
        size = sum(path.stat().st_size for path in (artifact.path, *artifact.data_files))
        assert size < 0.4 * table.nbytes
