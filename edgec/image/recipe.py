"""What an image is made of: base images, and the packages with their versions and hashes.

The table says which Python and which vendor's image a stack has, and which versions it needs; the
rest takes the versions that the bundle was verified with. pip resolves what these need in turn.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgec.errors import ToolchainError, UnsupportedError
from edgec.types import Runtime, Target

COMPILER = "3.11"  # the Python of build images
PLAIN = "python:{}-slim-bookworm"
# What runs in a plain Python image, by backend or toolchain: the package that brings it.
WHEELS = {"onnxruntime": "onnxruntime", "openvino": "openvino", "tensorrt-rtx": "tensorrt-rtx-cu12"}
EXTRAS = ("openvino", "tensorrt-rtx")
# glibc of the systems that these Pythons come with: Ubuntu 20.04, 22.04, and Debian 12.
GLIBC = {"3.8": 31, "3.9": 31, "3.10": 35}
NEWEST_GLIBC = 36
TAGS = (17, 24, 26, 27, 28, 31, 34, 35, 36)
LIMIT = 600.0  # seconds


@dataclass(frozen=True)
class Package:
    """A resolved package: its name, exact version, and the sha256 of its wheel."""

    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


def python(target: Target) -> str:
    """The Python of a target's stack: "3.10"; the oldest that its range allows."""
    return target.software.python.lstrip(">=~ ").partition(",")[0] or COMPILER


def arch(target: Target) -> str:
    """The machine that the images are for."""
    return platform.machine() if target.arch == "any" else target.arch


def base(target: Target, wanted: str | None) -> str:
    """The image that a device's own is built on.

    Raises UnsupportedError where neither the table nor the user names one, and a plain Python image
    would lack the backend.
    """
    if wanted or target.software.image:
        return wanted or target.software.image
    bare = [one.backend for one in target.runtimes if _brings(one) not in WHEELS]
    if bare:
        raise UnsupportedError(
            f"the table has no image with {bare[0]} for {target.name} with stack {target.stack}",
            hint="name one with --base",
        )
    return PLAIN.format(python(target))


def extras(target: Target) -> str:
    """The extras of edgec that build for a target: "compile,data,openvino"."""
    found = {_brings(one) for one in target.runtimes} & set(EXTRAS)
    return ",".join(["compile", "data", *sorted(found)])


def device_packages(target: Target, manifest: Mapping[str, Any]) -> list[str]:
    """What a bundle needs on the device, as requirements with versions; not yet what these need."""
    needed = ["numpy"]
    used = {engine["backend"] for engine in manifest["engines"]}
    later = any(one.toolchain.built_on == "device" for one in target.runtimes)  # or falls back
    runtimes = [one for one in target.runtimes if one.backend in used or later]
    needed += [WHEELS[_brings(one)] for one in runtimes if _brings(one) in WHEELS]
    kinds = {name.rpartition(".")[2] for name in manifest["files"] if name.startswith("recipe/")}
    if "recipe" in manifest:
        needed += ["pillow"] + (["tokenizers"] if "json" in kinds else [])
    # The bundle's own versions have no wheel for a Python that is older than the compiler's.
    old = tuple(map(int, python(target).split("."))) < tuple(map(int, COMPILER.split(".")))
    known = {} if old else manifest["toolchain"]
    return [_pinned(name, target.software.packages, known) for name in dict.fromkeys(needed)]


def _brings(runtime: Runtime) -> str:
    """The backend, or its toolchain where a wheel has that."""
    name = runtime.toolchain.name
    return name if name in WHEELS else runtime.backend


def _pinned(name: str, stated: Mapping[str, str], known: Mapping[str, str]) -> str:
    """A package in the table's version, or the bundle's; without either pip takes the newest."""
    short = name.removesuffix("-cu12")
    if short in stated:
        return f"{name}=={stated[short]}" + ".*" * (name != short)
    return f"{name}=={known[name]}" if name in known else name


def resolve(requirements: Sequence[str], python_version: str, arch: str) -> list[Package]:
    """All packages that the requirements need on another machine, by name.

    Raises ToolchainError where pip finds no such set, or no registry.
    """
    glibc = GLIBC.get(python_version, NEWEST_GLIBC)
    tags = [f"manylinux_2_{minor}_{arch}" for minor in TAGS if minor <= glibc]
    line = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    line += ["--disable-pip-version-check", "--report", "-", "--target", "unused"]
    line += ["--only-binary=:all:", "--python-version", python_version, "--implementation", "cp"]
    for tag in (*tags, f"manylinux2014_{arch}", f"linux_{arch}"):
        line += ["--platform", tag]
    done = subprocess.run([*line, *requirements], capture_output=True, text=True, timeout=LIMIT)
    if done.returncode != 0:
        raise ToolchainError(
            f"pip cannot resolve {', '.join(requirements)} for Python {python_version} on {arch}: "
            + done.stderr.strip()[-400:],
            hint="it needs a package index; the report of pip says which version is missing",
        )
    found = []
    for one in json.loads(done.stdout)["install"]:
        about, archive = one["metadata"], one["download_info"].get("archive_info", {})
        found.append(
            Package(str(about["name"]).lower(), about["version"], archive["hashes"]["sha256"])
        )
    return sorted(found, key=lambda one: one.name)
