"""CPU time of a WebSocket message of 64 bytes and of its echo, there and back."""

from __future__ import annotations

import select
import socket
import time

from bench.contestant import Contestant
from bench.echo import FRAME, PAYLOAD
from bench.machine import cpu_s

CONNECTIONS = 32
# Masked with zeros (RFC 6455 §5.3): what arrives is what was meant, and the app has less to do.
_MESSAGE = b"\x82\xc0" + bytes(4) + b"x" * PAYLOAD
_UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def turn(each: Contestant, seconds: float) -> dict[str, float]:
    """Microseconds of CPU an echo: each connection sends when its last message came back."""
    poll, socks = select.epoll(), dict[int, socket.socket]()
    try:
        for _ in range(CONNECTIONS):
            sock = _opened(each)
            socks[sock.fileno()] = sock
            poll.register(sock, select.EPOLLIN)
        echoes, end = 0, time.monotonic() + seconds
        before = cpu_s(*each.pids)
        for sock in socks.values():
            sock.sendall(_MESSAGE)
        while time.monotonic() < end:
            for fd, _ in poll.poll(10):
                data = socks[fd].recv(4_096)
                assert data == FRAME, data
                echoes += 1
                socks[fd].sendall(_MESSAGE)
        return {"echo_us": (cpu_s(*each.pids) - before) / echoes * 1e6}
    finally:
        for sock in socks.values():
            sock.close()
        poll.close()


def _opened(each: Contestant) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", each.port), 60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(each.request("GET /ws", f"Origin: http://127.0.0.1:{each.port}\r\n{_UPGRADE}"))
    answer = b""
    while b"\r\n\r\n" not in answer:
        got = sock.recv(4_096)
        assert got, answer
        answer += got
    assert answer.startswith(b"HTTP/1.1 101"), answer[:200]
    return sock
