"""One proxy of the bench, running."""

from __future__ import annotations

from dataclasses import dataclass

from bench.process import Process
from tests.scenarios.browser import Browser


@dataclass
class Contestant:
    """Nightporter or a peer.

    Attributes:
        port: where browsers come.
        processes: its own, without the store's.
        redis: its store's process; None = it has none.
        signs_in: people have to sign in.
        cookie: of the person who did; "" before, and where nobody has to.
    """

    name: str
    port: int
    processes: list[Process]
    redis: Process | None = None
    version: str = ""
    signs_in: bool = False
    cookie: str = ""

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self.processes]

    def sign_in(self) -> None:
        """Walk through a real login, and keep the cookies."""
        if not self.signs_in:
            return
        browser = Browser(f"http://127.0.0.1:{self.port}", [self.port])
        reply = browser.visit("/page")
        assert reply.status == 200, (self.name, reply.status, reply.url, reply.body[:500], browser.trail)
        assert browser.jar
        again = browser.get("/page")
        assert again.status == 200, (self.name, again.status)
        self.cookie = browser.cookie

    def request(self, line: str, more: str = "") -> bytes:
        """A request head of the person who is signed in.

        Args:
            line: method and target.
            more: further field lines, each ending in CRLF.
        """
        cookie = f"Cookie: {self.cookie}\r\n" if self.cookie else ""
        return f"{line} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{cookie}{more}\r\n".encode()
