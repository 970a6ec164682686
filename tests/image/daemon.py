"""A Docker daemon for one test: Debian's packages, unpacked, not installed, with its own data."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import containers

PACKAGES = ("docker.io", "containerd", "runc", "tini")
PLACE = containers.PLACE.parent / "docker"
SECONDS = 60.0
# No bridge and no packet filter: images are built on the host's network and run on none.
OPTIONS = ("--storage-driver=vfs", "--iptables=false", "--ip6tables=false", "--bridge=none")


@contextmanager
def docker() -> Iterator[dict[str, str]]:
    """The environment in which `docker` meets the daemon."""
    root = _unpacked()
    path = f"{root}/usr/bin:{root}/usr/sbin:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="edgec-docker-") as folder:
        socket = f"unix://{folder}/socket"
        places = [f"--data-root={folder}/data", f"--exec-root={folder}/exec"]
        line = ["dockerd", f"--host={socket}", f"--pidfile={folder}/pid", *places, *OPTIONS]
        known = {"PATH": path, "DOCKER_HOST": socket}
        with open(Path(folder, "log"), "wb") as log:
            daemon = subprocess.Popen(line, env={**os.environ, **known}, stdout=log, stderr=log)
        try:
            _wait(daemon, known, Path(folder, "log"))
            yield known
        finally:
            daemon.terminate()
            daemon.wait(SECONDS)


def _unpacked() -> Path:
    if not PLACE.is_dir():
        PLACE.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=PLACE.parent) as folder:
            line = ["apt-get", "download", *PACKAGES]
            subprocess.run(line, cwd=folder, check=True, capture_output=True)
            for package in Path(folder).glob("*.deb"):
                containers.call("dpkg", "-x", str(package), f"{folder}/root")
            Path(folder, "root").rename(PLACE)
    return PLACE


def _wait(daemon: subprocess.Popen[bytes], known: dict[str, str], log: Path) -> None:
    end = time.monotonic() + SECONDS
    told = {"env": {**os.environ, **known}, "capture_output": True}
    while subprocess.run(["docker", "info"], **told).returncode:
        assert daemon.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < end, "the daemon does not answer"
        time.sleep(0.5)
