"""The few elements of SVG that plots are made of. Text is escaped here and nowhere else."""

from __future__ import annotations

from html import escape


def opening(width: int, height: int) -> str:
    """The picture's head, with a white ground; `</svg>` ends it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="12">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>'
    )


def line(x1: float, y1: float, x2: float, y2: float, colour: str, *, dashed: bool = False) -> str:
    """A straight line."""
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}"{dash}/>'


def text(x: float, y: float, words: str, anchor: str = "start", size: int = 12) -> str:
    """A line of text; `anchor`: start, middle or end."""
    large = f' font-size="{size}"' if size != 12 else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{large}>{escape(words)}</text>'


def polyline(points: str, colour: str) -> str:
    """A line through points, `x,y x,y`."""
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'


def dot(x: float, y: float, colour: str, told: str, *, hollow: bool = False) -> str:
    """A point that tells something where a pointer rests on it."""
    fill = "#fff" if hollow else colour
    return (
        f'<circle cx="{x}" cy="{y}" r="3.5" fill="{fill}" stroke="{colour}">'
        f"<title>{escape(told)}</title></circle>"
    )
