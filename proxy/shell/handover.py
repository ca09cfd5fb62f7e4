"""Hands a connection over to uvicorn, for our own pages.

No second server and no adapter: the connection's transport gets uvicorn's protocol class,
which is fed the head, rewritten, and the body. It answers with `Connection: close`, so the
connection never comes back. uvicorn and the pages are loaded by the first such request.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from proxy.core.problem import problem
from proxy.shell.done import Done
from proxy.shell.site import Site, log
from proxy.wire.head import RequestHead

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from proxy.shell.downstream import Downstream

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class PageServer:
    """Our pages behind uvicorn's HTTP/1.1 protocol.

    Args:
        factory: makes the ASGI app; called by the first request for a page, and by `renew`.
    """

    def __init__(self, factory: Callable[[], ASGIApp]) -> None:
        self._factory = factory
        self._app: ASGIApp | None = None
        self._config: Config | None = None
        self._state: ServerState | None = None
        self.on_idle: Callable[[], None] | None = None
        self._running = 0

    @property
    def busy(self) -> int:
        """Connections that pages are being written to."""
        return max(self._running, len(self._state.connections)) if self._state is not None else 0

    def take(self, down: Downstream, head: RequestHead, body: bytes, started: float) -> None:
        """Take a connection over, with a complete request.

        Args:
            started: when its head was complete, on the monotonic clock.
        """
        from proxy.shell.page_protocol import PageProtocol

        config, state = self._load()
        protocol = PageProtocol(config, state, self._look)
        protocol.app = _Page(self, down.site, head, len(body), down.peer.address, started)
        transport = down.transport
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(_request(head, body))

    def renew(self) -> None:
        """Serve the next request with an app made anew; pages under way end as they began."""
        if self._app is not None:
            self._app = self._factory()

    def close(self) -> None:
        """Cut what is still open."""
        if self._state is not None:
            for protocol in list(self._state.connections):
                protocol.transport.abort()

    def began(self) -> None:
        """A page starts to be made."""
        self._running += 1

    def ended(self) -> None:
        """It is made, and handed to the transport as far as that took it."""
        self._running -= 1
        self._look()

    def _look(self) -> None:
        if self.on_idle is not None:
            self.on_idle()

    def _load(self) -> tuple[Config, ServerState]:
        if self._config is None or self._state is None:
            from uvicorn.config import Config
            from uvicorn.server import ServerState

            app = self._factory()
            config = Config(
                app=app,
                http="h11",
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
            )
            config.load()
            # Its own words about requests would quote what a peer sent.
            logging.getLogger("uvicorn.error").disabled = True
            self._app, self._config, self._state = app, config, ServerState()
        return self._config, self._state

    @property
    def app(self) -> ASGIApp:
        assert self._app is not None
        return self._app


class _Page:
    """One page, as an ASGI app: adds what the data path adds, and reports the end."""

    def __init__(
        self, server: PageServer, site: Site, head: RequestHead, received: int, peer: str, started: float
    ) -> None:
        self._server = server
        self._site = site
        self._head = head
        self._received = received
        self._peer = peer
        self._started = started
        self._status = 0
        self._sent = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        head, site = self._head, self._site
        error = ""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._status = int(message["status"])
                message = {**message, "headers": self._fields(list(message.get("headers", ())))}
            else:
                self._sent += len(message.get("body", b""))
            await send(message)

        self._server.began()
        try:
            await self._server.app(scope, receive, sending)
        except Exception as cause:
            error = type(cause).__name__
            log.exception("a page failed", extra={"request_id": head.request_id.decode("latin-1")})
            if self._status:
                raise  # uvicorn breaks the answer off
            fields, body = problem(
                500,
                "",
                "Something went wrong here. Tell the operator the request id.",
                head.request_id.decode("latin-1"),
            )
            fields.append((b"content-length", b"%d" % len(body)))
            await sending({"type": "http.response.start", "status": 500, "headers": fields})
            await sending({"type": "http.response.body", "body": body})
        finally:
            self._server.ended()
            if site.on_done is not None:
                site.on_done(
                    Done(
                        head.request_id,
                        head.method,
                        head.path,
                        self._status or 499,
                        "page",
                        now := monotonic(),
                        now - self._started,
                        self._peer,
                        0.0,
                        self._received,
                        self._sent,
                        error,
                    )
                )

    def _fields(self, fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        present = {name.lower() for name, _ in fields}
        if b"date" not in present:
            fields.append((b"date", self._site.date))
        if b"x-request-id" not in present:
            fields.append((b"x-request-id", self._head.request_id))
        return fields


def _request(head: RequestHead, body: bytes) -> bytes:
    """The request as uvicorn reads it: identity and `X-Forwarded-*` gone, framing ours."""
    lines = [b"%b %b HTTP/1.%d" % (head.method, head.target, head.version)]
    if head.host:
        lines.append(b"Host: " + head.host)
    lines += head.varying.splitlines()
    lines += head.passed
    if head.cookie:
        lines.append(b"Cookie: " + head.cookie)  # ours included: this is who reads them
    if body:
        lines.append(b"Content-Length: %d" % len(body))
    lines.append(b"X-Request-Id: %b\r\nConnection: close\r\n\r\n" % head.request_id)
    return b"\r\n".join(lines) + body
