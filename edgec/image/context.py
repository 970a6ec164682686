"""The folder that images are built from. It appears when it is complete."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import shutil
import string
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path, PurePosixPath
from typing import Any

import edgec
from edgec.errors import InputError, ToolchainError
from edgec.image import recipe
from edgec.image.recipe import Package
from edgec.runtime.built import spares_of
from edgec.runtime.bundle import Bundle
from edgec.types import Target

HERE = Path(__file__).parent
WHEELS = PurePosixPath("/opt/wheels")
LIMIT = 600.0  # seconds
# A vendor's image may lack pip; hadolint would have the version of a package that only this needs.
PIP = """# hadolint ignore=DL3008
RUN python3 -m pip --version || (apt-get update \\
 && apt-get install --yes --no-install-recommends python3 python3-pip \\
 && rm -rf /var/lib/apt/lists/*)
"""
FINISH = """# The device builds the engines: run `finish` once, with the GPU, and keep what it made:
#   docker run --runtime nvidia --volume built:/opt/model/built IMAGE finish
VOLUME ["/opt/model/built"]
"""


@dataclass(frozen=True)
class Context:
    """A written folder. `stages`: build, and device where there is a bundle to run."""

    folder: Path
    target: Target
    stages: tuple[str, ...]
    base: str
    build_packages: tuple[Package, ...]
    device_packages: tuple[Package, ...]


def write(target: Target, folder: Path, bundle: Path | None, base: str | None) -> Context:
    """Write Dockerfile, locked requirements, the wheel of this edgec, and the bundle.

    Raises InputError: the folder exists, or the bundle is for another target; ToolchainError: no
    package index; UnsupportedError: no base image is known.
    """
    if os.path.lexists(folder):
        raise InputError(f"{folder} exists", hint="remove it, or give another -o")
    manifest = None if bundle is None else _manifest(bundle, target)
    image = recipe.base(target, base) if bundle else ""
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=".edgec-") as temporary:
        place = Path(temporary) / "image"
        (place / "wheels").mkdir(parents=True)
        wheel = _wheel(place / "wheels")
        wanted = f"edgec[{recipe.extras(target)}] @ {wheel.as_uri()}"
        compiler = tuple(recipe.resolve([wanted], recipe.COMPILER, "x86_64"))
        lines = [_local(one, wheel) if one.name == "edgec" else str(one) for one in compiler]
        (place / "build.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        device: tuple[Package, ...] = ()
        digest, later = "", False
        if bundle is not None and manifest is not None:
            needed = recipe.device_packages(target, manifest)
            device = tuple(recipe.resolve(needed, recipe.python(target), recipe.arch(target)))
            (place / "device.txt").write_text("".join(f"{one}\n" for one in device), "utf-8")
            (place / "bundle").mkdir()
            for source, name in ((bundle, "model.edgec"), (spares_of(bundle), "model.spares")):
                if source.is_file():
                    shutil.copyfile(source, place / "bundle" / name)
            later = any("build" in engine for engine in manifest["engines"])
            if later:
                (place / "bundle/built").mkdir()
            with open(bundle, "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        model = manifest["source"]["sha256"] if manifest else ""
        text = dockerfile(target, image, digest, model, later=later)
        (place / "Dockerfile").write_text(text, encoding="utf-8")
        (place / ".dockerignore").write_text("*.cdx.json\n", encoding="utf-8")
        place.chmod(0o755)
        os.replace(place, folder)
    stages = ("build",) if bundle is None else ("build", "device")
    return Context(folder, target, stages, image, compiler, device)


def dockerfile(target: Target, base: str, bundle: str, model: str, *, later: bool = False) -> str:
    """The Dockerfile's text; without a `base`, only the build stage. `bundle`, `model`: hashes.

    `later`: engines are built on the device, by `finish`.
    """
    values = {
        "version": edgec.__version__,
        "target": target.name,
        "stack": target.stack,
        "title": f"Images for {target.name} with stack {target.stack}: {target.summary}",
        "verified": target.verified,
        "build_image": recipe.PLAIN.format(recipe.COMPILER),
        "base_image": base or recipe.PLAIN.format(recipe.COMPILER),
        "bundle": bundle,
        "model": model,
        "finish": FINISH if later else "",
        "prepare": "" if base.startswith("python:") else PIP,
    }
    return _fill("Dockerfile", values) + (_fill("Dockerfile.device", values) if base else "")


def _manifest(path: Path, target: Target) -> Mapping[str, Any]:
    """The manifest of a packed bundle that is sound, and for this target."""
    with Bundle(path) as bundle:
        found = bundle.manifest
        if not bundle.packed:
            raise InputError(f"{path} is a folder", hint="give the .edgec file")
    meant = (found["target"]["name"], found["target"]["stack"])
    if meant != (target.name, target.stack):
        raise InputError(
            f"{path} was built for {meant[0]} with stack {meant[1]}, not for {target.name} with "
            f"{target.stack}",
            hint=f"edgec image {meant[0]} --stack {meant[1]}",
        )
    return dict(found)


def _fill(name: str, values: Mapping[str, str]) -> str:
    return string.Template((HERE / name).read_text(encoding="utf-8")).substitute(values)


def _local(package: Package, wheel: Path) -> str:
    return f"{WHEELS / wheel.name} --hash=sha256:{package.sha256}"


def _wheel(into: Path) -> Path:
    """The wheel of this edgec: built from the checkout, or put together from what is installed."""
    checkout = Path(edgec.__file__).parent.parent
    if (checkout / "pyproject.toml").is_file():
        line = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
        line += ["--no-deps", "--wheel-dir", str(into), str(checkout)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=LIMIT)
        if done.returncode != 0:
            raise ToolchainError(
                f"no wheel could be made of {checkout}: {done.stderr.strip()[-400:]}",
                hint="pip install hatchling, and try again",
            )
    else:
        _repack(into)
    (wheel,) = into.glob("*.whl")
    return wheel


def _repack(into: Path) -> None:
    """The installed files as a wheel again."""
    installed = distribution("edgec")
    about = f"edgec-{installed.version}.dist-info"
    left_out = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json"}
    rows = []
    path = into / f"edgec-{installed.version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for file in installed.files or ():
            if ".." in file.parts or file.suffix == ".pyc" or file.name in left_out:
                continue
            content = file.read_binary()
            wheel.writestr(str(file), content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            rows.append([str(file), f"sha256={digest.decode()}", str(len(content))])
        record = io.StringIO()
        csv.writer(record, lineterminator="\n").writerows([*rows, [f"{about}/RECORD", "", ""]])
        wheel.writestr(f"{about}/RECORD", record.getvalue())


def as_json(context: Context) -> dict[str, Any]:
    """What was written, as JSON values."""
    return {
        "folder": str(context.folder),
        "target": context.target.name,
        "stack": context.target.stack,
        "stages": list(context.stages),
        "base_image": context.base,
        "build_packages": [f"{one.name}=={one.version}" for one in context.build_packages],
        "device_packages": [f"{one.name}=={one.version}" for one in context.device_packages],
    }
