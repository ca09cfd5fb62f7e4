"""Redis goes away under load and comes back: who is served, who waits, who is signed out (nobody).

`make bench-redis-down`, or ``python -m bench.redis_down [--short]``. Access tokens of 20 s, Redis away for 30 s,
three replicas, a steady load. Two ways to be away: *stopped* (connections are refused; it comes back with
its data) and *frozen* (connections stand and nothing answers, as in a partition).

What must hold for every single request meanwhile:

- a session that its replica knows, with a live access token: answered by the app
- the same once that token is over: 503 with Retry-After
- a session that its replica does not know: 503 with Retry-After
- nobody is redirected to a sign-in, no cookie is cleared
- a request that begins a second after Redis's return, or later, is served, and in the end nobody is
  signed out. (A Redis that was started anew may have lost writes: for two seconds no tokens are renewed, so that
  whoever remembers such a write can repeat it first. Requests with an expired token wait that long.)
"""

from __future__ import annotations

import argparse
import http.client
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.report import Report
from tests.op.scripted import Rotation, ScriptedOP
from tests.redis.servers import RedisServer, redis_server
from tests.scenarios.browser import NAVIGATION, Browser
from tests.scenarios.house import House

REPLICAS, KNOWN, STRANGERS = 3, 9, 3

EVERY_S = 0.1
"""Pause of each person between two requests."""

EDGE_S = 1.0
"""A token this near to its end counts as neither alive nor over."""

RECOVERY_S = 1.0
SHORT_RECOVERY_S = 15.0
"""Bounds; the short version runs among the tests, which measure no speed."""


@dataclass(frozen=True)
class Seen:
    """One request: when it began and ended, what it got, and until when its person's token lived (OP's books)."""

    began: float
    ended: float
    status: int
    retry_after: bool
    touched_cookie: bool
    token_until: float


class Visitor(threading.Thread):
    """A person who asks the same replica again and again, on one connection, as a page load."""

    def __init__(self, house: House, browser: Browser, replica: int, going: threading.Event) -> None:
        super().__init__(daemon=True)
        self._house, self._browser, self._going = house, browser, going
        self._port = house.replicas[replica].port
        self._connection: http.client.HTTPConnection | None = None
        self.token_until = 0.0
        self.seen: list[Seen] = []
        self.errors = 0

    def run(self) -> None:
        while not self._going.is_set():
            began = time.monotonic()
            try:
                self._ask(began)
            except (OSError, http.client.HTTPException):
                self.errors += 1
                self._connection = None
            self._going.wait(EVERY_S)

    def _ask(self, began: float) -> None:
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        until = self.token_until
        fields = {"Host": urlsplit(self._browser.url).netloc, "Cookie": self._browser.cookie, **NAVIGATION}
        self._connection.request("GET", "/page", headers=fields)
        response = self._connection.getresponse()
        body = response.read()
        if response.status == 200:
            self.token_until = self._lives_until(body)
        if response.will_close:
            self._connection = None
        self.seen.append(
            Seen(
                began,
                time.monotonic(),
                response.status,
                int(response.getheader("Retry-After") or 0) >= 1,
                bool(response.getheader("Set-Cookie")),
                until,
            )
        )

    def _lives_until(self, body: bytes) -> float:
        token = body.partition(b'"x-forwarded-access-token", "')[2].partition(b'"')[0].decode()
        return self._house.op.expires_at(token) - self._house.op.now() + time.monotonic()


def away(
    report: Report, redis: RedisServer, how: str, away_s: float, life_s: float, recovery_s: float
) -> list[object]:
    """One outage; a row of the table."""
    redis.do("FLUSHALL")
    op = ScriptedOP()
    op.rotation = Rotation("family_revoke")
    with (
        tempfile.TemporaryDirectory(prefix="nightporter-redis-down-") as home,
        House(Path(home), replicas=REPLICAS, store=redis.url, op=op, life_s=life_s) as house,
    ):
        going = threading.Event()
        known = [
            Visitor(house, house.somebody(f"known-{n}", replica=n % REPLICAS), n % REPLICAS, going)
            for n in range(KNOWN)
        ]
        # Signed in at the next replica; the one that they ask has never seen them.
        strangers = [
            Visitor(house, house.somebody(f"stranger-{n}", replica=(n + 1) % REPLICAS), n % REPLICAS, going)
            for n in range(STRANGERS)
        ]
        for visitor in known:
            visitor.start()
        _wait(lambda: all(len(visitor.seen) > 5 for visitor in known))
        gone = time.monotonic()
        redis.stop() if how == "stopped" else redis.freeze()
        for visitor in strangers:
            visitor.start()
        threading.Event().wait(away_s)
        starting = time.monotonic()  # it may answer before we know
        redis.start() if how == "stopped" else redis.thaw()
        returned = time.monotonic()
        _wait(lambda: all(v.seen and v.seen[-1].status == 200 for v in (*known, *strangers)))
        threading.Event().wait(2.0)
        going.set()
        for visitor in (*known, *strangers):
            visitor.join(70)
        signed_out = sum(
            visitor._browser.get("/after", replica=n % REPLICAS).status != 200
            for n, visitor in enumerate((*known, *strangers))
        )
        return _judge(report, how, known, strangers, gone, starting, returned, signed_out, op, recovery_s)


def _judge(
    report: Report,
    how: str,
    known: list[Visitor],
    strangers: list[Visitor],
    gone: float,
    starting: float,
    returned: float,
    signed_out: int,
    op: ScriptedOP,
    recovery_s: float,
) -> list[object]:
    def meanwhile(visitors: list[Visitor]) -> list[Seen]:
        return [s for v in visitors for s in v.seen if s.began > gone and s.ended < starting]

    def back(visitors: list[Visitor]) -> float:
        """Requests that begin this long after the return, or later, are all served."""
        refused = [s.began - returned for v in visitors for s in v.seen if s.status != 200]
        return max(0.0, max(refused, default=0.0))

    def waited(visitors: list[Visitor]) -> float:
        """The longest that a request took which began after the return."""
        return max((s.ended - s.began for v in visitors for s in v.seen if s.began >= returned), default=0.0)

    during = meanwhile(known)
    live = [s for s in during if s.ended < s.token_until - EDGE_S]
    over = [s for s in during if s.began > s.token_until + EDGE_S]
    unknown = meanwhile(strangers)
    everything = [s for v in (*known, *strangers) for s in v.seen if s.began > gone]
    unserved = sum(s.status != 200 for s in live)
    uncalm = sum(s.status != 503 or not s.retry_after for s in (*over, *unknown))
    redirects = sum(300 <= s.status < 400 or s.status == 401 for s in everything)
    cookies = sum(s.touched_cookie for s in everything)
    errors = sum(v.errors for v in (*known, *strangers))
    recovery = max(back(known), back(strangers))
    for name, found in {
        "live sessions not served": unserved,
        "503 expected, something else came": uncalm,
        "sent to a sign-in": redirects,
        "cookies touched": cookies,
        "connections broken": errors,
        "signed out": signed_out,
        "invalid_grant": op.invalid_grant,
    }.items():
        report.bound(f"{how}: {name}", found, 0)
    report.bound(f"{how}: recovery in s", round(recovery, 2), recovery_s)
    for name, group in (("live", live), ("unknown", unknown)):
        if not group:
            report.failed.append(f"{how}: no request of the kind {name!r} was made")
    patience = max((s.ended - s.began for s in live), default=0.0)
    slowest = max((s.ended - s.began for s in unknown), default=0.0)
    return [
        how, len(live), unserved, len(over) + len(unknown), uncalm, redirects + cookies,
        f"{patience:.2f} s", f"{slowest:.1f} s", f"{recovery:.2f} s", f"{waited([*known, *strangers]):.1f} s", signed_out,
    ]  # fmt: skip


def _wait(check: Callable[[], bool], limit_s: float = 60.0) -> None:
    end, pause = time.monotonic() + limit_s, threading.Event()
    while not check() and time.monotonic() < end:
        pause.wait(0.02)


def run(*, short: bool = False) -> Report:
    """Measure and print."""
    report = Report()
    away_s, life_s = (4.0, 6.0) if short else (30.0, 20.0)
    with redis_server({"appendonly": "yes", "appendfsync": "everysec"}) as redis:
        ways = ["stopped"] if short else ["stopped", "frozen"]
        limit_s = SHORT_RECOVERY_S if short else RECOVERY_S
        rows = [away(report, redis, how, away_s, life_s, limit_s) for how in ways]
    print(f"Redis away for {away_s:g} s, access tokens live {life_s:g} s, {REPLICAS} replicas")
    report.table(
        [
            "Redis is",
            "live",
            "not served",
            "to be calmed",
            "not calmed",
            "redirects, cookies",
            "slowest live",
            "slowest 503",
            "refused after",
            "waited after",
            "signed out",
        ],
        rows,
    )
    return report


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--short", action="store_true", help="4 s instead of 30, stopped only")
    sys.exit(run(short=arguments.parse_args().short).status)
