"""`nightporter serve` as a process of its own, an app behind it, and people in front of it."""

from __future__ import annotations

import json
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
    """

    def __init__(self, home: Path, *, movable: bool = False) -> None:
        self.app = EchoApp()
        self.url = f"http://127.0.0.1:{free_port()}"
        self._home = home
        self._movable = movable
        self._ahead_s = 0.0
        self._replica: Replica | None = None

    @property
    def replica(self) -> Replica:
        assert self._replica is not None, "not started"
        return self._replica

    def start(self, settings: Mapping[str, str]) -> None:
        """Start it and wait until it is ready."""
        self._replica = Replica(
            self._home / "replica",
            {
                "NIGHTPORTER_UPSTREAM": self.app.url,
                "NIGHTPORTER_PUBLIC_URL": self.url,
                "NIGHTPORTER_LISTEN": self.url.removeprefix("http://"),
                "NIGHTPORTER_OPERATIONS_LISTEN": f"127.0.0.1:{free_port()}",
                "NIGHTPORTER_STORE": f"sqlite:{self._home / 'sessions.db'}",
                "NIGHTPORTER_PASS_ACCESS_TOKEN": "true",
                **settings,
            },
            movable=self._movable,
        )
        self._replica.start()

    def advance(self, seconds: float) -> None:
        """Let time pass for the product; the provider's clock is its own."""
        self._ahead_s += seconds
        self.replica.ahead(self._ahead_s)

    def stop(self) -> None:
        """End it and the app."""
        if self._replica is not None and self._replica.running:
            self._replica.stop()
        self.app.stop()


@dataclass
class Person:
    """Somebody with a browser.

    Attributes:
        porter: what they visit.
        op: where they have an account.
        name: of the account.
    """

    porter: Porter
    op: RealOP
    name: str = "ada"
    browser: Visitor = field(default_factory=Visitor)

    def sign_in(self, path: str = "/page?x=1") -> Reply:
        """From a page that needs a session, through the OP's forms, back to that page."""
        start = self.browser.get(self.porter.url + path)
        assert start.redirect.startswith(self.porter.url + "/oauth2/login"), (start.status, start.text[:500])
        at_op = self.browser.get(self.browser.get(start.redirect).redirect)
        back = self.op.sign_in(self.browser, at_op, self.name)
        assert back.redirect.startswith(self.porter.url + "/oauth2/callback"), (back.status, back.redirect)
        page = self.browser.follow(back)
        assert page.url == self.porter.url + path, (page.url, page.status, page.text[:1000])
        assert page.status == 200
        return page

    def ask(self, path: str = "/page") -> Reply:
        """A request of a page's script."""
        return self.browser.get(self.porter.url + path, PROGRAM)

    def headers(self, path: str = "/page") -> dict[str, str]:
        """What the app is told."""
        reply = self.ask(path)
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
