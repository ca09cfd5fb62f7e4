"""Heads as they are sent on: framing and connection fields are ours, never copied.

Everything a verdict adds comes last, after whatever a client or the app could have named
for removal is gone.
"""

from __future__ import annotations

from proxy.core.gate import Forward
from proxy.core.headers import CACHE
from proxy.wire.framing import CHUNKED
from proxy.wire.head import RequestHead
from proxy.wire.response import ResponseHead

_SENDS_BODY = frozenset((b"POST", b"PUT", b"PATCH"))
PRIVATE = 8
"""Key in `ResponseHead.written` of a head for one person that is neither chunked nor the last."""


def request_bytes(head: RequestHead, block: bytes, identity: bytes, authority: bytes, trusted: bool) -> bytes:
    """The head of a request for the app, with its empty line.

    Args:
        block: the `X-Forwarded-*` lines of this peer, each ending in CRLF.
        identity: the verdict's lines, each ending in CRLF.
        authority: of the app, for an HTTP/1.0 request that named no host.
        trusted: the peer's other claims about the client are believed.
    Source: RFC 9110 §7.6; RFC 9112 §3.2, §6.
    """
    ready = head.ready
    if ready is None or (trusted and head.claims) or head.method in _SENDS_BODY:
        lines = _request_lines(head, trusted)
    else:
        lines = ready.lines
        if lines is None:
            lines = ready.lines = _request_lines(head, trusted)
    return b"%b %b HTTP/1.1\r\nHost: %b\r\nX-Request-Id: %b\r\n%b%b%b%b%b\r\n" % (
        head.method,
        head.target,
        head.host or authority,
        head.request_id,
        head.varying,
        lines,
        head.cookie_line and head.cookie_line + b"\r\n",
        block,
        identity,
    )


def _request_lines(head: RequestHead, trusted: bool) -> bytes:
    """Lines of the client's that are the same whoever it is, and ours about the body; each ends in CRLF."""
    lines = head.passed.copy()
    if trusted and head.claims:
        lines += head.claims
    length = head.length
    if length:
        lines.append(b"Transfer-Encoding: chunked" if length == CHUNKED else b"Content-Length: %d" % length)
        if head.expect_continue:
            lines.append(b"Expect: 100-continue")
    elif head.upgrade_websocket:
        lines.append(b"Connection: Upgrade\r\nUpgrade: websocket")
    elif head.method in _SENDS_BODY:
        lines.append(b"Content-Length: 0")  # RFC 9110 §8.6
    lines.append(b"")
    return b"\r\n".join(lines)


def response_bytes(
    head: ResponseHead,
    forward: Forward,
    *,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    date: bytes,
) -> bytes:
    """The head of a final response for the client, with its empty line.

    Args:
        forward: the verdict that let the request through.
        chunked: the body follows in chunks of ours.
        close: this is the connection's last response.
        keep_alive: say so, because the client speaks HTTP/1.0.
        date: for a response without one (RFC 9110 §6.6.1).
    """
    if forward.set_cookie or not head.dated:
        return _response(head, forward, chunked, close, keep_alive, date)
    private = PRIVATE if forward.protected and not forward.shared_cache_ok else 0
    kind = chunked | close << 1 | keep_alive << 2 | private
    written = head.written.get(kind)
    if written is None:
        written = head.written[kind] = _response(head, forward, chunked, close, keep_alive, date)
    return written


def _response(
    head: ResponseHead, forward: Forward, chunked: bool, close: bool, keep_alive: bool, date: bytes
) -> bytes:
    lines = [head.line, *head.passed]
    if forward.set_cookie:
        # Whatever sets our cookie must not be stored by anybody.
        lines.append(b"Cache-Control: no-store")
        lines += [b"Set-Cookie: " + value for value in forward.set_cookie]
    elif not forward.protected or forward.shared_cache_ok:
        lines += [field.line for field in head.cache]
    else:
        kept = [field.out for field in head.cache if field.kind == CACHE]
        lines += kept or (b"Cache-Control: private",)
    if not head.dated:
        lines.append(b"Date: " + date)
    if chunked:
        lines.append(b"Transfer-Encoding: chunked")
    elif head.stated >= 0:
        lines.append(b"Content-Length: %d" % head.stated)
    if close:
        lines.append(b"Connection: close\r\n\r\n")
    elif keep_alive:
        lines.append(b"Connection: keep-alive\r\n\r\n")
    else:
        lines.append(b"\r\n")
    return b"\r\n".join(lines)


def interim_bytes(head: ResponseHead) -> bytes:
    """An interim response for the client (RFC 9110 §15.2), with its empty line."""
    return b"\r\n".join([head.line, *head.passed, b"\r\n"])


def switching_bytes(head: ResponseHead) -> bytes:
    """The 101 that turns both connections into a tunnel (RFC 6455 §4.2.2)."""
    return b"\r\n".join([head.line, *head.passed, b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"])
