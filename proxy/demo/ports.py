"""The loopback ports of one run of the demo."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

from proxy.demo.failed import DemoFailed

PORT = 8080


@dataclass(frozen=True, slots=True)
class Ports:
    """Where each process listens."""

    front: int
    operations: int
    op: int
    app: int
    others: tuple[int, ...] = ()
    """For two proxies behind a balancer: where each serves, then the second one's operations port."""


def choose_ports(front: int | None, *, two: bool = False) -> Ports:
    """Four free ports, or seven: the usual ones where they are free, any others where not.

    Args:
        front: the port that the person asked for, None = no wish.
        two: for two proxies behind a balancer.
    Raises:
        DemoFailed: that one port is taken.
    """
    if front is not None and not _free(front):
        raise DemoFailed(f"Port {front} is in use. Choose another with --port, or leave it out.")
    taken: set[int] = set()
    chosen: list[int] = []
    for wish in (front or PORT, *range(PORT + 1, PORT + (7 if two else 4))):
        port = wish if wish not in taken and _free(wish) else _any_free(taken)
        taken.add(port)
        chosen.append(port)
    return Ports(*chosen[:4], others=tuple(chosen[4:]))


def _free(port: int) -> bool:
    """Whether a port is free on every loopback address that `localhost` may mean."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            if family == socket.AF_INET:
                raise
    return True


def _any_free(taken: set[int]) -> int:
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in taken and _free(port):
            return port
