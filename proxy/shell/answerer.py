"""The client's side of a listener that only answers: engines that ask about requests."""

from __future__ import annotations

from time import monotonic

from proxy.core.gate import Answer
from proxy.shell.answering import pass_bytes
from proxy.shell.client import IDLE
from proxy.shell.downstream import Downstream


class Answerer(Downstream):
    """Answers a known question on a connection at rest in one go; everything else goes `Downstream`'s way.

    That is what nearly every question is: no exchange begins, nothing is held and nothing is settled
    for it (3 µs less).
    """

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        site, reader = self.site, self.reader
        busy = self._phase != IDLE or reader.held or reader.partial is not None or self.valve.reasons
        head = None if busy else site.request_heads.known(data)
        if (
            head is None
            or not head.keep_alive
            or self.half_closed
            or self.full
            or site.draining
            or self.peer.trusted
        ):
            super().data_received(data)
            return
        self._head, self._started = head, monotonic()
        head.request_id = site.new_id()
        try:
            verdict = site.admit(head, self.peer)
            if isinstance(verdict, Answer) and verdict.ready and verdict.status == 200:
                self.transport.write(pass_bytes(verdict, head.request_id, site.date()))
                self.deadline = site.now + site.timeouts.idle_s
                self._report_own(verdict.status, "", verdict.decision, 0)
                self._head = None
                return
            reader.hold()
            self._carry_out(head, verdict)
        except Exception as error:
            reader.hold()
            self._failed(error)
        self._settle()
