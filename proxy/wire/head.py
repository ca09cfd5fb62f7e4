"""Request heads: legal, rewritten as far as no verdict is needed, or refused.

A head is looked at whole. Size and number of fields come first, then each line is either
known or checked (`lines.py`), then what the lines say together: one Host, one framing.

Sources: RFC 9112 §2–§3, §6; RFC 9110 §7.2, §7.6.1, §7.8, §10.1.1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from proxy.core.headers import (
    CLAIM,
    CODING,
    CONNECTION,
    COOKIE,
    DROP,
    EXPECT,
    HOST,
    LENGTH,
    PASS,
    SOURCE,
    UPGRADE,
    HeaderPolicy,
)
from proxy.errors import BadRequest
from proxy.wire.framing import coding_status, content_length, plainly_spaced, request_length
from proxy.wire.lines import (
    CLOSE,
    KEEP_ALIVE,
    UPGRADES,
    Field,
    HeadLimits,
    Lines,
    connection_options,
    legal_value,
    nominated,
)
from proxy.wire.memo import Memo
from proxy.wire.target import legal_host, other_form

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-~]+) HTTP/([0-9])\.([0-9])")
_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
# What a target may hold: visible ASCII without "#" (a fragment is never sent, RFC 9110 §4.2.5).
_IN_TARGET = bytes(c for c in range(0x21, 0x7F) if c != 0x23)


class RequestHead:
    """The head of one request, legal and rewritten as far as it does not depend on a verdict.

    Attributes:
        method, target, path: of the request line; `target` in origin form (or ``*``) as it
            will be sent, `path` up to its ``?``.
        version: minor HTTP version, 0 or 1.
        host: the authority, from an absolute target or from Host; b"" only in HTTP/1.0.
        cookie: all Cookie values joined with ``; ``.
        request_id: ours, set by the data path.
        upgrade_websocket: a legal WebSocket handshake may follow (RFC 6455 §4.1).
        has_body: there is a body, or there may be one.
        length: of the body in bytes, or framing.CHUNKED.
        keep_alive: the client allows another request.
        expect_continue: it waits for 100 before it sends the body.
        passed: field lines to send on as they came, without CRLF.
        cookie_line: Cookie line to send on, without ours; b"" if none.
        claims: lines that only a trusted peer may say.
        sources: lines by which an engine says what it asks about, whatever `Connection` names.
        lines: all field lines as they came.
    """

    # Defaults of the class: most requests have no body, no upgrade and no claims, and what is not
    # set costs nothing.
    host = b""
    cookie = b""
    cookie_line = b""
    request_id = b""
    upgrade_websocket = False
    has_body = False
    length = 0
    keep_alive = True
    expect_continue = False
    passed: list[bytes]
    claims: Sequence[bytes] = ()
    sources: Sequence[bytes] = ()
    by_name: dict[bytes, list[bytes]] | None = None

    def __init__(self, method: bytes, target: bytes, version: int, lines: list[bytes]) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.lines = lines
        self.path = target.partition(b"?")[0] if target.find(b"?") >= 0 else target

    def get_all(self, name: bytes) -> list[bytes]:
        """Every value of a field as received, by lower-case name."""
        fields = self.by_name
        if fields is None:
            fields = self.by_name = {}
            for line in self.lines:
                found, _, value = line.partition(b":")
                fields.setdefault(found.lower(), []).append(value.strip(b" \t"))
        return fields.get(name, [])

    def get(self, name: bytes) -> bytes | None:
        """A field's value as received, repeated ones joined (RFC 9110 §5.3), None if absent."""
        values = self.get_all(name)
        if not values:
            return None
        return values[0] if len(values) == 1 else b", ".join(values)


class RequestHeads:
    """Reads request heads; one for all connections, because it remembers lines.

    Args:
        policy: says what each field is to us.
        limits: bounds on one head.
    """

    def __init__(self, policy: HeaderPolicy, limits: HeadLimits | None = None) -> None:
        self.limits = limits or HeadLimits()
        self.policy = policy
        self.lines = Lines(policy.request_kind, self._judge, lambda text: BadRequest(400, text))
        self._blocks: Memo[RequestHead] = Memo()
        self._rests: Memo[RequestHead] = Memo()
        self._mark = b""

    def read(self, raw: bytes) -> RequestHead:
        """Read one head.

        Args:
            raw: everything before the empty line, without the CRLF in front of it.
        Raises:
            BadRequest: 400, 414, 417, 431, 501 or 505; the connection cannot be read on.
        """
        limits = self.limits
        if len(raw) > limits.head_bytes:
            raise BadRequest(431, "The request head is too long.")
        line, _, block = raw.partition(b"\r\n")
        known = self._blocks.look(block)
        if known is not None:
            # Field lines that came before, all of them, in this order: judged then, as a whole.
            head, authority = self._request_line(line, known.lines)
            if head.version == 1 and not authority:
                head.by_name = known.by_name
                if known.sources:
                    head.sources = known.sources
                return self._as_before(head, known)
        elif self._mark:
            again = self._but_for_one(line, block)
            if again is not None:
                return again
        lines = block.split(b"\r\n") if block else []
        if len(lines) > limits.fields:
            raise BadRequest(431, "The request has too many header fields.")
        head, authority = self._request_line(line, lines)
        plain = self._read_fields(head, lines, authority)
        if plain and head.version == 1 and not authority:
            self._blocks.keep(block, head)
            if self.policy.varies:
                self._keep_rest(head, block)
        return head

    @staticmethod
    def _as_before(head: RequestHead, known: RequestHead) -> RequestHead:
        head.host = known.host
        head.passed = known.passed
        head.cookie = known.cookie
        head.cookie_line = known.cookie_line
        if known.claims:
            head.claims = known.claims
        if not known.keep_alive:
            head.keep_alive = False
        return head

    # An engine names the target that it asks about in a line of its own, and that alone makes every
    # block new. So blocks are remembered without it, too (4 µs less a question).

    def _but_for_one(self, line: bytes, block: bytes) -> RequestHead | None:
        """The head, if all but the varying line came before; None = read it."""
        mark = self._mark
        at = block.find(mark)
        if at < 0:
            return None
        end = block.find(b"\r\n", at + 2)
        rest = block[:at] + block[end:] if end >= 0 else block[:at]
        known = self._rests.look(rest)
        if known is None:
            return None
        varying = block[at + 2 : end] if end >= 0 else block[at + 2 :]
        if not legal_value(varying):
            return None
        head, authority = self._request_line(line, [*known.lines, varying])
        if head.version != 1 or authority:
            return None
        head.sources = (*known.sources, varying)
        return self._as_before(head, known)

    def _keep_rest(self, head: RequestHead, block: bytes) -> None:
        """Remember a head without its varying line, if there is exactly one and it is not the first."""
        name = self.policy.varies
        lines = [line for line in head.sources if line.partition(b":")[0].lower() == name]
        if len(lines) != 1:
            return
        mark = b"\r\n%b:" % lines[0].partition(b":")[0]
        at = block.find(mark)
        if at < 0:
            return
        self._mark = mark
        rest = block[:at] + block[at + 2 + len(lines[0]) :]
        known = self._as_before(RequestHead(head.method, head.target, 1, []), head)
        known.lines = [line for line in head.lines if line is not lines[0]]
        known.sources = tuple(line for line in head.sources if line is not lines[0])
        self._rests.keep(rest, known)

    def check_request_line(self, line: bytes) -> None:
        """Refuse early what can never become a head, so that nobody waits for the rest.

        Raises:
            BadRequest: as `read` would for this request line.
        """
        self._request_line(line, [])

    def trailers(self, raw: bytes) -> None:
        """Check a trailer section like header lines. Nothing of it is passed on.

        RFC 9110 §6.5.1 lets an intermediary discard trailers. Some apps merge them into the
        headers, where an identity or framing field would be believed: nobody who means well
        sends one there, so the message is refused.

        Raises:
            BadRequest: a line is malformed, names what no trailer may, or there are too many.
        """
        lines = raw.split(b"\r\n")
        if len(lines) > self.limits.fields:
            raise BadRequest(431, "The request has too many trailer fields.")
        for line in lines:
            field = self.lines.young.get(line) or self.lines.learn(line)
            if field.kind != PASS:
                raise BadRequest(400, "A trailer names a field that belongs into the head.")

    def _request_line(self, line: bytes, lines: list[bytes]) -> tuple[RequestHead, bytes]:
        if len(line) > self.limits.line_bytes:
            raise BadRequest(414, "The request target is too long.")
        parts = line.split(b" ")
        if len(parts) == 3:
            method, target, protocol = parts
            # The plain case, which is nearly all of them: known method, HTTP/1.1, origin form.
            if (
                protocol == b"HTTP/1.1"
                and method in _METHODS
                and target[:1] == b"/"
                and not target.translate(None, _IN_TARGET)
            ):
                return RequestHead(method, target, 1, lines), b""
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            raise BadRequest(400, "The request line is malformed.")
        method, target = match[1], match[2]
        if match[3] != b"1" or match[4] > b"1":
            raise BadRequest(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        if target.find(b"#") >= 0:
            raise BadRequest(400, "A request target has no fragment.")
        if method in (b"TRACE", b"TRACK"):
            # An echo would show the identity headers and the app's cookies to scripts.
            raise BadRequest(501, "TRACE is not served here.")
        authority = b""
        if target[:1] != b"/" or method == b"CONNECT":
            target, authority = other_form(method, target)
        return RequestHead(method, target, int(match[4]), lines), authority

    def _read_fields(self, head: RequestHead, lines: list[bytes], authority: bytes) -> bool:
        """Judge field lines; answers whether any request with them means the same, method aside."""
        known = self.lines.young.get
        passed = head.passed = []
        claims: list[bytes] = []
        host: bytes | None = None
        cookies: list[Field] | None = None
        length: int | None = None
        chunked = False
        options = 0
        upgrade = b""
        names: list[bytes] = []
        for line in lines:
            field = known(line)
            if field is None:
                field = self.lines.learn(line)
            kind = field.kind
            if kind == PASS:
                passed.append(line)
            elif kind == HOST:
                if host is not None:
                    raise BadRequest(400, "There is more than one Host.")
                host = field.value
            elif kind == CONNECTION:
                options |= field.number
                if field.names:
                    names += field.names
            elif kind == COOKIE:
                if cookies is None:
                    cookies = [field]
                    head.cookie = field.value
                    head.cookie_line = field.out
                else:
                    cookies.append(field)
            elif kind == DROP:
                pass
            elif kind == LENGTH:
                if length is not None:
                    raise BadRequest(400, "There is more than one Content-Length.")
                length = field.number
            elif kind == CODING:
                if chunked:
                    raise BadRequest(400, "There is more than one Transfer-Encoding.")
                chunked = True
            elif kind == EXPECT:
                head.expect_continue = True
            elif kind == UPGRADE:
                # Two values offer a choice (RFC 9110 §7.8); only websocket alone is taken.
                upgrade = b"," if upgrade else field.value.lower()
            elif kind == CLAIM:
                claims.append(line)
            elif kind == SOURCE:
                head.sources = (*head.sources, line)
        if cookies is not None and len(cookies) > 1:
            head.cookie = b"; ".join([field.value for field in cookies])
            head.cookie_line = self.policy.cookie_line(head.cookie)
        version = head.version
        if host is None:
            if version == 1:
                raise BadRequest(400, "There is no Host.")
            host = b""
        head.host = authority or host
        if version == 0:
            head.keep_alive = options & (KEEP_ALIVE | CLOSE) == KEEP_ALIVE
            head.expect_continue = False  # RFC 9110 §10.1.1
        elif options & CLOSE:
            head.keep_alive = False
        if length is not None or chunked:
            head.length = request_length(version, length, chunked)
            head.has_body = head.length != 0
        if not head.has_body:
            head.expect_continue = False
            if upgrade == b"websocket" and options & UPGRADES and version == 1 and head.method == b"GET":
                head.upgrade_websocket = True
        if names:
            head.passed = nominated(passed, names)
            claims = nominated(claims, names)
        if claims:
            head.claims = claims
        return not upgrade and not head.length

    def _judge(self, kind: int, value: bytes, line: bytes) -> Field:
        if kind == COOKIE:
            return Field(kind, value, line, self.policy.cookie_line(value))
        field = Field(kind, value, line)
        if kind in (LENGTH, CODING) and not plainly_spaced(line, value):
            raise BadRequest(400, "A framing field has white space that readers differ about.")
        if kind == HOST:
            if not legal_host(value):
                raise BadRequest(400, "The Host is malformed.")
        elif kind == LENGTH:
            field.number = content_length(value)
            if field.number < 0:
                raise BadRequest(400, "The Content-Length is malformed.")
        elif kind == CODING:
            status = coding_status(value)
            if status:
                raise BadRequest(status, "The Transfer-Encoding is not spoken here.")
        elif kind == EXPECT:
            if value.lower() != b"100-continue":
                raise BadRequest(417, "This expectation cannot be met.")
        elif kind == CONNECTION:
            connection_options(field)
        return field
