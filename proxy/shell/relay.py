"""Joins a client's connection and one of the app's for one exchange.

Bytes pass as they come. A write buffer above its mark closes the valve on the other side,
so memory per exchange is two buffers, whatever the bodies weigh. What one side breaks off
is broken off on the other, never ended cleanly (RFC 9112 §8).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from proxy.core.gate import Forward
from proxy.errors import UpstreamError
from proxy.shell.site import log
from proxy.wire.exchange import BODY, BROKEN, DONE, END, HEAD, INFORMATIONAL, SWITCH, WAITING, Exchange
from proxy.wire.framing import CHUNKED, UNTIL_CLOSE
from proxy.wire.head import RequestHead
from proxy.wire.response import ResponseHead
from proxy.wire.rewrite import interim_bytes, request_bytes, response_bytes, switching_bytes
from proxy.wire.valve import AUTH, CONNECTING, PEER_FULL

if TYPE_CHECKING:
    from proxy.shell.downstream import Downstream
    from proxy.shell.pool import Pool
    from proxy.shell.upstream import Upstream

_SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS"))
_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))  # RFC 9110 §9.2.2
_LAST_CHUNK = b"0\r\n\r\n"
_JOIN_BELOW = 65_536
"""Bytes: smaller writes are copied into one, larger ones go to the kernel as a list."""


class Relay(Exchange):
    """One request on its way to the app, and its response back.

    Args:
        down: the client's connection.
        head: of the request.
        verdict: that let it through.
        pool: connections to the app.

    Attributes:
        status: of the response passed on; 0 before there is one.
        upstream_s: from handing the request over to the response's head, seconds.
        bytes_in, bytes_out: of the bodies.
    """

    __slots__ = (
        "_body",
        "_chunked",
        "_head_out",
        "_held",
        "_idle_s",
        "_replayed",
        "_retried",
        "_reused",
        "_sent_at",
        "_stop_watching",
        "_task",
        "_upload",
        "bytes_in",
        "bytes_out",
        "down",
        "head",
        "pool",
        "status",
        "up",
        "upstream_s",
        "verdict",
    )

    def __init__(self, down: Downstream, head: RequestHead, verdict: Forward, pool: Pool) -> None:
        super().__init__(head.keep_alive)
        self.down = down
        self.head = head
        self.verdict = verdict
        self.pool = pool
        self.up: Upstream | None = None
        self.status = 0
        self.upstream_s = 0.0
        self.bytes_in = 0
        self.bytes_out = 0
        self._sent_at = 0.0
        self._idle_s = down.site.timeouts.body_idle_s
        self._reused = False
        self._retried = False
        self._replayed = False
        self._chunked = False
        self._head_out = b""
        self._body: list[bytes] = []
        self._upload: list[bytes] = []
        self._held: ResponseHead | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop_watching: Callable[[], None] | None = None

    # The way to the app

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
        self._reused = reused
        up.relay = self
        up.reader.expect(head.method, self)
        data = request_bytes(
            head, down.forwarded_block(head), self.verdict.identity, self.pool.authority, down.peer.trusted
        )
        self._sent_at = monotonic()
        if head.has_body:
            self.request_event(HEAD)
            self._upload.append(data)
            down.deadline = down.site.now + self._idle_s
            down.valve.open(CONNECTING)
            down.pump()
            return
        if self.request == WAITING:
            self.request_event(HEAD)
            self.request_event(END)
        up.transport.write(data)
        down.deadline = down.site.now + down.site.timeouts.first_byte_s

    def not_connected(self, error: UpstreamError) -> None:
        """There will be no connection."""
        self.down.valve.open(CONNECTING)
        self.down.exchange_failed(self, error)

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
            self._upload.append(_LAST_CHUNK)

    def flush_upload(self) -> None:
        """Write what came since the last read, at once."""
        upload = self._upload
        if not upload:
            return
        self._upload = []
        up, down = self.up, self.down
        if up is None:
            return
        if len(upload) == 1:
            up.transport.write(upload[0])
        elif sum(map(len, upload)) < _JOIN_BELOW:
            up.transport.write(b"".join(upload))
        else:
            up.transport.writelines(upload)
        waiting = self.request == DONE and self.response == WAITING
        down.deadline = down.site.now + (down.site.timeouts.first_byte_s if waiting else self._idle_s)

    # The way back

    def on_response_head(self, head: ResponseHead) -> None:
        if head.status < 200:
            if head.status == 101:
                self._switch(head)
                return
            self.response_event(INFORMATIONAL)
            if self.head.version == 1:  # RFC 9110 §15.2: HTTP/1.0 knows no 1xx
                self._head_out += interim_bytes(head)
            return
        if head.status == 401 and self._may_ask_again():
            self._ask_again(head)
            return
        self._pass_head(head)

    def _pass_head(self, head: ResponseHead) -> None:
        self.response_event(HEAD)
        down, version = self.down, self.head.version
        self.upstream_s = monotonic() - self._sent_at
        self.status = head.status
        self.app_keeps = head.keep_alive and head.length != UNTIL_CLOSE
        if head.length < 0:
            self._chunked = version == 1
        # Known now or never: a response that starts before its request ended, one that only
        # the connection's end delimits, and the last one before we go.
        if (
            self.request != DONE
            or (version == 0 and head.length < 0)
            or down.site.draining
            or down.half_closed
        ):
            self.client_keeps = False
        self._head_out += response_bytes(
            head,
            self.verdict,
            chunked=self._chunked,
            close=not self.client_keeps,
            keep_alive=version == 0,
            date=b"" if head.dated else down.site.date(),
        )
        if head.events:
            self._idle_s = down.site.timeouts.tunnel_idle_s
            if self.verdict.watch is not None:
                self.watch(self.verdict.watch, self._end_stream)

    def on_response_body(self, data: bytes) -> None:
        self.bytes_out += len(data)
        self._body.append(data)

    def on_response_end(self) -> None:
        self.response_event(END)

    def after_feed(self, up: Upstream) -> None:
        """Everything of one read was taken: write it on, and finish if that was all."""
        if up is not self.up:
            return
        response = self.response
        self._flush(response == DONE)
        if response == DONE:
            self._finish(up)
        elif self._held is None:
            self.down.deadline = self.down.site.now + self._idle_s

    def _flush(self, ended: bool) -> None:
        body, head = self._body, self._head_out
        if body:
            self._body = []
            if self._chunked:
                # One chunk a read, whatever chunks the app made of it.
                head += b"%x\r\n" % sum(map(len, body))
                body.append(b"\r\n" + _LAST_CHUNK if ended else b"\r\n")
        elif ended and self._chunked:
            body = [_LAST_CHUNK]
        if head:
            self._head_out = b""
            body.insert(0, head)
        if not body:
            return
        transport = self.down.transport
        if len(body) == 1:
            transport.write(body[0])
        elif sum(map(len, body)) < _JOIN_BELOW:
            transport.write(b"".join(body))
        else:
            transport.writelines(body)

    def _finish(self, up: Upstream) -> None:
        self.up = None
        self.unwatch()
        if up.valve.reasons:
            up.valve.open(PEER_FULL)
        if self.upstream_reusable and not up.reader.waiting and not up.valve.reasons:
            up.give_back()
        else:
            up.abort()
        self.down.exchange_done(self)

    def _switch(self, head: ResponseHead) -> None:
        from proxy.shell.tunnel import Tunnel

        up = self.up
        assert up is not None
        if not self.head.upgrade_websocket or head.upgrade != b"websocket":
            raise UpstreamError(502, "The application switched to a protocol that nobody asked for.")
        self.response_event(SWITCH)
        self.request_event(SWITCH)
        self.upstream_s = monotonic() - self._sent_at
        self.status = 101
        self.down.transport.write(self._head_out + switching_bytes(head))
        self._head_out = b""
        Tunnel(self, up)

    # When something goes wrong

    def app_failed(self, up: Upstream, error: UpstreamError) -> None:
        """The app's connection broke, or its answer makes no sense."""
        if up is not self.up:
            return
        silent = not up.reader.started
        if self.response == DONE:  # whole, but followed by bytes that belong to nothing
            self.app_keeps = False
            self._flush(True)
            self._finish(up)
            return
        self.up = None
        up.abort()
        if self._held is not None:
            return  # the answer of the hook decides; without the connection, a None is a 502
        retry = silent and self._reused and not self._retried and not self.head.has_body
        if retry and self.response == WAITING and self.head.method in _IDEMPOTENT:
            # RFC 9112 §9.3.1: the app closed an idle connection while we were taking it.
            self._retried = True
            self.down.site.counters.retries += 1
            self.start(fresh=True)
            return
        self.down.exchange_failed(self, error)

    def client_gone(self) -> None:
        """The client left, or is being left: the app's connection is broken off."""
        self.request_event(BROKEN)
        self.unwatch()
        if self._task is not None:
            self._task.cancel()
            self._task = None
        up, self.up = self.up, None
        if up is not None:
            up.abort()
        elif self._held is None:
            self.pool.forget(self)

    def expire(self) -> None:
        """The exchange's deadline ran out."""
        down = self.down
        if self.response == WAITING:
            blocked = down.valve.reasons & PEER_FULL
            if self.request != DONE and not blocked:
                down.site.counters.timed_out("request_body")
                down.exchange_failed(self, UpstreamError(408, "The request's body did not come in time."))
            else:
                down.site.counters.timed_out("first_byte")
                down.exchange_failed(self, UpstreamError(504, "The application did not answer in time."))
            return
        down.site.counters.timed_out("response_body")
        down.exchange_failed(self, UpstreamError(504, "The application's answer did not go on in time."))

    def app_full(self, full: bool) -> None:
        """The app takes no more of the request, or takes it again."""
        if full:
            self.down.valve.shut(PEER_FULL)
        else:
            self.down.valve.open(PEER_FULL)

    def client_full(self, full: bool) -> None:
        """The client takes no more of the response, or takes it again."""
        if self.up is None:
            return
        if full:
            self.up.valve.shut(PEER_FULL)
        else:
            self.up.valve.open(PEER_FULL)
            self.down.deadline = self.down.site.now + self._idle_s

    # A 401 of the app's: is the token too old?

    def _may_ask_again(self) -> bool:
        return (
            self.verdict.unauthorized is not None
            and not self._replayed
            and self.head.method in _SAFE
            and not self.head.has_body
            and not self._head_out
        )

    def _ask_again(self, head: ResponseHead) -> None:
        """Hold the 401 back, body unread, until the hook knows better."""
        up = self.up
        assert up is not None
        self._held = head
        up.reader.held = True
        up.valve.shut(AUTH)
        self.down.deadline = self.down.site.now + self.down.site.timeouts.decide_s
        self._task = asyncio.get_running_loop().create_task(self._asked_again(head))

    async def _asked_again(self, head: ResponseHead) -> None:
        hook = self.verdict.unauthorized
        assert hook is not None
        again: Forward | None = None
        try:
            again = await hook(head.challenge)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
        except Exception:
            log.exception("the hook on a 401 failed", extra={"request_id": self.head.request_id.decode()})
        self._task = None
        self._held = None
        self._replayed = True
        up = self.up
        if again is not None:
            if up is not None:
                self.up = None
                up.abort()
            self.verdict = again
            self.start()
        elif up is None:
            error = UpstreamError(502, "The application broke off the connection.")
            self.down.exchange_failed(self, error)
        else:
            self._release_held(head, up)

    def _release_held(self, head: ResponseHead, up: Upstream) -> None:
        try:
            self._pass_head(head)
            up.reader.release()
        except UpstreamError as error:
            self.app_failed(up, error)
            return
        up.valve.open(AUTH)
        self.after_feed(up)

    # Streams and tunnels end with their session

    def watch(
        self, watch: Callable[[Callable[[], None]], Callable[[], None]], closer: Callable[[], None]
    ) -> None:
        """Let the session end this exchange; `unwatch` ends that."""
        self._stop_watching = watch(closer)

    def unwatch(self) -> None:
        """The exchange is over: nothing is left to close."""
        stop, self._stop_watching = self._stop_watching, None
        if stop is not None:
            stop()

    def _end_stream(self) -> None:
        if self.up is None or self.response != BODY:
            return
        self._flush(True)
        self.client_keeps = False
        self.down.exchange_ended(self, "session_ended")

    def end_for_drain(self) -> None:
        """The process goes away; an event stream would keep it for ever."""
        if self._idle_s == self.down.site.timeouts.tunnel_idle_s and self.response == BODY:
            self._end_stream()
