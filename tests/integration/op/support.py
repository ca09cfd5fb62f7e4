"""What the OP client's tests share: a client for a test OP, a clock to move, whole sign-ins without a
browser."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from proxy.core.identity import ClaimRules, identity_of, merged, needs_userinfo
from proxy.core.login import Flow, check_callback, single
from proxy.core.providers import PROFILES
from proxy.core.seal import random_id, random_token
from proxy.core.session import Identity
from proxy.core.token_reply import Issued, RawReply, Refused, judge
from proxy.errors import LoginError
from proxy.shell.op_client import OPClient, OPConfig
from tests.op.scripted import CLIENT_ID, CLIENT_SECRET, REDIRECT_URI, ScriptedOP

T = TypeVar("T")

SCOPES = ("openid", "profile", "email", "offline_access")
GENERIC = PROFILES["generic"]
RULES = ClaimRules(GENERIC)


@dataclass
class MovableClock:
    """The machine's time, and what a test adds to it."""

    off_s: float = 0.0

    def now(self) -> float:
        return time.time() + self.off_s

    def monotonic(self) -> float:
        return time.monotonic() + self.off_s


class Refusal(Exception):
    """The token endpoint refused; `args[0]` is what was judged."""


@dataclass
class SignedIn:
    """A finished sign-in."""

    issued: Issued
    identity: Identity
    flow: Flow


class Person:
    """An OP client and somebody who signs in with it.

    Args:
        issuer: of the OP.
        config: further fields of `OPConfig`.
    """

    def __init__(self, issuer: str, **config: Any) -> None:
        known: dict[str, Any] = {
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "scopes": SCOPES,
            "timeout_s": 5.0,
        }
        self.clock = MovableClock()
        self.config = OPConfig(issuer=issuer, **{**known, **config})
        self.client = OPClient(self.config, self.clock)

    def flow(self) -> Flow:
        return Flow(random_id(), random_token(), random_token(), "/", self.clock.now(), "generic")

    async def sign_in(self, browse: Callable[[str], list[tuple[str, str]]]) -> SignedIn:
        """From the authorization URL to the identity, in the order in which the product does it.

        Args:
            browse: goes to the OP and brings back the callback's parameters.

        Raises:
            ProxyError: some check failed. Refusal: the token endpoint said no.
        """
        flow = self.flow()
        url = await self.client.authorization_url(flow, redirect_uri=REDIRECT_URI)
        back = await asyncio.get_running_loop().run_in_executor(None, browse, url)
        code = check_callback(single(back), flow, await self.client.metadata(), self.clock.now())
        reply = await self.client.redeem(code, flow.code_verifier, redirect_uri=REDIRECT_URI)
        return await self.take(reply, flow)

    async def take(self, reply: RawReply, flow: Flow) -> SignedIn:
        """What a token reply to this flow comes to."""
        issued = judge(reply, GENERIC, now=self.clock.now())
        if isinstance(issued, Refused):
            raise Refusal(issued)
        if not issued.id_token:
            raise LoginError("no_id_token", "")
        claims = await self.client.verify_id_token(
            issued.id_token,
            nonce=flow.nonce,
            access_token=issued.access_token,
            previous=None,
            now=self.clock.now(),
        )
        userinfo: dict[str, Any] | None = None
        if needs_userinfo(claims, SCOPES, RULES):
            userinfo = await self.client.userinfo(issued.access_token, claims["sub"])
        identity = identity_of(merged(claims, userinfo), RULES, self.clock.now(), nonce=flow.nonce)
        return SignedIn(issued, identity, flow)

    async def refresh(self, refresh_token: str) -> RawReply:
        call = await self.client.connect()
        try:
            return await call.refresh(refresh_token, last_check=lambda: True)
        finally:
            await call.aclose()

    async def verify_refreshed(self, issued: Issued, before: Identity) -> dict[str, Any]:
        return await self.client.verify_id_token(
            issued.id_token,
            nonce=None,
            access_token=issued.access_token,
            previous=before,
            now=self.clock.now(),
        )


def with_person(op: ScriptedOP, work: Callable[[Person], Coroutine[Any, Any, T]], **config: Any) -> T:
    """Run `work` with a client of this OP, in a loop of its own."""

    async def run() -> T:
        person = Person(op.issuer, **config)
        try:
            return await work(person)
        finally:
            await person.client.close()

    return asyncio.run(run())


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(url.partition("?")[2], keep_blank_values=True))


async def until(met: Callable[[], bool]) -> None:
    """Let the loop turn until something holds; the test's own time limit ends it otherwise."""
    while not met():
        await asyncio.sleep(0.001)
