"""What builds and runs containers here: docker, podman or buildah, in this order."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgec.errors import EmitError, ToolchainError

PROGRAMS = ("docker", "podman", "buildah")
LIMIT = 3600.0  # seconds
PLATFORMS = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}


class Program:
    """One of `PROGRAMS`. Every failure is an EmitError with the end of the program's log."""

    def __init__(self, name: str) -> None:
        self.name = name

    def build(
        self, folder: Path, stage: str, tag: str, arch: str, arguments: Mapping[str, str]
    ) -> None:
        """Build a stage of the folder's Dockerfile, for an architecture, and call it `tag`."""
        line = [self.name, "build", "--target", stage, "--tag", tag]
        line += ["--platform", PLATFORMS.get(arch, f"linux/{arch}")]
        # buildah writes OCI images, which know no health check, unless it is told otherwise.
        line += [] if self.name == "docker" else ["--format", "docker"]
        for key, value in arguments.items():
            line += ["--build-arg", f"{key}={value}"]
        self._call([*line, str(folder)])

    def run(
        self,
        image: str,
        command: Sequence[str],
        mounts: Mapping[Path, str],
        user: str = "",
        writable: Sequence[Path] = (),
        passing: Sequence[int] = (0,),
    ) -> str:
        """Run a command in a container without a network; what it printed on stdout.

        `mounts`: folders of this machine by their places inside, read-only but for `writable`.
        `passing`: exit codes of the command that are no failure.
        """
        volumes = []
        for path, place in mounts.items():
            volumes += ["--volume", f"{path}:{place}:{'rw' if path in writable else 'ro'}"]
        if self.name != "buildah":
            line = [self.name, "run", "--rm", "--network", "none", *volumes, "--entrypoint", ""]
            line += ["--user", user] if user else []
            return self._call([*line, image, *command], passing)
        container = self._call(["buildah", "from", "--pull-never", image]).strip()
        try:
            if user:
                self._call(["buildah", "config", "--user", user, container])
            line = ["buildah", "run", *volumes, container, "--", *command]
            return self._call(line, passing)
        finally:
            self._call(["buildah", "rm", container])

    def _call(self, line: Sequence[str], passing: Sequence[int] = (0,)) -> str:
        try:
            done = subprocess.run(line, capture_output=True, text=True, timeout=LIMIT)
        except subprocess.TimeoutExpired as error:
            message = f"{self.name} took more than {LIMIT:.0f} s"
            raise EmitError(message, hint="look at its network and disk") from error
        if done.returncode not in passing:
            message = f"{' '.join(line[:2])} ended with exit code {done.returncode}"
            log = (done.stdout + done.stderr)[-4000:]
            raise EmitError(message, hint=f"the lines above are from {self.name}", log=log)
        return done.stdout


def find(wanted: str | None = None) -> Program:
    """The program that was asked for, or the first that works here. Raises ToolchainError."""
    for name in PROGRAMS if wanted is None else (wanted,):
        if shutil.which(name) and _works(name):
            return Program(name)
    raise ToolchainError(
        f"{wanted} does not work here" if wanted else "no docker, podman or buildah works here",
        hint="install one of them, or build the written folder on a machine that has one",
    )


def _works(name: str) -> bool:
    """Whether it answers; docker is often there without its daemon."""
    line = [name, "info"]
    return subprocess.run(line, capture_output=True, timeout=60).returncode == 0


_LIST = (
    "from importlib.metadata import distributions as d; "
    "print(*sorted({f\"{x.metadata['Name']} {x.version}\" for x in d()}), sep='\\n')"
)


def python_packages(program: Program, image: str) -> list[str]:
    """The Python packages in an image: "numpy 2.4.6"."""
    return program.run(image, ["python3", "-c", _LIST], {}).split("\n")[:-1]


def debian_packages(program: Program, image: str) -> list[str]:
    """The Debian packages in an image: "libc6 2.36-9 amd64"; none where it has no dpkg."""
    listing = r"command -v dpkg-query >/dev/null && dpkg-query -W -f '${Package} ${Version} "
    listing += r"${Architecture}\n' || true"
    return program.run(image, ["sh", "-c", listing], {}).split("\n")[:-1]
