"""What a request costs Redis, and what two processes cost beside one.

`make bench-warm`, or ``python -m bench.warm [ROUNDS] [SECONDS]``. Needs nginx, wrk and taskset. A warm request is
one whose session the process knows; a cold one is a session's first at this process (it reads the record and the
not-before marks of the person and of everybody, in one round trip). Commands are
counted by Redis (INFO), less what the same processes ask of it while idle (heartbeats).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.machine import LOAD_CORE, PROXY_CORE, cpu_s, described, pin
from bench.report import Report
from bench.stage import stage
from bench.wrk import Load, script, wrk
from tests.redis.servers import RedisServer, redis_server
from tests.scenarios.house import House

COLD = 200
WARM_COMMANDS, COLD_COMMANDS, COLD_TRIPS = 0.001, 3.0, 1.1
TWO_BESIDE_ONE = 1.35
"""Bounds. The processes share a core here, so that two also pay for switching between them."""


def counted(redis: RedisServer, work: Callable[[], int], idle: dict[str, float]) -> dict[str, float]:
    """Commands and round trips for each unit of work, less what idle processes ask for."""
    before, began = figures(redis), time.monotonic()
    units = work()
    took_s, after = time.monotonic() - began, figures(redis)
    return {name: max(0.0, after[name] - before[name] - idle[name] * took_s) / units for name in after}


def figures(redis: RedisServer) -> dict[str, float]:
    """So far: commands that clients sent, and times that Redis read from their connections."""
    with redis.client() as client:
        stats = client.info("all")
    sent = ("evalsha", "eval", "get", "mget", "publish", "info", "ping", "subscribe", "time", "wait")
    commands = sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in sent)
    return {"commands": float(commands), "round trips": float(stats["total_reads_processed"])}


def run(rounds: int, seconds: int) -> Report:
    """Measure and print."""
    report = Report()
    with (
        tempfile.TemporaryDirectory(prefix="nightporter-warm-") as folder,
        redis_server() as redis,
        stage(Path(folder)) as around,
        House(
            Path(folder) / "house",
            replicas=2,
            store=redis.url,
            life_s=36_000,
            upstream=f"http://127.0.0.1:{around.app_port}",
        ) as house,
    ):
        pin(LOAD_CORE, redis.pid)
        for replica in house.replicas:
            pin(PROXY_CORE, replica.pid)
        browser = house.browser()
        assert browser.visit("/page").status == 200
        load = script(browser.cookie, "browser", "")
        ports = [replica.port for replica in house.replicas]
        for port in ports:
            wrk(port, load, 1)

        idle_before, began = figures(redis), time.monotonic()
        threading.Event().wait(3.0)
        passed_s, idle_after = time.monotonic() - began, figures(redis)
        idle = {name: (idle_after[name] - idle_before[name]) / passed_s for name in idle_after}

        warm = counted(redis, lambda: wrk(ports[0], load, seconds).requests, idle)
        people = []
        for n in range(COLD):
            house.op.user = {**house.op.user, "sub": f"user-{n}"}
            person = house.browser()
            assert person.visit("/page", replica=0).status == 200
            people.append(person)

        def first_requests() -> int:
            for person in people:
                assert person.get("/page", replica=1).status == 200
            return len(people)

        cold = counted(redis, first_requests, idle)

        costs: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(rounds):
            for count in costs:
                pids = [replica.pid for replica in house.replicas[:count]]
                before = cpu_s(*pids)
                requests = sum(done.requests for done in together(ports[:count], load, seconds))
                costs[count].append((cpu_s(*pids) - before) / requests * 1e6)
    one, two = statistics.median(costs[1]), statistics.median(costs[2])
    report.bound("Redis commands a warm request", round(warm["commands"], 5), WARM_COMMANDS)
    report.bound("Redis commands a cold request", round(cold["commands"], 2), COLD_COMMANDS)
    report.bound("round trips a cold request", round(cold["round trips"], 2), COLD_TRIPS)
    report.bound("CPU of two processes beside one", round(two / one, 2), TWO_BESIDE_ONE)
    print(described())
    report.table(
        ["", "Redis commands", "round trips"],
        [
            ["warm request", f"{warm['commands']:.5f}", f"{warm['round trips']:.5f}"],
            ["cold request", f"{cold['commands']:.2f}", f"{cold['round trips']:.2f}"],
        ],
    )
    report.table(
        ["", "CPU µs/request", "beside one"],
        [["one process", f"{one:.1f}", "1.00"], ["two processes", f"{two:.1f}", f"{two / one:.2f}"]],
    )
    return report


def together(ports: list[int], load: str, seconds: int) -> list[Load]:
    """Load on several ports at once."""
    found: list[Load] = []
    threads = [
        threading.Thread(target=lambda port=port: found.append(wrk(port, load, seconds))) for port in ports
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(ports), "a load generator failed"
    return found


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("rounds", nargs="?", type=int, default=3)
    arguments.add_argument("seconds", nargs="?", type=int, default=4)
    given = arguments.parse_args()
    sys.exit(run(given.rounds, given.seconds).status)
