"""Apps that a reverse proxy must bear with: one that waits for whole bodies, one that reads nothing."""

from __future__ import annotations

import contextlib
import socket
import threading


class App(threading.Thread):
    """Accepts connections, and gives each its own thread or leaves it alone."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self.sock.getsockname()[1]

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.taken(self.sock.accept()[0])

    def taken(self, sock: socket.socket) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.sock.close()


class Stalled(App):
    """Reads nothing, ever."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[socket.socket] = []

    def taken(self, sock: socket.socket) -> None:
        self._kept.append(sock)


class Waiting(App):
    """Answers when it has read a whole body, as most apps do.

    Attributes:
        whole, broken: uploads that came to their end, and that were broken off.
    """

    def __init__(self) -> None:
        super().__init__()
        self.whole = self.broken = 0
        self._lock = threading.Lock()

    def taken(self, sock: socket.socket) -> None:
        threading.Thread(target=self._serve, args=[sock], daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError), sock.makefile("rb") as reader:
            while reader.readline():
                left = 0
                while (line := reader.readline()) not in (b"\r\n", b""):
                    name, _, value = line.partition(b":")
                    if name.lower() == b"content-length":
                        left = int(value)
                upload, left = left > 0, self._take(reader, left)
                if upload:
                    with self._lock:
                        self.whole += not left
                        self.broken += left > 0
                if left:
                    return
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    @staticmethod
    def _take(reader: object, left: int) -> int:
        """Read a body; answers what is missing of it."""
        while left:
            try:
                data: bytes = reader.read1(min(left, 65_536))  # type: ignore[attr-defined]
            except OSError:
                return left
            if not data:
                return left
            left -= len(data)
        return 0
