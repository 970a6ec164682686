"""What memory a large model takes: 3 GB with external data, loaded, rewritten, cut and written out.

The model is made here: a vision transformer and a text transformer as the TorchScript exporter
writes them (decomposed LayerNorm and GELU, BatchNorm behind the patches, shape arithmetic, a table
of tokens that is used twice), with weights in one sparse file. Then a fresh process runs the stages
and watches its anonymous memory (RssAnon); weights that are mapped from a file do not count.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIMIT_MB = 300
PATCHES, TOKENS = 197, 64


class Sketch:
    """A graph that grows node by node; its weights are places in a data file."""

    def __init__(self, data: str) -> None:
        import onnx

        self.onnx, self.data, self.end = onnx, data, 0
        self.nodes: list[object] = []
        self.weights: dict[str, object] = {}

    def weight(self, name: str, *shape: int) -> str:
        if name in self.weights:
            return name
        tensor = self.onnx.TensorProto(
            name=name,
            data_type=self.onnx.TensorProto.FLOAT,
            dims=shape,
            data_location=self.onnx.TensorProto.EXTERNAL,
        )
        size = 4
        for dim in shape:
            size *= dim
        for key, value in (("location", self.data), ("offset", self.end), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
        self.end += -(-size // 4096) * 4096
        self.weights[name] = tensor
        return name

    def constant(self, *numbers: float, dtype: str = "float32") -> str:
        import numpy as np

        name = f"c_{dtype}_" + "_".join(map(str, numbers))
        array = np.array(numbers if dtype == "int64" else numbers[0], dtype)
        self.weights.setdefault(name, self.onnx.numpy_helper.from_array(array, name))
        return name

    def op(self, kind: str, *inputs: str, out: str = "", **attributes: object) -> str:
        made = out or f"{kind.lower()}_{len(self.nodes)}"
        node = self.onnx.helper.make_node(kind, list(inputs), [made], f"n_{made}", **attributes)
        self.nodes.append(node)
        return made

    def dense(self, x: str, name: str, given: int, made: int) -> str:
        product = self.op("MatMul", x, self.weight(f"{name}.weight", given, made))
        return self.op("Add", self.weight(f"{name}.bias", made), product)

    def norm(self, x: str, name: str, width: int) -> str:
        apart = self.op("Sub", x, self.op("ReduceMean", x, axes=[-1]))
        power = self.op("Pow", apart, self.constant(2.0))
        spread = self.op("Add", self.op("ReduceMean", power, axes=[-1]), self.constant(1e-5))
        even = self.op("Div", apart, self.op("Sqrt", spread))
        scaled = self.op("Mul", even, self.weight(f"{name}.weight", width))
        return self.op("Add", scaled, self.weight(f"{name}.bias", width))

    def gelu(self, x: str) -> str:
        half = self.op("Erf", self.op("Div", x, self.constant(1.4142135381698608)))
        whole = self.op("Mul", x, self.op("Add", half, self.constant(1.0)))
        return self.op("Mul", whole, self.constant(0.5))

    def layer(self, x: str, name: str, width: int, heads: int) -> str:
        size = width // heads
        y = self.norm(x, f"{name}.norm1", width)
        split = self.constant(0, -1, heads, size, dtype="int64")
        q, k, v = (
            self.op("Reshape", self.dense(y, f"{name}.{one}", width, width), split) for one in "qkv"
        )
        q, v = (self.op("Transpose", one, perm=[0, 2, 1, 3]) for one in (q, v))
        k = self.op("Transpose", k, perm=[0, 2, 3, 1])
        score = self.op("Div", self.op("MatMul", q, k), self.constant(float(size**0.5)))
        mixed = self.op("MatMul", self.op("Softmax", score, axis=-1), v)
        mixed = self.op("Transpose", mixed, perm=[0, 2, 1, 3])
        mixed = self.op("Reshape", mixed, self.constant(0, -1, width, dtype="int64"))
        x = self.op("Add", x, self.dense(mixed, f"{name}.out", width, width))
        y = self.norm(x, f"{name}.norm2", width)
        y = self.gelu(self.dense(y, f"{name}.up", width, 4 * width))
        return self.op("Add", x, self.dense(y, f"{name}.down", 4 * width, width))


def sketch(folder: Path, gigabytes: float) -> Path:
    """Write the model; about a quarter of it is the table of tokens."""
    import onnx

    path = folder / "large.onnx"
    made = Sketch("large.data")
    rows = int(gigabytes * 1e9 / 4 / 4 / 1024) // 64 * 64
    wide = int(gigabytes * 0.75 / 0.1008)  # layers of 1024 in a tower

    x = made.op(
        "Conv", "image", made.weight("patch.weight", 1024, 3, 16, 16), strides=[16, 16],
        kernel_shape=[16, 16],
    )  # fmt: skip
    statistics = [
        made.weight(f"patch.{one}", 1024) for one in ("scale", "offset", "mean", "variance")
    ]
    x = made.op("BatchNormalization", x, *statistics)
    shape = made.op("Shape", x)
    first = made.op("Gather", shape, made.constant(0, dtype="int64"), axis=0)
    size = made.op("Concat", first, made.constant(1024, -1, dtype="int64"), axis=0)
    x = made.op("Transpose", made.op("Reshape", x, size), perm=[0, 2, 1])
    for index in range(wide):
        x = made.layer(x, f"vision.{index}", 1024, 16)
    image = made.op("ReduceMean", made.norm(x, "vision.norm", 1024), axes=[1], keepdims=0)
    image = made.dense(image, "vision.project", 1024, 1024)

    table = made.weight("tokens", rows, 1024)
    x = made.op("Gather", table, "ids")
    for index in range(wide):
        x = made.layer(x, f"text.{index}", 1024, 16)
    states = made.norm(x, "text.norm", 1024)
    text = made.op("ReduceMean", states, axes=[1], keepdims=0)
    made.op("MatMul", states, made.op("Transpose", table, perm=[1, 0]), out="logits")
    made.op("MatMul", image, made.op("Transpose", text, perm=[1, 0]), out="score")

    info, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto
    graph = onnx.helper.make_graph(
        made.nodes,
        "large",
        [
            info("image", kind.FLOAT, ["images", 3, 224, 224]),
            info("ids", kind.INT64, ["texts", "sequence"]),
        ],
        [
            info("score", kind.FLOAT, ["images", "texts"]),
            info("logits", kind.FLOAT, ["texts", "sequence", rows]),
        ],
        list(made.weights.values()),
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    path.write_bytes(model.SerializeToString())
    with (folder / made.data).open("wb") as stream:
        stream.truncate(made.end)
    return path


class Watch(threading.Thread):
    """The peak of this process's anonymous memory, in bytes, by stage."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks: dict[str, int] = {}
        self.stage, self.on = "start", True

    def run(self) -> None:
        while self.on:
            self.look()
            time.sleep(0.005)

    def look(self) -> None:
        with open("/proc/self/status") as stream:
            found = next(line for line in stream if line.startswith("RssAnon"))
        now = int(found.split()[1]) * 1024
        self.peaks[self.stage] = max(self.peaks.get(self.stage, 0), now)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self.stage = stage
        yield
        self.look()


def compile_float(path: Path, into: Path, target: str, *, apart: bool) -> dict[str, object]:
    """The stages up to written float engines; peaks of anonymous memory by stage."""
    from edgec.assign import assign
    from edgec.canonicalise import canonicalise
    from edgec.graphs import save
    from edgec.join import join
    from edgec.load import load
    from edgec.lower import lower
    from edgec.partition import partition
    from edgec.target import load_target
    from edgec.types import Joining, Override, Policy, Scheme

    watch = Watch()
    watch.start()
    with watch("load"):
        graph = load(path)
    with watch("canonicalise"):
        graph = canonicalise(graph, {})
    with watch("partition"):
        parts = partition(graph)
    joining = Joining.PER_PART if apart else Joining.TOGETHER
    policy = Policy(parts=(Override("*", Scheme.FLOAT32),), joining=joining)
    with watch("assign"):
        row = load_target(target, "onnxruntime")
        plan = assign(graph, parts, policy, row, data=False)
    with watch("join"):
        engines = join(graph, plan, row)
    written = 0
    for engine in engines:
        with watch(f"lower {engine.name}"):
            model = lower(engine.model, engine.runtime)
        with watch(f"write {engine.name}"):
            files = save(model, into / f"{engine.name}.onnx")
            written += sum(file.stat().st_size for file in files)
    watch.on = False
    return {
        "peaks": watch.peaks,
        "parts": {part.name: part.weight_bytes for part in parts},
        "rewrites": {one.rule: one.failure or one.count for one in graph.rewrites},
        "written": written,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--folder", type=Path, help="where to make the model; default: a temporary")
    parser.add_argument("--target", default="generic")
    parser.add_argument("--per-part", action="store_true", help="an engine for each part")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        into = arguments.run.parent / "engines"
        into.mkdir(exist_ok=True)
        found = compile_float(arguments.run, into, arguments.target, apart=arguments.per_part)
        print(json.dumps(found))
        return 0
    folder = Path(tempfile.mkdtemp(prefix="edgec-large-", dir=arguments.folder))
    try:
        path = sketch(folder, arguments.gigabytes)
        size = sum(file.stat().st_size for file in folder.iterdir())
        command = [sys.executable, os.fspath(Path(__file__)), "--run", os.fspath(path)]
        command += ["--target", arguments.target, *["--per-part"] * arguments.per_part]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    finally:
        shutil.rmtree(folder)
    found = json.loads(done.stdout)
    for stage, peak in found["peaks"].items():
        print(f"{stage:24} {peak / 1e6:7.0f} MB")
    print("parts: " + ", ".join(f"{n} {b / 1e6:.0f} MB" for n, b in found["parts"].items()))
    print("rewrites: " + ", ".join(f"{rule} {what}" for rule, what in found["rewrites"].items()))
    peak = max(found["peaks"].values()) / 1e6
    print(f"{size / 1e9:.2f} GB in, {found['written'] / 1e9:.2f} GB written, {peak:.0f} MB at most")
    return int(peak > LIMIT_MB)


if __name__ == "__main__":
    sys.exit(main())
