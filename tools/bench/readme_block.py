"""A block of a Markdown page that a script writes."""

from __future__ import annotations

from pathlib import Path


def write(page: Path, block: str, name: str) -> None:
    """Replace what stands between `<!-- name:begin -->` and `<!-- name:end -->`."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, ends, after = rest.partition(end)
    if not found or not ends:
        raise SystemExit(f"{page}: needs the lines {begin} and {end}")
    partial = page.with_name(page.name + ".partial")
    partial.write_text(f"{before}{begin}\n{block}\n{end}{after}", encoding="utf-8")
    partial.replace(page)
