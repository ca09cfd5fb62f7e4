"""What each choice of the runtime is worth: ``make bench-settings``, or ``python -m bench.settings [--rounds N]``.

The product as shipped and with one thing changed (`variant.py`), interleaved: CPU time of a request, MiB of
1 MiB bodies that a second of CPU carries, memory under that load. The first row is measured twice, under
two names: what differs between them is noise.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

from bench.contestant import Contestant
from bench.figures import Figures
from bench.machine import LOAD_CORE, described, resident_mib
from bench.measures import bodies, requests
from bench.peers.nightporter import PYTHON, sidecar
from bench.report import Report
from bench.stage import Stage, stage
from bench.variant import BACKLOGS, VARIANTS

_SHIPPED = "as shipped"


def start(made: Stage, variant: str) -> Contestant:
    """The product, varied."""
    each = sidecar(made, store="memory:", serve=[PYTHON, "-m", "bench.variant", variant])
    each.sign_in()
    return each


def run(made: Stage, rounds: int) -> list[Figures]:
    """Every variant in turn."""
    names = [*VARIANTS, _SHIPPED]
    running = [(start(made, name), Figures(name, "")) for name in names]
    for _ in range(rounds):
        for each, figures in running:
            figures.add(requests.turn(each, "browser", 2))
            figures.add(requests.turn(each, "traced", 1))
            figures.add(bodies.small(each, 1))
            figures.add({"mib": resident_mib(*each.pids)})
    return [figures for _, figures in running]


def let_in(made: Stage, variant: str, come: int = 2_000) -> int:
    """How many of so many clients are connected half a second after they came, while the loop is busy."""
    each = start(made, variant)
    socks: list[socket.socket] = []
    for pid in each.pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        poll = select.poll()
        for _ in range(come):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", each.port))
            poll.register(sock, select.POLLOUT)
            socks.append(sock)
        time.sleep(0.5)
        return sum(bool(event & select.POLLOUT) for _, event in poll.poll(0))
    finally:
        for pid in each.pids:
            os.kill(pid, signal.SIGCONT)
        for sock in socks:
            sock.close()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.settings", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    with tempfile.TemporaryDirectory(prefix="nightporter-settings-") as home, stage(Path(home)) as made:
        found = run(made, options.rounds)
        connected = [[name, str(let_in(made, name))] for name in BACKLOGS]
    print(f"{described()}; {options.rounds} rounds, medians")
    rows = [
        [
            each.name,
            *(f"{each.of(name) or 0:.1f}" for name in ("browser_us", "traced_us")),
            *(f"{each.of(name) or 0:,.0f}" for name in ("mib_per_s_1m", "mib")),
        ]
        for each in found
    ]
    Report().table(["", "µs/request", "with a new trace id", "MiB per CPU s", "MiB resident"], rows)
    print()
    Report().table(["2,000 clients while the loop is busy", "connected at once"], connected)
    return 0


if __name__ == "__main__":
    sys.exit(main())
