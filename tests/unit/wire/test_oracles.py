"""h11 and llhttp (through httptools) as oracles: what we accept, both read the same way.

The other direction does not hold and must not: both accept things that we refuse.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass, field

import h11
import httptools
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.errors import ProxyError
from proxy.wire.head import RequestHead
from tests.unit.wire.reading import Requests, read_requests

Message = tuple[bytes, bytes, tuple[tuple[bytes, bytes], ...], bytes]

_FRAMING = (b"transfer-encoding", b"content-length", b"connection", b"trailer")


def ours(sink: Requests) -> list[Message]:
    """What we read, as received: method, target, all fields, body."""
    found: list[Message] = []
    for head, body in zip(sink.heads, sink.bodies, strict=True):
        fields = tuple(
            (name.lower(), value.strip(b" \t"))
            for name, _, value in (line.partition(b":") for line in head.lines)
        )
        found.append((head.method, head.target, fields, bytes(body)))
    return found[: sink.ended]


def by_h11(stream: bytes) -> tuple[list[Message], bool]:
    """What h11 reads, and whether it refused something."""
    found: list[Message] = []
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(stream)
    request: h11.Request | None = None
    body = b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return found, True
        if event is h11.NEED_DATA:
            return found, False
        if isinstance(event, h11.Request):
            request, body = event, b""
            if event.method == b"CONNECT":
                return found, False  # h11 leaves HTTP here; we refuse it
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            fields = tuple((bytes(name), bytes(value)) for name, value in request.headers)
            found.append((bytes(request.method), bytes(request.target), fields, body))
            connection.send(h11.Response(status_code=200, headers=[(b"Content-Length", b"0")]))
            connection.send(h11.EndOfMessage())
        if event is h11.PAUSED or connection.their_state is h11.DONE:
            if connection.our_state is h11.MUST_CLOSE or connection.our_state is h11.CLOSED:
                return found, bool(connection.trailing_data[0])
            connection.start_next_cycle()
        elif isinstance(event, h11.ConnectionClosed) or connection.their_state is h11.MUST_CLOSE:
            return found, bool(connection.trailing_data[0])


@dataclass
class Llhttp:
    """httptools callbacks, written down."""

    found: list[Message] = field(default_factory=list)
    target: bytes = b""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    in_body: bool = False
    parser: httptools.HttpRequestParser = field(init=False)
    method: bytes = b""

    def __post_init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        self.target, self.fields, self.body, self.in_body = b"", [], b"", False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_body:  # it shows trailers as headers
            self.fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.in_body = True
        self.method = self.parser.get_method()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.found.append((self.method, self.target, tuple(self.fields), self.body))


def by_llhttp(stream: bytes) -> tuple[list[Message], bool]:
    """What llhttp reads, and whether it refused something."""
    reader = Llhttp()
    try:
        reader.parser.feed_data(stream)
    except httptools.HttpParserUpgrade:
        # It leaves HTTP for any Upgrade, unread body and all; we only for a 101.
        return reader.found[:-1], False
    except httptools.HttpParserError:
        return reader.found, True
    return reader.found, False


def agree(stream: bytes) -> None:
    """Assert that both oracles read every message that we accept, as we do and no further.

    Each is given them one by one, because neither goes on where we do: h11 forgives no empty line
    between messages (RFC 9112 §2.2), and llhttp leaves HTTP for any upgrade.
    """
    sink, ends = Requests(), [0]
    with contextlib.suppress(ProxyError):
        for at in range(len(stream)):
            sink.reader.feed(stream[at : at + 1])
            ends += [at + 1] * (sink.ended + 1 - len(ends))
    whole, _ = read_requests([stream])
    assert whole.ended == sink.ended
    read = ours(sink)
    assert ours(whole) == read
    for mine, head, (start, end) in zip(read, sink.heads, itertools.pairwise(ends), strict=False):
        raw = stream[start:end].removeprefix(b"\r\n")
        alike(mine, by_h11(raw), raw)
        if head.method in LLHTTP_METHODS and not leaves_http(head):
            alike(mine, by_llhttp(raw), raw)


def alike(mine: Message, theirs: tuple[list[Message], bool], raw: bytes) -> None:
    """Assert that an oracle read exactly this message, and nothing was left over."""
    found, refused = theirs
    assert not refused, raw
    assert [rewritten(other) for other in found] == [rewritten(mine)], raw


LLHTTP_METHODS = frozenset(
    b"DELETE GET HEAD POST PUT CONNECT OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND"
    b" REBIND UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PATCH PURGE"
    b" MKCALENDAR LINK UNLINK".split()
)
"""Those that it knows; it refuses all others."""


def leaves_http(head: RequestHead) -> bool:
    """Whether llhttp takes this for the end of HTTP and leaves a body unread."""
    return head.get(b"upgrade") is not None and b"upgrade" in (head.get(b"connection") or b"").lower()


def rewritten(message: Message) -> Message:
    """A message with its target in origin form, as we would send it."""
    method, target, fields, body = message
    if target[:1] != b"/" and target != b"*":
        rest = target.partition(b"://")[2]
        at = min((rest.find(mark) for mark in (b"/", b"?") if mark in rest), default=len(rest))
        target = rest[at:]
        if not target:
            target = b"*" if method == b"OPTIONS" else b"/"
        elif target[:1] == b"?":
            target = b"/" + target
    # Codings are case-insensitive (RFC 9112 §7); h11 shows them in lower case.
    folded = tuple((name, value.lower() if name == b"transfer-encoding" else value) for name, value in fields)
    return method, target, folded, body


# Legal requests.

token = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=12).map(str.encode)
value = st.text('abc XYZ\t019:;,="()/<>@[]{}?\\\xe9\xff', max_size=30).map(
    lambda text: text.encode("latin-1")
)
path = st.text("abc/XYZ%20?&=;:@!~.,+-_|", max_size=30).map(lambda text: b"/" + text.encode())
names = token.filter(
    lambda name: (
        name.lower()
        not in (b"host", b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"connection")
    )
)
plain_fields = st.lists(st.tuples(names, value), max_size=6)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One legal request."""
    method = draw(st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH"]))
    target = draw(st.one_of(path, path.map(lambda text: b"http://other.example" + text)))
    fields = [b"Host: a.example", *(name + b":" + text for name, text in draw(plain_fields))]
    body = draw(st.binary(max_size=40))
    framing = draw(st.sampled_from(["none", "length", "chunked"]))
    raw = b""
    if framing == "length":
        fields.append(b"Content-Length: %d" % len(body))
        raw = body
    elif framing == "chunked":
        fields.append(b"Transfer-Encoding: chunked")
        at = 0
        while at < len(body):
            size = draw(st.integers(1, len(body) - at))
            raw += b"%x\r\n%b\r\n" % (size, body[at : at + size])
            at += size
        trailer = draw(st.sampled_from([b"", b"X-Trailer: x\r\n", b"X-Checksum: 1\r\nY: z\r\n"]))
        raw += b"0\r\n" + trailer + b"\r\n"
    order = draw(st.permutations(fields))
    return b"%b %b HTTP/1.1\r\n%b\r\n\r\n%b" % (method, target, b"\r\n".join(order), raw)


@given(st.lists(requests(), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_legal_requests_are_all_read_and_read_alike(streams: list[bytes]) -> None:
    stream = b"".join(streams)
    sink, status = read_requests([stream])
    assert status == 0
    assert sink.ended == len(streams)
    agree(stream)


@given(requests(), st.data())
@settings(max_examples=100, deadline=None)
def test_cutting_changes_nothing(stream: bytes, data: st.DataObject) -> None:
    whole, _ = read_requests([stream])
    at = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    pieces = [
        stream[start:end] for start, end in zip([0, *at], [*at, len(stream)], strict=True) if start < end
    ]
    cut, status = read_requests(pieces)
    assert status == 0
    assert cut.seen() == whole.seen()


SEEDS = [
    *(bytes([byte]) for byte in b"\r\n \t\0\v:;,#+-_01\x7f\x80"),
    *(b"\r\n", b"\r\n\r\n", b"0x", b"chunked", b"HTTP/1.0"),
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Content-Length: 3\r\n",
    b"Content-Length: 0\r\n",
    b"Host: b\r\n",
    b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: h2c\r\n",
    b"Expect: 100-continue\r\n",
    b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
]


@given(st.lists(requests(), min_size=1, max_size=2), st.data())
@settings(max_examples=500, deadline=None)
@example([b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a\r\nx\r\n0\r\n\r\n"], None)
def test_mutated_requests_are_refused_or_read_alike(streams: list[bytes], data: st.DataObject | None) -> None:
    stream = bytearray(b"".join(streams))
    for _ in range(data.draw(st.integers(1, 3)) if data is not None else 0):
        assert data is not None
        at = data.draw(st.integers(0, len(stream)))
        what = data.draw(st.integers(0, 2))
        if what == 0:
            stream[at:at] = data.draw(st.sampled_from(SEEDS))
        elif what == 1:
            del stream[at : at + data.draw(st.integers(1, 4))]
        else:
            stream[at : at + 1] = data.draw(st.binary(min_size=1, max_size=1))
    agree(bytes(stream))
