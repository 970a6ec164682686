"""Native kernels of ONNX Runtime against their inlined references: see tools/bench/kernels.

One process a form, rounds alternate (`edgec.runtime.bench`), on shapes of models in use. The
reference is what a build would emit without the kernel: inlined, constants folded by ONNX Runtime.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from edgec.graphs import save
from edgec.kernels import Kernel, find
from edgec.kernels.native import library
from edgec.kernels.reference import attach, write_out
from edgec.runtime.bench import Case, measure, ratio
from edgec.target import load_target

LEAST = 1.5  # times as fast as the reference: what is slower is not shipped
Feeds = dict[str, np.ndarray]


def norms(random: np.random.Generator) -> Iterator[tuple[str, Feeds, Mapping[str, object]]]:
    """GroupNorm and SiLU as in a diffusion model's UNet and a VAE's decoder."""
    for channels, size in ((320, 64), (640, 32), (1280, 16), (1280, 8), (128, 256)):
        x = random.normal(0, 2, (1, channels, size, size)).astype(np.float32)
        row = {
            name: random.normal(1, 0.2, channels).astype(np.float32) for name in ("scale", "bias")
        }
        label = f"{channels}x{size}x{size}, 32 groups"
        yield label, {"x": x, **row}, {"num_groups": 32, "epsilon": 1e-5}


def attentions(random: np.random.Generator) -> Iterator[tuple[str, Feeds, Mapping[str, object]]]:
    """The encoder's and the decoder's op of Deformable DETR at 320 x 320, and a smaller one."""
    for side, queries in ((40, 2125), (40, 300), (20, 100)):
        sizes = np.array([(side >> level, side >> level) for level in range(4)], np.int64)
        areas = sizes.prod(1)
        outer = (1, queries, 8, 4, 4)
        share = random.uniform(0, 1, outer).astype(np.float32)
        yield (
            f"{side}x{side} and 3 smaller maps, {queries} queries, 8 heads of 32",
            {
                "value": random.normal(0, 1, (1, int(areas.sum()), 8, 32)).astype(np.float32),
                "spatial_shapes": sizes,
                "level_start_index": np.concatenate([[0], np.cumsum(areas)[:-1]]).astype(np.int64),
                "sampling_locations": random.uniform(0, 1, (*outer, 2)).astype(np.float32),
                "attention_weights": share / share.sum((3, 4), keepdims=True),
            },
            {},
        )


def rows(random: np.random.Generator) -> Iterator[tuple[str, Feeds, Mapping[str, object]]]:
    """Activations of an MLP and of a CNN."""
    for shape in ((128, 1536), (1, 64, 112, 112)):
        x = random.normal(0, 3, shape).astype(np.float32)
        yield "x".join(map(str, shape)), {"x": x}, {"b": 4.0}


CASES = {
    "edgec.kernels::GroupNormSilu": norms,
    "edgec.kernels::MultiScaleDeformableAttention": attentions,
    "edgec.kernels::Squareplus": rows,
}
CONSTANT = ("scale", "bias", "spatial_shapes", "level_start_index")  # weights of a model


def main() -> int:
    """Print a line a case; 7 where one is too slow."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="a part of the op's name")
    options = parser.parse_args()
    random, target, slow = np.random.default_rng(0), load_target("host"), []
    print(f"| op | case | reference ms | native ms | ratio | quartiles | at {target.name} |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="edgec-kernels-") as temporary:
        folder = Path(temporary)
        for key, kernel in find().items():
            if "onnxruntime" not in kernel.sources or options.only not in key:
                continue
            built = library([kernel], target, folder, f"{kernel.name}.so")
            for index, (label, feeds, attributes) in enumerate(CASES[key](random)):
                place = folder / f"{kernel.name}_{index}"
                place.mkdir()
                shutil.copyfile(built, place / built.name)
                forms = _forms(kernel, feeds, attributes, place)
                cases = [
                    Case("reference", forms[0], options.threads),
                    Case("native", forms[1], options.threads, {"kernels": [built.name]}),
                ]
                fed = {name: array for name, array in feeds.items() if name not in CONSTANT}
                plain, native = measure(cases, fed, rounds=options.rounds, calls_per_round=10)
                gain = ratio(plain, native)
                print(
                    f"| {kernel.name} | {label} | {plain.p50:.3f} | {native.p50:.3f} | "
                    f"{gain.median:.2f}x | {gain.low:.2f} to {gain.high:.2f} | "
                    f"{options.threads or 'all'} threads |",
                    flush=True,
                )
                if gain.median < LEAST:
                    slow.append(f"{kernel.name} ({label}): {gain.median:.2f}x")
    for line in slow:
        print(f"below {LEAST}x, which is not to be shipped: {line}", file=sys.stderr)
    return 7 if slow else 0


def _forms(
    kernel: Kernel, feeds: Feeds, attributes: Mapping[str, object], place: Path
) -> tuple[Path, Path]:
    """A model of one node: written out as its reference, and native."""
    value = helper.make_tensor_value_info
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in feeds.items()}
    graph = helper.make_graph(
        [
            helper.make_node(
                kernel.name, list(kernel.inputs), ["y"], "op", domain=kernel.domain, **attributes
            )
        ],
        "g",
        [value(n, kinds[n], a.shape) for n, a in feeds.items() if n not in CONSTANT],
        [value("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, n) for n, a in feeds.items() if n in CONSTANT],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(kernel.domain, 1)]
    proto: onnx.ModelProto = helper.make_model(graph, opset_imports=imports, ir_version=8)
    paths = place / "reference.onnx", place / "native.onnx"
    for path, but in zip(paths, ((), (kernel.key,)), strict=True):
        model = ir.from_proto(proto)
        attach(model, {kernel.key: kernel})
        write_out(model, but)
        save(model, path)
    return paths


if __name__ == "__main__":
    sys.exit(main())
