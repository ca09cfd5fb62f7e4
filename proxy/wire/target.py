"""Request targets: four forms in, origin form (or ``*``) out. RFC 9112 §3.2.

The path is never decoded, joined or normalised here: what the gate judged is what the app
gets, byte for byte (CVE-2026-40912 judged one spelling and sent another).
"""

from __future__ import annotations

import re
from typing import Final

from proxy.errors import BadRequest

# RFC 3986 §3.2.2 without userinfo, sub-delims and percent-encoding: no host that answers
# has them, and `,` or `@` in a Host would let two readers see two hosts.
HOST_RULE: Final = re.compile(rb"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,64}\])(?::([0-9]{0,5}))?")
_ABSOLUTE = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?]*)(.*)")


def legal_host(value: bytes) -> bool:
    """Whether a Host value is one plain host with at most a port (RFC 9110 §7.2)."""
    match = HOST_RULE.fullmatch(value)
    return match is not None and not (match[1] and int(match[1]) > 65535)


def other_form(method: bytes, target: bytes) -> tuple[bytes, bytes]:
    """A target that is not in origin form, rewritten; its characters are legal already.

    Returns:
        The target to send (origin form or ``*``), and the authority of an absolute one,
        which replaces Host (RFC 9112 §3.2.2).
    Raises:
        BadRequest: 501 for CONNECT (this is no tunnel to anywhere), 400 for all that is no
            target, or is one that this method does not take.
    """
    if method == b"CONNECT":
        raise BadRequest(501, "CONNECT is not served here.")
    if target == b"*":
        if method == b"OPTIONS":
            return b"*", b""
        raise BadRequest(400, "Only OPTIONS has the target *.")
    match = _ABSOLUTE.fullmatch(target)
    if match is None or not legal_host(match[1]):
        raise BadRequest(400, "The request target is malformed.")
    rest: bytes = match[2]
    if not rest:
        # RFC 9112 §3.2.4: OPTIONS on a bare authority means the server as a whole.
        rest = b"*" if method == b"OPTIONS" else b"/"
    elif rest[0] == 63:  # "?": an empty path is "/" (RFC 9110 §4.2.3)
        rest = b"/" + rest
    return rest, match[1]
