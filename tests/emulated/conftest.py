"""The emulated cores are prepared once."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

EMULATE = Path(__file__).resolve().parents[2] / "tools/emulate"


@pytest.fixture(scope="session", autouse=True)
def prepared() -> None:
    if not os.access("/var/lib/apt", os.W_OK) and not shutil.which("qemu-aarch64-static"):
        pytest.skip("no qemu-aarch64-static here, and it may not be installed")
    subprocess.run([EMULATE, "--prepare"], check=True, timeout=600)
