"""`nightporter serve` as processes of their own, an app behind them, and people in front of them."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.demo.visitor import PROGRAM, Reply, Visitor, forms
from tests.op.real import RealOP
from tests.scenarios.app import EchoApp
from tests.scenarios.house import Replica, free_port, until


class Porter:
    """The product and the app; `url` is known before it starts, for the OP's registration.

    Args:
        home: its store and its log.
        movable: its clock is the test's (`advance`).
        replicas: how many processes; `url` is the first one's.
        store: that they share; "" = a SQLite file.
    """

    def __init__(self, home: Path, *, movable: bool = False, replicas: int = 1, store: str = "") -> None:
        self.app = EchoApp()
        self.addresses = [f"127.0.0.1:{free_port()}" for _ in range(replicas)]
        self.url = f"http://{self.addresses[0]}"
        self._home = home
        self._store = store or f"sqlite:{home / 'sessions.db'}"
        self._movable = movable
        self._ahead_s = 0.0
        self.replicas: list[Replica] = []

    @property
    def replica(self) -> Replica:
        """The first one."""
        return self.replicas[0]

    def start(self, settings: Mapping[str, str]) -> None:
        """Start all and wait until they are ready."""
        shared = {
            "NIGHTPORTER_UPSTREAM": self.app.url,
            "NIGHTPORTER_PUBLIC_URL": self.url,
            "NIGHTPORTER_STORE": self._store,
            "NIGHTPORTER_COOKIE_KEYS": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "NIGHTPORTER_PASS_ACCESS_TOKEN": "true",
            **settings,
        }
        for n, address in enumerate(self.addresses):
            own = {
                "NIGHTPORTER_LISTEN": address,
                "NIGHTPORTER_OPERATIONS_LISTEN": f"127.0.0.1:{free_port()}",
            }
            self.replicas.append(Replica(self._home / f"replica-{n}", shared | own, movable=self._movable))
            self.replicas[-1].begin()
        for replica in self.replicas:
            until(replica.ready, 90)

    def advance(self, seconds: float) -> None:
        """Let time pass for the product; the provider's clock is its own."""
        self._ahead_s += seconds
        for replica in self.replicas:
            replica.ahead(self._ahead_s)

    def stop(self) -> None:
        """End it and the app."""
        for replica in self.replicas:
            if replica.running:
                replica.stop()
        self.app.stop()


@dataclass
class Person:
    """Somebody with a browser.

    Attributes:
        porter: what they visit.
        op: where they have an account.
        name: of the account.
        asked: the authorization request that the product last sent them with.
    """

    porter: Porter
    op: RealOP
    name: str = "ada"
    browser: Visitor = field(default_factory=Visitor)
    asked: str = ""

    def sign_in(self, path: str = "/page?x=1") -> Reply:
        """From a page that needs a session, through the OP's forms, back to that page."""
        start = self.browser.get(self.porter.url + path)
        assert start.redirect.startswith(self.porter.url + "/oauth2/login"), (start.status, start.text[:500])
        self.asked = self.browser.get(start.redirect).redirect
        at_op = self.browser.get(self.asked)
        back = self.op.sign_in(self.browser, at_op, self.name)
        assert back.redirect.startswith(self.porter.url + "/oauth2/callback"), (back.status, back.redirect)
        page = self.browser.follow(back)
        assert page.url == self.porter.url + path, (page.url, page.status, page.text[:1000])
        assert page.status == 200
        return page

    def ask(self, path: str = "/page", *, replica: int = 0) -> Reply:
        """A request of a page's script, which the balancer gives to this replica."""
        host = {"Host": self.porter.addresses[0]}
        return self.browser.get(f"http://{self.porter.addresses[replica]}{path}", PROGRAM | host)

    def headers(self, path: str = "/page", *, replica: int = 0) -> dict[str, str]:
        """What the app is told."""
        reply = self.ask(path, replica=replica)
        assert reply.status == 200, (reply.status, reply.text[:500])
        return dict(json.loads(reply.body)["headers"])

    @property
    def token(self) -> str:
        """The access token that the app is given."""
        return self.headers()["x-forwarded-access-token"]

    def session(self) -> dict[str, Any]:
        """What the product tells the person; {} if they are signed out."""
        reply = self.ask("/oauth2/session")
        return json.loads(reply.body) if reply.status == 200 else {}

    def outlive_the_token(self) -> None:
        """Wait, in real time, until the access token is over; asks for nothing that renews it."""
        until(lambda: self.session()["access_token"]["expires_in_s"] <= 0)
        whole = time.monotonic() + 1.0  # the page tells whole seconds, rounded down
        until(lambda: time.monotonic() > whole)

    def sign_out(self) -> Reply:
        """Press the button of the sign-out page; the answer that leads to the OP (or home)."""
        page = self.browser.get(self.porter.url + "/oauth2/logout")
        form = forms(page.text)[0]
        return self.browser.post(self.porter.url + form.action, form.fields)
