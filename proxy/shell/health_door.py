"""Probes at the public listener, for balancers that can ask nowhere else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from proxy.core.gate import Answer, Verdict
from proxy.shell.peer import Peer
from proxy.shell.serving import Door
from proxy.wire.head import RequestHead


class HealthDoor:
    """Answers two paths itself and leaves the rest to the door behind it.

    It tells good or bad and nothing else; what is away stands at the operations port. Forward auth
    has the door behind it: there, such an answer would let a request pass.

    Args:
        behind: decides about everything else.
        ping_path: answered while this process serves; "" = none.
        ready_path: answered well while new requests are welcome; "" = none.
        ready: whether they are.
    """

    def __init__(self, behind: Door, ping_path: str, ready_path: str, ready: Callable[[], bool]) -> None:
        self._behind = behind
        self._good: dict[bytes, Callable[[], bool]] = {}
        if ping_path:
            self._good[ping_path.encode()] = lambda: True
        if ready_path:
            self._good[ready_path.encode()] = ready

    def admit(self, head: RequestHead, peer: Peer) -> Verdict | Awaitable[Verdict]:
        """The answer to a probe, or the verdict of the door behind."""
        good = self._good.get(head.path)
        if good is None or head.method not in (b"GET", b"HEAD"):
            return self._behind.admit(head, peer)
        fields = [(b"Content-Type", b"text/plain"), (b"Cache-Control", b"no-store")]
        if good():
            return Answer(200, fields, b"OK\n", "probe")
        return Answer(503, fields, b"not ready\n", "probe")


def with_probes(behind: Door, ping_path: str, ready_path: str, ready: Callable[[], bool]) -> Door:
    """The door itself where no probe is configured: then it costs nothing."""
    return HealthDoor(behind, ping_path, ready_path, ready) if ping_path or ready_path else behind
