"""A very small browser on the standard library: cookies, forms, redirects that it counts.

The headless demo signs in with it. It follows nothing by itself: whoever asks decides.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urlencode, urljoin, urlsplit

TIME_LIMIT_S = 30.0
MAX_REDIRECTS = 10

NAVIGATION = {
    "Accept": "text/html,application/xhtml+xml",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
}
PROGRAM = {"Accept": "application/json", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}


class Lost(Exception):
    """The way did not lead where it should; the message is a sentence for people."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One response, read to its end."""

    url: str
    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for found, value in self.headers if found.lower() == name), "")

    @property
    def redirect(self) -> str:
        """Where it sends us, absolute; "" if nowhere."""
        target = self.header("location")
        return urljoin(self.url, target) if 300 <= self.status < 400 and target else ""

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


@dataclass(slots=True)
class Form:
    """A form of a page: where it goes and what it sends."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict[str, str])
    buttons: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


@dataclass(slots=True)
class Visitor:
    """One browser profile. Cookies are kept by host, without the port, as browsers do (RFC 6265 §8.5).

    Several threads may use one visitor.
    """

    cookies: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, url: str, headers: Mapping[str, str] = NAVIGATION) -> Reply:
        return self.ask("GET", url, headers)

    def post(self, url: str, fields: Mapping[str, str]) -> Reply:
        """Send a form as the page at `url`'s own origin would."""
        parts = urlsplit(url)
        headers = {
            **NAVIGATION,
            "Content-Type": "application/x-www-form-urlencoded",
            "Origin": f"{parts.scheme}://{parts.netloc}",
            "Sec-Fetch-Site": "same-origin",
        }
        return self.ask("POST", url, headers, urlencode(fields).encode())

    def follow(self, reply: Reply) -> Reply:
        """Follow redirects to the end.

        Raises:
            Lost: there is no end.
        """
        for _ in range(MAX_REDIRECTS):
            if not reply.redirect:
                return reply
            reply = self.get(reply.redirect)
        raise Lost(f"More than {MAX_REDIRECTS} redirects in a row; the last one led to {_bare(reply.url)}.")

    def cookie_line(self, url: str) -> str:
        """The `Cookie` field value for this URL, "" if there is none."""
        host = urlsplit(url).hostname or ""
        with self._lock:
            kept = [f"{name}={value}" for (at, name), value in self.cookies.items() if at == host]
        return "; ".join(kept)

    def ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        """Send one request on a fresh connection and read the whole answer."""
        connection, response = self._send(method, url, headers, body)
        try:
            reply = Reply(url, response.status, response.getheaders(), response.read())
        finally:
            connection.close()
        self._learn(url, reply.headers)
        return reply

    def lines(self, url: str, headers: Mapping[str, str], stop: threading.Event) -> Iterator[str]:
        """The lines of a response that stays open (Server-Sent Events), until `stop` or its end."""
        connection, response = self._send("GET", url, headers, None)
        try:
            if response.status != 200:
                raise Lost(f"{_bare(url)} answered {response.status}.")
            while not stop.is_set():
                line = response.readline()
                if not line:
                    return
                yield line.decode(errors="replace").rstrip("\r\n")
        finally:
            connection.close()

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        parts = urlsplit(url)
        sent = dict(headers)
        if line := self.cookie_line(url):
            sent.setdefault("Cookie", line)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIME_LIMIT_S)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            connection.request(method, target, body, sent)
            return connection, connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def _learn(self, url: str, headers: Sequence[tuple[str, str]]) -> None:
        host = urlsplit(url).hostname or ""
        for field_name, line in headers:
            if field_name.lower() != "set-cookie":
                continue
            pair, *attributes = line.split(";")
            name, _, value = pair.strip().partition("=")
            over = any(a.strip().lower().replace('"', "") == "max-age=0" for a in attributes)
            with self._lock:
                if over or not value.strip('"'):
                    self.cookies.pop((host, name), None)
                else:
                    self.cookies[(host, name)] = value


def forms(page: str) -> list[Form]:
    """All forms of a page, in order."""
    reader = _FormReader()
    reader.feed(page)
    reader.close()
    return reader.found


class _FormReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Form] = []
        self._open: Form | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._open = Form(values.get("action", ""), values.get("method", "get").lower())
            self.found.append(self._open)
        elif self._open is not None and "name" in values:
            if tag == "input":
                self._open.fields[values["name"]] = values.get("value", "")
            elif tag == "button":
                self._open.buttons.append((values["name"], values.get("value", "")))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._open = None


def _bare(url: str) -> str:
    """A URL without its query: codes and states do not belong on a screen."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
