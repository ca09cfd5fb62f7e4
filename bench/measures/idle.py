"""Memory of connections that served a request and then say nothing."""

from __future__ import annotations

import socket

from bench.answer import take
from bench.contestant import Contestant
from bench.machine import resident_mib

_WARM_UP = 200


def turn(each: Contestant, count: int) -> dict[str, float]:
    """KiB of each of so many connections; those that warm up are not counted."""
    kept: list[socket.socket] = []
    try:
        _open(each, _WARM_UP, kept)
        before = resident_mib(*each.pids)
        _open(each, count, kept)
        return {"idle_kib": max(0.0, resident_mib(*each.pids) - before) * 1024 / count}
    finally:
        for sock in kept:
            sock.close()


def _open(each: Contestant, count: int, kept: list[socket.socket]) -> None:
    head = each.request("GET /idle")
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", each.port), 60)
        kept.append(sock)
        sock.sendall(head)
        take(sock)
