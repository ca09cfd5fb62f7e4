"""What a request costs, and the rest, beside the peers that packages carry, interleaved.

``make bench [QUICK=1]``, or ``python -m bench.run [--quick] [--only nginx,nightporter] [--out DIR]``.
Needs nginx, wrk, redis-server and taskset; peers that are not installed are left out, by name.
Everybody is signed in to through a real login. Proxies run on core 0, the app, the load, Redis and the
provider on core 1. Contestants take turns (A B C A B C), medians count. Loopback only, bounded, and
everything that is started here is ended here. Writes the tables (Markdown), the figures (JSON) and a
chart (SVG); leaves with 1 where a bound does not hold.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import bounds, chart, plan, table
from bench.contestant import Contestant
from bench.figures import Figures
from bench.machine import LOAD_CORE, Missing, described
from bench.measures import memory
from bench.peers import PEERS
from bench.peers.nightporter import PYTHON
from bench.plan import Round
from bench.stage import Stage, stage

QUICK = ("nginx", "nightporter", "behind-nginx", "nginx-unbuffered")
_FAULTS = (AssertionError, OSError, RuntimeError)


class Run:
    """Contestants and what is found of them.

    Attributes:
        found: short name → figures.
        left_out: what could not be measured, in words.
    """

    def __init__(self, made: Stage, names: Sequence[str]) -> None:
        self.found: dict[str, Figures] = {}
        self.left_out: list[str] = []
        self._here: dict[str, Contestant] = {}
        for name in names:
            try:
                each = PEERS[name](made)
                figures = Figures(each.name, each.version)
                figures.add(memory.rest(each))
                each.sign_in()
            except Missing as missing:
                self.left_out.append(f"{name}: {missing} is not installed")
            except _FAULTS as error:
                self.left_out.append(f"{name}: {type(error).__name__} {str(error)[:300]}")
            else:
                self._here[name], self.found[name] = each, figures
        direct = Contestant("direct, no proxy", made.app_port, [])
        self._direct = {"direct": direct}
        self.found["direct"] = Figures(direct.name, "")

    def round(self, what: Round) -> None:
        """Every contestant in turn, so many times."""
        began = time.monotonic()
        for _ in range(what.times):
            for name, each in (self._here | (self._direct if what.direct else {})).items():
                try:
                    self.found[name].add(what.turn(each))
                except _FAULTS as error:
                    self.left_out.append(
                        f"{what.name} of {each.name}: {type(error).__name__} {str(error)[:300]}"
                    )
        print(f"{what.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def heading(seconds: float) -> str:
    """When, where and what was measured."""
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    version = subprocess.run([PYTHON, "--version"], capture_output=True, text=True, check=True)
    return (
        f"{when}, {described()}, Nightporter on {version.stdout.strip()} ({os.path.realpath(PYTHON)}), "
        f"commit {commit.stdout.strip() or 'unknown'}, {seconds / 60:.0f} minutes; "
        f"medians of interleaved turns; load of the machine at the end {os.getloadavg()[0]:.1f}\n"
    )


def write(out: Path, text: str, top: str, run: Run) -> None:
    """The table, the figures and the chart."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text)
    figures = {name: figures.as_json() for name, figures in run.found.items()}
    document = {"when": top.strip(), "left_out": run.left_out, "contestants": figures}
    (out / "figures.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    costs = [(each.name, each.of("browser_us")) for each in run.found.values()]
    title = "CPU µs per authenticated request (plain proxies: without authentication)"
    (out / "chart.svg").write_text(chart.bars([(name, cost) for name, cost in costs if cost], title))


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="bench.run", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="ours beside nginx, within three minutes")
    parser.add_argument("--only", default="", help=f"names, separated by commas: {', '.join(PEERS)}")
    parser.add_argument("--people", type=int, default=10_000, help="who sign in to each, for the memory")
    parser.add_argument("--measure", default="", help="only turns whose name holds this, e.g. sessions")
    parser.add_argument("--out", default="build/bench", help="directory of the results")
    options = parser.parse_args(arguments)
    names = [name for name in options.only.split(",") if name] or (QUICK if options.quick else list(PEERS))
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nightporter-bench-") as home, stage(Path(home)) as made:
        run = Run(made, names)
        for each in plan.quick() if options.quick else plan.full(options.people):
            if options.measure in each.name:
                run.round(each)
    top = heading(time.monotonic() - began)
    text, broken = top + "\n", []
    if "nginx" in run.found:
        promised, broken = bounds.table(run.found)
        text += table.of(list(run.found.values()), run.found["nginx"]) + "\nBounds:\n\n" + promised
    print(text)
    for line in run.left_out:
        print(f"left out: {line}", file=sys.stderr)
    write(Path(options.out), text, top, run)
    for line in broken:
        print(f"NOT MET  {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
