"""The command line's manners: help everywhere, clean streams, exit codes, errors with hints."""

from __future__ import annotations

import itertools
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import graphs
import numpy as np
import pytest
import small

import edgec
from edgec.cli import VERBS
from edgec.cli.common import Page, parse_shapes
from edgec.errors import InputError
from edgec.types import Range

BLOCKED = (
    "onnx",
    "onnx_ir",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "jsonschema",
    "rich",
    "tokenizers",
    "PIL",
    "distributed",
    "fsspec",
    "cryptography",
)
NEEDS_COMPILE = ["build", "plan", "inspect"]


def run(
    *arguments: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """`edgec …` in a process of its own; stderr is no terminal."""
    return subprocess.run(
        [sys.executable, "-m", "edgec", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with numpy and click alone."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(
        f"""import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""
    )
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(Path(edgec.__file__).parents[1])])}


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with samples and a small bundle: mlp.edgec."""
    folder = tmp_path_factory.mktemp("work")
    graphs.write_samples("mlp", folder / "data", 4)
    done = run(
        *("build", graphs.path("mlp"), "--target", "generic", "--no-measure"),
        *("--data", folder / "data", "-o", folder / "mlp.edgec"),
    )
    assert done.returncode == 0, done.stderr
    return folder


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """An error of the user: the right code, a hint, nothing on stdout, no traceback."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "\n  hint: " in done.stderr
    for word in words:
        assert word in done.stderr


# Help, and what is not installed


HELP = [(verb, "--help") for verb in ("", *VERBS)] + [("", "-h"), ("build", "-h")]


@pytest.mark.parametrize(("verb", "option"), HELP)
def test_help(verb: str, option: str, bare: dict[str, str]) -> None:
    done = run(*([verb] if verb else []), option, env=bare)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.lower().startswith("usage: edgec")
    if verb:
        assert verb in done.stdout.splitlines()[0]
        assert "--json" in done.stdout or verb in ("demo", "data", "farm")
    else:
        for name, about in VERBS.items():
            assert name in done.stdout
            assert about.split(",")[0] in done.stdout
        assert "Exit codes" in done.stdout


def test_help_of_data_check(bare: dict[str, str]) -> None:
    done = run("data", "check", "--help", env=bare)
    assert done.returncode == 0, done.stderr
    for word in ("--model", "--json", "--plot", "--strict", "it is 7 if there are warnings"):
        assert word in " ".join(done.stdout.split())


def test_the_environment_is_bare(bare: dict[str, str]) -> None:
    for name in BLOCKED:
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"],
            env={**os.environ, **bare},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 1, name


def test_version(bare: dict[str, str]) -> None:
    done = run("--version", env=bare)
    assert done.stdout == f"edgec, version {edgec.__version__}\n"


def test_targets_need_no_compiler(bare: dict[str, str]) -> None:
    done = run("targets", env=bare)
    assert done.returncode == 0, done.stderr
    for name in small.TARGETS:
        assert name in done.stdout
    assert "* this machine (--target host)" in done.stdout
    assert sum(line.startswith("* ") for line in done.stdout.splitlines()) == 2
    page = run("targets", "x86-vnni", env=bare).stdout
    assert "cnn: int8_static > float32\n  without data: int8_weight_only > float32\n" in page
    assert "measured" in page
    assert "stack onnxruntime+openvino; there are onnxruntime+openvino, " in page
    for backend in ("onnxruntime", "openvino"):
        assert f"\n{backend}: {backend} on the cpu\n" in page
    one = run("targets", "x86-vnni", "--stack", "openvino", env=bare).stdout
    assert "openvino: openvino on the cpu" in one
    assert "onnxruntime on the cpu" not in one
    assert "fixed shapes only" in run("targets", "intel-core-ultra", env=bare).stdout


def test_targets_differ_and_say_what_was_not_verified(bare: dict[str, str]) -> None:
    done = run("targets", "diff", "jetson-orin@jp5", "jetson-orin@jp7.2.2", env=bare)
    assert done.returncode == 0, done.stderr
    place = "runtimes.tensorrt on the gpu.toolchain.quantization"
    told = f"{place}\n  jetson-orin (jp5): explicit, implicit\n  jetson-orin (jp7.2.2): explicit\n"
    assert told in done.stdout
    assert "jetson-orin (jp5): not verified on hardware" in done.stdout
    same = run("targets", "diff", "x86-vnni", "x86-vnni", "--json", "-", env=bare)
    assert json.loads(same.stdout)["differences"] == []
    page = run("targets", "--stack", "jp7.2", "jetson-orin", env=bare).stdout
    assert "known bug NVIDIA/TensorRT#4756" in page
    assert "; not verified on hardware\n" in page
    refused(run("targets", "diff", "x86-vnni@nope", "generic", env=bare), 3, "has no stack 'nope'")


def test_the_list_of_targets_says_what_was_not_verified(bare: dict[str, str]) -> None:
    lines = run("targets", env=bare).stdout.splitlines()
    for above, below in itertools.pairwise(lines):
        if above.strip().startswith(("jetson-", "rtx-", "raspberry-")):
            assert below.strip().startswith("not verified on hardware"), above


def test_a_plan_names_the_default_stack_on_stderr(tmp_path: Path) -> None:
    done = run("plan", graphs.path("clip_torchscript"), "--target", "jetson-orin", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(
        "target jetson-orin: stack jp6.2, the default; --stack also takes jp5, jp6.0, jp7.2, jp7.2."
    )
    assert "jetson-orin: not verified on hardware" in done.stdout
    assert "tensorrt-10.3-dla: cannot take text whole: " in done.stdout
    stated = run("plan", graphs.path("mlp"), "--target", "jetson-orin", "--stack", "jp5")
    assert stated.stderr == ""
    nano = run("plan", graphs.path("clip_torchscript"), "--target", "jetson-nano", "--json", "-")
    assert nano.returncode == 0
    page = json.loads(nano.stdout)
    assert {part["scheme"] for part in page["parts"]} == {"float16"}
    assert "DP4A starts at sm_61" in page["parts"][0]["ladder_reason"]
    assert page["verified"] == "not verified on hardware"


def test_a_plan_for_cpus_without_vnni_says_7_bits(work: Path) -> None:
    done = run("plan", graphs.path("mlp"), "--target", "x86-avx2", "--data", work / "data")
    assert "INT8 weights get 7 bits, because uint8 times int8 would saturate" in done.stdout


def test_a_probe_of_this_machine(tmp_path: Path) -> None:
    done = run("targets", "probe", "-o", tmp_path / "mine", "--json", tmp_path / "page.json")
    assert done.returncode == 0, done.stderr
    page = json.loads((tmp_path / "page.json").read_text())
    assert {one["backend"] for one in page["runtimes"]} <= {"onnxruntime", "openvino"}
    for one in page["runtimes"]:
        assert len(one["answers"]) > 60
        assert sum(answer["fine"] for answer in one["answers"]) > 55
    shown = run("targets", tmp_path / "mine")
    assert shown.returncode == 0, shown.stderr
    assert "probed on " in shown.stdout
    refused(run("targets", "probe", "-o", tmp_path / "mine", "--target", "generic"), 3, "--force")


@pytest.mark.parametrize("verb", NEEDS_COMPILE)
def test_what_is_missing_is_named_with_its_extra(
    verb: str, bare: dict[str, str], tmp_path: Path
) -> None:
    done = run(verb, graphs.path("mlp"), env=bare, cwd=tmp_path)
    refused(done, 5, "this verb needs the package", 'pip install "edgec[compile]"')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["run", "verify", "bench"])
def test_a_backend_that_is_missing(verb: str, bare: dict[str, str], work: Path) -> None:
    extra = ["--golden"] if verb == "run" else []
    done = run(verb, work / "mlp.edgec", *extra, env=bare)
    refused(done, 5, "onnxruntime", "pip install onnxruntime")


def test_a_bundle_is_told_of_without_a_backend(bare: dict[str, str], work: Path) -> None:
    done = run("info", work / "mlp.edgec", env=bare)
    assert done.returncode == 0, done.stderr
    assert "mlp.onnx for generic" in done.stdout


# Usage


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["build"],
        ["build", "m.onnx", "--nonsense"],
        ["build", "m.onnx", "--threads", "-1"],
        ["plan", "m.onnx", "more"],
        ["run"],
        ["data"],
        ["data", "check", "folder"],
        ["bench", "x.edgec", "--rounds", "many"],
    ],
)
def test_wrong_usage(arguments: list[str], tmp_path: Path) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "usage" in done.stderr.lower()
    assert "Traceback" not in done.stderr


# Exit codes


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["build", "no.onnx"], 3, ["no.onnx: no such file"]),
        (["plan", "no.onnx"], 3, ["no.onnx: no such file"]),
        (["build", "{mlp}", "--target", "toaster"], 3, ["unknown target 'toaster'", "x86-vnni"]),
        (["targets", "toaster"], 3, ["unknown target 'toaster'"]),
        (["build", "{mlp}", "--data", "nowhere"], 3, ["nowhere: no such folder"]),
        (["build", "{mlp}", "--policy", "no.toml"], 3, ["no.toml"]),
        (["build", "{mlp}", "--recipe", "pictures"], 3, ["unknown recipe 'pictures'", "tensors"]),
        (["build", "{mlp}", "--shape", "x=0"], 3, ["--shape x=0: not a shape", "NAME=1x3x224x224"]),
        (["plan", "{mlp}", "--shape", "q=1x9"], 3, ["--shape q: the model has no such input"]),
        (["build", "{mlp}", "--max-error", "low"], 3, ["--max-error low: not a number"]),
        (["build", "{mlp}", "--stack", "tvm"], 3, ["has no stack 'tvm'"]),
        (["build", "{mlp}", "--backend", "tensorrt"], 4, ["not on tensorrt"]),
        (["plan", "{domain}"], 4, ["acme.ops::Warp"]),
        (["data", "check", "nowhere", "--model", "{mlp}"], 3, ["nowhere: no such folder"]),
        (["explain", "no.edgec"], 3, ["no.edgec"]),
        (["info", "no.edgec"], 3, ["no.edgec"]),
        (["run", "{mlp}", "--golden"], 3, ["mlp.onnx"]),
        (["verify", "no.edgec", "--data", "d"], 3, ["give --against MODEL.onnx"]),
        (["verify", "no.edgec", "--against", "m.onnx"], 3, ["give --data FOLDER"]),
        # what cannot be written is told before anything is looked at
        (["build", "no.onnx", "-o", "no/m.edgec"], 3, ["no: no such folder", "for m.edgec"]),
        (["build", "no.onnx", "--json", "no/m.json"], 3, ["no: no such folder", "for m.json"]),
        (["build", "no.onnx", "--statistics", "no/m.npz"], 3, ["no: no such folder"]),
        (["inspect", "no.onnx", "--html", "no/m.html"], 3, ["no: no such folder"]),
        (["inspect", "no.onnx", "--json", "/dev/null"], 3, ["/dev/null: not a file"]),
        (["verify", "no.edgec", "--json", "."], 3, [".: not a file", "another name"]),
        (["data", "check", "no", "--model", "m", "--plot", "of/x.svg"], 3, ["of: no such folder"]),
        (["data", "check", "no", "--model", "m", "--json", "of/x"], 3, ["of: no such folder"]),
        (["calibrate", "no.onnx", "-o", "no/m.npz"], 3, ["no: no such folder"]),
        (
            ["calibrate", "no.onnx", "-o", "m.npz", "--tensorrt-cache", "no/m.cache"],
            3,
            ["no: no such folder", "for m.cache"],
        ),
    ],
)
def test_errors(arguments: list[str], code: int, words: list[str], tmp_path: Path) -> None:
    known = {
        "{mlp}": str(graphs.path("mlp")),
        "{domain}": str(graphs.HOSTILE / "unknown_domain.onnx"),
    }
    done = run(*(known.get(word, word) for word in arguments), cwd=tmp_path)
    refused(done, code, *words)
    assert list(tmp_path.iterdir()) == []


def test_a_backend_that_fails(tmp_path: Path) -> None:
    done = run(
        *("build", graphs.HOSTILE / "wrong_shapes.onnx", "--target", "generic", "--no-measure"),
        cwd=tmp_path,
    )
    assert done.returncode == 6
    assert done.stdout == ""
    # the backend's own log comes first, then a sentence and a hint
    error, hint = done.stderr.rstrip().splitlines()[-2:]
    assert error.startswith("error: audit: ")
    assert "Incompatible dimensions" in done.stderr
    assert hint.startswith("  hint: ")
    assert list(tmp_path.iterdir()) == []


def run_with(broken: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """`edgec targets` where targets load as the given function does."""
    (folder / "sitecustomize.py").write_text(
        f"import errno, os, edgec.target\n{broken}\nedgec.target.load_target = broken\n"
    )
    root = str(Path(edgec.__file__).parents[1])
    return run("targets", env={"PYTHONPATH": os.pathsep.join([str(folder), root])})


def test_a_defect_of_ours_is_70_with_a_report(tmp_path: Path) -> None:
    done = run_with("def broken(*_): raise ZeroDivisionError('oops')", tmp_path)
    assert done.returncode == 70
    assert "ZeroDivisionError: oops" in done.stderr
    assert f"this is a defect of edgec {edgec.__version__}; please report it" in done.stderr


def test_a_full_disk_is_no_defect(work: Path, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        done = run("explain", work / "mlp.edgec", "--json", tmp_path / "e.json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.returncode == 3, done.stderr
    assert f"error: cannot write {tmp_path / 'e.json'}: File too large\n  hint: " in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_temporary_files_is_no_defect(tmp_path: Path) -> None:
    full = "def broken(*_): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), '/tmp/a')"
    refused(run_with(full, tmp_path), 3, "error: /tmp/a: No space left on device", "TMPDIR")


def test_an_existing_output_needs_force(work: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.edgec"
    output.write_bytes((work / "mlp.edgec").read_bytes())
    arguments = ["build", graphs.path("mlp"), "--target", "generic", "--no-measure", "-o", output]
    refused(run(*arguments), 3, "m.edgec exists", "--force")
    done = run(*arguments, "--force")
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() != (work / "mlp.edgec").read_bytes()


def test_the_default_output_is_named_after_model_and_target(tmp_path: Path) -> None:
    done = run("build", graphs.path("mlp"), "--target", "generic", "--no-measure", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {p.name for p in tmp_path.iterdir()} == {
        "mlp.generic.edgec",
        "mlp.generic.report.json",
        "mlp.generic.cdx.json",
    }


# Streams


def test_a_build_prints_its_table_and_no_progress(tmp_path: Path) -> None:
    done = run("build", graphs.path("mlp"), "--target", "generic", "--no-measure", cwd=tmp_path)
    (line,) = done.stderr.splitlines()
    assert line.startswith("target generic: stack onnxruntime, the default; --stack also takes ")
    assert "isolated ms before" in done.stdout
    assert "weighted ops run in INT8" in done.stdout
    assert "note: built without data" in done.stdout
    assert "\x1b[" not in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "{mlp}", "--target", "generic", "--no-measure"],
        ["plan", "{mlp}", "--target", "x86-vnni"],
        ["targets"],
        ["targets", "x86-vnni"],
        ["data", "check", "{data}", "--model", "{mlp}"],
        ["explain", "{bundle}"],
        ["explain", "{bundle}", "model"],
        ["info", "{bundle}"],
        ["run", "{bundle}", "--golden"],
        ["verify", "{bundle}"],
        ["verify", "{bundle}", "--against", "{mlp}", "--data", "{data}"],
        ["bench", "{bundle}", "--rounds", "2", "--calls", "2", "--warmup", "1", "--repeat", "0"],
        ["finish", "{bundle}"],
    ],
    ids=lambda arguments: " ".join(arguments).replace("{", "").replace("}", ""),
)
def test_json_on_stdout_is_alone_there(arguments: list[str], work: Path, tmp_path: Path) -> None:
    known = {
        "{mlp}": str(graphs.path("mlp")),
        "{bundle}": str(work / "mlp.edgec"),
        "{data}": str(work / "data"),
    }
    done = run(*(known.get(word, word) for word in arguments), "--json", "-", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(name))
    assert isinstance(page, dict)
    assert page


def test_json_in_a_file_is_what_stdout_would_have(work: Path, tmp_path: Path) -> None:
    first = run("explain", work / "mlp.edgec", "--json", "-").stdout
    done = run("explain", work / "mlp.edgec", "--json", tmp_path / "e.json")
    assert (tmp_path / "e.json").read_text() == first
    assert "model: mlp" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["e.json"]


# Single verbs


def test_plan_is_provisional_and_writes_nothing(tmp_path: Path) -> None:
    done = run("plan", graphs.path("clip_dynamo"), "--target", "x86-vnni", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "provisional plan" in done.stdout
    for word in ("vision", "text", "fusion", "cnn", "transformer", "int8_weight_only"):
        assert word in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_plan_follows_the_backend(backend: str) -> None:
    arguments = ["plan", graphs.path("vit"), "--target", "x86-vnni", "--backend", backend]
    page = json.loads(run(*arguments, "--json", "-").stdout)
    assert page["stack"] == "onnxruntime+openvino"
    assert {row["backend"] for row in page["decisions"]} == {backend}
    assert f"; {backend}: " in run(*arguments).stdout


def test_plan_needs_no_backend(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    text = "import sys\nsys.modules['onnxruntime'] = sys.modules['openvino'] = None\n"
    (folder / "sitecustomize.py").write_text(text)
    root = str(Path(edgec.__file__).parents[1])
    done = run(
        *("plan", graphs.path("vit"), "--target", "x86-vnni"),
        env={"PYTHONPATH": os.pathsep.join([str(folder), root])},
    )
    assert done.returncode == 0, done.stderr


def test_data_check_gates_where_it_is_asked_to(work: Path, tmp_path: Path) -> None:
    arguments = ["data", "check", work / "data", "--model", graphs.path("mlp"), "--threads", "1"]
    done = run(*arguments, "--plot", tmp_path / "ranges.svg")
    assert done.returncode == 0, done.stderr
    assert "warning enough: 4 samples are too few" in done.stdout
    assert "  do: give more" in done.stdout
    assert (tmp_path / "ranges.svg").read_text(encoding="utf-8").startswith("<svg ")
    done = run(*arguments, "--strict")
    assert done.returncode == 7
    assert "goal warnings: reached 1, limit 0" in done.stderr
    np.savez(tmp_path / "bad.npz", y=np.zeros(3))
    done = run("data", "check", tmp_path, "--model", graphs.path("mlp"))
    assert done.returncode == 3
    assert "warning missing: holds no" in done.stdout
    assert "none of 1 samples can be used" in done.stderr


def test_data_check_where_the_model_runs_on_no_sample(tmp_path: Path) -> None:
    text = "g (int64[n] i) => (float[n, 3] y) { e = Gather (t, i)  y = MatMul (e, w) }"
    eye = np.eye(3, dtype=np.float32)
    small.save(small.model(text, t=eye, w=eye), tmp_path / "table.onnx")
    for number in range(3):
        np.savez(tmp_path / f"{number}.npz", i=np.array([number + 3]))
    done = run("data", "check", tmp_path, "--model", tmp_path / "table.onnx")
    assert done.returncode == 3
    assert "warning run: the float model does not run on it: " in done.stdout
    assert "  samples: 0.npz, 1.npz, 2.npz\n" in done.stdout
    assert "none of 3 samples can be used" in done.stderr


def test_explain_a_part_a_node_and_nothing(work: Path) -> None:
    whole = json.loads(run("explain", work / "mlp.edgec", "--json", "-").stdout)
    assert [part["name"] for part in whole["parts"]] == ["model"]
    node = whole["decisions"][0]["nodes"][0]
    one = json.loads(run("explain", work / "mlp.edgec", node, "--json", "-").stdout)
    assert [node in row["nodes"] for row in one["decisions"]] == [True]
    refused(
        run("explain", work / "mlp.edgec", "nonsense"),
        3,
        "has no part or node 'nonsense'",
        "its parts are model",
    )


def test_run_with_inputs(work: Path, tmp_path: Path) -> None:
    feeds = graphs.load_feeds("mlp", 3, batch=1)
    np.savez(tmp_path / "in.npz", **feeds)  # type: ignore[arg-type]
    done = run(
        *("run", work / "mlp.edgec", "--inputs", tmp_path / "in.npz"),
        *("--outputs", tmp_path / "out.npz"),
    )
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "out.npz")["logits"]
    exact = small.run(graphs.path("mlp"), feeds)["logits"]
    assert small.sqnr(exact, found) > 25


def test_verify_against_the_source(work: Path) -> None:
    done = run(
        *("verify", work / "mlp.edgec", "--against", graphs.path("mlp"), "--data", work / "data"),
    )
    assert done.returncode == 0, done.stderr
    assert "end to end" in done.stdout
    refused(
        run("verify", work / "mlp.edgec", "--against", graphs.path("cnn"), "--data", work / "data"),
        3,
        "is not the model that",
    )


def test_verify_with_a_metric(work: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("1\n2\n3\n4\n")
    done = run(
        *("verify", work / "mlp.edgec", "--against", graphs.path("mlp"), "--data", work / "data"),
        *("--metric", "top1", "--labels", tmp_path / "labels.txt", "--json", "-"),
    )
    (figure,) = json.loads(done.stdout)["metrics"]
    assert figure["metric"] == "top1"
    assert figure["samples"] == 4
    assert "95 % interval" in done.stderr


def test_a_damaged_bundle(work: Path, tmp_path: Path) -> None:
    data = bytearray((work / "mlp.edgec").read_bytes())
    data[len(data) // 2] ^= 1
    path = tmp_path / "bad.edgec"
    path.write_bytes(data)
    for verb in ("info", "verify", "explain", "finish"):
        refused(run(verb, path), 3)


# Shapes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=1x3x8x8", {"x": (Range(1, 1), Range(3, 3), Range(8, 8), Range(8, 8))}),
        ("ids=1x1..128", {"ids": (Range(1, 1), Range(1, 128))}),
        ("a=b=4", {"a=b": (Range(4, 4),)}),
        ("input:0=2..2", {"input:0": (Range(2, 2),)}),
    ],
)
def test_shapes(text: str, expected: dict[str, tuple[Range, ...]]) -> None:
    assert parse_shapes([text]) == expected


@pytest.mark.parametrize(
    "text", ["x", "x=", "=1x3", "x=1x", "x=axb", "x=0x3", "x=4..2", "x=-1", "x=1...3", "x=1.5"]
)
def test_shapes_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="not a shape") as caught:
        parse_shapes([text])
    assert "NAME=1x1..128" in caught.value.hint


def test_a_name_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "[red]\x1b[31m\x1b]0;title\x07\r\x08\x9b2Jé\u3042"
    page = Page(None)
    page.line(f"part\t{name}")
    page.table([name], [[name]])
    shown = capsys.readouterr().out
    assert not {ord(c) for c in shown if c not in "\t\n"} & {*range(32), *range(127, 160)}
    assert shown.count("[red]\ufffd[31m") == 3
    assert shown.count("é\u3042") == 3
