"""Fuzzing: ``make fuzz SECONDS=60``, or ``python -m bench.fuzz SECONDS [SEED]``.

Head parser, chunk reader, response reader and cookie opener get mutated corpora for as long as they are
told. Nothing may crash; what is accepted must be read the same however it is cut, whatever was read before
it, and the same by h11 and llhttp; no changed cookie may open. A failure prints the bytes and the seed to see it again.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Callable

from proxy.core import cookies
from proxy.core.origin import Origins
from proxy.core.seal import new_ticket
from proxy.errors import CookieError, ProxyError
from proxy.wire.head import RequestHeads
from tests.unit.wire.reading import POLICY, Requests, read_requests, read_response
from tests.unit.wire.test_oracles import SEEDS, agree
from tests.unit.wire.test_requests import ACCEPTED, REFUSED
from tests.unit.wire.test_response_oracles import by_h11, by_llhttp
from tests.unit.wire.test_smuggling import PLACES, check

REQUESTS = [
    *(stream for stream, _ in ACCEPTED.values()),
    *(stream for stream, _ in REFUSED.values()),
    *(text.replace(b"%b", b"", 1) for text in PLACES.values()),
]
RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: a=b\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nT: u\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 7\r\n\r\n",
    b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 0\r\n\r\n",
]


def mutated(source: random.Random, corpus: list[bytes]) -> bytes:
    """One of the corpus, changed in a few places."""
    data = bytearray(source.choice(corpus))
    for _ in range(source.randint(1, 4)):
        at = source.randint(0, len(data))
        match source.randint(0, 5):
            case 0:
                data[at:at] = source.choice(SEEDS)
            case 1:
                del data[at : at + source.randint(1, 8)]
            case 2:
                data[at : at + 1] = bytes([source.randint(0, 255)])
            case 3:
                other = source.choice(corpus)
                begin = source.randint(0, len(other))
                data[at:at] = other[begin : begin + source.randint(1, 40)]
            case 4:
                data += source.choice(corpus)
            case _:
                data[at:at] = data[at : at + source.randint(1, 30)]
    return bytes(data)


def pieces_of(source: random.Random, stream: bytes) -> list[bytes]:
    at = sorted({0, len(stream), *(source.randint(0, len(stream)) for _ in range(source.randint(0, 6)))})
    return [stream[start:end] for start, end in itertools.pairwise(at) if start < end]


KNOWN = RequestHeads(POLICY)
"""Reads every stream, and so remembers lines and blocks of all that came before."""


def remembered(stream: bytes) -> tuple[Requests, int]:
    """Read a stream as one of many connections does."""
    sink = Requests(KNOWN)
    try:
        sink.reader.feed(stream)
    except ProxyError as error:
        return sink, error.status
    return sink, 0


def requests(source: random.Random, stream: bytes) -> None:
    """Head parser and chunk reader, against both oracles and against themselves cut up."""
    agree(stream)
    check(stream)
    whole, status = read_requests([stream])
    cut, other = read_requests(pieces_of(source, stream))
    assert bool(status) == bool(other) or (not status and not other), (status, other)
    assert cut.seen()[: cut.ended] == whole.seen()[: whole.ended]
    again, other = remembered(stream)
    assert (other, again.seen(), again.ended) == (status, whole.seen(), whole.ended)
    for mine, theirs in zip(again.heads, whole.heads, strict=True):
        assert (mine.keep_alive, mine.upgrade_websocket, mine.cookie_line) == (
            theirs.keep_alive,
            theirs.upgrade_websocket,
            theirs.cookie_line,
        )


def responses(source: random.Random, stream: bytes) -> None:
    """The reader of the app's answers, likewise."""
    sink, status = read_response([stream], eof=True)
    cut, other = read_response(pieces_of(source, stream), eof=True)
    assert bool(status) == bool(other), (status, other)
    if not status and sink.ended:
        assert cut.seen() == sink.seen()
        ours = (sink.heads[-1].status, bytes(sink.body))
        theirs = by_h11(stream, b"GET")
        assert theirs == ours, (theirs, ours)
        if sink.heads[-1].status not in (204, 304):  # llhttp asks for no method and no status
            theirs = by_llhttp(stream)
            assert theirs == ours, (theirs, ours)


class Cookies:
    """The cookie opener: whatever it is given, it opens nothing but what was sealed."""

    def __init__(self) -> None:
        self._origin = Origins(["https://app.example.com"], [bytes(range(32)), bytes(range(1, 33))]).main
        self._ticket = new_ticket(1_800_000_000.0)
        self._names = self._origin.names
        self._sealed = self._origin.ring.seal_ticket(self._origin.names.session, self._ticket)

    def line(self, source: random.Random) -> bytes:
        """A Cookie line with something like a sealed value in it."""
        value = mutated(source, [self._sealed, self._sealed[: len(self._sealed) // 2] * 2])
        line = b"theme=dark; %b=%b; lang=en" % (self._names.session, value)
        return mutated(source, [line]) if source.random() < 0.5 else line

    def __call__(self, source: random.Random, line: bytes) -> None:
        names = self._names
        found = cookies.one(line, names.session)
        passed = cookies.cut(line, names)
        assert passed.find(self._sealed) < 0 or line.count(self._sealed) != 1 or found != self._sealed
        if found is not None:
            try:
                ticket, _ = self._origin.ring.open_ticket(names.session, found)
            except CookieError:
                return
            assert ticket == self._ticket
            assert found == self._sealed


def main(seconds: float = 60.0, seed: int = 0) -> int:
    """Fuzz, and say how much was tried."""
    seed = seed or time.time_ns() & 0xFFFFFFFF
    source = random.Random(seed)
    opener = Cookies()
    targets: dict[str, tuple[Callable[[random.Random], bytes], Callable[[random.Random, bytes], None]]] = {
        "requests": (lambda source: mutated(source, REQUESTS), requests),
        "responses": (lambda source: mutated(source, RESPONSES), responses),
        "cookies": (opener.line, opener),
    }
    counts = dict.fromkeys(targets, 0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, (make, target) in targets.items():
            data = make(source)
            try:
                target(source, data)
            except Exception:
                print(f"{name} failed, seed {seed}, after {counts[name]} inputs: {data!r}", file=sys.stderr)
                raise
            counts[name] += 1
    print(
        f"seed {seed}: "
        + ", ".join(f"{count:,} {name}" for name, count in counts.items())
        + ", no disagreement"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:2]), *map(int, sys.argv[2:3])))
