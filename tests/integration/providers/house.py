"""The whole product below its listeners, joined as in production, against OPs on loopback sockets.

Pages are called as the ASGI app they are; requests to the app are asked of the session that their
cookie opens. The clock is one that a test moves, together with the OPs'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from proxy.app import Base, Parts, join, pages
from proxy.config import Secret, Settings, Several
from proxy.core.gate import Standing
from proxy.core.seal import b64, random_id
from proxy.shell.background import Background
from proxy.shell.clock import StoreTime
from proxy.shell.keeper import RefreshResult
from proxy.shell.open_session import OpenSession
from proxy.shell.store.memory import MemoryStore
from proxy.shell.store.timed import TimedStore
from proxy.shell.telemetry import Telemetry
from tests.integration.op.support import MovableClock
from tests.integration.pages.house import Browser, Reply
from tests.op.scripted import CLIENT_ID, CLIENT_SECRET, ScriptedOP

T = TypeVar("T")
APP = "https://app.example.com"


def settings_for(op: ScriptedOP, /, **changes: Any) -> Settings:
    """Settings for one OP; straight, because a profile's own issuer is not on this machine."""
    given: dict[str, Any] = {
        "issuer": op.issuer,
        "client_id": op.client_id,
        "client_secret": Secret(op.client_secret),
        "upstream": "http://127.0.0.1:9",
        "public_urls": (APP,),
        "cookie_keys": Secret(b64(bytes(range(32))).decode()),
    }
    return Settings(**{**given, **changes})


class Joined:
    """One replica.

    Args:
        settings: as loaded.
        ops: whose clocks move with ours.
    """

    def __init__(self, settings: Settings, *ops: ScriptedOP) -> None:
        self.ops = ops
        self.clock = MovableClock()
        telemetry = Telemetry(lambda line: None)
        store = TimedStore(MemoryStore(self.clock.now), telemetry.store)
        clock: Any = self.clock
        self.base = Base(clock, StoreTime(clock), store, None, telemetry, Background(), random_id())
        self.parts: Parts = join(settings, self.base)
        self.app: Any = pages(self.parts)

    def reconfigure(self, settings: Settings) -> None:
        self.parts = join(settings, self.base, self.parts)
        self.app = pages(self.parts)

    def advance(self, seconds: float) -> None:
        self.clock.off_s += seconds
        for op in self.ops:
            op.advance(seconds)

    def browser(self, host: str = "app.example.com") -> Browser:
        return Browser(self.app, host)

    async def close(self) -> None:
        await self.parts.flights.drain(5.0)
        await self.base.background.drain(5.0)
        for provider in self.parts.providers.values():
            await provider.op.close()

    # -- a person --

    async def go(self, op: ScriptedOP, browser: Browser, location: str) -> Reply:
        """From the OP's authorization address to our answer to the callback."""
        browser.app = self.app
        back = await asyncio.get_running_loop().run_in_executor(None, op.code_for, location)
        target = dict(parse_qsl(urlsplit(location).query))["redirect_uri"]
        return await browser.get(f"{target}?{urlencode(back)}")

    async def sign_in(self, op: ScriptedOP, browser: Browser, **query: str) -> Reply:
        """The whole way; our answer to the callback."""
        browser.app = self.app
        there = await browser.get(f"/oauth2/login?{urlencode(query)}")
        assert there.status == 302, there.text
        return await self.go(op, browser, there["location"])

    async def session(self, browser: Browser) -> OpenSession | None:
        """What the browser's cookie opens, read from the store."""
        line = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        origin = self.parts.origins.of(browser.host.encode())
        return await self.parts.sessions.open(origin, line.encode())

    async def open(self, browser: Browser) -> OpenSession:
        session = await self.session(browser)
        assert session is not None, "signed out"
        return session

    def headers(self, session: OpenSession) -> dict[str, str]:
        """The identity headers that the app gets."""
        lines = session.forward.identity.decode().split("\r\n")
        return {name: value for name, _, value in (line.partition(": ") for line in lines) if name}

    async def ask(self, browser: Browser) -> RefreshResult | None:
        """One request of the browser to the app: renews what is expired. None = its token is alive."""
        session = await self.open(browser)
        if self.parts.keeper.standing(session) in (Standing.LIVE, Standing.DUE):
            return None
        return await self.parts.keeper.renew(session)

    async def expire(self, browser: Browser) -> None:
        """Let the access token's life run out."""
        session = await self.open(browser)
        self.advance(session.tokens.expires_at - self.clock.now() + 1)

    async def settled(self) -> None:
        """Let what runs behind the requests come to its end."""
        await self.parts.flights.drain(10.0)
        await self.base.background.drain(10.0)


def run(house: Callable[[], Joined], test: Callable[[Joined], Coroutine[Any, Any, T]]) -> T:
    """Run a test in a loop of its own, with a replica made in it."""

    async def main() -> T:
        made = house()
        try:
            return await test(made)
        finally:
            await made.close()

    return asyncio.run(main())


def several(base: Settings, **ops: tuple[ScriptedOP, dict[str, Any]]) -> Settings:
    """Settings with several providers; each OP with what differs."""
    from msgspec.structs import replace

    made: dict[str, Several] = {}
    for name, (op, changes) in ops.items():
        choice = {key: changes.pop(key) for key in ("title", "hosts", "paths") if key in changes}
        given = {"issuer": op.issuer, "client_id": CLIENT_ID, "client_secret": Secret(CLIENT_SECRET)}
        made[name] = Several(settings=replace(base, **{**given, **changes}), **choice)
    return replace(base, providers=made)
