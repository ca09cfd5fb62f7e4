"""Attackers and the unlucky: what they cost, who is closed, and what others feel.

``make pressure``, or ``python -m bench.pressure [--idle 10000]``. Against the running product, on loopback:
idle connections, heads and bodies that drip, answers taken a byte at a time, a client that stalls in a
100 MiB download, an app that stalls in a 100 MiB upload. Prints a line each and fails where a
bound of docs/performance.md does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import resource
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench.contestants import Contestant, Stage, nightporter, stage
from bench.machine import resident_mib

MIB = 1 << 20
SLOW_CLOSED_S = 15.0
PROBE_MS = 50.0
_ESTABLISHED = 1


class Report:
    """Lines, and whether every bound held."""

    def __init__(self) -> None:
        self.good = True

    def line(self, what: str, found: str, holds: bool) -> None:
        self.good = self.good and holds
        print(f"{'ok  ' if holds else 'OVER'} {what:58} {found}", flush=True)


def connect(port: int, receive_buffer: int = 0) -> socket.socket:
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(60)
    sock.connect(("127.0.0.1", port))
    return sock


def head(each: Contestant, line: str, more: str = "") -> bytes:
    return f"{line} HTTP/1.1\r\nHost: 127.0.0.1:{each.port}\r\nCookie: {each.cookie}\r\n{more}\r\n".encode()


def probe_ms(each: Contestant, count: int = 40) -> float:
    """The slowest but one of some requests, milliseconds."""
    took: list[float] = []
    connection = http.client.HTTPConnection("127.0.0.1", each.port, timeout=60)
    for _ in range(count):
        begin = time.perf_counter()
        connection.request("GET", "/probe", headers={"Cookie": each.cookie})
        assert connection.getresponse().read()
        took.append((time.perf_counter() - begin) * 1e3)
    connection.close()
    return statistics.quantiles(took, n=20)[-1]


def idle(each: Contestant, count: int, report: Report) -> None:
    """Kept-alive connections that have served one request and then say nothing."""
    before = resident_mib(*each.pids)
    calm = probe_ms(each)
    kept: list[socket.socket] = []
    for _ in range(count):
        sock = connect(each.port)
        sock.sendall(head(each, "GET /idle"))
        kept.append(sock)
        if len(kept) % 200 == 0:
            for one in kept[-200:]:
                assert one.recv(65_536)
    grown_kib = (resident_mib(*each.pids) - before) * 1024 / count
    report.line(f"{count:,} idle connections: memory each", f"{grown_kib:.1f} KiB", grown_kib <= 4.0)
    busy = probe_ms(each)
    report.line(
        "a request beside them, p95", f"{busy:.1f} ms (alone {calm:.1f})", busy <= max(PROBE_MS, 2 * calm)
    )
    for sock in kept:
        sock.close()


def slow(each: Contestant, kind: str, count: int, report: Report) -> None:
    """Attackers of one kind: when the last of them is closed, and what others feel meanwhile."""
    socks: list[socket.socket] = []
    for _ in range(count):
        sock = connect(each.port, 4_096 if kind == "answer" else 0)
        if kind == "head":
            sock.sendall(b"GET / HTTP/1.1\r\n")
        elif kind == "body":
            sock.sendall(head(each, "POST /slow", "Content-Length: 100000\r\n"))
        else:
            sock.sendall(head(each, "GET /100m"))
        sock.setblocking(False)
        socks.append(sock)
    began = time.monotonic()
    felt: list[float] = []
    while socks and time.monotonic() - began < 40:
        for sock in list(socks):
            with contextlib.suppress(OSError):
                if kind == "answer":
                    sock.recv(16)
                else:
                    sock.send(b"X" if kind == "body" else b"X-A: b\r\n")
            # What the kernel knows: an answer of which most was not read hides the end behind it.
            closed = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED
            if closed:
                socks.remove(sock)
                sock.close()
        felt.append(probe_ms(each, 5))
        time.sleep(0.5)
    took = time.monotonic() - began
    report.line(
        f"{count} clients with a slow {kind}: all closed after",
        f"{took:.1f} s",
        not socks and took <= SLOW_CLOSED_S + 3,
    )
    report.line(
        "  a request beside them, median of the slowest",
        f"{statistics.median(felt):.1f} ms",
        statistics.median(felt) <= PROBE_MS * 2,
    )
    for sock in socks:
        sock.close()


def stalled_client(each: Contestant, report: Report) -> None:
    """100 MiB to somebody who reads 64 KiB and then nothing."""
    before = resident_mib(*each.pids)
    sock = connect(each.port, 65_536)
    sock.sendall(head(each, "GET /100m"))
    assert sock.recv(65_536).startswith(b"HTTP/1.1 200 ")
    peak = _peak(each, 3.0)
    report.line("100 MiB to a client that stalls: growth", f"{peak - before:.1f} MiB", peak - before <= 4.0)
    sock.close()


class StalledApp(threading.Thread):
    """An app that accepts, and reads nothing of a body."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.sock.getsockname()[1]
        self.taken: list[socket.socket] = []

    def run(self) -> None:
        while True:
            try:
                self.taken.append(self.sock.accept()[0])
            except OSError:
                return


def stalled_app(made: Stage, report: Report) -> None:
    """100 MiB to an app that takes none of it."""
    app = StalledApp()
    app.start()
    real, made.app_port = made.app_port, app.port
    each = _unsigned(made)
    before = resident_mib(*each.pids)
    sock = connect(each.port)
    sock.sendall(head(each, "POST /public/up", f"Content-Length: {100 * MIB}\r\n"))
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
    app.sock.close()
    made.app_port = real


def _unsigned(made: Stage) -> Contestant:
    import bench.contestants as contestants

    port = contestants.free_port()
    env = contestants.settings(made, port, port, contestants.free_port(), "memory:")
    env["NIGHTPORTER_PUBLIC_PATHS"] = "/public/"
    process = made.run([sys.executable, "-m", "proxy", "serve"], env=env, cwd=contestants.ROOT)
    contestants.listening(port)
    return Contestant("Nightporter, public path", port, [process.pid])


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
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    count = min(options.idle, limit[1] - 500)
    report = Report()
    with stage(Path(tempfile.mkdtemp(prefix="nightporter-pressure-"))) as made:
        each = nightporter(made, store="memory:")
        probe_ms(each)
        idle(each, count, report)
        stalled_client(each, report)
        for kind in ("head", "body", "answer"):
            slow(each, kind, options.attackers, report)
        stalled_app(made, report)
        report.line("still serving, p95", f"{probe_ms(each):.1f} ms", True)
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
