"""An app whose WebSocket says everything again: ``python -m bench.echo PORT``.

One loop over epoll and no more, so that it is never what is measured. It takes what the load of
`websocket.py` sends: whole frames of one size, masked with zeros, so that unmasking changes nothing.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import select
import socket
import sys

PAYLOAD = 64
ASKED = 6 + PAYLOAD
"""Bytes of a client's frame: two, the mask's four, the payload (RFC 6455 §5.2)."""
FRAME = b"\x82\x40" + b"x" * PAYLOAD
_KEY = re.compile(rb"(?i)\r\nsec-websocket-key: *([^\r]+)\r\n")


def handshake(head: bytes) -> bytes:
    """The answer to an upgrade (RFC 6455 §4.2.2)."""
    found = _KEY.search(head)
    assert found is not None, head
    digest = hashlib.sha1(found[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % base64.b64encode(digest)
    )


def main(port: int) -> None:
    """Serve until ended."""
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    poll, socks, fresh = select.epoll(), dict[int, socket.socket](), set[int]()
    poll.register(listener, select.EPOLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                socks[sock.fileno()] = sock
                fresh.add(sock.fileno())
                poll.register(sock, select.EPOLLIN)
                continue
            sock = socks[fd]
            try:
                data = sock.recv(65_536)
            except OSError:  # the load was over, and an echo still under way
                data = b""
            if not data:
                poll.unregister(fd)
                fresh.discard(fd)
                socks.pop(fd).close()
            elif fd in fresh:
                fresh.discard(fd)
                sock.sendall(handshake(data))
            else:
                with contextlib.suppress(OSError):
                    sock.sendall(FRAME * (len(data) // ASKED))


if __name__ == "__main__":
    main(int(sys.argv[1]))
