"""CPU time of a request that is answered by 1 KiB, and what it costs Redis."""

from __future__ import annotations

from bench.contestant import Contestant
from bench.machine import cpu_s
from bench.wrk import script, wrk

HEADS = ("browser", "short", "traced")
"""Of every head each request has another path; ``traced`` has another trace id, too (`wrk.script`)."""


def turn(each: Contestant, head: str, seconds: int, path: str = "") -> dict[str, float]:
    """Microseconds of CPU a request.

    Args:
        head: one of `HEADS`.
        path: the same one for every request; "" = another one each time.
    """
    redis = [each.redis.pid] if each.redis is not None else []
    before, before_redis = cpu_s(*each.pids), cpu_s(*redis)
    requests = wrk(each.port, script(each.cookie, head, path), seconds).requests
    found = {f"{head}_us": (cpu_s(*each.pids) - before) / requests * 1e6}
    if redis:
        found["redis_us"] = (cpu_s(*redis) - before_redis) / requests * 1e6
    return found
