"""How long answers take at a fixed rate, whatever became of the ones before."""

from __future__ import annotations

import gc
import select
import socket
import statistics
from collections import deque
from time import perf_counter

from bench.answer import take
from bench.contestant import Contestant

RATE = 500
CONNECTIONS = 32


def turn(each: Contestant, seconds: float) -> dict[str, float]:
    """Median and 99th percentile, milliseconds, from a request's sending to its answer's last byte."""
    head = each.request("GET /item/1")
    free = deque(socket.create_connection(("127.0.0.1", each.port), 60) for _ in range(CONNECTIONS))
    everybody = list(free)
    try:
        for sock in everybody:  # not the connections' first requests
            sock.sendall(head)
            take(sock)
        gc.disable()  # the load's own pauses are not the contestant's
        return _figures(_run(free, head, int(RATE * seconds)))
    finally:
        gc.enable()
        for sock in everybody:
            sock.close()


def _run(free: deque[socket.socket], head: bytes, count: int) -> list[float]:
    took: list[float] = []
    sent_at: dict[socket.socket, float] = {}
    begin, sent = perf_counter(), 0
    while len(took) < count:
        now = perf_counter()
        if sent < count and free and now >= begin + sent / RATE:
            sock = free.popleft()
            sent_at[sock] = perf_counter()
            sock.sendall(head)
            sent += 1
            continue
        wait_s = max(0.0, begin + sent / RATE - now) if sent < count else 10.0
        # select and not epoll: it waits for fractions of a millisecond.
        ready, _, _ = select.select(list(sent_at), (), (), wait_s)
        for sock in ready:
            take(sock)
            took.append(perf_counter() - sent_at.pop(sock))
            free.append(sock)
    return took


def _figures(took: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(took, n=100)
    return {"p50_ms": cuts[49] * 1e3, "p99_ms": cuts[98] * 1e3}
