"""Clients that hold on to connections by being slow, many of one kind at a time."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass, field

from bench.contestant import Contestant

_ESTABLISHED = 1


def connect(port: int, receive_buffer: int = 0) -> socket.socket:
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(60)
    sock.connect(("127.0.0.1", port))
    return sock


@dataclass
class Attackers:
    """Some of one kind: they drip a head, drip a body, or take an answer in drops.

    Attributes:
        kind: ``head``, ``body`` or ``answer``.
        open: those that were not closed yet, and when each began.
        told: what those that were closed had been told, at most the first bytes.
        longest_s: how long the one that lasted longest was there.
    """

    kind: str
    open: dict[socket.socket, float] = field(default_factory=dict[socket.socket, float])
    told: list[bytes] = field(default_factory=list[bytes])
    longest_s: float = 0.0

    def begin(self, each: Contestant, count: int) -> None:
        for _ in range(count):
            sock = connect(each.port, 4_096 if self.kind == "answer" else 0)
            if self.kind == "head":
                sock.sendall(b"GET / HTTP/1.1\r\n")
            elif self.kind == "body":
                sock.sendall(each.request("POST /public/slow", "Content-Length: 100000\r\n"))
            else:
                sock.sendall(each.request("GET /100m"))
            sock.setblocking(False)
            self.open[sock] = time.monotonic()

    def drip(self) -> None:
        """One drop from or for everybody; those that were closed leave."""
        for sock in list(self.open):
            with contextlib.suppress(OSError):
                if self.kind == "answer":
                    sock.recv(16)
                else:
                    sock.send(b"X" if self.kind == "body" else b"X-A: b\r\n")
            # What the kernel knows: an answer of which most was not read hides the end behind it.
            if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED:
                self.longest_s = max(self.longest_s, time.monotonic() - self.open.pop(sock))
                said = b""
                with contextlib.suppress(OSError):
                    said = sock.recv(64)
                self.told.append(said)
                sock.close()

    def end(self) -> None:
        for sock in self.open:
            sock.close()


class Patient(threading.Thread):
    """Honest people on a bad line: 1 KiB of an upload each half second, for as long as it is asked for.

    Attributes:
        answered: how many got their 200 in the end.
    """

    def __init__(self, each: Contestant, count: int, seconds: float) -> None:
        super().__init__(daemon=True)
        self.answered = 0
        self._each, self._count, self._seconds = each, count, seconds

    def run(self) -> None:
        pieces = max(2, int(self._seconds * 2))
        socks = [connect(self._each.port) for _ in range(self._count)]
        for sock in socks:
            sock.sendall(self._each.request("POST /public/honest", f"Content-Length: {pieces * 1024}\r\n"))
        for _ in range(pieces):
            for sock in socks:
                with contextlib.suppress(OSError):
                    sock.sendall(b"x" * 1024)
            time.sleep(0.5)
        for sock in socks:
            with contextlib.suppress(OSError):
                self.answered += sock.recv(64).startswith(b"HTTP/1.1 200 ")
            sock.close()
