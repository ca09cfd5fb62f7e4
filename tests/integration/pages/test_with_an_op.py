"""The whole way by HTTP, without a browser: the pages, the real OP client, a real (small) OP."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
import uvicorn

from proxy.demo.op import CLIENT_ID, DemoOP
from proxy.demo.rp import Client
from proxy.demo.visitor import PROGRAM, Form, Reply, Visitor, forms
from proxy.shell.clock import SystemClock
from proxy.shell.op_client import OPClient, OPConfig
from tests.integration.pages.house import House

SECRET = "canary-secret"


def form_of(page: Reply) -> Form:
    """The first form of a page, with the address it goes to."""
    form = forms(page.text)[0]
    form.action = urljoin(page.url, form.action)
    return form


class Listening:
    """An ASGI app on a loopback port."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def serve(self, app: Any) -> None:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        self._server = server
        self._thread = threading.Thread(target=lambda: asyncio.run(server.serve([self.socket])))
        self._thread.start()

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(10)
        self.socket.close()


class Town:
    """A house and an OP, each on its port."""

    def __init__(self) -> None:
        self.ours, self.theirs = Listening(), Listening()
        self.op = DemoOP(self.theirs.url, Client(CLIENT_ID, SECRET, self.ours.url), life_s=60)
        self.house = House(
            OPClient(
                OPConfig(
                    issuer=self.theirs.url,
                    client_id=CLIENT_ID,
                    client_secret=SECRET,
                    scopes=("openid", "profile", "email", "offline_access"),
                ),
                SystemClock(),
            ),
            url=self.ours.url,
            clock=SystemClock(),
            client_id=CLIENT_ID,
        )
        self.ours.serve(self.house.app)
        self.theirs.serve(self.op.asgi())

    def at(self, path: str) -> str:
        return f"{self.ours.url}/oauth2/{path}"

    def as_somebody(self, visitor: Visitor, page: Reply, name: str) -> Reply:
        """Fill in the OP's sign-in form; the callback's answer."""
        form = form_of(page)
        reply = visitor.post(form.action, {**form.fields, "name": name})
        assert reply.redirect.startswith(self.at("callback?"))
        return visitor.get(reply.redirect)


@pytest.fixture
def town() -> Iterator[Town]:
    made = Town()
    yield made
    made.ours.stop()
    made.theirs.stop()


def test_in_and_out(town: Town) -> None:
    ada = Visitor()
    there = ada.get(town.at("login?rd=/board?tab=2"))
    assert there.redirect.startswith(town.theirs.url + "/authorize?")
    back = town.as_somebody(ada, ada.follow(there), "Ada")
    assert back.redirect == town.ours.url + "/board?tab=2"
    told = ada.get(town.at("session"), PROGRAM)
    assert told.status == 200
    assert '"refreshable": true' in told.text
    assert told.text.count("Ada") >= 1

    page = ada.get(town.at("logout"))
    form = form_of(page)
    out = ada.post(form.action, form.fields)
    assert out.redirect.startswith(town.theirs.url + "/end-session?")
    asked = parse_qs(urlsplit(out.redirect).query)
    assert asked["post_logout_redirect_uri"] == [town.at("logged-out")]
    assert ada.get(town.at("session"), PROGRAM).status == 401
    at_op = ada.follow(out)
    assert at_op.status == 200
    while forms(at_op.text):
        form = form_of(at_op)
        at_op = ada.follow(ada.post(form.action, {**form.fields, **dict(form.buttons[:1])}))
    assert at_op.url.startswith(town.at("logged-out"))
    assert "You are signed out" in at_op.text
    assert [name for name, _ in town.house.events] == ["login_started", "login_succeeded", "signed_out"]


def test_tabs_in_parallel_with_one_sign_in_at_the_op(town: Town) -> None:
    ada = Visitor()
    tabs = [ada.get(town.at(f"login?rd=/tab/{n}")) for n in range(3)]
    first = town.as_somebody(ada, ada.follow(tabs[0]), "Ada")
    assert first.redirect == town.ours.url + "/tab/0"
    for n in (2, 1):  # the OP knows her by now
        answer = ada.get(tabs[n].redirect)
        assert ada.get(answer.redirect).redirect == f"{town.ours.url}/tab/{n}"
    assert ada.get(town.at("session"), PROGRAM).status == 200


def test_a_code_is_sent_once_whoever_replays_it(town: Town) -> None:
    ada = Visitor()
    there = ada.get(town.at("login?rd=/x"))
    form = form_of(ada.follow(there))
    back = ada.post(form.action, {**form.fields, "name": "Ada"}).redirect
    eve = Visitor()
    assert eve.get(back).status == 400
    kept = dict(ada.cookies)
    assert ada.get(back).redirect == town.ours.url + "/x"
    assert ada.get(back).redirect == town.ours.url + "/"
    eve.cookies = kept
    assert eve.get(back).status == 400
    assert town.op.ledger.token_calls == 1


def test_another_account_is_asked_for(town: Town) -> None:
    ada = Visitor()
    town.as_somebody(ada, ada.follow(ada.get(town.at("login?rd=/x"))), "Ada")
    assert ada.get(town.at("login?rd=/x")).redirect == town.ours.url + "/x"
    page = ada.follow(ada.get(town.at("login?rd=/y&account=other")))
    assert town.as_somebody(ada, page, "Eve").redirect == town.ours.url + "/y"
    told = ada.get(town.at("session"), PROGRAM)
    assert "Eve" in told.text
    assert "Ada" not in told.text


def test_an_op_that_is_away_is_a_page_and_no_cookie(town: Town) -> None:
    ada = Visitor()
    town.theirs.stop()
    page = ada.get(town.at("login?rd=/x"))
    assert (page.status, page.header("retry-after")) == (503, "5")
    assert not ada.cookies
    assert "Try again" in page.text
