from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools/bench"))
import readme_block

MARKS = "<!-- {0}:begin -->\n{1}\n<!-- {0}:end -->\n"


def test_a_block_replaces_its_own_text_alone(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    other = MARKS.format("other", "kept")
    page.write_text(f"before\n{MARKS.format('mine', 'old')}{other}after\n")
    for _ in range(2):
        readme_block.write(page, "new\nlines", "mine")
    assert (
        page.read_text()
        == f"before\n{MARKS.format('mine', 'new' + chr(10) + 'lines')}{other}after\n"
    )
    assert list(tmp_path.iterdir()) == [page]


def test_a_page_without_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("nothing\n")
    with pytest.raises(SystemExit, match="needs the lines"):
        readme_block.write(page, "text", "mine")
    assert page.read_text() == "nothing\n"
