"""A bar chart as SVG, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_ROW, _LEFT, _WIDTH = 26, 250, 760


def bars(values: Sequence[tuple[str, float]], title: str) -> str:
    """Horizontal bars, least first; ours stands out."""
    rows = sorted(values, key=lambda pair: pair[1])
    longest = max(value for _, value in rows) or 1.0
    height = 44 + _ROW * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="13">',
        "<style>text{fill:#222}.o{fill:#b45309}.p{fill:#94a3b8}"
        "@media(prefers-color-scheme:dark){text{fill:#e5e7eb}.o{fill:#f59e0b}.p{fill:#64748b}}</style>",
        f'<text x="8" y="22" font-weight="600">{escape(title)}</text>',
    ]
    for index, (name, value) in enumerate(rows):
        y = 36 + index * _ROW
        width = max(2.0, value / longest * (_WIDTH - _LEFT - 70))
        ours = "o" if "Nightporter" in name else "p"
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect class="{ours}" x="{_LEFT}" y="{y}" width="{width:.1f}" height="18" rx="2"/>')
        parts.append(f'<text x="{_LEFT + width + 6:.1f}" y="{y + 14}">{value:.1f}</text>')
    parts.append("</svg>")
    return "\n".join(parts) + "\n"
