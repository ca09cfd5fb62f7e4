"""Attackers and the unlucky: what they cost, who is closed, and what others feel.

``make pressure``, or ``python -m bench.pressure [--idle 10000]``. Against the running product, on loopback:
idle connections, heads and bodies that drip, answers taken a byte at a time, a client that stalls in a
100 MiB download, an app that stalls in a 100 MiB upload. Prints a line each and fails where a
bound of docs/performance.md does not hold.
"""

from __future__ import annotations

import argparse
import http.client
import re
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.attackers import Attackers, Patient, connect
from bench.contestant import Contestant
from bench.machine import described, resident_mib
from bench.peers.nightporter import SERVE, settings
from bench.slow_apps import Stalled, Waiting
from bench.stage import ROOT, Stage, listening, stage
from tests.scenarios.house import free_port

MIB = 1 << 20
SLOW_CLOSED_S = 15.0
PROBE_MS = 50.0
COUNTED_AS = {"head": "head", "body": "request_body", "answer": "slow_client"}
HONEST = 20


class Report:
    """Lines, and whether every bound held."""

    def __init__(self) -> None:
        self.good = True

    def line(self, what: str, found: str, holds: bool) -> None:
        self.good = self.good and holds
        print(f"{'ok  ' if holds else 'OVER'} {what:60} {found}", flush=True)


@dataclass
class Product(Contestant):
    """Ours, with its operations port."""

    operations: int = 0

    def metric(self, pattern: str) -> float:
        """The sum of the samples that match."""
        connection = http.client.HTTPConnection("127.0.0.1", self.operations, timeout=60)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return sum(float(value) for value in re.findall(rf"(?m)^{pattern} (\S+)$", text))


def product(made: Stage, app_port: int = 0) -> Product:
    """One of ours in front of the stage's app, signed in; or of another one, without a person."""
    port, operations = free_port(), free_port()
    env = settings(made, port, store="memory:")
    env["NIGHTPORTER_OPERATIONS_LISTEN"] = f"127.0.0.1:{operations}"
    env["NIGHTPORTER_TIMEOUTS_IDLE_S"] = "600"  # idle connections stay for as long as this takes
    if app_port:
        env |= {
            "NIGHTPORTER_UPSTREAM": f"http://127.0.0.1:{app_port}",
            "NIGHTPORTER_PUBLIC_PATHS": "/public/",
        }
    process = made.run(SERVE, env=env, cwd=ROOT)
    listening(port)
    each = Product("Nightporter", port, [process], signs_in=not app_port, operations=operations)
    each.sign_in()
    return each


def probe_ms(each: Product, count: int = 40) -> float:
    """The slowest but one of some requests, milliseconds."""
    took: list[float] = []
    connection = http.client.HTTPConnection("127.0.0.1", each.port, timeout=60)
    for _ in range(count):
        begin = time.perf_counter()
        connection.request("GET", "/public/probe", headers={"Cookie": each.cookie})
        response = connection.getresponse()
        assert response.read()
        assert response.status == 200
        took.append((time.perf_counter() - begin) * 1e3)
    connection.close()
    return statistics.quantiles(took, n=20)[-1]


def idle(each: Product, count: int, report: Report) -> None:
    """Kept-alive connections that have served one request and then say nothing."""
    before = resident_mib(*each.pids)
    calm = probe_ms(each)
    kept = []
    for _ in range(count):
        sock = connect(each.port)
        sock.sendall(each.request("GET /idle"))
        kept.append(sock)
        if len(kept) % 200 == 0:
            for one in kept[-200:]:
                assert one.recv(65_536).startswith(b"HTTP/1.1 200 ")
    grown_kib = (resident_mib(*each.pids) - before) * 1024 / count
    report.line(f"{count:,} idle connections: memory each", f"{grown_kib:.1f} KiB", grown_kib <= 4.0)
    busy = probe_ms(each)
    report.line(
        "  a request beside them, p95", f"{busy:.1f} ms (alone {calm:.1f})", busy <= max(PROBE_MS, 2 * calm)
    )
    there = each.metric(r'nightporter_connections{listener="public"}')
    report.line("  of them still connected", f"{there:,.0f}", there >= count)
    for sock in kept[:: max(1, count // 100)]:
        sock.sendall(each.request("GET /again"))
        assert sock.recv(65_536).startswith(b"HTTP/1.1 200 ")
    for sock in kept:
        sock.close()


def slow(each: Product, kind: str, count: int, report: Report) -> None:
    """Attackers of one kind: when the last of them is closed, and what others feel meanwhile."""
    counted = rf'nightporter_timeouts_total{{listener="public",waited_for="{COUNTED_AS[kind]}"}}'
    before = each.metric(counted)
    attackers = Attackers(kind)
    began = time.monotonic()
    attackers.begin(each, count)
    felt: list[float] = []
    while attackers.open and time.monotonic() - began < 40:
        attackers.drip()
        felt.append(probe_ms(each, 5))
        time.sleep(0.3)
    took = time.monotonic() - began
    report.line(
        f"{count} clients with a slow {kind}: each closed after, at most",
        f"{attackers.longest_s:.1f} s (all after {took:.1f})",
        not attackers.open and attackers.longest_s <= SLOW_CLOSED_S,
    )
    closed = each.metric(counted) - before
    report.line("  closed for being slow, by our own count", f"{closed:.0f}", closed == count)
    if kind != "answer":
        told = sum(said.startswith(b"HTTP/1.1 408 ") for said in attackers.told)
        report.line("  told so (408)", f"{told}", told == count)
    median = statistics.median(felt)
    report.line("  a request beside them, median of the slowest", f"{median:.1f} ms", median <= PROBE_MS * 2)
    attackers.end()


def slow_bodies(made: Stage, count: int, report: Report) -> None:
    """Uploads that drip to an app that waits for whole ones, beside honest ones on a bad line."""
    app = Waiting()
    app.start()
    each = product(made, app.port)
    honest = Patient(each, HONEST, SLOW_CLOSED_S)
    honest.start()
    slow(each, "body", count, report)
    honest.join()
    report.line(
        f"  honest uploads beside them, of {HONEST}: done", f"{honest.answered}", honest.answered == HONEST
    )
    report.line(
        "  the app saw broken off, and whole",
        f"{app.broken}, {app.whole}",
        (app.broken, app.whole) == (count, HONEST),
    )
    app.close()


def stalled_client(each: Product, report: Report) -> None:
    """100 MiB to somebody who reads 64 KiB and then nothing."""
    before = resident_mib(*each.pids)
    sock = connect(each.port, 65_536)
    sock.sendall(each.request("GET /100m"))
    assert sock.recv(65_536).startswith(b"HTTP/1.1 200 ")
    peak = _peak(each, 3.0)
    report.line("100 MiB to a client that stalls: growth", f"{peak - before:.1f} MiB", peak - before <= 4.0)
    sock.close()


def stalled_app(made: Stage, report: Report) -> None:
    """100 MiB to an app that takes none of it."""
    app = Stalled()
    app.start()
    each = product(made, app.port)
    before = resident_mib(*each.pids)
    sock = connect(each.port)
    sock.sendall(each.request("POST /public/up", f"Content-Length: {100 * MIB}\r\n"))
    sock.settimeout(2)
    sent = 0
    try:
        while sent < 100 * MIB:
            sent += sock.send(b"x" * 65_536)
    except TimeoutError:
        pass
    peak = _peak(each, 2.0)
    report.line(
        f"100 MiB to an app that stalls ({sent / MIB:.0f} MiB left the client): growth",
        f"{peak - before:.1f} MiB",
        peak - before <= 4.0 and sent < 90 * MIB,
    )
    sock.close()
    app.close()


def _peak(each: Contestant, seconds: float) -> float:
    end, peak = time.monotonic() + seconds, 0.0
    while time.monotonic() < end:
        peak = max(peak, resident_mib(*each.pids))
        time.sleep(0.1)
    return peak


def main(arguments: list[str] | None = None) -> int:
    """Try everything, print, answer 1 where a bound did not hold."""
    parser = argparse.ArgumentParser(prog="bench.pressure")
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--attackers", type=int, default=300)
    options = parser.parse_args(arguments)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.idle + 1_500 > hard:
        print(f"the system allows {hard} open files: raise that (ulimit -Hn), or try --idle", file=sys.stderr)
        return 1
    report = Report()
    print(described())
    with tempfile.TemporaryDirectory(prefix="nightporter-pressure-") as home, stage(Path(home)) as made:
        each = product(made)
        probe_ms(each)
        idle(each, options.idle, report)
        stalled_client(each, report)
        for kind in ("head", "answer"):
            slow(each, kind, options.attackers, report)
        slow_bodies(made, options.attackers, report)
        stalled_app(made, report)
        report.line("still serving, p95", f"{probe_ms(each):.1f} ms", True)
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
