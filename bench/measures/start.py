"""From the start of its processes until a signed-in request is served."""

from __future__ import annotations

import socket
import time

from bench.answer import take
from bench.contestant import Contestant
from bench.machine import cpu_s

LIMIT_S = 60.0


def turn(each: Contestant) -> dict[str, float]:
    """Milliseconds that pass, and of CPU, of processes that are ended and started again."""
    for process in each.processes:
        process.stop()
    begin = time.monotonic()
    for process in each.processes:
        process.start()
    while not _served(each):
        assert time.monotonic() < begin + LIMIT_S, f"{each.name} does not serve"
        time.sleep(0.002)
    took_s = time.monotonic() - begin
    return {"start_ms": took_s * 1e3, "start_cpu_ms": cpu_s(*each.pids) * 1e3}


def _served(each: Contestant) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", each.port), 10) as sock:
            sock.sendall(each.request("GET /item/1", "Connection: close\r\n"))
            return take(sock) > 0
    except (OSError, AssertionError):  # not there yet, or not ready
        return False
