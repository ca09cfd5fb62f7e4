"""CPU microseconds per proxied request, beside the peers that packages carry, interleaved.

``make bench [QUICK=1]``, or ``python -m bench.run [--quick] [--only nginx,nightporter] [--out DIR]``.
Needs nginx, wrk, redis-server and taskset; peers that are not installed are left out, by name.
Everybody is signed in to through a real login. Proxies run on core 0, the app, the load and Redis
on core 1. Contestants take turns (A B C A B C), medians count. Loopback only, bounded, and everything
that is started here is ended here. Writes a table (Markdown), the figures (JSON) and a chart (SVG).
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from bench import chart
from bench.contestants import Contestant, available, stage
from bench.machine import cpu_s, described, resident_mib, script, wrk

KINDS = {
    "browser": ("browser", ""),
    "short": ("short", ""),
    "traced": ("traced", ""),
    "1m": ("browser", "/1m"),
}
"""Name → (head, path); without a path every request has another one."""


@dataclass
class Figures:
    """What was measured of one contestant."""

    name: str
    version: str = ""
    cpu_us: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    redis_us: list[float] = field(default_factory=list[float])
    p99_ms: list[float] = field(default_factory=list[float])
    resident_mib: float = 0.0

    def median(self, kind: str) -> float:
        found = self.cpu_us.get(kind)
        return statistics.median(found) if found else 0.0


def measure(each: Contestant, figures: Figures, kind: str, lua: Path, seconds: int) -> None:
    """One turn of one contestant."""
    pids = each.pids
    before = cpu_s(*pids)
    store = cpu_s(each.redis) if each.redis else 0.0
    load = wrk(each.port, lua, seconds)
    figures.cpu_us.setdefault(kind, []).append((cpu_s(*pids) - before) / load.requests * 1e6)
    if each.redis and kind == "browser":
        figures.redis_us.append((cpu_s(each.redis) - store) / load.requests * 1e6)
    if kind == "browser":
        figures.p99_ms.append(load.p99_ms)
        figures.resident_mib = resident_mib(*pids)


def run(
    home: Path, names: list[str], kinds: list[str], rounds: int, seconds: int
) -> tuple[list[Figures], list[str]]:
    """All contestants, in turns."""
    left_out: list[str] = []
    with stage(home) as made:
        contestants: list[tuple[Contestant, Figures]] = []
        for name, make in available().items():
            if names and name not in names:
                continue
            try:
                each = make(made)
            except (AssertionError, OSError, RuntimeError) as error:
                left_out.append(f"{name}: {type(error).__name__} {str(error)[:200]}")
                continue
            contestants.append((each, Figures(each.name, each.version)))
        scripts: dict[tuple[str, str], Path] = {}
        for each, _ in contestants:
            for kind in kinds:
                head, path = KINDS[kind]
                scripts[each.name, kind] = home / f"{len(scripts)}.lua"
                scripts[each.name, kind].write_text(script(each.cookie, head, path))
            wrk(each.port, scripts[each.name, kinds[0]], 1)
        for kind in kinds:
            for _ in range(rounds):
                for each, figures in contestants:
                    try:
                        measure(each, figures, kind, scripts[each.name, kind], seconds)
                    except RuntimeError as error:
                        left_out.append(f"a round of {each.name}, {kind}: {str(error)[:300]}")
        return [figures for _, figures in contestants if figures.median("browser")], left_out


def table(found: list[Figures], kinds: list[str]) -> str:
    """The figures as Markdown."""
    floor = found[0]
    rows = [
        "| | CPU µs/request, browser head | × nginx | short head | browser head with a new trace id | Redis µs | "
        "p99 ms under full load | resident MiB | 1 MiB bodies, MiB per CPU s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for each in found:
        browser = each.median("browser")
        ratio = browser / floor.median("browser") if floor.median("browser") else 0.0
        redis = statistics.median(each.redis_us) if each.redis_us else None
        mib = 1e6 / each.median("1m") if each.median("1m") else None
        cells = [
            each.name,
            f"{browser:.1f}",
            f"{ratio:.2f}",
            *(f"{each.median(kind):.1f}" if kind in kinds else "–" for kind in ("short", "traced")),
            f"{redis:.1f}" if redis is not None else "–",
            f"{statistics.median(each.p99_ms):.1f}" if each.p99_ms else "–",
            f"{each.resident_mib:.0f}",
            f"{mib:,.0f}" if mib else "–",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="bench.run", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="ours beside nginx, within three minutes")
    parser.add_argument("--only", default="", help="names, separated by commas")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=0, help="of one turn; wrk counts whole ones")
    parser.add_argument("--out", default="build/bench", help="directory of the results")
    options = parser.parse_args(arguments)
    names = [name for name in options.only.split(",") if name]
    if options.quick and not names:
        names = ["nginx", "nightporter", "behind-nginx"]
    rounds = options.rounds or (3 if options.quick else 5)
    seconds = options.seconds or (3 if options.quick else 4)
    kinds = ["browser", "short", "traced", "1m"]
    home = Path(tempfile.mkdtemp(prefix="nightporter-bench-"))
    found, left_out = run(home, names, kinds, rounds, seconds)
    text = table(found, kinds)
    when = datetime.datetime.now(datetime.UTC).date().isoformat()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    heading = (
        f"{when}, {described()}, commit {commit.stdout.strip()}; {rounds} rounds of {seconds} s, medians\n\n"
    )
    print(heading + text)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(heading + text)
    figures = [
        {
            "name": each.name,
            "version": each.version,
            "cpu_us": {kind: round(each.median(kind), 2) for kind in each.cpu_us},
            "rounds": {kind: [round(value, 2) for value in values] for kind, values in each.cpu_us.items()},
            "redis_us": round(statistics.median(each.redis_us), 2) if each.redis_us else None,
            "resident_mib": round(each.resident_mib, 1),
        }
        for each in found
    ]
    (out / "figures.json").write_text(json.dumps({"when": heading.strip(), "contestants": figures}, indent=2))
    bars = [(each.name, each.median("browser")) for each in found]
    (out / "chart.svg").write_text(
        chart.bars(bars, "CPU µs per authenticated request (plain proxies: without authentication)")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
