"""Passes that are known by the bytes of the question: only what reads the same, and only while it stands."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.core.forward_auth import Engine, Original, Questions, source_names
from proxy.core.gate import Answer, Forward
from proxy.core.headers import HeaderPolicy
from proxy.errors import ProxyError
from proxy.shell.auth_door import AuthDoor
from proxy.wire.head import HeadLimits, RequestHeads
from proxy.wire.memo import LONGEST
from tests.unit.wire.reading import NAMES as COOKIES

ADA, BOB = b"theme=dark; __Host-np=ada", b"__Host-np=bob; lang=en"
QUESTION = (
    b"GET / HTTP/1.1\r\nAccept: text/html\r\nHost: app.example.com\r\nX-Original-Method: GET\r\n"
    b"Cookie: %b\r\nX-Original-URI: %b\r\n\r\n"
)
FIRST = QUESTION % (ADA, b"/first")


class Front:
    """Two people with a session each, until somebody takes it away."""

    def __init__(self) -> None:
        self.sessions = {
            ADA: Forward(b"X-Forwarded-User: ada\r\n", "session"),
            BOB: Forward(b"X-Forwarded-User: bob\r\n", "session"),
        }

    def warm(self, path: bytes, cookie: bytes, host: bytes, /) -> Forward | None:
        return (
            None if path.startswith(b"/oauth2") or host != b"app.example.com" else self.sessions.get(cookie)
        )

    def admit(self, head: Original, peer: object, /) -> Forward | Answer:
        return self.warm(head.path, head.cookie, head.host) or Answer(401)


class House:
    """A door that learned a question, and who reads what it does not know."""

    def __init__(self, engine: Engine = Engine.NGINX, limits: HeadLimits | None = None) -> None:
        limits = limits or HeadLimits()
        self.front = Front()
        self.policy = HeaderPolicy([COOKIES], sources=source_names(engine))
        self.heads = RequestHeads(self.policy, limits)
        self.door = AuthDoor(
            engine,
            self.front,
            ("X-Forwarded-User",),
            lambda host: "https://app.example.com",
            limits.head_bytes,
        )

    def ask(self, data: bytes) -> bytes | None:
        """The answer's lines by the bytes alone; if there are none, the question is learned."""
        known = self.door.standing(data)
        if known is None:  # as `Answerer` does
            self.door.begin()
            self.door.admit(self.heads.read(data[:-4]), None)
            self.door.keep(data)
        return known[2].ready if known is not None else None


def taught() -> House:
    house = House()
    for cookie in (ADA, ADA, BOB, BOB):  # what came once may never come again
        house.ask(QUESTION % (cookie, b"/first"))
    assert house.ask(FIRST)
    return house


def test_another_target_and_another_persons_cookies_are_known() -> None:
    house = taught()
    answer = house.ask(QUESTION % (BOB, b"/other?with=query"))
    assert answer is not None
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"X-Forwarded-User: bob\r\n" in answer
    assert b"\r\nCookie: lang=en\r\n" in answer
    known = house.door.standing(QUESTION % (ADA, b"/path?query=secret"))
    assert known is not None
    assert known[:2] == (b"GET", b"/path")


def test_a_verdict_that_does_not_stand_any_more_is_asked_for_again() -> None:
    house = taught()
    house.front.sessions[ADA] = Forward(b"X-Forwarded-User: ada\r\nX-New: token\r\n", "session")  # a renewal
    assert house.ask(FIRST) is None
    assert b"X-New: token" in (house.ask(FIRST) or b"")
    del house.front.sessions[ADA]  # a sign-out
    assert house.ask(FIRST) is None
    assert house.ask(FIRST) is None
    assert house.ask(QUESTION % (BOB, b"/x"))


def test_a_session_that_is_over_is_not_kept_in_memory() -> None:
    class Session:
        """What a verdict leads to."""

        def watch(self, close: Callable[[], None]) -> Callable[[], None]:
            return close

    house, session = taught(), Session()
    seen = weakref.ref(session)
    house.front.sessions[ADA] = Forward(b"X-Forwarded-User: ada\r\n", "session", watch=session.watch)
    for _ in range(3):
        house.ask(FIRST)
    del session, house.front.sessions[ADA]
    assert seen() is None


@pytest.mark.parametrize("other", [FIRST, FIRST.replace(b"Cookie: " + ADA, b"X: y")])
def test_two_questions_in_one_read_are_not_known_as_one(other: bytes) -> None:
    house = taught()
    house.door.begin()
    for data in (other, FIRST):
        house.door.admit(house.heads.read(data[:-4]), None)
    house.door.keep(other + FIRST)
    assert house.door.standing(other + FIRST) is None
    assert house.door.standing(FIRST)


def test_who_has_to_be_told_that_the_connection_goes_on_is_told() -> None:
    house = House()
    old = FIRST.replace(b"HTTP/1.1\r\n", b"HTTP/1.0\r\nConnection: keep-alive\r\n")
    for _ in range(4):
        assert house.ask(old) is None


def test_what_was_let_through_before_is_not_taken_for_this() -> None:
    house, other = taught(), FIRST.replace(b"Accept: text/html", b"Accept: x\r\nSec-WebSocket-Key: y")
    house.door.admit(house.heads.read(FIRST[:-4]), None)
    house.door.begin()
    house.door.keep(other)
    assert house.door.standing(other) is None


def test_questions_that_are_refused_do_not_turn_it_off_for_others() -> None:
    house = taught()
    for number in range(3_000):
        house.ask(QUESTION % (b"anonymous=%d" % number, b"/first"))
        if number % 3 == 0:
            assert house.ask(FIRST), number


def test_our_own_pages_are_the_doors() -> None:
    assert taught().ask(QUESTION % (ADA, b"/oauth2/login")) is None


def _read(house: House, data: bytes) -> tuple[object, ...] | None:
    """What a reader that knows nothing finds; None if it is not one plain question."""
    if data.find(b"\r\n\r\n") != len(data) - 4:
        return None
    try:
        head = RequestHeads(house.policy).read(data[:-4])
    except ProxyError:
        return None
    asked = Questions(Engine.NGINX).original(head)
    if asked is None or head.has_body or not head.keep_alive or asked.upgrade_websocket:
        return None
    forward = house.front.warm(asked.path, asked.cookie, asked.host)
    return None if forward is None else (head.method, asked.path, asked.cookie, forward, head.cookie_line)


PIECES = [
    *(bytes([each]) for each in (0, 9, 10, 13, 32, 35, 47, 58, 59, 63, 127, 128, 255)),
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"\n\n",
        b"\r\n ",
        b"a",
        b"%0d%0a",
        b"\r\nHost: evil",
        b"\r\nX-Original-URI: /evil",
    ),
    *(
        b"\r\nx-original-uri:/evil",
        b"\r\nCookie: a=b",
        b"\r\ncookie:__Host-np=bob",
        b"\r\nX-Original-Method: PUT",
    ),
    *(
        b"\r\nContent-Length: 3",
        b"\r\nTransfer-Encoding: chunked",
        b"\r\nConnection: close",
        b"\r\nConnection: cookie",
    ),
    *(b"\r\nSec-WebSocket-Key: x", b"\r\nExpect: 100-continue", b"\r\nCookie: " + ADA, FIRST, FIRST[:-2]),
    *(b"\r\nX-Original-URI: /first", b"X-Original-URI: ", b"Cookie: ", b"\r\nCookie: "),
]


def _same(house: House, data: bytes) -> None:
    known = house.door.standing(data)
    if known is not None:
        method, path, given = known
        found = _read(house, data)
        assert found is not None, data
        assert found[:3] == (method, path, given.cookie), data
        assert isinstance(found[3], Forward)
        assert (found[3].identity, found[3].decision) == (given.identity, given.decision), data
        line = found[4] if found[4] else b"Cookie:"
        assert isinstance(line, bytes)
        assert b"\r\n%b\r\n" % line in given.ready, data


def test_what_is_known_by_its_bytes_is_what_a_reader_finds_that_knows_nothing() -> None:
    house = taught()
    count = 0
    for at in range(len(FIRST) + 1):
        for piece in PIECES:
            for data in (FIRST[:at] + piece + FIRST[at:], FIRST[:at] + piece + FIRST[at + len(piece) :]):
                _same(house, data)
                count += 1
        _same(house, FIRST[:at])
        _same(house, FIRST[at:])
        _same(house, FIRST[:at] + FIRST[at + 1 :])
    assert count > 5_000
    assert house.ask(FIRST), "nothing was forgotten meanwhile"


@pytest.mark.parametrize("piece", PIECES)
def test_what_was_learned_from_odd_questions_is_known_only_where_it_reads_the_same(piece: bytes) -> None:
    for at in range(len(FIRST) - 3):
        house, odd = House(), FIRST[:at] + piece + FIRST[at:]
        if odd.find(b"\r\n\r\n") != len(odd) - 4:
            continue
        for data in (odd, odd, odd):
            try:
                house.ask(data)
            except ProxyError:
                break
        for data in (odd, FIRST, odd.replace(b"/first", b"/other"), odd.replace(ADA, BOB)):
            _same(house, data)


def test_lines_behind_the_target_are_part_of_what_was_judged() -> None:
    line, *fields = FIRST.removesuffix(b"\r\n\r\n").split(b"\r\n")
    for last in fields:
        house = House()
        others = [each for each in fields if each != last]
        for _ in range(4):
            house.ask(b"\r\n".join([line, *others, last]) + b"\r\n\r\n")
        assert house.heads.known(b"\r\n".join([line, *others, last]) + b"\r\n\r\n")
        _same(house, b"\r\n".join([line, *others]) + b"\r\n\r\n")
        _same(house, FIRST)


def test_a_question_longer_than_a_head_may_be_is_not_known() -> None:
    short = House(limits=HeadLimits(head_bytes=1_024))
    for house, longest in ((short, 1_024), (taught(), LONGEST)):
        for _ in range(3):
            house.ask(FIRST)
        fitting = b"/" + b"x" * (longest - len(QUESTION % (ADA, b"/")))
        assert len(QUESTION % (ADA, fitting)) == longest
        assert house.ask(QUESTION % (ADA, fitting))
        assert house.door.standing(QUESTION % (ADA, fitting + b"x")) is None


@pytest.mark.parametrize("engine", [Engine.ENVOY, Engine.TRAEFIK])
def test_an_engine_that_asks_otherwise_is_left_alone_after_some_time(engine: Engine) -> None:
    house = House(engine)
    data = b"GET /ext-authz/first HTTP/1.1\r\nHost: app.example.com\r\nCookie: %b\r\n" % ADA
    data += (
        b"X-Forwarded-Host: app.example.com\r\nX-Forwarded-Method: GET\r\nX-Forwarded-Uri: /a\r\nX: y\r\n\r\n"
    )
    for _ in range(300):
        assert house.ask(data) is None
    assert house.door._passes.resting


def test_the_shipped_nginx_asks_in_the_order_that_can_be_known() -> None:
    text = (Path(__file__).parents[3] / "config" / "forward-auth" / "nginx.conf").read_text()
    question = text[text.index("location = /_nightporter {") : text.index("location / {")]
    sent = re.findall(r"(?m)^ *proxy_set_header (\S+) \$", question)
    assert sent[-2:] == ["Cookie", "X-Original-URI"]


def test_what_is_remembered_is_bounded() -> None:
    house = taught()
    passes = house.door._passes
    for number in range(20_000):
        cookie = b"__Host-np=%d; x=%b" % (number, b"y" * 500)
        house.front.sessions[cookie] = house.front.sessions[BOB]
        passes._blocks.hits += 1  # most others are known
        house.ask(QUESTION % (cookie, b"/"))
    assert 100 < len(passes._passes) < 4_000
    assert len(passes._blocks) == 1
    assert sum(2 * len(each.cookie) + len(each.ready) for each in passes._passes.values()) < 4 << 20


def test_a_pass_that_is_made_anew_takes_the_place_of_its_predecessor() -> None:
    house = taught()
    size = house.door._passes._size
    for number in range(1_000):
        house.front.sessions[ADA] = Forward(b"X-Forwarded-User: %06d\r\n" % number, "session")
        for _ in range(2):
            house.ask(FIRST)
    assert house.door._passes._size < size + 100
    assert len(house.door._passes._passes) == 2
    assert house.ask(QUESTION % (BOB, b"/"))
