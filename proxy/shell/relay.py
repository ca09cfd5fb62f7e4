"""Joins a client's connection and one of the app's for one exchange.

Bytes pass as they come. A write buffer above its mark closes the valve on the other side,
so memory per exchange is two buffers, whatever the bodies weigh. What one side breaks off
is broken off on the other, never ended cleanly (RFC 9112 §8).
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from proxy.core.gate import Forward
from proxy.errors import UpstreamError
from proxy.shell.replay import Replay
from proxy.shell.upload import JOIN_BELOW, LAST_CHUNK, Upload
from proxy.wire.exchange import BODY, BROKEN, DONE, END, HEAD, INFORMATIONAL, SWITCH, WAITING
from proxy.wire.framing import UNTIL_CLOSE
from proxy.wire.response import ResponseHead
from proxy.wire.rewrite import PRIVATE, interim_bytes, response_bytes, switching_bytes
from proxy.wire.valve import AUTH, CONNECTING, PEER_FULL

if TYPE_CHECKING:
    from proxy.shell.upstream import Upstream

_SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS"))
_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))  # RFC 9110 §9.2.2


class Relay(Upload, eq=False):
    """One request on its way to the app, and its response back. See `Upload`."""

    _chunked: bool = False
    _events: bool = False
    _head_out: bytes = b""
    _body: list[bytes] = []  # noqa: RUF012  # a struct makes a new one each time
    _replay: Replay | None = None
    _replayed: bool = False
    _retried: bool = False
    _stop_watching: Callable[[], None] | None = None

    # The way back

    def on_response_head(self, head: ResponseHead) -> None:
        if head.status < 200:
            if head.status == 101:
                self._switch(head)
                return
            self.response_event(INFORMATIONAL)
            if head.status == 100 and self.request != DONE:
                self.called_for()
            if self.head.version == 1:  # RFC 9110 §15.2: HTTP/1.0 knows no 1xx
                self._head_out += interim_bytes(head)
            return
        if head.status == 401 and self._may_ask_again():
            self._replayed = True
            assert self.up is not None
            self._replay = Replay(self, self.up, head)
            return
        self._pass_head(head)

    def _pass_head(self, head: ResponseHead) -> None:
        self.response_event(HEAD)
        down, version = self.down, self.head.version
        self.upstream_s = monotonic() - self.sent_at
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
            date=b"" if head.dated else down.site.date,
        )
        if head.events:
            self._events = True
            self.idle_s = down.site.timeouts.tunnel_idle_s
            if self.verdict.watch is not None:
                self.watch(self.verdict.watch, self._end_stream)

    def on_response(self, head: ResponseHead, body: bytes) -> bool:
        """A whole answer with a length, at once; false if it has to take the long way.

        That is what most answers of most apps are, so it goes out here and now.
        """
        if head.status == 401 or head.events or self._head_out:
            return False
        down, verdict = self.down, self.verdict
        if (
            self.request == DONE
            and self.client_keeps
            and head.dated
            and not verdict.set_cookie
            and self.head.version == 1
            and not down.site.draining
            and not down.half_closed
        ):
            # Nothing about it is ours to decide: the head as it was written before (`response_bytes`).
            self.upstream_s = monotonic() - self.sent_at
            self.status = head.status
            self.app_keeps = head.keep_alive
            written = head.written.get(PRIVATE if verdict.protected and not verdict.shared_cache_ok else 0)
            if written is None:
                written = response_bytes(
                    head, verdict, chunked=False, close=False, keep_alive=False, date=b""
                )
        else:
            self._pass_head(head)
            written, self._head_out = self._head_out, b""
        self.bytes_out = size = len(body)
        self.response = DONE
        if size < JOIN_BELOW:
            down.transport.write(written + body)
        else:
            down.transport.writelines((written, body))
        return True

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
        if self._head_out or self._body or self._chunked:
            self._flush(response == DONE)
        if response == DONE:
            self._finish(up)
        elif response == BODY and not self.down.full:
            self.down.deadline = self.down.site.now + self.idle_s

    def _flush(self, ended: bool) -> None:
        body, head = self._body, self._head_out
        if body:
            self._body = []
            if self._chunked:
                # One chunk a read, whatever chunks the app made of it.
                head += b"%x\r\n" % sum(map(len, body))
                body.append(b"\r\n" + LAST_CHUNK if ended else b"\r\n")
        elif ended and self._chunked:
            body = [LAST_CHUNK]
        if head:
            self._head_out = b""
            body = [head, *body]  # a new list: an empty one here is still `self._body`
        if not body:
            return
        transport = self.down.transport
        if len(body) == 1:
            transport.write(body[0])
        elif sum(map(len, body)) < JOIN_BELOW:
            transport.write(b"".join(body))
        else:
            transport.writelines(body)

    def _finish(self, up: Upstream) -> None:
        self.up = None
        if self._stop_watching is not None:
            self.unwatch()
        if up.valve.reasons:
            up.valve.open(PEER_FULL)
        if self.down.valve.reasons:
            self.down.valve.open(PEER_FULL)
        if self.request == DONE and self.head.has_body and up.transport.get_write_buffer_size():
            # It answered before it took the whole request: nothing else is sent behind that.
            up.let_finish()
        elif self.upstream_reusable and up.reader.partial is None and not up.valve.reasons:
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
        self.upstream_s = monotonic() - self.sent_at
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
        if self._replay is not None:
            return  # the answer of the hook decides; without the connection, a None is a 502
        retry = silent and self.reused and not self._retried and not self.head.has_body
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
        self.down.valve.open(PEER_FULL | CONNECTING)  # what the app does not take holds up nothing more
        replay, self._replay = self._replay, None
        if replay is not None:
            replay.cancel()
        up, self.up = self.up, None
        if up is not None:
            up.abort()
        elif replay is None:
            self.pool.forget(self)

    def expire(self) -> None:
        """The exchange's deadline ran out."""
        down = self.down
        if self.request != DONE and self.up is not None:
            blocked = bool(down.valve.reasons & PEER_FULL)
            if self.keeps_pace(blocked=blocked):
                return
            if not blocked and self.response == WAITING:
                down.site.counters.timed_out("request_body")
                error = UpstreamError(408, "The request's body did not come in time.")
                down.exchange_failed(self, error)
                return
        if self.response == WAITING:
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
            self.down.deadline = self.down.site.now + self.idle_s

    # A 401 of the app's: is the token too old?

    def _may_ask_again(self) -> bool:
        return (
            self.verdict.unauthorized is not None
            and not self._replayed
            and self.head.method in _SAFE
            and not self.head.has_body
            and not self._head_out
        )

    def replay(self, verdict: Forward) -> None:
        """Send the request once more, for another verdict; the held 401 is thrown away."""
        self._replay = None
        up, self.up = self.up, None
        if up is not None:
            up.abort()
        self.verdict = verdict
        self.start()

    def let_through(self, head: ResponseHead) -> None:
        """Pass the held 401 on after all."""
        self._replay = None
        up = self.up
        if up is None:
            error = UpstreamError(502, "The application broke off the connection.")
            self.down.exchange_failed(self, error)
            return
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
        if self.up is None:  # the session was over already, and `closer` was called
            self.unwatch()

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
        if self._events and self.response == BODY:
            self._end_stream()
