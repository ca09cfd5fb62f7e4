"""Everything at once, at random, against a real process: people ask in bursts, time passes, the OP fails in
all its ways, the store goes away, the process is stopped and started. A failing seed is its own replay.

Two providers. One repeats its answer to a token for ever, so that *no* fault, not even a kill in the middle of
a call, may cost a session. One kills the family at the second use of a token; there the faults are
those that leave the token unconsumed, and no token may ever come twice.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.op.scripted import Rotation, Script
from tests.scenarios.browser import Browser, burst
from tests.scenarios.house import House, until

STEPS = 40

HARMLESS = (
    Script(process=False, status=500, body="oops"),
    Script(process=False, status=503, body='{"error": "temporarily_unavailable"}'),
    Script(process=False, status=429, headers={"Retry-After": "20"}, body=""),
    Script(process=False, status=401, body='{"error": "invalid_client"}'),
    Script(process=False, status=400, body='{"error": "nobody_knows"}'),
    Script(process=False, status=403, body="<html>blocked</html>", headers={"Content-Type": "text/html"}),
    Script(process=False, body='{"access_token": "at-cut", "tok'),
    Script(cut="at_once"),
    Script(cut="at_once", reset=True),
    Script(delay_s=0.3),
)
"""The token is as good afterwards as it was before."""

CONSUMING = (
    Script(cut="unanswered"),
    Script(cut="unanswered", reset=True),
    Script(cut="mid_head"),
    Script(cut="mid_body"),
    Script(status=502, body="<html>bad gateway</html>", headers={"Content-Type": "text/html"}),
    Script(body="{}"),
    Script(reply_delay_s=0.3),
)
"""The OP acts on the token, and the reply is lost, spoilt or late."""


class Monkey:
    """Does one thing after another; whatever it does, nobody may be sent to sign in."""

    def __init__(self, home: Path, house: House, seed: int, *, strict: bool) -> None:
        self.home = home
        self.house = house
        self.chance = random.Random(seed)
        self.strict = strict
        self.people = [house.somebody(f"user-{n}") for n in range(4)]
        self.jars = [dict(person.jar) for person in self.people]
        self.did: list[str] = []

    def step(self) -> None:
        does = self.chance.choices(
            [self.ask, self.pass_time, self.fail, self.lose_store, self.restart, self.lose_op],
            [40, 25, 20, 5, 5, 5],
        )[0]
        self.did.append(does.__name__)
        does()

    def ask(self) -> None:
        count = self.chance.choice([1, 2, 10, 40])
        some = self.chance.sample(self.people, self.chance.randint(1, len(self.people)))
        for n, reply in enumerate(burst(some, count, navigation=self.chance.random() < 0.5)):
            assert reply.status in (200, 503), (reply.status, reply.headers, reply.body[:300])
            assert not reply.all("set-cookie")
            if reply.status == 200:
                assert reply.user == self.name(some[n % len(some)])
            else:
                assert reply.get("retry-after")

    def name(self, person: Browser) -> str:
        return f"user-{self.people.index(person)}"

    def pass_time(self) -> None:
        self.house.advance(self.chance.choice([1, 10, 30, 61, 240, 260, 300, 3600]))

    def fail(self) -> None:
        faults = HARMLESS if self.strict else HARMLESS + CONSUMING
        for _ in range(self.chance.choice([1, 1, 2, 5])):
            self.house.op.script_next(self.chance.choice(faults), "refresh")

    @contextlib.contextmanager
    def store_away(self) -> Iterator[None]:
        there, away = self.home / "sessions.db", self.home / "sessions.away"
        there.rename(away)
        yield
        away.rename(there)

    def lose_store(self) -> None:
        with self.store_away():
            self.ask()
            self.pass_time()
            self.ask()

    def lose_op(self) -> None:
        self.house.op.refuse()
        self.house.op.hang_up()
        self.ask()
        self.house.op.accept()

    def restart(self) -> None:
        if self.strict or self.chance.random() < 0.5:
            assert self.house.replica.stop() == 0
        else:
            waiting = [person.send("/killed") for person in self.people]
            self.house.replica.kill()
            for sock in waiting:
                sock.close()
        self.house.replica.start()

    def all_is_well(self) -> None:
        """Nothing fails any more: everybody is in, with the cookie of the first day."""
        self.house.op.reset()
        self.house.op.rotation = ROTATION[self.strict]
        self.house.advance(120)
        for n, person in enumerate(self.people):
            until(lambda person=person: person.get("/well").status == 200)
            assert person.get("/well").user == f"user-{n}"
            assert person.jar == self.jars[n]
        for _ in range(2):
            self.house.expire()
            assert {reply.status for reply in burst(self.people, 20)} == {200}


ROTATION = {True: Rotation("family_revoke"), False: Rotation("idempotent", 1e12)}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("strict", [True, False], ids=["punishing", "repeating"])
def test_i5_i6_whatever_happens_nobody_is_asked_to_sign_in_again(
    tmp_path: Path, seed: int, strict: bool
) -> None:
    reuse = "punished" if strict else "idempotent"
    journal = tmp_path / "journal"
    journal.mkdir(mode=0o700)
    env = {"NIGHTPORTER_REFRESH_REUSE": reuse, "NIGHTPORTER_JOURNAL_DIR": str(journal)}
    with House(tmp_path, env=env) as house:
        house.op.rotation = ROTATION[strict]
        monkey = Monkey(tmp_path, house, seed, strict=strict)
        try:
            for _ in range(STEPS):
                monkey.step()
            monkey.all_is_well()
        except AssertionError as error:
            raise AssertionError(json.dumps(monkey.did)) from error
        assert (house.op.reuse_events, house.op.invalid_grant) == (0, 0)
        assert not any(line.get("level") == "error" and "exception" in line for line in house.replica.logs())
