"""Which rule a path falls under. Rules match the decoded, normalised path only.

The app is sent the path as it came. So wherever its reading of a path could differ from ours
(`//`, `/./`, `;`, `\\`, an encoded slash, a double or broken encoding) and a rule hangs on the
difference, the request is refused instead of guessed at (oauth2-proxy GHSA-7rh7-c77v-6434,
Traefik CVE-2026-40912).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes


class Route(enum.Enum):
    """Where a path leads: our own pages, a public part of the app, everything else, or nobody knows."""

    PAGES = enum.auto()
    PUBLIC = enum.auto()
    PROTECTED = enum.auto()
    AMBIGUOUS = enum.auto()


PLAIN = re.compile(rb"(?:/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9._~!$&'()*+,=:@-]*)*/?", re.ASCII)
"""Paths that have one reading: no escape, no empty segment, none that starts with a dot."""

_TRICKY_ESCAPE = re.compile(
    rb"%(?:2f|5c|25|00|2e|3b|23|3f|0[0-9a-f]|1[0-9a-f]|7f"
    # What some decoders take for "." or "/" although UTF-8 has it in one byte only (CVE-2008-2938),
    rb"|c[01]|e0%[89][0-9a-f]|f0%8[0-9a-f]"
    # and what is no escape: %u002e is a dot to some, %%32%65 becomes one in the second decoding.
    rb"|(?![0-9a-f]{2}))",
    re.IGNORECASE,
)


class Routes:
    """The path rules of one configuration.

    Args:
        prefix: of our own pages, e.g. ``/oauth2``.
        public: public paths; one that ends in ``/`` covers everything below it.
    """

    def __init__(self, prefix: str, public: Sequence[str]) -> None:
        self._prefix = prefix.encode()
        self.pages = self._prefix + b"/"
        self._exact = frozenset(path.encode() for path in public if not path.endswith("/"))
        self._below = tuple(path.encode() for path in public if path.endswith("/"))

    def of(self, path: bytes) -> Route:
        """Where `path` (without query, as it was sent) leads."""
        if path.startswith(self.pages) or path == self._prefix:
            return Route.PAGES
        if not self._exact and not self._below:
            return Route.PROTECTED
        if PLAIN.fullmatch(path):
            return Route.PUBLIC if self._is_public(path) else Route.PROTECTED
        if not _tricky(path):
            return Route.PUBLIC if self._is_public(unquote_to_bytes(path)) else Route.PROTECTED
        reached = any(self._is_public(reading) for reading in readings(path))
        return Route.AMBIGUOUS if reached else Route.PROTECTED

    def _is_public(self, path: bytes) -> bool:
        return path in self._exact or path.startswith(self._below)


def meanings(path: bytes) -> set[bytes]:
    """What a path may mean to whoever serves it: one path, or several where servers differ."""
    if PLAIN.fullmatch(path):
        return {path}
    return readings(path) if _tricky(path) else {unquote_to_bytes(path)}


def _tricky(path: bytes) -> bool:
    return bool(
        _TRICKY_ESCAPE.search(path)
        or b"//" in path
        or b";" in path
        or b"\\" in path
        or any(segment in (b".", b"..") for segment in path.split(b"/"))
    )


def readings(path: bytes) -> set[bytes]:
    """Every way in which some server may read the path: raw, decoded once or twice, each with
    and without parameters, back-slashes as slashes, empty and dot segments resolved or not."""
    decoded = unquote_to_bytes(path)
    found: set[bytes] = set()
    for text in (path, decoded, unquote_to_bytes(decoded)):
        for turned in (text, text.replace(b"\\", b"/")):
            bare = re.sub(rb";[^/]*", b"", turned)
            for variant in (turned, bare, turned.partition(b"#")[0], turned.partition(b"?")[0]):
                found.add(variant)
                found.add(_resolved(variant))
    return found


def _resolved(path: bytes) -> bytes:
    """Dot segments removed (RFC 3986 §5.2.4) and empty segments merged."""
    out: list[bytes] = []
    segments = path.split(b"/")
    for segment in segments:
        if segment in (b"", b"."):
            continue
        if segment == b"..":
            if out:
                out.pop()
            continue
        out.append(segment)
    trailing = b"/" if segments[-1] in (b"", b".", b"..") and out else b""
    return b"/" + b"/".join(out) + trailing
