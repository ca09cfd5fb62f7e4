"""h11 and llhttp as oracles for the app's answers: what we pass on, both read the same way."""

from __future__ import annotations

from dataclasses import dataclass, field

import h11
import httptools
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.wire.reading import read_response
from tests.unit.wire.test_oracles import SEEDS, plain_fields

Answer = tuple[int, bytes]


def by_h11(stream: bytes, method: bytes) -> Answer | None:
    """Status and body of the final answer; None where h11 refuses it or waits for more."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(stream)
    closed = False
    status, body = 0, b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return None
        if event is h11.NEED_DATA:
            if closed:
                return None
            closed = True
            connection.receive_data(b"")
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return status, body
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            return None


@dataclass
class Llhttp:
    """httptools callbacks, written down."""

    bodies: list[bytes] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    parser: httptools.HttpResponseParser = field(init=False)
    whole: int = 0

    def __post_init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)

    def on_headers_complete(self) -> None:
        self.statuses.append(self.parser.get_status_code())
        self.bodies.append(b"")

    def on_body(self, body: bytes) -> None:
        self.bodies[-1] += body

    def on_message_complete(self) -> None:
        self.whole += 1


def by_llhttp(stream: bytes) -> Answer | None:
    """Status and body of the first final answer, as far as it read; None if it refused."""
    reader = Llhttp()
    try:
        reader.parser.feed_data(stream)
    except httptools.HttpParserUpgrade:
        return None
    except httptools.HttpParserError:
        pass  # bytes behind a whole answer may be nonsense; the answer itself counts
    for index, (status, body) in enumerate(zip(reader.statuses, reader.bodies, strict=True)):
        if status >= 200:
            return (status, body) if index < reader.whole or index == len(reader.statuses) - 1 else None
    return None


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """One legal answer, perhaps after an interim one."""
    status = draw(st.sampled_from([200, 201, 204, 206, 301, 304, 401, 404, 500, 599]))
    fields = [name + b": " + text for name, text in draw(plain_fields)]
    body = b"" if status in (204, 304) else draw(st.binary(max_size=40))
    framing = draw(st.sampled_from(["length", "chunked", "close"])) if status not in (204, 304) else "none"
    raw = body
    if framing == "length":
        fields.append(b"Content-Length: %d" % len(body))
    elif framing == "chunked":
        fields.append(b"Transfer-Encoding: chunked")
        raw = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    interim = draw(st.sampled_from([b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]))
    head = b"HTTP/1.1 %d Reason\r\n" % status + b"".join(line + b"\r\n" for line in fields)
    return interim + head + b"\r\n" + raw


@given(responses(), st.sampled_from([b"GET", b"HEAD", b"POST"]), st.data())
@settings(max_examples=400, deadline=None)
def test_answers_are_broken_off_or_read_alike(stream: bytes, method: bytes, data: st.DataObject) -> None:
    changed = bytearray(stream)
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(changed)))
        what = data.draw(st.integers(0, 2))
        if what == 0:
            changed[at:at] = data.draw(st.sampled_from(SEEDS))
        elif what == 1:
            del changed[at : at + data.draw(st.integers(1, 4))]
        else:
            changed[at : at + 1] = data.draw(st.binary(min_size=1, max_size=1))
    raw = bytes(changed)
    sink, status = read_response([raw], method, eof=True)
    if raw == stream and method != b"HEAD":  # a body that answers HEAD belongs to nothing
        assert status == 0
    if status or not sink.ended:
        return
    ours = (sink.heads[-1].status, bytes(sink.body))
    assert by_h11(raw, method) == ours
    if method != b"HEAD" and sink.heads[-1].status not in (204, 304):
        assert by_llhttp(raw) == ours


@given(responses(), st.data())
@settings(max_examples=150, deadline=None)
def test_cutting_an_answer_changes_nothing(stream: bytes, data: st.DataObject) -> None:
    whole, status = read_response([stream], eof=True)
    assert (status, whole.ended) == (0, True)
    at = sorted(data.draw(st.lists(st.integers(1, len(stream)), max_size=5)))
    pieces = [
        stream[start:end] for start, end in zip([0, *at], [*at, len(stream)], strict=True) if start < end
    ]
    cut, status = read_response(pieces, eof=True)
    assert status == 0
    assert cut.seen() == whole.seen()
