"""How long a body is: RFC 9112 §6.3, one function for each direction.

The rules are applied to what the head parser found. Whatever two parsers might read
differently is refused here, in both directions: that is what request smuggling lives on.
"""

from __future__ import annotations

import re
from typing import Final

from proxy.errors import BadRequest, UpstreamError

UNTIL_CLOSE: Final = -1
"""Body length: up to the end of the connection (responses only)."""
CHUNKED: Final = -2
"""Body length: told by chunks (RFC 9112 §7.1)."""

# 15 digits is a petabyte; more only serves to overflow somebody's integer.
_LENGTH = re.compile(rb"[0-9]{1,15}")
_CODINGS = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:[ \t]*,[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+)*")
_KNOWN_CODINGS = frozenset((b"chunked", b"identity"))


def plainly_spaced(line: bytes, value: bytes) -> bool:
    """Whether a framing field has no white space but blanks before its value.

    RFC 9112 §5.1 allows more, and llhttp takes `chunked` with a tab behind it for another coding.
    """
    return line.partition(b":")[2].lstrip(b" ") == value


def content_length(value: bytes) -> int:
    """The number in a `Content-Length` value, -1 if it is not plainly `1*DIGIT`.

    RFC 9112 §6.3 would let a list of equal numbers pass; `1,1` is refused like `+1`.
    """
    return int(value) if _LENGTH.fullmatch(value) else -1


def coding_status(value: bytes) -> int:
    """0 if a `Transfer-Encoding` value is exactly ``chunked``, else the status to refuse with.

    501 for a coding that may be legal but is not spoken here (RFC 9112 §6.1), 400 for what
    frames nothing: an empty value, `chunked, chunked`, `identity`.
    """
    lowered = value.lower()
    if lowered == b"chunked":
        return 0
    if not _CODINGS.fullmatch(lowered):
        return 400
    codings = [coding.strip(b" \t") for coding in lowered.split(b",")]
    return 400 if all(coding in _KNOWN_CODINGS for coding in codings) else 501


def request_length(version: int, length: int | None, chunked: bool) -> int:
    """Length of a request's body in bytes, or CHUNKED.

    Args:
        version: minor HTTP version, 0 or 1.
        length: `Content-Length`, None if absent.
        chunked: whether `Transfer-Encoding: chunked` is there.
    Raises:
        BadRequest: 400, both are there, or a coding in HTTP/1.0 (RFC 9112 §6.1).
    """
    if chunked:
        if length is not None:
            raise BadRequest(400, "A message has either Content-Length or Transfer-Encoding.")
        if version == 0:
            raise BadRequest(400, "HTTP/1.0 has no Transfer-Encoding.")
        return CHUNKED
    return length or 0


def response_length(method: bytes, status: int, version: int, length: int | None, chunked: bool) -> int:
    """Length of a final response's body in bytes, CHUNKED or UNTIL_CLOSE.

    Args:
        method: of the request that it answers; HEAD has no body whatever the head says.
        status: HTTP status; 1xx, 204 and 304 have no body.
        version, length, chunked: as in `request_length`.
    Raises:
        UpstreamError: 502, both are there, or a coding in HTTP/1.0.
    """
    if chunked and (length is not None or version == 0):
        raise UpstreamError(502, "The application framed its answer in two ways.")
    if method == b"HEAD" or status == 204 or status == 304 or status < 200:
        return 0
    if chunked:
        return CHUNKED
    return UNTIL_CLOSE if length is None else length
