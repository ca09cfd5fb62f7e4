"""MiB that a second of CPU carries, in answers of 1 MiB and of 100 MiB."""

from __future__ import annotations

import socket

from bench.answer import take
from bench.contestant import Contestant
from bench.machine import cpu_s
from bench.measures import requests

MIB = 1 << 20
TIMES = 4


def small(each: Contestant, seconds: int) -> dict[str, float]:
    """Answers of 1 MiB on many connections."""
    cost_us = requests.turn(each, "browser", seconds, "/1m")["browser_us"]
    return {"mib_per_s_1m": 1e6 / cost_us}


def large(each: Contestant) -> dict[str, float]:
    """Answers of 100 MiB, one after the other on one connection."""
    head = each.request("GET /100m")
    with socket.create_connection(("127.0.0.1", each.port), 60) as sock:
        before = cpu_s(*each.pids)
        for _ in range(TIMES):
            sock.sendall(head)
            assert take(sock) == 100 * MIB
        spent_s = cpu_s(*each.pids) - before
    return {"mib_per_s_100m": TIMES * 100 / spent_s}
