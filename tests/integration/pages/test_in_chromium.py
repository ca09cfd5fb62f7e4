"""The pages in a real browser, over real HTTP: they look right, and the policy lets the form work.

Set PAGES_SHOTS to a directory to keep a picture of every page.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from proxy.errors import StoreUnavailable
from proxy.shell.clock import SystemClock
from tests.integration.pages.house import House, PaperOP

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SHOTS = os.environ.get("PAGES_SHOTS", "")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium")


class Served:
    """A house on a loopback port, its OP on another, the provider behind that OP on a third."""

    def __init__(self, **settings: Any) -> None:
        self.sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        self.url, self.op_url, self.far_url = (
            f"http://127.0.0.1:{each.getsockname()[1]}" for each in self.sockets
        )
        self.house = House(PaperOP(issuer=self.op_url), url=self.url, clock=SystemClock(), **settings)
        self.server = uvicorn.Server(
            uvicorn.Config(self._answer, interface="asgi3", log_config=None, lifespan="off")
        )
        self.thread = threading.Thread(target=self._run)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        url = "http://" + dict(scope["headers"])[b"host"].decode()
        if url == self.url and scope["path"].startswith("/oauth2/"):
            await self.house.app(scope, receive, send)
            return
        query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
        to, body = "", "<title>The app</title>"
        match scope["path"]:
            case "/authorize":
                to = self.house.op.consents(f"{self.op_url}/authorize?{scope['query_string'].decode()}")
            case "/logout":
                # The OP signs out at the provider behind it before it sends the browser back.
                to = self.far_url + "/out?" + urlencode({"to": query["post_logout_redirect_uri"]})
            case "/out":
                to = query["to"]
            case "/evil":
                body = f'<form method="post" action="{self.url}/oauth2/logout"><button>Win</button></form>'
        headers = [(b"content-type", b"text/html"), *([(b"location", to.encode())] if to else [])]
        await send({"type": "http.response.start", "status": 302 if to else 200, "headers": headers})
        await send({"type": "http.response.body", "body": body.encode()})

    def _run(self) -> None:
        asyncio.run(self.server.serve(self.sockets))

    def __enter__(self) -> Served:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        for each in self.sockets:
            each.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def visitor(chromium: Browser, **options: Any) -> Iterator[tuple[Page, list[str]]]:
    """A page, and everything that its console complained about."""
    context: BrowserContext = chromium.new_context(**options)
    complaints: list[str] = []
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    try:
        yield page, complaints
    finally:
        context.close()


def test_sign_in_and_sign_out_by_hand(chromium: Browser) -> None:
    with Served() as served, visitor(chromium) as (page, complaints):
        page.goto(served.url + "/oauth2/login?rd=/hello")
        assert page.url == served.url + "/hello"
        page.goto(served.url + "/oauth2/logout")
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/oauth2/logged-out*")
        assert page.get_by_role("heading").inner_text() == "You are signed out"
        assert page.context.cookies() == []
        page.get_by_role("link", name="Sign in again").click()
        page.wait_for_url(served.url + "/")
        assert complaints == []


def test_pages_need_no_javascript(chromium: Browser) -> None:
    with Served() as served, visitor(chromium, java_script_enabled=False) as (page, _):
        page.goto(served.url + "/oauth2/login?rd=/hello")
        page.goto(served.url + "/oauth2/logout")
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/oauth2/logged-out*")


def test_a_foreign_page_cannot_sign_anybody_out(chromium: Browser) -> None:
    with Served() as served, visitor(chromium) as (page, _):
        page.goto(served.url + "/oauth2/login?rd=/hello")
        page.goto(served.far_url.replace("127.0.0.1", "localhost") + "/evil")
        page.get_by_role("button").click()
        page.wait_for_url("**/oauth2/logout")
        assert page.get_by_role("heading").inner_text() == "That did not come from here"
        page.goto(served.url + "/oauth2/session")
        assert "ada@example.com" in page.content()


# -- every page, looked at --


def _signed_in(page: Page, served: Served) -> None:
    page.goto(served.url + "/oauth2/login?rd=/hello")


def _op_away(page: Page, served: Served) -> None:
    served.house.op.away = True


def _store_away(page: Page, served: Served) -> None:
    served.house.store.away = True


def _off_the_list(page: Page, served: Served) -> None:
    served.house.op.claims |= {"email": "charles.babbage@difference-engine.example"}


def _declined(page: Page, served: Served) -> None:
    op = served.house.op
    consents = op.consents
    op.consents = lambda location: consents(location, error="access_denied", code="")


def _defect(page: Page, served: Served) -> None:
    async def breaks(*args: object) -> None:
        raise RuntimeError

    served.house.sessions.open = breaks


def _cannot_end(page: Page, served: Served) -> None:
    _signed_in(page, served)

    async def breaks(*args: object) -> None:
        raise StoreUnavailable("the plug is pulled")

    served.house.register.end = breaks


PAGES: list[tuple[str, Any, str, str]] = [
    ("sign-out", _signed_in, "/oauth2/logout", "Sign out?"),
    ("signed-out", None, "/oauth2/logged-out", "You are signed out"),
    ("still-signed-in", _signed_in, "/oauth2/logged-out", "You are signed in"),
    ("no-session", None, "/oauth2/logout", "You are not signed in"),
    ("link-too-old", None, "/oauth2/callback?state=x&code=y", "This sign-in link is no longer good"),
    ("declined", _declined, "/oauth2/login?rd=/x", "Sign-in declined"),
    ("not-allowed", _off_the_list, "/oauth2/login?rd=/x", "This account may not come in"),
    ("op-away", _op_away, "/oauth2/login?rd=/x", "We cannot sign you in just now"),
    ("store-away", _store_away, "/oauth2/session", "One moment, please"),
    ("not-found", None, "/oauth2/nothing", "There is nothing here"),
    ("defect", _defect, "/oauth2/logout", "Something broke on our side"),
    ("not-signed-out", _cannot_end, "/oauth2/logout", "You are still signed in"),
]

LOOKS: list[tuple[str, dict[str, Any]]] = [
    ("light", {"color_scheme": "light", "viewport": {"width": 1000, "height": 720}}),
    ("dark", {"color_scheme": "dark", "viewport": {"width": 1000, "height": 720}}),
    ("phone", {"color_scheme": "light", "viewport": {"width": 360, "height": 640}}),
]


@pytest.mark.parametrize(("name", "prepare", "path", "heading"), PAGES, ids=[page[0] for page in PAGES])
@pytest.mark.parametrize(("look", "options"), LOOKS, ids=[look[0] for look in LOOKS])
def test_every_page_shows_itself_whole(
    chromium: Browser, name: str, prepare: Any, path: str, heading: str, look: str, options: dict[str, Any]
) -> None:
    allow = ("example.com",) if name == "not-allowed" else ()
    with Served(allow=allow) as served, visitor(chromium, **options) as (page, complaints):
        if prepare is not None:
            prepare(page, served)
        if name == "store-away":
            page.context.add_cookies([{"name": "np", "value": _a_cookie(served), "url": served.url}])
        page.goto(served.url + path)
        if name == "not-signed-out":
            page.get_by_role("button", name="Sign out").click()
        page.get_by_role("heading", name=heading, exact=True).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        family = page.evaluate("getComputedStyle(document.querySelector('main')).borderRadius")
        assert family != "0px", "the style sheet was not applied"
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=f"{SHOTS}/{name}-{look}.png")
        # Chromium notes each 4xx and 5xx itself; anything else is the policy or a defect.
        assert [text for text in complaints if "the server responded with a status of" not in text] == []


def _a_cookie(served: Served) -> str:
    """A cookie that opens, of a session that only the store could tell about."""
    from proxy.core.seal import new_ticket

    origin = served.house.desk.origins.main
    return origin.ring.seal_ticket(origin.names.session, new_ticket(served.house.clock.now())).decode()
