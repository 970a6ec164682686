"""The README's commands run, its policy loads, and its tables speak of what there is."""

import re
import subprocess
import sys
from pathlib import Path

import graphs
import pytest

from edgec.policy import load_policy
from edgec.target import load_target, names

README = Path(__file__).parents[2] / "README.md"


def block(name: str) -> str:
    """The text between a pair of markers."""
    text = README.read_text(encoding="utf-8")
    return text.split(f"<!-- {name}:begin -->")[1].split(f"<!-- {name}:end -->")[0]


def commands(text: str) -> list[str]:
    return re.findall(r"^\$ edgec (.+)$", text, flags=re.M)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("readme")
    source = graphs.FIXTURES / "clip_torchscript.onnx"
    (place / "model.onnx").write_bytes(source.read_bytes())
    graphs.write_samples("clip_torchscript", place / "samples", 9)
    graphs.write_samples("clip_torchscript", place / "held-out", 4)
    toml = re.search(r"```toml\n(.*?)```", block("policy"), flags=re.S)
    assert toml is not None
    (place / "policy.toml").write_text(toml[1], encoding="utf-8")
    return place


def run(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgec", *line.split()], cwd=folder, capture_output=True, text=True
    )


def test_commands_run(folder: Path) -> None:
    lines = commands(block("commands"))
    assert len(lines) >= 10
    for line in lines:
        done = run(folder, line)
        assert done.returncode == 0, f"edgec {line}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), line


def test_policy_is_short_and_obeyed(folder: Path) -> None:
    lines = (folder / "policy.toml").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 20
    policy = load_policy(folder / "policy.toml")
    assert {override.pattern for override in policy.parts} == {"vision", "text"}
    line = "build model.onnx --data samples/ --policy policy.toml -o mine.edgec"
    assert f"$ edgec {line}" in README.read_text(encoding="utf-8")
    done = run(folder, line + " --no-measure")  # what is measured may revert it, and takes longer
    assert done.returncode == 0, done.stderr
    told = run(folder, "explain mine.edgec")
    assert "policy.toml, ops.Gemm" in told.stdout


def test_bundle_runs_itself(folder: Path) -> None:
    if not (folder / "self.edgec").exists():
        done = run(folder, "build model.onnx --data samples/ --no-measure -o self.edgec")
        assert done.returncode == 0, done.stderr
    sample = next((folder / "samples").glob("*.npz"))
    for line in (
        f"run --inputs {sample} --outputs out.npz",
        "verify",
        "bench --rounds 2 --repeat 0",
    ):
        command = [sys.executable, "self.edgec", *line.split()]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (folder / "out.npz").is_file()


def test_targets_table_is_the_tables() -> None:
    text = README.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w-]+)` \| .* \| (.*) \|$", text, flags=re.M))
    assert set(rows) == {"host", *names()}
    for name in names():
        verified = load_target(name).verified
        assert (
            ("not verified on hardware" in rows[name])
            or ("not verified" not in verified)
            or (name == "generic")
        )


def test_stages_exist() -> None:
    package = README.parent / "edgec"
    for name in re.findall(r"`([a-z_]+(?:\.py|/))`", block_of_stages()):
        assert (package / name).exists(), name


def block_of_stages() -> str:
    text = README.read_text(encoding="utf-8")
    return text.split("## How it works")[1].split("Schemes by kind")[0]
