"""Refresh storms over several replicas on one Redis, at an OP that forgives nothing.

`make bench-storm`, or ``python -m bench.storm [--short]``. The OP rotates refresh tokens without grace, kills the
family when a consumed one comes back, and ends the old access token with each rotation. Real processes,
real Redis, real time. Per line: what was done to ten people, how many token calls that cost, how many
were refused, and who was signed out then or at the next expiry.

- storm: 64 requests of each person at the moment of expiry, spread over the replicas
- hang up: each person's one request starts the renewal, and its connection is closed while the OP thinks
- kill: one replica gets SIGKILL between two storms, while renewals behind requests go on. What that
  admits is the loss of a rotation that the OP had done and the dead process had not written: counted from
  the OP's books, and nobody else may be lost.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.report import Report
from tests.op.scripted import Rotation, Script, ScriptedOP
from tests.redis.servers import RedisServer, redis_server
from tests.scenarios.browser import Browser, Reply, burst
from tests.scenarios.house import House, until

PEOPLE, REQUESTS = 10, 64


class Stage:
    """Replicas, the strict OP, ten people."""

    def __init__(self, home: Path, redis: RedisServer, replicas: int, takes_s: float) -> None:
        op = ScriptedOP()
        op.rotation = Rotation("family_revoke")
        op.old_at_dies = True
        self.life_s = 6.0 + 2 * takes_s
        self.house = House(home, replicas=replicas, store=redis.url, op=op, life_s=self.life_s)
        self.op = op
        self.all = tuple(range(replicas))
        self.reasons: list[str] = []
        self.people = [self.house.somebody(f"user-{n}") for n in range(PEOPLE)]
        self.slow = Script(reply_delay_s=takes_s)  # processed at once, answered late: the worst order

    def expire(self) -> None:
        """Wait until the last token that was issued is over."""
        last = max(call.at for call in self.op.ledger if call.outcome == "issued")
        pause = threading.Event()
        while (left := last + self.life_s + 0.3 - self.op.now()) > 0:
            pause.wait(left)

    def calls(self) -> int:
        return len(self.op.refreshes())

    def lost(self, replicas: Sequence[int] | None = None) -> int:
        """People who are signed out, found out at the next expiry; why is in `reasons`."""
        replicas = replicas or self.all
        self.op.always.clear()
        self.expire()
        burst(self.people, PEOPLE * 2, replicas=replicas)
        count = 0
        for n, person in enumerate(self.people):
            last: list[Reply] = []

            def decided(person: Browser = person, last: list[Reply] = last) -> bool:
                last.append(person.get("/after", replica=replicas[-1]))
                return last[-1].status != 503  # not answered and not refused: asked again, as a browser does

            until(decided, 200)
            if last[-1].status != 200:
                count += 1
                self.reasons.append(str(last[-1].json.get("reason")))
                self.op.user = {**self.op.user, "sub": f"user-{n}", "email": f"user-{n}@example.com"}
                person.sign_in(replica=replicas[-1])  # counted; the next storm is for everybody again
        return count

    def wrong(self, replies: Sequence[Reply]) -> int:
        """Answers that are none, or somebody else's."""
        return sum(
            reply.status != 200 or reply.user != f"user-{n % PEOPLE}" for n, reply in enumerate(replies)
        )


@contextlib.contextmanager
def stage(redis: RedisServer, replicas: int, takes_s: float) -> Iterator[Stage]:
    redis.do("FLUSHALL")
    with tempfile.TemporaryDirectory(prefix="nightporter-storm-") as home:
        made = Stage(Path(home), redis, replicas, takes_s)
        try:
            yield made
        finally:
            made.house.end()


def storms(report: Report, at: Stage, count: int, name: str) -> list[object]:
    """`count` storms, each at an expiry, and who is lost afterwards."""
    calls = wrong = 0
    slowest = 0.0
    refused = at.op.invalid_grant
    for _ in range(count):
        at.op.always["refresh"] = at.slow
        at.expire()
        before, began = at.calls(), time.monotonic()
        replies = burst(at.people, PEOPLE * REQUESTS, replicas=at.all)
        slowest = max(slowest, time.monotonic() - began)
        calls += at.calls() - before
        wrong += at.wrong(replies)
        at.reasons += [str(reply.json.get("reason")) for reply in replies if reply.status != 200]
    lost = at.lost()
    report.bound(f"{name}: token calls", calls, PEOPLE * count, exactly=True)
    report.bound(f"{name}: wrong answers", wrong, 0)
    report.bound(f"{name}: invalid_grant", at.op.invalid_grant - refused, 0)
    report.bound(f"{name}: lost at the next expiry", lost, 0)
    requests = PEOPLE * REQUESTS * count
    return [name, requests, wrong, calls, at.op.invalid_grant - refused, lost, f"{slowest:.1f} s"]


def hang_up(report: Report, at: Stage, name: str) -> list[object]:
    """Everybody starts a renewal and leaves."""
    at.op.always["refresh"] = at.slow
    refused = at.op.invalid_grant
    at.expire()
    before = at.calls()
    sockets = [person.send("/a", replica=at.all[n % len(at.all)]) for n, person in enumerate(at.people)]
    until(lambda: at.calls() >= before + 1)
    for sock in sockets:
        sock.close()
    until(lambda: at.calls() == before + PEOPLE)
    calls = at.calls() - before
    lost = at.lost()
    report.bound(f"{name}: lost at the next expiry", lost, 0)
    report.bound(f"{name}: invalid_grant", at.op.invalid_grant - refused, 0)
    return [name, PEOPLE, "-", calls, at.op.invalid_grant - refused, lost, "-"]


def kill(report: Report, at: Stage, name: str) -> list[object]:
    """SIGKILL for one replica while people use the app and tokens are renewed behind their requests."""
    victim = 0
    others = [n for n in at.all if n != victim]
    at.op.always["refresh"] = at.slow
    refused, before = at.op.invalid_grant, at.calls()
    burst(at.people, PEOPLE * REQUESTS, replicas=at.all)
    killed, enough = threading.Event(), threading.Event()
    faults: list[int] = []

    def use(person: Browser, n: int) -> None:
        while not enough.wait(0.05):
            alive = others if killed.is_set() else at.all
            try:
                reply = person.get("/use", replica=alive[n % len(alive)])
            except (OSError, http.client.HTTPException):
                continue  # it died under the request
            if reply.status not in (200, 503):
                faults.append(reply.status)

    users = [threading.Thread(target=use, args=(person, n)) for n, person in enumerate(at.people)]
    for user in users:
        user.start()
    until(lambda: at.calls() > before + PEOPLE + PEOPLE // 2, 120)
    killed.set()
    # What the dying process may take along: processed, and not yet answered.
    now = at.op.now()
    in_flight = sum(now - call.at < at.slow.reply_delay_s for call in at.op.refreshes())
    at.house.replicas[victim].kill()
    after = at.calls()
    until(lambda: at.calls() > after + PEOPLE, 200)
    enough.set()
    for user in users:
        user.join(60)
    lost = at.lost(others)
    at.house.replicas[victim].start()
    report.bound(f"{name}: lost beyond what was in flight", lost, in_flight)
    report.bound(f"{name}: signed out while in use, of those lost", len(faults) > 0, lost > 0)
    refused = at.op.invalid_grant - refused
    report.bound(f"{name}: invalid_grant", refused, in_flight)
    return [name, "-", "-", at.calls() - before, refused, f"{lost} of {in_flight} admitted", "-"]


def run(*, short: bool = False) -> Report:
    """Measure and print."""
    report = Report()
    rows: list[list[object]] = []
    cases = [(2, 0.3)] if short else [(2, 0.3), (3, 0.3), (2, 3.0), (3, 3.0)]
    with redis_server() as redis:
        for replicas, takes_s in cases:
            with stage(redis, replicas, takes_s) as at:
                label = f"{replicas} replicas, OP takes {takes_s:g} s"
                rows.append(storms(report, at, 1 if short else 3, f"{label}: storm"))
                rows.append(hang_up(report, at, f"{label}: hang up"))
                if not short:
                    rows.append(kill(report, at, f"{label}: kill"))
                    rows.append(storms(report, at, 1, f"{label}: storm after the kill"))
                if at.reasons:
                    print(f"{label}: not served because {dict(Counter(at.reasons))}")
    report.table(
        ["", "requests", "not 200", "token calls", "invalid_grant", "lost at next expiry", "slowest storm"],
        rows,
    )
    return report


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--short", action="store_true", help="one storm, two replicas")
    sys.exit(run(short=arguments.parse_args().short).status)
