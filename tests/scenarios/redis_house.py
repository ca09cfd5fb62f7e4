"""`RedisHouse`: several replicas on one real Redis, a fault proxy before each of them, and time that moves.

It is a `House`; besides::

    house.proxies[1].next("commit", lose_reply=True)      # see tests/redis/faults.py
    house.advance(21)                                     # replicas, OP and the store's time together
    house.overtake(0)                                     # replica 0 is frozen, its lease runs out

Starting replicas costs most of a test's time, so they stay from test to test (`conftest.py`): `renew`
makes the house as new. A test may kill, freeze and cut off whatever it likes.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tests.op.scripted import Call, Rotation, ScriptedOP
from tests.redis.faults import FaultProxy
from tests.redis.servers import RedisServer
from tests.scenarios.browser import Reply
from tests.scenarios.house import House, until

LEASE_S = 20.0
"""Life of a lease that nobody renews."""

HEARD_S = 20.0
"""Shorter than a cache believes. A sign-out is promised everywhere within a second; no test measures speed."""

ALL = (0, 1, 2)


class RedisHouse(House):
    """See the module's docstring.

    Args:
        home: an empty directory.
        redis: a running server; what it holds is flushed by `renew`.
    """

    def __init__(
        self,
        home: Path,
        redis: RedisServer,
        *,
        replicas: int = 3,
        op: ScriptedOP | None = None,
        life_s: float | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.redis = redis
        self.proxies = [FaultProxy(redis.port).__enter__() for _ in range(replicas)]
        try:
            super().__init__(
                home,
                replicas=replicas,
                store=[redis.url_at(proxy.port) for proxy in self.proxies],
                op=op,
                life_s=life_s,
                clock="movable",
                env=env,
            )
        except BaseException:
            self._end_proxies()
            raise

    def advance(self, seconds: float) -> None:
        """Between two commands: no answer of the store's may tell one replica a time that is past."""
        with contextlib.ExitStack() as stack:
            for proxy in self.proxies:
                stack.enter_context(proxy.between_commands())
            for replica in self.replicas:
                if replica.running and not _stopped(replica.pid):
                    with contextlib.suppress(OSError):  # it is on its way out
                        replica.operations("/livez")  # its loop has been round: it has read what came
            super().advance(seconds)
            for proxy in self.proxies:
                proxy.ahead_s = self._ahead_s

    def end(self) -> None:
        for replica in self.replicas:
            if replica.running:
                replica.resume()
        super().end()
        self._end_proxies()

    def _end_proxies(self) -> None:
        for proxy in self.proxies:
            proxy.__exit__()

    def renew(self) -> None:
        """Mend whatever a test broke, forget what it did."""
        for proxy in self.proxies:
            proxy.forget()
            proxy.cut()  # and with it what a gate still holds
        for replica in self.replicas:
            if replica.running:
                replica.resume()
            else:
                replica.begin()
        for replica in self.replicas:
            until(replica.ready)
            replica.step_wall(0)
        self.advance(120)  # whatever one was told to wait for is over
        self.redis.do("FLUSHALL")
        self.app.seen.clear()
        self.app.answers.clear()
        reset(self.op)

    # -- what tests do again and again --

    def overtake(self, holder: int) -> None:
        """The holder stands still (as in a suspended machine) until its lease is over."""
        self.replicas[holder].pause()
        until(lambda: _stopped(self.replicas[holder].pid))
        self.advance(LEASE_S + 1)

    def calls(self) -> list[Call]:
        return self.op.refreshes()

    def answered(self, n: int) -> None:
        """Wait until the OP has acted on the `n`-th refresh (from 1)."""
        until(lambda: len(self.calls()) >= n and self.calls()[n - 1].outcome)

    def refused_everywhere(self, jar: Mapping[str, str]) -> set[str]:
        """Wait until a cookie opens nothing at any replica, and no renewal is tried for it; the reasons.

        A replica may not have heard it yet, and a busy machine may take a store for absent.
        """
        calls, reasons, end = len(self.calls()), set[str](), time.monotonic() + HEARD_S
        old = self.browser()
        old.jar = dict(jar)
        for n in range(len(self.replicas)):

            def refused(n: int = n) -> bool:
                reply = old.get("/b", replica=n)
                if reply.status == 401:
                    reasons.add(reply.json["reason"])
                return reply.status == 401

            until(refused, end - time.monotonic())
            assert old.get("/b", replica=n).status in (401, 503), "it was let in again"
        assert len(self.calls()) == calls
        return reasons

    def nobody_was_punished(self) -> None:
        assert (self.op.invalid_grant, self.op.reuse_events) == (0, 0)

    def metric(self, name: str, **labels: str) -> float:
        """Over all replicas that run."""
        return sum(replica.metric(name, **labels) for replica in self.replicas if replica.running)


def _stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")


def reset(op: ScriptedOP) -> None:
    """All knobs of an OP as they were, its books empty."""
    op.accept()
    op.rotation = Rotation("rotate")
    op.old_at_dies = False
    op.at_life_s = 300.0
    op.expires_in = ...
    op.rt_in_reply = "new"
    op.id_token_on_refresh = True
    op.nonce_on_refresh = "absent"
    op.change_id_token = None
    op.always.clear()
    op.forget_scripts()
    op.ledger.clear()
    op.hits.clear()
    op.requests.clear()
    op.revoked.clear()
    op.invalid_grant = op.reuse_events = 0


def reply_of(sock: socket.socket) -> Reply:
    """The answer to what `Browser.send` sent."""
    with sock:
        response = http.client.HTTPResponse(sock)
        response.begin()
        return Reply(response.status, response.getheaders(), response.read())
