"""What must hold, beside what was found: ratios of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.figures import Figures

Found = Mapping[str, Figures]


@dataclass(frozen=True)
class Bound:
    """One promise.

    Attributes:
        limit, goal: at most, or at least (`least`).
        found: computes it; None where a part was not measured.
    """

    what: str
    limit: float
    goal: float
    found: Callable[[Found], float | None]
    unit: str = "×"
    least: bool = False

    def holds(self, value: float, limit: float) -> bool:
        return value >= limit if self.least else value <= limit


def _over(name: str, key: str, other: str, other_key: str = "") -> Callable[[Found], float | None]:
    """A figure of one contestant over that of another."""

    def ratio(found: Found) -> float | None:
        mine = found[name].of(key) if name in found else None
        theirs = found[other].of(other_key or key) if other in found else None
        return mine / theirs if mine is not None and theirs else None

    return ratio


def _own(key: str) -> Callable[[Found], float | None]:
    return lambda found: found["nightporter"].of(key) if "nightporter" in found else None


def _added(key: str) -> Callable[[Found], float | None]:
    """What we add to the direct way, over what nginx adds to it."""

    def ratio(found: Found) -> float | None:
        if not {"direct", "nginx", "nightporter"} <= set(found):
            return None
        direct, floor, ours = (found[name].of(key) for name in ("direct", "nginx", "nightporter"))
        if direct is None or floor is None or ours is None or floor <= direct:
            return None
        return (ours - direct) / (floor - direct)

    return ratio


BOUNDS = (
    Bound(
        "authenticated GET, 1 KiB, browser's head, paths all different: beside nginx",
        2.2,
        1.6,
        _over("nightporter", "browser_us", "nginx"),
    ),
    Bound(
        "the same with one line that never comes again: beside nginx",
        2.2,
        1.6,
        _over("nightporter", "traced_us", "nginx"),
    ),
    Bound(
        "oauth2-proxy with Redis costs",
        8.0,
        12.0,
        _over("oauth2-proxy", "browser_us", "nightporter"),
        least=True,
    ),
    Bound(
        "Envoy with its oauth2 filter costs",
        2.5,
        3.5,
        _over("envoy-oauth2", "browser_us", "nightporter"),
        least=True,
    ),
    Bound(
        "forward auth behind nginx, both together: beside nginx",
        2.2,
        1.8,
        _over("behind-nginx", "browser_us", "nginx"),
    ),
    Bound(
        "1 MiB bodies a second of CPU: beside nginx unbuffered",
        1.5,
        1.8,
        _over("nightporter", "mib_per_s_1m", "nginx-unbuffered"),
        least=True,
    ),
    Bound("WebSocket echo, 64 bytes: beside nginx", 1.3, 1.1, _over("nightporter", "echo_us", "nginx")),
    Bound("p99 at 500 requests a second, added to direct: beside nginx", 1.5, 1.1, _added("p99_ms")),
    Bound("resident at rest", 45, 38, _own("rest_mib"), "MiB"),
    Bound("resident, everything loaded and the sessions seen", 80, 65, _own("seen_mib"), "MiB"),
    Bound("memory of an idle connection", 4, 2, _own("idle_kib"), "KiB"),
    Bound("start to first served request", 400, 200, _own("start_ms"), "ms"),
)


def table(found: Found) -> tuple[str, list[str]]:
    """As Markdown, and which bounds do not hold."""
    rows = ["| what | bound | goal | found | |", "|---|---:|---:|---:|---|"]
    broken: list[str] = []
    for bound in BOUNDS:
        value = bound.found(found)
        sign = "≥" if bound.least else "≤"
        cells = [bound.what, *(f"{sign} {limit:g} {bound.unit}" for limit in (bound.limit, bound.goal))]
        if value is None:
            cells += ["–", "not measured"]
        else:
            holds = bound.holds(value, bound.limit)
            if not holds:
                broken.append(f"{bound.what}: {value:.2f}")
            word = "goal met" if bound.holds(value, bound.goal) else "met" if holds else "**not met**"
            cells += [f"{value:.2f} {bound.unit}" if value < 100 else f"{value:.0f} {bound.unit}", word]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n", broken
