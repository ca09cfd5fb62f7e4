"""The client's side of a listener at which an engine asks about requests."""

from __future__ import annotations

from time import monotonic

from proxy.shell.client import IDLE
from proxy.shell.done import Done
from proxy.shell.downstream import Downstream

_ID = b"\r\nX-Request-Id: "
_END = b"\r\n\r\n"


class Answerer(Downstream):
    """Answers a question that is known by its bytes in one go; everything else goes `Downstream`'s way.

    That is what nearly every question is: no head is read, no exchange begins, nothing is held
    and nothing is settled for it (half of the interpreter's steps).
    """

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        site, reader = self.site, self.reader
        engine = site.engine
        # What is not looked at here cannot be at rest: `_settle` and `_advance` see to that.
        busy = self._phase != IDLE or self.full or reader.held or reader.partial is not None
        if busy or site.draining or engine is None:
            super().data_received(data)
            return
        began = monotonic()
        known = engine.standing(data)
        if known is None:
            engine.begin()
            super().data_received(data)
            engine.keep(data)
            return
        method, path, given = known
        request_id = site.new_id()
        self.transport.write(given.ready + site.date + _ID + request_id + _END)
        self.deadline = site.now + site.timeouts.idle_s
        if site.on_done is not None:
            now, word, peer = monotonic(), given.decision, self.peer.address
            site.on_done(Done(request_id, method, path, 200, word, now, now - began, peer))
