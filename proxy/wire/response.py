"""Response heads of the app: legal, rewritten as far as no verdict is needed, or a 502.

As strict as request heads are: what two readers could understand differently would let one
person's answer run into another's on a reused connection.

Sources: RFC 9112 §4, §5.2, §6.3; RFC 9110 §15; RFC 9111 §5.2.
"""

from __future__ import annotations

import re

from proxy.core.headers import (
    CACHE,
    CHALLENGE,
    CODING,
    CONNECTION,
    DATE,
    DROP,
    EVENTS,
    LENGTH,
    SET_COOKIE,
    SHARED,
    UPGRADE,
    HeaderPolicy,
    private,
    sets_ours,
)
from proxy.errors import UpstreamError
from proxy.wire.framing import coding_status, content_length, plainly_spaced, response_length
from proxy.wire.lines import (
    CLOSE,
    KEEP_ALIVE,
    PASSED,
    Field,
    HeadLimits,
    Lines,
    connection_options,
    nominated,
)
from proxy.wire.memo import Memo

_FOR_CACHES = (CACHE, SHARED)
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t -~\x80-\xff]*))?")


class ResponseHead:
    """The head of one response.

    Attributes:
        status: HTTP status code.
        version: minor HTTP version, 0 or 1.
        line: status line to send on, always HTTP/1.1 (RFC 9110 §2.5: ours, not the app's).
        passed: field lines to send on as they came.
        cache: Cache-Control lines, and other fields for shared caches.
        length: of the body in bytes, CHUNKED or UNTIL_CLOSE; 0 where there is none.
        stated: Content-Length as stated, also where no body follows (HEAD, 304); -1 if none.
        keep_alive: the app allows another request.
        upgrade: lower-case Upgrade value, b"" if none.
        dated: there is a Date.
        events: it is a `text/event-stream`.
        challenge: WWW-Authenticate values, joined.
        written: the head as it was sent on, by what its writing depends on (`rewrite.py`).
    """

    __slots__ = (
        "cache",
        "challenge",
        "dated",
        "events",
        "keep_alive",
        "length",
        "line",
        "passed",
        "stated",
        "status",
        "upgrade",
        "version",
        "written",
    )

    def __init__(self, status: int, version: int, line: bytes) -> None:
        self.status = status
        self.version = version
        self.line = line
        self.passed: list[bytes] = []
        self.cache: list[Field] = []
        self.length = 0
        self.stated = -1
        self.keep_alive = version == 1
        self.upgrade = b""
        self.dated = False
        self.events = False
        self.challenge = b""
        self.written: dict[int, bytes] = {}


class ResponseHeads:
    """Reads response heads; one for all connections, because it remembers lines.

    Args:
        policy: says what each field is to us.
        limits: bounds on one head.
    """

    def __init__(self, policy: HeaderPolicy, limits: HeadLimits | None = None) -> None:
        self.limits = limits or HeadLimits(fields=256)
        self.policy = policy
        self.lines = Lines(
            policy.response_kind, self._judge, lambda text: UpstreamError(502, _MALFORMED, detail=text)
        )
        self._status: dict[bytes, tuple[int, int, bytes]] = {}
        self._blocks: Memo[ResponseHead] = Memo()

    def read(self, raw: bytes, method: bytes) -> ResponseHead:
        """Read one head, final or interim.

        Args:
            raw: everything before the empty line, without the CRLF in front of it.
            method: of the request that it answers.
        Raises:
            UpstreamError: 502, the app's answer is not plainly legal.
        """
        if method != b"HEAD":  # the one method on which the meaning depends
            remembered = self._blocks.look(raw)
            if remembered is not None:
                self._blocks.hits += 1
                return remembered
        if len(raw) > self.limits.head_bytes:
            raise UpstreamError(502, "The application's answer has too long a head.")
        lines = raw.split(b"\r\n")
        line = lines.pop(0)
        if len(lines) > self.limits.fields:
            raise UpstreamError(502, "The application's answer has too many fields.")
        known = self._status.get(line)
        if known is None:
            known = self._status_line(line)
        head = ResponseHead(known[0], known[1], known[2])
        self._fields(head, lines, method)
        if method != b"HEAD" and head.status >= 200:
            self._blocks.keep(raw, head)
        return head

    def trailers(self, raw: bytes) -> None:
        """Check a trailer section; nothing of it is passed on (RFC 9110 §6.5.1).

        Raises:
            UpstreamError: a line is malformed, or there are too many.
        """
        lines = raw.split(b"\r\n")
        if len(lines) > self.limits.fields:
            raise UpstreamError(502, "The application's answer has too many trailers.")
        for line in lines:
            if line not in self.lines.young:
                self.lines.learn(line)

    def _status_line(self, line: bytes) -> tuple[int, int, bytes]:
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise UpstreamError(502, _MALFORMED, detail="status line")
        known = (int(match[2]), int(match[1]), b"HTTP/1.1 %b %b" % (match[2], match[3] or b""))
        if len(self._status) < 256:  # an app has a handful; a strange one fills nothing
            self._status[line] = known
        return known

    def _fields(self, head: ResponseHead, lines: list[bytes], method: bytes) -> None:
        known = self.lines.young.get
        passed = head.passed
        length: int | None = None
        chunked = False
        options = 0
        names: list[bytes] = []
        for line in lines:
            field = known(line) or self.lines.learn(line)
            if field is PASSED:
                passed.append(line)
                continue
            kind = field.kind
            if kind == DATE:
                passed.append(line)
                head.dated = True
            elif kind == LENGTH:
                if length is not None:
                    raise UpstreamError(502, _MALFORMED, detail="two Content-Length")
                length = field.number
            elif kind == CONNECTION:
                options |= field.number
                if field.names:
                    names += field.names
            elif kind == CODING:
                if chunked:
                    raise UpstreamError(502, _MALFORMED, detail="two Transfer-Encoding")
                chunked = True
            elif kind in _FOR_CACHES:
                head.cache.append(field)
            elif kind == EVENTS:
                passed.append(line)
                head.events = True
            elif kind == CHALLENGE:
                passed.append(line)
                head.challenge = b"%b, %b" % (head.challenge, field.value) if head.challenge else field.value
            elif kind == UPGRADE:
                head.upgrade = field.value.lower()
        if head.version == 0:
            head.keep_alive = options & (KEEP_ALIVE | CLOSE) == KEEP_ALIVE
        elif options & CLOSE:
            head.keep_alive = False
        if length is not None and head.status >= 200 and head.status != 204:
            head.stated = length
        head.length = response_length(method, head.status, head.version, length, chunked)
        if names:
            head.passed = nominated(passed, names)

    def _judge(self, kind: int, value: bytes, line: bytes) -> Field:
        if kind == EVENTS:
            media_type = value.partition(b";")[0].rstrip(b" \t").lower()
            return Field(EVENTS, value, line) if media_type == b"text/event-stream" else PASSED
        if kind == SET_COOKIE:
            return Field(DROP, value, line) if sets_ours(value, self.policy.cookie_names) else PASSED
        if kind == CACHE:
            return Field(kind, value, line, b"Cache-Control: " + private(value))
        if kind == SHARED:
            return Field(kind, value, line)
        field = Field(kind, value, line)
        if kind in (LENGTH, CODING) and not plainly_spaced(line, value):
            raise UpstreamError(502, _MALFORMED, detail="white space in a framing field")
        if kind == LENGTH:
            field.number = content_length(value)
            if field.number < 0:
                raise UpstreamError(502, _MALFORMED, detail="Content-Length")
        elif kind == CODING:
            if coding_status(value):
                raise UpstreamError(502, _MALFORMED, detail="Transfer-Encoding")
        elif kind == CONNECTION:
            connection_options(field)
        return field


_MALFORMED = "The application sent an answer that is not legal HTTP."
