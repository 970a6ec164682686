"""The README's tutorial, run: a new op is one folder, under 80 lines, and nothing else changes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import models
import numpy as np
import pytest

import edgec.runtime

ROOT = Path(__file__).parents[2]
MOST_LINES = 80


def tutorial() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.split("<!-- kernels:begin -->")[1].split("<!-- kernels:end -->")[0]


def run(place: Path, line: str) -> str:
    words = line.split()
    if words[0] == "edgec":
        command = [sys.executable, "-m", "edgec", *words[1:]]
        if words[1] == "build":  # what is measured may refuse it, and takes longer
            command += ["--no-measure", "--backend", "onnxruntime"]
    else:
        command = [sys.executable, str(ROOT / words[0]), *words[1:]]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_the_tutorial_runs(tmp_path: Path) -> None:
    begin, build, use = re.findall(r"^\$ (.+)$", tutorial(), flags=re.M)
    models.net(tmp_path / "capped.onnx", "acme.ops", "SoftCap", alpha=0.5)
    run(tmp_path, begin)
    folder = tmp_path / "my-ops" / "soft_cap"
    stated = re.search(r"(\d+) lines in all", tutorial())
    assert stated is not None
    assert lines(folder) == int(stated[1])
    body = re.search(r"```text\n(.*?)```", tutorial(), flags=re.S)
    loop = re.search(r"```c\+\+\n(.*?)```", tutorial(), flags=re.S)
    assert body is not None
    assert loop is not None
    reference, kernel = folder / "reference.txt", folder / "onnxruntime.cc"
    text = re.sub(r"\{\n.*\n\}", lambda _: "{\n" + body[1] + "}", reference.read_text(), flags=re.S)
    reference.write_text(text)
    text = re.sub(r" *y\.data\[i\] = .*\n", lambda _: loop[1], kernel.read_text())
    kernel.write_text(text)
    assert lines(folder) < MOST_LINES
    told = run(tmp_path, build)
    assert "custom op acme.ops::SoftCap on onnxruntime: native kernel: agrees" in told
    assert "y: float32" in run(tmp_path, use)
    x = np.random.default_rng(2).normal(0, 1, (1, 3, 16, 16)).astype(np.float32)
    with edgec.runtime.load(tmp_path / "capped.edgec", native_code=True) as opened:
        assert opened.run({"x": x})["y"].shape == (1, 8, 16, 16)


def lines(folder: Path) -> int:
    return sum(len(file.read_text().splitlines()) for file in folder.iterdir())


def test_what_exists_is_not_touched_and_names_are_checked(tmp_path: Path) -> None:
    tool = [sys.executable, str(ROOT / "tools" / "new-kernel")]
    first = subprocess.run([*tool, "a", "acme", "Op"], cwd=tmp_path, capture_output=True, text=True)
    assert first.returncode == 0
    assert (tmp_path / "a" / "kernel.toml").is_file()
    for arguments, words in (
        (["a", "acme", "Op"], "exists"),
        (["b", "acme;", "Op"], "no name of a domain or an op"),
        (["b", "acme", "../Op"], "no name of a domain or an op"),
    ):
        done = subprocess.run([*tool, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2
        assert words in done.stderr
    assert not (tmp_path / "b").exists()
