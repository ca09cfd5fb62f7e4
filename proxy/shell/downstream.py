"""The client's side: one connection, one request after another.

It reads heads, asks the door, and carries the verdict out; it decides nothing. While a
request is decided or served, the reader holds what follows it (`wire/parser.py`), and the
valve keeps more from being read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from math import inf
from time import monotonic

from proxy.core.gate import Answer, Forward, Pages, Verdict
from proxy.errors import BadRequest, ProxyError, UpstreamError
from proxy.shell.client import (
    BUSY,
    DECIDING,
    DISCARDING,
    GONE,
    IDLE,
    LINGER,
    PAGE,
    READING,
    TUNNEL,
    Client,
)
from proxy.shell.relay import Relay
from proxy.shell.site import SWEEP_S
from proxy.wire.exchange import WAITING
from proxy.wire.head import RequestHead
from proxy.wire.valve import AUTH, PIPELINE

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Downstream(Client):
    """One request after another: heads to the door, verdicts carried out. See `Client`."""

    __slots__ = ()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.from_client(data)
            return
        if self._phase >= LINGER:
            return
        try:
            self.reader.feed(data)
        except ProxyError as error:
            self._refuse(error)
            return
        reader, phase = self.reader, self._phase
        quiet = phase == BUSY or (phase == IDLE and reader.between)
        if not quiet or reader.partial is not None or self.valve.reasons or self.half_closed:
            self._settle()
        relay = self._relay
        if relay is not None and relay.head.has_body:
            relay.flush_upload()

    def eof_received(self) -> bool:
        if self._tunnel is not None:
            return self._tunnel.client_ended()
        if self.peer.tls or self._phase in (IDLE, READING, PAGE, LINGER, GONE):
            return False
        # A half-close or a hang-up: only a write tells (see `Timeouts.half_close_s`).
        self.half_closed = True
        # The coarse clock may be a sweep old: without that time on top, patience might be over at once.
        self.deadline = min(self.deadline, self.site.now + SWEEP_S + self.site.timeouts.half_close_s)
        self._settle()
        return self._phase != GONE

    def pause_writing(self) -> None:
        self.full = True
        self._client_full(True)
        if self._phase != LINGER:
            self._watch_pace()

    def resume_writing(self) -> None:
        self.full = False
        self._client_full(False)
        if self._phase == IDLE:
            self._advance()

    def _client_full(self, full: bool) -> None:
        if self._tunnel is not None:
            self._tunnel.client_full(full)
        elif self._relay is not None:
            self._relay.client_full(full)

    def connection_lost(self, exc: Exception | None) -> None:
        relay, tunnel, phase = self._relay, self._tunnel, self._phase
        self._phase = GONE
        if self._task is not None:
            # Only our own waiting: the door shields what must live on. In the next turn, because
            # a task that has not begun would drop unawaited what it was to wait for.
            asyncio.get_running_loop().call_soon(self._task.cancel)
            self._task = None
        if tunnel is not None:
            self._tunnel = None
            tunnel.client_gone()
            if relay is not None:
                self._report(relay.status, relay, "client_gone")
        elif relay is not None:
            relay.client_gone()
            self.site.counters.aborted += 1
            self._report(relay.status or 499, relay, "client_gone")
        elif phase in (DECIDING, PAGE) and self._head is not None:
            self._report_own(499, "client_gone", "", 0)
        self._relay = None
        self.site.forget(self)

    # Requests, as the reader finds them

    def on_head(self, head: RequestHead) -> None:
        site = self.site
        self._head = head
        self._started = monotonic()
        head.request_id = site.new_id()
        if self.peer.trusted:
            claimed = head.get(b"x-request-id")
            if claimed:
                head.request_id = site.policy.request_id(claimed) or head.request_id
        try:
            verdict = site.admit(head, self.peer)
            if isinstance(verdict, Forward):
                self._forward(head, verdict)
            else:
                self._carry_out(head, verdict)
        except Exception as error:
            self._failed(error)

    def on_body(self, data: bytes) -> None:
        if self._relay is not None:
            self._relay.upload(data)
        elif self._phase == PAGE and self._page_body is not None:
            if len(self._page_body) + len(data) > self.site.limits.page_body_bytes:
                self._answer_error(UpstreamError(413, "This form is too large."), "page")
            else:
                self._page_body += data

    def on_end(self) -> None:
        if self._relay is not None:
            self._relay.upload_end()
        elif self._phase == PAGE:
            self._hand_over()
        elif self._phase == DISCARDING and self._pending is not None:
            answer, error = self._pending
            self._pending = None
            self._send(answer, error, linger=False)

    # Verdicts

    def _carry_out(self, head: RequestHead, verdict: Verdict | Awaitable[Verdict]) -> None:
        if isinstance(verdict, Forward):
            self._forward(head, verdict)
        elif isinstance(verdict, Answer):
            self._answer(verdict, "")
        elif isinstance(verdict, Pages):
            self._page(head, verdict)
        else:
            self._phase = DECIDING
            self.deadline = self.site.now + self.site.timeouts.decide_s
            if head.has_body:
                self.valve.shut(AUTH)
            self._task = asyncio.get_running_loop().create_task(self._decide(head, verdict))

    async def _decide(self, head: RequestHead, waiting: Awaitable[Verdict]) -> None:
        failure: BaseException | None = None
        verdict: Verdict | None = None
        try:
            verdict = await waiting
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            failure = error  # not us: the door lost what it waited for
        except Exception as error:
            failure = error
        self._task = None
        if self._phase != DECIDING:
            return
        self.valve.open(AUTH)
        try:
            if verdict is None or failure is not None:
                self._failed(failure)
            else:
                self._carry_out(head, verdict)
        except Exception as error:
            self._failed(error)
        self._settle()

    def _forward(self, head: RequestHead, verdict: Forward) -> None:
        upstreams = self.site.upstreams
        if upstreams is None:
            raise UpstreamError(502, "There is no application behind this listener.")
        self._phase = BUSY
        relay = self._relay = Relay(
            self,
            head,
            verdict,
            upstreams.choose(head),
            self.site.timeouts.body_idle_s,
            client_keeps=head.keep_alive,
        )
        relay.start()

    def _page(self, head: RequestHead, verdict: Pages) -> None:
        pages = self.site.pages
        if pages is None:
            raise ProxyError("There are no pages here.")
        self._page_body = bytearray()
        if not head.has_body:
            self._hand_over()
            return
        self._phase = PAGE
        self.deadline = self.site.now + self.site.timeouts.page_body_s
        if head.expect_continue:
            self.transport.write(_CONTINUE)
        self.pump()

    def _hand_over(self) -> None:
        head, pages, body = self._head, self.site.pages, self._page_body
        assert head is not None
        assert pages is not None
        assert body is not None
        self._page_body = None
        self._phase = GONE
        self.valve.open(PIPELINE | AUTH)
        pages.take(self, head, bytes(body), self._started)
        self.site.forget(self)

    # For the relay and the tunnel

    def pump(self) -> None:
        """The request's body may come."""
        reader = self.reader
        if reader.feeding:
            reader.release()
            return
        try:
            reader.release()
        except ProxyError as error:
            self._refuse(error)
            return
        self._settle()
        if self._relay is not None:
            self._relay.flush_upload()

    def exchange_done(self, relay: Relay) -> None:
        """Request served, response written."""
        self._relay = None
        self._report(relay.status, relay, "")
        if relay.downstream_reusable:
            self._advance()
        elif self.reader.in_body or self.reader.waiting:
            self._linger()
        else:
            self._close()

    def exchange_failed(self, relay: Relay, error: UpstreamError) -> None:
        """The app failed: an answer of ours, or a broken one if it had begun."""
        if relay is not self._relay:
            return
        if relay.response != WAITING:
            self.site.counters.aborted += 1
            self._break_off(relay, "app_failed")
            return
        self._relay = None
        relay.client_gone()
        self._answer_error(error, "upstream")
        self._settle()

    # Between requests, and the end

    def _settle(self) -> None:
        """After bytes were taken: does anything wait, is anything over?"""
        reader = self.reader
        phase = self._phase
        if self._pending is not None and phase == DISCARDING:
            answer, error = self._pending
            self._pending = None
            self._send(answer, error, linger=True)
            return
        if phase >= LINGER:
            return
        if phase == IDLE and not reader.between and not self.full:
            self._phase = READING
            self.deadline = self.site.now + self.site.timeouts.head_s
        if reader.waiting and reader.held:
            self.valve.shut(PIPELINE)
        elif self.valve.reasons:
            self.valve.open(PIPELINE)
        if self.half_closed and not reader.held:
            if phase in (IDLE, READING):
                self._close()
            elif reader.in_body:
                # The upload was broken off: the app must not see a clean end of it.
                self._abort()

    def _advance(self) -> None:
        """The exchange is over; the next request may come."""
        self._head = None
        self._phase = IDLE
        if self.full:  # answers pile up unread: no more before they are taken, and their pace is watched
            return
        timeouts = self.site.timeouts
        idle_s = timeouts.drain_idle_s if self.site.draining else timeouts.idle_s
        self.deadline = self.site.now + idle_s
        reader = self.reader
        if reader.feeding or reader.partial is None:
            reader.release()
            if self.half_closed and not reader.feeding:
                self._close()
            return
        self.pump()

    def expire(self) -> None:
        """The deadline ran out; called by the sweep."""
        self.deadline = inf
        phase, counters = self._phase, self.site.counters
        if (self.full and phase < LINGER) or (phase == TUNNEL and self.full):
            if not self._keeps_pace():
                self._too_slow()
        elif phase == BUSY and self._relay is not None:
            if self.half_closed and self._relay.response == WAITING:
                self._abort()
            else:
                self._relay.expire()
        elif phase == TUNNEL and self._tunnel is not None:
            self._tunnel.expire()
        elif phase == DECIDING:
            if self.half_closed:
                self._abort()
                return
            counters.timed_out("decision")
            if self._task is not None:
                self._task.cancel()
                self._task = None
            self.valve.open(AUTH)
            error = UpstreamError(503, "No decision was reached in time. Try again shortly.")
            self._answer_error(error, "decision")
            self._settle()
        elif phase in (READING, PAGE):
            counters.timed_out("head" if phase == READING else "page_body")
            self._refuse(BadRequest(408, "The request did not come in time."))
        elif phase == IDLE:
            self._close()
        elif not self.transport.get_write_buffer_size() or not self._keeps_pace():
            self.transport.abort()
        # else the last answer is still being taken, slowly

    def _too_slow(self) -> None:
        """Nobody takes what waits for this client, or a byte now and then."""
        self.site.counters.timed_out("slow_client")
        relay, tunnel = self._relay, self._tunnel
        if tunnel is not None:
            tunnel.expire()
        elif relay is not None:
            self.site.counters.aborted += 1
            self._break_off(relay, "slow_client")
        else:
            self.transport.abort()

    def let_go(self) -> None:
        """An idle connection closes soon; everything else goes on."""
        if self._phase == IDLE and self.reader.between:
            # Not at once: a request that is on its way now would meet a reset, and clients that do
            # not repeat it would see a failure in every rollout.
            self.deadline = min(self.deadline, self.site.now + self.site.timeouts.drain_idle_s)

    def drain(self) -> None:
        """The process goes away: idle connections close soon, streams and tunnels are told."""
        self.let_go()
        if self._tunnel is not None:
            self._tunnel.close()
        elif self._relay is not None:
            self._relay.end_for_drain()
