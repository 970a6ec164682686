"""What several files of tests of the runtime share."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = ("numpy", "onnxruntime==1.19.2", "pillow", "tokenizers")


@pytest.fixture(scope="session")
def python38(request: pytest.FixtureRequest) -> str:
    """A Python 3.8 with numpy, onnxruntime, pillow and tokenizers, kept between test runs."""
    given = os.environ.get("EDGEC_PYTHON38")
    if given:
        return given
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    places = [*sorted(map(str, pyenv.glob("3.8.*/bin/python"))), shutil.which("python3.8")]
    base = next((p for p in places if p), None)
    if base is None:
        pytest.skip("no Python 3.8 here; EDGEC_PYTHON38 names one with " + ", ".join(PACKAGES))
    folder = Path(request.config.rootpath) / ".pytest_cache" / "d" / "py38"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / "py38.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # workers of one run share it
        ready = folder / "ready"
        if not ready.exists() or ready.read_text() != str(PACKAGES):
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([base, "-m", "venv", folder], check=True, timeout=300)
            # what pip would have to compile takes a compiler that a device rarely has
            install = [
                folder / "bin/python",
                "-m",
                "pip",
                "install",
                "-q",
                "--only-binary",
                ":all:",
            ]
            done = subprocess.run(
                [*install, *PACKAGES], capture_output=True, text=True, timeout=900
            )
            if done.returncode:
                pytest.skip("a package for Python 3.8 is missing: " + done.stderr[-300:])
            ready.write_text(str(PACKAGES))
    return str(folder / "bin/python")
