"""Images: every Dockerfile is linted, and one is built and run without a daemon."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import containers
import daemon
import graphs
import numpy as np
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from edgec import sbom
from edgec.build import Job, build
from edgec.errors import EdgecError, InputError, UnsupportedError
from edgec.image import context, recipe
from edgec.image.program import Program, debian_packages, python_packages
from edgec.runtime import npz
from edgec.runtime.bundle import Bundle
from edgec.runtime.model import load
from edgec.target import host, load_target, names, stacks
from edgec.types import Limits

PAIRS = [(name, stack) for name in names() for stack in stacks(name)]
FOREIGN = ("jetson-orin", "jp6.2")
MOST_MB = 400  # uncompressed
MODEL = "python3 /opt/model/model.edgec"

pytestmark = pytest.mark.xdist_group("images")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    job = Job(
        graphs.path("clip_torchscript"),
        backend="onnxruntime",
        data=graphs.write_samples("clip_torchscript", folder / "samples", 6),
        output=folder / "model.edgec",
        measure=False,
        threads=1,
        limits=Limits(part_sqnr_db=None, cosine=None),
    )
    return build(job).bundle


@pytest.fixture(scope="session")
def buildah() -> Iterator[dict[str, str]]:
    """An environment in which buildah works, and the program finds its storage."""
    if os.geteuid() != 0 and shutil.which("buildah") is None:
        pytest.skip("no buildah here, and it may not be installed")
    environment = containers.prepare()
    patch = pytest.MonkeyPatch()
    for key, value in environment.items():
        patch.setenv(key, value)
    yield environment
    patch.undo()


def valid(text: str) -> dict[str, object]:
    """A bill of materials that the official schema accepts."""
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert wrong is None, wrong
    return json.loads(text)  # type: ignore[no-any-return]


def test_every_target_has_a_sound_dockerfile_or_says_what_is_missing(tmp_path: Path) -> None:
    written, without = [], []
    for name, stack in PAIRS:
        target = load_target(name, stack)
        base = "vendor/image:1"
        try:
            base = recipe.base(target, None)
        except UnsupportedError as error:
            without.append(str(error))
        path = tmp_path / f"{name}-{stack}.Dockerfile"
        path.write_text(context.dockerfile(target, base, "0" * 64, "1" * 64))
        written.append(path)
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    assert hadolint is not None
    done = subprocess.run([hadolint, *map(str, written)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert len(written) > 40
    assert all("--base" in one for one in without)
    bad = tmp_path / "bad.Dockerfile"
    bad.write_text("FROM debian\nRUN sudo pip install numpy\n")
    assert subprocess.run([hadolint, str(bad)], capture_output=True).returncode != 0


def test_a_bundle_for_another_target_is_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"was built for .* not for jetson-orin"):
        context.write(load_target(*FOREIGN), tmp_path / "image", bundle, None)
    assert list(tmp_path.iterdir()) == []


def test_the_packages_of_another_machine_are_locked() -> None:
    found = recipe.resolve(["numpy", "onnxruntime==1.19.2"], "3.8", "aarch64")
    by_name = {one.name: one for one in found}
    assert by_name["numpy"].version == "1.24.4"
    assert {"protobuf", "flatbuffers"} <= by_name.keys()
    assert all(len(one.sha256) == 64 for one in found)
    with pytest.raises(EdgecError, match="cannot resolve"):
        recipe.resolve(["onnxruntime==0.0.1"], "3.8", "aarch64")


def test_a_bundle_has_a_bill_of_materials(bundle: Path) -> None:
    found = valid(bundle.with_name(bundle.name.removesuffix(".edgec") + sbom.SUFFIX).read_text())
    text = json.dumps(found)
    assert "pkg:pypi/onnxruntime@" in text
    assert "engines/" in text


def test_a_device_image_is_built_and_runs(
    bundle: Path, buildah: dict[str, str], tmp_path: Path
) -> None:
    """What it computes is what this machine computes; it needs no root, and is small."""
    base = containers.base(buildah)
    target = load_target(host(), None)
    written = context.write(target, tmp_path / "image", bundle, base)
    hashes = (written.folder / "device.txt").read_text().splitlines()
    assert all("--hash=sha256:" in line for line in hashes)
    program, tag = Program("buildah"), "localhost/edgec-test-device"
    program.build(written.folder, "device", tag, target.arch, {})
    about = json.loads(containers.call("buildah", "inspect", "--type", "image", tag, **buildah))
    config = about["Docker"]["config"]
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"] == ["CMD", *config["Entrypoint"], "verify"]
    labels = config["Labels"]
    assert labels["org.edgec.target"] == target.name
    assert len(labels["org.edgec.bundle.sha256"]) == 64
    out = folder_for_all(tmp_path / "out")
    script = (
        f"{MODEL} verify && {MODEL} run --golden --outputs /opt/out/out.npz"
        " && echo user $(id -u):$(id -g)"
        " && ! command -v cc gcc g++ clang"
    )
    told = program.run(tag, ["sh", "-c", script], {out: "/opt/out"}, writable=[out])
    assert "user 10001:10001" in told
    there = npz.read(out / "out.npz", "out.npz")
    with load(bundle) as model:
        here = model.run(model.golden_inputs())
    for name, array in here.items():
        np.testing.assert_array_equal(there[name], array)
    listed = containers.call("buildah", "images", "--json", tag, **buildah)
    assert megabytes(json.loads(listed)[0]["size"]) < MOST_MB
    found = sbom.of_image(
        tag, {"target": target.name}, python_packages(program, tag), debian_packages(program, tag)
    )
    valid(found)
    assert "pkg:pypi/onnxruntime@" in found
    assert "pkg:deb/debian/libc6@" in found


@pytest.mark.slow
def test_a_model_is_built_within_an_image(buildah: dict[str, str], tmp_path: Path) -> None:
    """By the command line alone: the bundle is the one that this machine builds."""
    samples = graphs.write_samples("clip_torchscript", tmp_path / "samples", 6)
    (tmp_path / "in").mkdir()
    model = shutil.copy(graphs.path("clip_torchscript"), tmp_path / "in/model.onnx")
    base, name = containers.base(buildah), host()
    image = ["image", name, "-o", tmp_path / "image", "--build", "--with", "buildah"]
    edgec(*image, "--build-base", base)
    valid((tmp_path / "image/build.cdx.json").read_text())
    line = ["build", model, "--target", name, "--data", samples, "--max-error", "none"]
    line += ["--no-measure", "--backend", "onnxruntime", "--threads", "1"]
    for place, more in (("here", []), ("there", ["--in-image", f"edgec-build-{name}"])):
        (tmp_path / place).mkdir()
        edgec(*line, *more, "-o", tmp_path / place / "model.edgec")
    pages = [bundle_manifest(tmp_path / one / "model.edgec") for one in ("here", "there")]
    assert pages[0]["files"] == pages[1]["files"]


@pytest.mark.slow
def test_a_device_image_needs_nothing_of_docker(
    bundle: Path, buildah: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real daemon builds it and runs it without a network, a writable disk or a capability."""
    base, tag = containers.base(buildah), "edgec-test-device"
    archive = tmp_path / "base.tar"
    containers.call("buildah", "push", "--quiet", base, f"docker-archive:{archive}:base:1")
    target = load_target(host(), None)
    written = context.write(target, tmp_path / "image", bundle, "base:1")
    with daemon.docker() as environment:
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        containers.call("docker", "load", "--input", str(archive))
        line = ["docker", "build", "--network", "host", "--target", "device", "--tag", tag]
        containers.call(*line, str(written.folder), DOCKER_BUILDKIT="1")
        fence = ["--network", "none", "--read-only", "--cap-drop", "ALL"]
        told = containers.call("docker", "run", "--rm", *fence, tag)
        assert told.count(": ok") == 3
        line = ["docker", "run", "--detach", *fence, "--health-interval", "2s", "--entrypoint"]
        name = containers.call(*line, "sleep", tag, "600").strip()
        healthy = False
        for _ in range(60):
            state = containers.call(
                "docker", "inspect", "--format", "{{.State.Health.Status}}", name
            )
            if healthy := state.strip() == "healthy":
                break
            time.sleep(1)
        assert healthy
        containers.call("docker", "rm", "--force", name)
        found = python_packages(Program("docker"), tag)
        assert any(one.startswith("onnxruntime ") for one in found)


@pytest.mark.slow
def test_an_image_for_arm_runs_under_emulation(buildah: dict[str, str], tmp_path: Path) -> None:
    data = graphs.write_samples("clip_torchscript", tmp_path / "samples", 6)
    job = Job(
        graphs.path("clip_torchscript"),
        target="raspberry-pi-5",
        stack="onnxruntime",
        data=data,
        output=tmp_path / "model.edgec",
        threads=1,
        limits=Limits(part_sqnr_db=None, cosine=None),
    )
    bundle, target = build(job).bundle, load_target("raspberry-pi-5", "onnxruntime")
    written = context.write(target, tmp_path / "image", bundle, containers.base(buildah, "arm64"))
    program, tag = Program("buildah"), "localhost/edgec-test-arm"
    program.build(written.folder, "device", tag, "aarch64", {})
    container = containers.call("buildah", "from", "--pull-never", tag, **buildah).strip()
    try:
        root = Path(containers.call("buildah", "mount", container, **buildah).strip())
        guest = containers.guest("cortex-a76")
        for place in ("proc", "sys"):
            shutil.copytree(guest / place, root / place, dirs_exist_ok=True)
        line = ["chroot", "--userspec=10001:10001", str(root), "env", "PYTHONPATH=/opt/site"]
        # the default, QEMU's own mixture of cores, computes dynamic INT8 wrongly
        told = containers.call(*line, *MODEL.split(), "verify", QEMU_CPU="cortex-a76")
    finally:
        containers.call("buildah", "rm", container, **buildah)
    assert told.count(": ok") == 3


def edgec(*words: str | Path) -> str:
    return containers.call(sys.executable, "-m", "edgec", *map(str, words))


def bundle_manifest(path: Path) -> dict[str, Any]:
    with Bundle(path) as opened:
        return dict(opened.manifest)


def folder_for_all(path: Path) -> Path:
    path.mkdir()
    path.chmod(0o777)
    return path


def megabytes(text: str) -> float:
    number, unit = text.split()
    return float(number) * {"KB": 1e-3, "MB": 1.0, "GB": 1e3}[unit]
