"""Heads that are known but for lines that vary: read as if nothing had ever been known."""

from __future__ import annotations

import pytest

from proxy.errors import ProxyError
from proxy.wire.head import HeadLimits, RequestHead, RequestHeads
from proxy.wire.rewrite import request_bytes
from tests.unit.wire.reading import POLICY

HEAD = (
    b"GET /%d HTTP/1.1\r\nHost: a\r\nAccept: b\r\nCookie: x=1; __Host-np=s\r\nX-Trace: t%d\r\nX-Forwarded-User: evil\r\n"
    b"X-Request-Id: r%d\r\nLast: 1"
)
END = b"\r\n\r\n"


def taught() -> RequestHeads:
    """A reader that has learned that `X-Trace` and `X-Request-Id` vary."""
    heads = RequestHeads(POLICY)
    for number in range(300):
        heads.read(HEAD % (number, number, number))
    assert heads.known(HEAD % (1_000, 1_000, 1_000) + END)
    return heads


def sent(head: RequestHead) -> list[bytes]:
    """The lines that the app gets, without regard to the order of lines with different names."""
    head.request_id = b"id"
    lines = request_bytes(head, b"X-Forwarded-For: c\r\n", b"X-Forwarded-User: ada\r\n", b"app", False)
    assert lines.endswith(END)
    first, *rest = lines.removesuffix(END).split(b"\r\n")
    return [first, *sorted(rest, key=lambda line: line.partition(b":")[0].lower())]


def read(heads: RequestHeads, raw: bytes) -> object:
    try:
        head = heads.read(raw)
    except ProxyError as error:
        return error.status
    names = (b"x-geo", b"x-trace", b"accept", b"x-request-id", b"last", b"x-forwarded-user", b"cookie")
    said = [head.get_all(name) for name in names]
    return (
        (head.method, head.target, head.path, head.version, head.host, head.cookie, head.keep_alive),
        (head.has_body, head.length, head.upgrade_websocket, head.expect_continue, list(head.claims)),
        (said, sorted((*head.lines, *head.more)), sent(head)),
    )


KNOWN = HEAD % (1, 1, 1)
VARIATIONS = [
    KNOWN,
    KNOWN.replace(b"t1", b"t2"),
    KNOWN.replace(b"t1", b""),
    KNOWN.replace(b"t1", b"t\x00"),
    KNOWN.replace(b"t1", b"t\x7f"),
    KNOWN.replace(b"t1", b"t\n"),
    KNOWN.replace(b"t1", b"t\rz"),
    KNOWN.replace(b"t1", b"t\xff"),
    KNOWN.replace(b": t1", b":t1"),
    KNOWN.replace(b": t1", b" : t1"),
    KNOWN.replace(b": t1", b"t1"),
    KNOWN.replace(b"X-Trace", b"x-trace"),
    KNOWN.replace(b"X-Trace", b"X-Tracer"),
    KNOWN.replace(b"X-Trace: t1\r\n", b""),
    KNOWN.replace(b"X-Trace: t1\r\n", b"X-Trace: t1\r\nX-Trace: t2\r\n"),
    KNOWN.replace(b"X-Trace: t1\r\n", b"x-trace: t0\r\nX-Trace: t1\r\n"),
    KNOWN.replace(b"X-Trace: t1\r\n", b"X-Trace: t1\r\nx-trace: t2\r\n"),
    KNOWN.replace(b"X-Trace: t1\r\n", b"X-Trace: t1\r\n folded\r\n"),
    KNOWN.replace(b"Host: a\r\n", b"").replace(b"X-Trace: t1\r\n", b"X-Trace: t1\r\nHost: a\r\n"),
    KNOWN.replace(b"\r\nX-Trace: t1", b"\r\nConnection: x-trace\r\nX-Trace: t1"),
    KNOWN.replace(b"\r\nX-Trace: t1", b"\r\nConnection: close\r\nX-Trace: t1"),
    KNOWN.replace(b"\r\nX-Trace: t1", b"\r\nContent-Length: 0\r\nX-Trace: t1"),
    KNOWN.replace(b"\r\nX-Trace: t1", b"\r\nContent-Length: 3\r\nX-Trace: t1"),
    KNOWN.replace(b"\r\nX-Trace: t1", b"\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\nX-Trace: t1"),
    KNOWN.replace(b"GET", b"HEAD"),
    KNOWN.replace(b"GET", b"POST"),
    KNOWN.replace(b"GET", b"TRACE"),
    KNOWN.replace(b"GET", b"G T"),
    KNOWN.replace(b"/1 ", b"/1#x "),
    KNOWN.replace(b"/1 ", b"http://b/1 "),
    KNOWN.replace(b"HTTP/1.1", b"HTTP/1.0"),
    KNOWN.replace(b"HTTP/1.1", b"HTTP/2.0"),
    b"GET /1 HTTP/1.1\r\nX-Trace: t9" + KNOWN[len(b"GET /1 HTTP/1.1") :],
    b"GET /1 HTTP/1.1\r\nX-Trace: t9" + (KNOWN[len(b"GET /1 HTTP/1.1") :]).replace(b"X-Trace: t1\r\n", b""),
]


@pytest.mark.parametrize("raw", VARIATIONS)
def test_a_head_that_is_known_but_for_lines_that_vary_is_read_as_if_it_were_new(raw: bytes) -> None:
    heads = taught()
    for _ in range(3):
        assert read(heads, raw) == read(RequestHeads(POLICY), raw)


@pytest.mark.parametrize("raw", VARIATIONS)
def test_what_one_head_taught_changes_no_other(raw: bytes) -> None:
    heads = taught()
    read(heads, raw)
    for other in VARIATIONS:
        assert read(heads, other) == read(RequestHeads(POLICY), other), other


def test_an_end_in_the_wrong_place_is_no_head() -> None:
    """What is left without the line that varies would be one."""
    heads = taught()
    rest = KNOWN.replace(b"\r\nX-Trace: t1", b"")
    for at in range(len(rest)):
        for line in (b"\r\nX-Trace: t", b"\r\nX-Trace: t\r\n", b"\r\n\r\nX-Trace: t", b"X-Trace: t\r\n\r\n"):
            data = rest[:at] + line + rest[at:] + END
            found = heads.known(data)
            if found is not None:
                assert data.find(END) == len(data) - 4
                assert read(heads, data[:-4]) == read(RequestHeads(POLICY), data[:-4]), data
    assert heads.known(rest + b"\r\n\r\nX-Trace: t\r\n") is None
    assert heads.known(rest + b"\r\n\r\nX-Trace: t") is None


def test_limits_hold_for_lines_that_vary() -> None:
    heads = RequestHeads(POLICY, HeadLimits(head_bytes=8_192, line_bytes=2_048, fields=8))
    for number in range(300):
        heads.read(HEAD % (number, number, number))
    head = KNOWN.replace(b"t1", b"t" * 7_000)
    assert heads.known(head + END)
    with pytest.raises(ProxyError) as caught:
        heads.read(KNOWN.replace(b"t1", b"t" * 9_000))
    assert caught.value.status == 431
    with pytest.raises(ProxyError) as caught:
        heads.read(KNOWN + b"\r\nOne: 1\r\nTwo: 2")
    assert caught.value.status == 431


def test_heads_of_many_names_that_vary_are_still_read_right() -> None:
    heads = RequestHeads(POLICY)
    for number in range(4_000):
        name = b"X-%d" % (number // 150 % 9)
        raw = HEAD % (number, number, number) + b"\r\n%b: %d" % (name, number)
        head = heads.read(raw)
        assert head.get(name.lower()) == b"%d" % number
        assert b"%b: %d" % (name, number) in sent(head)


def test_values_of_one_name_stay_in_order_however_it_is_spelled() -> None:
    """RFC 9110 §5.3: a proxy must not change that order; some apps take the last one for the edge's word."""
    heads = RequestHeads(POLICY)
    pair = b"\r\nX-Geo: a%d\r\nx-geo: b%d"
    for number in range(300):
        heads.read(HEAD % (1, 1, 1) + pair % (number, number))
    for lines in (pair % (1, 2), pair.lower() % (3, 4), b"\r\nx-geo: 5\r\nX-Geo: 6"):
        raw = HEAD % (1, 1, 1) + lines
        for _ in range(2):
            assert read(heads, raw) == read(RequestHeads(POLICY), raw), lines


def test_what_is_ready_is_nobodys_in_particular() -> None:
    heads = taught()
    for block, identity in (
        (b"A: 1\r\n", b"I: 1\r\n"),
        (b"A: 2\r\n", b"I: 1\r\n"),
        (b"A: 2\r\n", b"I: 2\r\n"),
    ):
        for _ in range(2):
            head = heads.read(KNOWN)
            assert head.ready is not None
            sent = request_bytes(head, block, identity, b"app", False)
            assert sent.endswith(b"\r\nCookie: x=1\r\n" + block + identity + b"\r\n")


PERSON = b"GET /%d HTTP/1.1\r\nHost: a\r\nAccept: b\r\nCookie: x=%d; __Host-np=s%d\r\nLast: 1"


def test_many_people_share_what_is_remembered() -> None:
    heads = RequestHeads(POLICY)
    for number in range(1_000):
        heads.read(PERSON % (number, number, number))
    for number in (0, 999, 5_000):  # the last one is new, his browser is not
        raw = PERSON % (7, number, number)
        head = heads.known(raw + END)
        assert head is not None
        assert (head.cookie, head.cookie_line) == (
            b"x=%d; __Host-np=s%d" % (number, number),
            b"Cookie: x=%d" % number,
        )
        assert read(heads, raw) == read(RequestHeads(POLICY), raw)
    none = PERSON.replace(b"Cookie: x=%d; __Host-np=s%d\r\n", b"") % 7
    for raw in (
        none,
        none + b"\r\nCookie: a",
        none + b"\r\nCookie: a\r\nCookie: b",
        none + b"\r\nCookie: a\r\ncookie: b",
        none + b"\r\ncookie: b",
        none + b"\r\nCookie:",
        none + b"\r\nCookie: \x01",
        none + b"\r\nCookie : a",
        PERSON % (7, 5, 5) + b"\r\nCookie: y",
        PERSON % (7, 5, 5) + b"\r\nConnection: cookie",
        PERSON % (7, 5, 5) + b"\r\nContent-Length: 5",
    ):
        for _ in range(3):
            assert read(heads, raw) == read(RequestHeads(POLICY), raw), raw
    head = heads.read(none)
    assert (head.cookie, head.cookie_line) == (b"", b"")
