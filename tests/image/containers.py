"""buildah without a daemon, and a base image of Debian's Python instead of the registries' ones."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / ".cache/containers"
BASE = "localhost/edgec-base:"
ARCHES = {"x86_64": "amd64", "aarch64": "arm64"}
HOST = ARCHES[os.uname().machine]
BINFMT = Path("/proc/sys/fs/binfmt_misc")
RULE = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")  # of qemu-user-static
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
CONFIGURATION = f"""[storage]
driver = "vfs"
graphroot = "{PLACE}/storage"
runroot = "{PLACE}/run"
"""


def prepare() -> dict[str, str]:
    """The environment in which buildah works as root; installs it where it is missing."""
    if shutil.which("buildah") is None or shutil.which("mmdebstrap") is None:
        call("apt-get", "update", "-qq")
        call("apt-get", "install", "-y", "-qq", "--no-install-recommends", "buildah", "mmdebstrap")
    PLACE.mkdir(parents=True, exist_ok=True)
    (PLACE / "storage.conf").write_text(CONFIGURATION)
    return {
        "CONTAINERS_STORAGE_CONF": str(PLACE / "storage.conf"),
        "BUILDAH_ISOLATION": "chroot",
    }


def base(environment: dict[str, str], arch: str = HOST) -> str:
    """An image with Debian's Python and pip, as `python:3.11-slim-bookworm` has them."""
    tag = BASE + arch
    known = call("buildah", "images", "--format", "{{.Name}}:{{.Tag}}", **environment)
    if tag in known.split():
        return tag
    if arch != HOST:
        emulate()
    archive = PLACE / f"base-{arch}.tar"
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    call(
        "mmdebstrap",
        "--quiet",
        f"--architecture={arch}",
        "--variant=apt",
        "--include=python3,python3-venv,python3-pip,ca-certificates",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "bookworm",
        str(archive),
        str(sources if sources.is_file() else "/etc/apt/sources.list"),
    )
    container = call("buildah", "from", "--arch", arch, "scratch", **environment).strip()
    call("buildah", "config", "--arch", arch, container, **environment)
    call("buildah", "add", container, str(archive), "/", **environment)
    # pip in the container meets the same registry as pip here.
    call("buildah", "copy", container, str(CERTIFICATES), str(CERTIFICATES), **environment)
    for one in (f"PIP_CERT={CERTIFICATES}", "PIP_ROOT_USER_ACTION=ignore"):
        call("buildah", "config", "--env", one, container, **environment)
    call("buildah", "commit", "--quiet", "--rm", container, tag, **environment)
    archive.unlink()
    return tag


def emulate() -> None:
    """Let the kernel run programs for aarch64 through qemu, as Debian's package would have it."""
    if not (BINFMT / "register").exists():
        call("mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT))
    if not (BINFMT / "qemu-aarch64").exists():
        (BINFMT / "register").write_text(RULE.read_text())


def guest(core: str) -> Path:
    """The folder that says what an emulated core is: proc and sys."""
    call(str(ROOT / "tools/emulate"), "--prepare")
    return ROOT / ".cache/aarch64" / core


def call(*line: str, **environment: str) -> str:
    done = subprocess.run(
        line, env={**os.environ, **environment}, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{' '.join(line)}: {done.stdout[-2000:]} {done.stderr[-4000:]}"
    return done.stdout
