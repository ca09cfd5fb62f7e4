"""Takes one answer off a plain socket."""

from __future__ import annotations

import re
import socket

_BUFFER = memoryview(bytearray(1 << 20))
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *([0-9]+)\r\n")


def take(sock: socket.socket) -> int:
    """Read a whole answer, and throw it away.

    Returns:
        Bytes of its body.
    Raises:
        AssertionError: it is not a 200 with a length, or it breaks off.
    """
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        got = sock.recv(65_536)
        assert got, data
        data += got
    length = _LENGTH.search(data, 0, end + 2)
    assert data.startswith(b"HTTP/1.1 200"), data[:300]
    assert length is not None, data[:300]
    size = int(length[1])
    left = size - (len(data) - end - 4)
    while left:
        count = sock.recv_into(_BUFFER, min(left, len(_BUFFER)))
        assert count, "the answer broke off"
        left -= count
    return size
