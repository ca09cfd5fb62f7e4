"""The figures as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.figures import Figures

_COST = (
    ("browser head", "browser_us", "{:.1f}"),
    ("× nginx", "", ""),
    ("short head", "short_us", "{:.1f}"),
    ("new trace id", "traced_us", "{:.1f}"),
    ("Redis", "redis_us", "{:.1f}"),
    ("WebSocket echo", "echo_us", "{:.1f}"),
    ("1 MiB, MiB/s", "mib_per_s_1m", "{:,.0f}"),
    ("100 MiB, MiB/s", "mib_per_s_100m", "{:,.0f}"),
)
_REST = (
    ("p50 ms", "p50_ms", "{:.2f}"),
    ("p99 ms", "p99_ms", "{:.2f}"),
    ("KiB per idle connection", "idle_kib", "{:.1f}"),
    ("start ms", "start_ms", "{:,.0f}"),
    ("CPU ms of a start", "start_cpu_ms", "{:,.0f}"),
    ("MiB at rest", "rest_mib", "{:.0f}"),
    ("MiB after the sessions", "seen_mib", "{:.0f}"),
)


def of(found: Sequence[Figures], floor: Figures) -> str:
    """Two tables: CPU time, and the rest.

    Args:
        floor: what the ratio is taken of.
    """
    ratio = floor.of("browser_us")

    def cost(each: Figures) -> list[str]:
        own = each.of("browser_us")
        cells = _cells(each, _COST)
        cells[1] = f"{own / ratio:.2f}" if own and ratio else "–"
        return cells

    return (
        "CPU µs per request (per echo; and MiB that a second of CPU carries):\n\n"
        + _table([each for each in found if each.of("browser_us")], [name for name, _, _ in _COST], cost)
        + "\nTime and memory:\n\n"
        + _table(found, [name for name, _, _ in _REST], lambda each: _cells(each, _REST))
    )


def _cells(each: Figures, columns: Sequence[tuple[str, str, str]]) -> list[str]:
    values = [(each.of(key), text) for _, key, text in columns]
    return [text.format(value) if value is not None else "–" for value, text in values]


def _table(found: Sequence[Figures], head: Sequence[str], cells: Callable[[Figures], list[str]]) -> str:
    rows = ["| | " + " | ".join(head) + " |", "|---|" + "---:|" * len(head)]
    rows += [f"| {each.name} | " + " | ".join(cells(each)) + " |" for each in found]
    return "\n".join(rows) + "\n"
