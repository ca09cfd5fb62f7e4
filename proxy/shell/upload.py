"""The request's half of an exchange: a connection to the app, the head, the body."""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import TYPE_CHECKING, cast

from proxy.core.gate import Forward
from proxy.errors import UpstreamError
from proxy.wire.exchange import DONE, END, HEAD, WAITING, Exchange
from proxy.wire.framing import CHUNKED
from proxy.wire.head import RequestHead
from proxy.wire.rewrite import request_bytes
from proxy.wire.valve import CONNECTING

if TYPE_CHECKING:
    from proxy.shell.downstream import Downstream
    from proxy.shell.pool import Pool
    from proxy.shell.relay import Relay
    from proxy.shell.upstream import Upstream

LAST_CHUNK = b"0\r\n\r\n"
JOIN_BELOW = 65_536
"""Bytes: smaller writes are copied into one, larger ones go to the kernel as a list."""


class Upload(Exchange, eq=False):
    """One request on its way to the app; `Relay` adds the way back.

    Attributes:
        down: the client's connection.
        head: of the request.
        verdict: that let it through.
        pool: connections to the app.
        idle_s: how long a body may be silent.
        up: the app's connection; None before there is one, and after it failed.
        reused: that connection has served others before.
        sent_at: when the request was handed over, on the monotonic clock.
        status: of the response passed on; 0 before there is one.
        upstream_s: from handing the request over to the response's head, seconds.
        bytes_in, bytes_out: of the bodies.
    """

    # While the body comes, the deadline stands for a whole window, not for each piece: pieces
    # cost nothing, and a byte now and then buys no time.

    down: Downstream
    head: RequestHead
    verdict: Forward
    pool: Pool
    idle_s: float
    up: Upstream | None = None
    reused: bool = False
    sent_at: float = 0.0
    status: int = 0
    upstream_s: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    _upload: list[bytes] = []  # noqa: RUF012  # a struct makes a new one each time
    _called_for: bool = False
    _window_at: float = 0.0
    _window_in: int = 0
    _silent_since: float = 0.0

    def start(self, *, fresh: bool = False) -> None:
        """Send the request on an idle connection, or as soon as there is one.

        Args:
            fresh: only a connection that was never used.
        """
        up = None if fresh else self.pool.take()
        if up is not None:
            self.connected(up, True)
            return
        self.down.deadline = inf  # the pool has its own limits on connecting and waiting
        if self.head.has_body:
            self.down.valve.shut(CONNECTING)
        self.pool.open_for(self, fresh=fresh)

    def connected(self, up: Upstream, reused: bool) -> None:
        """Here is a connection: the head goes out, the body may follow."""
        down, head = self.down, self.head
        self.up = up
        self.reused = reused
        up.serve(cast("Relay", self), head.method)
        data = request_bytes(
            head, down.forwarded_block(head), self.verdict.identity, self.pool.authority, down.peer.trusted
        )
        self.sent_at = monotonic()
        if head.has_body:
            self.request_event(HEAD)
            self._upload.append(data)
            self._silent_since = down.site.now
            self._open_window()
            down.valve.open(CONNECTING)
            down.pump()
            return
        self.request = DONE  # WAITING, HEAD, END: there is no body; again, when it is sent again
        up.transport.write(data)
        down.deadline = down.site.now + down.site.timeouts.first_byte_s

    def not_connected(self, error: UpstreamError) -> None:
        """There will be no connection."""
        self.down.valve.open(CONNECTING)
        self.down.exchange_failed(cast("Relay", self), error)

    def upload(self, data: bytes) -> None:
        """A piece of the request's body."""
        self.bytes_in += len(data)
        if self.up is None:
            return
        if self.head.length == CHUNKED:
            self._upload += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._upload.append(data)

    def upload_end(self) -> None:
        """The request's body is complete."""
        self.request_event(END)
        if self.head.length == CHUNKED:
            self._upload.append(LAST_CHUNK)

    def flush_upload(self) -> None:
        """Write what came since the last read, at once."""
        if not self.head.has_body:
            return
        upload = self._upload
        if not upload:
            return
        self._upload = []
        up, down = self.up, self.down
        if up is None:
            return
        if len(upload) == 1:
            up.transport.write(upload[0])
        elif sum(map(len, upload)) < JOIN_BELOW:
            up.transport.write(b"".join(upload))
        else:
            up.transport.writelines(upload)
        if self.request == DONE and not down.full:
            waiting = self.response == WAITING
            down.deadline = down.site.now + (down.site.timeouts.first_byte_s if waiting else self.idle_s)

    def called_for(self) -> None:
        """The app asks for the body (100): from now on it is the client that is waited for."""
        if not self._called_for:
            self._called_for = True
            self._open_window()

    def _open_window(self) -> None:
        down = self.down
        site = down.site
        self._window_at, self._window_in = site.now, self.bytes_in
        slow_s = site.timeouts.slow_s if site.limits.min_rate_bytes else self.idle_s
        down.deadline = site.now + min(slow_s, self.idle_s)

    def keeps_pace(self, *, blocked: bool) -> bool:
        """Whether the client brings its body fast enough; if so, another window begins.

        Args:
            blocked: nothing is read at the moment, because the app takes nothing.
        """
        site = self.down.site
        brought = self.bytes_in - self._window_in
        if brought:
            self._silent_since = site.now
        # Who waits for a 100 that did not come, or cannot get rid of its bytes, is not slow.
        waits = blocked or (self.head.expect_continue and not self._called_for and not self.bytes_in)
        if waits:
            good = site.now - self._silent_since < self.idle_s
        else:
            good = brought >= max(1.0, site.limits.min_rate_bytes * (site.now - self._window_at))
        if good:
            self._open_window()
        return good
