"""As much of WebSocket as it takes to say goodbye (RFC 6455 §5.2, §5.5.1, §7.4.1)."""

from __future__ import annotations


def whole_frames(data: bytes) -> bool:
    """Whether bytes of a server look like whole, unmasked frames from first to last.

    A proxy that wants to add a frame must not stand inside another one. Following every
    frame would cost on each read; the last read tells as much in practice.
    """
    at, size = 0, len(data)
    while at < size:
        if size - at < 2 or data[at] & 0x70 & ~0x40 or data[at] & 0x0F not in (0, 1, 2, 8, 9, 10):
            return False
        length = data[at + 1]
        at += 2
        if length & 0x80:  # a server never masks
            return False
        if length == 126:
            length = int.from_bytes(data[at : at + 2], "big")
            at += 2
        elif length == 127:
            length = int.from_bytes(data[at : at + 8], "big")
            at += 8
        at += length
    return at == size


def going_away() -> bytes:
    """A server's close frame with status 1001."""
    return b"\x88\x02\x03\xe9"
