"""Forward auth: what is asked about, and how each engine is answered."""

from __future__ import annotations

import pytest

from proxy.core.forward_auth import Answers, Engine, Original, Questions, source_names
from proxy.core.gate import Answer, Forward
from proxy.core.headers import HeaderPolicy
from proxy.errors import ProxyError
from proxy.wire.head import RequestHeads
from tests.unit.wire.reading import NAMES as COOKIES
from tests.unit.wire.reading import Requests

NAMES = ("X-Forwarded-User", "X-Forwarded-Email")
HOME = "https://app.example.com"


def ask(
    engine: Engine, fields: bytes, line: bytes = b"GET /asked HTTP/1.1\r\nHost: engine\r\n"
) -> Original | None:
    sink = Requests(RequestHeads(HeaderPolicy([COOKIES], sources=source_names(engine))))
    for _ in range(2):  # read, then remembered
        sink.reader.feed(line + fields + b"\r\n")
    first, second = (Questions(engine).original(head) for head in sink.heads)
    assert (first is None) == (second is None)
    assert first is None or second is None or _told(first) == _told(second)
    return second


def _told(asked: Original) -> tuple[object, ...]:
    return asked.method, asked.target, asked.path, asked.host, asked.cookie, asked.upgrade_websocket


GOOD = {
    Engine.NGINX: b"X-Original-Method: POST\r\nX-Original-URI: /a?b=%20c\r\n",
    Engine.TRAEFIK: b"X-Forwarded-Method: POST\r\nX-Forwarded-Uri: /a?b=%20c\r\nX-Forwarded-Host: engine\r\n",
    Engine.CADDY: b"X-Forwarded-Method: POST\r\nX-Forwarded-Uri: /a?b=%20c\r\nX-Forwarded-Host: engine\r\n",
    Engine.HAPROXY: b"X-Forwarded-Method: POST\r\nX-Forwarded-Uri: /a?b=%20c\r\nX-Forwarded-Host: engine\r\n",
}


@pytest.mark.parametrize("engine", GOOD)
def test_the_original_request_is_read_from_the_engines_one_source(engine: Engine) -> None:
    asked = ask(engine, GOOD[engine] + b"Cookie: x=1\r\n")
    assert asked is not None
    assert (asked.method, asked.target, asked.path, asked.host) == (b"POST", b"/a?b=%20c", b"/a", b"engine")
    assert asked.cookie == b"x=1"
    others = b"".join(
        text for other, text in GOOD.items() if text != GOOD[engine] and other is not Engine.CADDY
    )
    assert ask(engine, others.replace(b"X-Forwarded", b"X_Forwarded")) is None


def test_envoy_sends_the_request_itself() -> None:
    line = b"GET /ext-authz/asked?a=%20b HTTP/1.1\r\nHost: engine\r\n"
    asked = ask(Engine.ENVOY, b"X-Forwarded-Uri: /evil\r\nX-Original-URI: /evil\r\n", line)
    assert asked is not None
    assert (asked.method, asked.target, asked.path, asked.host) == (
        b"GET",
        b"/asked?a=%20b",
        b"/asked",
        b"engine",
    )


@pytest.mark.parametrize(
    "target",
    [
        b"/asked",
        b"/",
        b"/ext-authz",
        b"/ext-authzx/asked",
        b"/ext-authz?/asked",
        b"/Ext-Authz/asked",
        b"*",
        b"/x/ext-authz/asked",
        b"//ext-authz/asked",
    ],
)
def test_a_question_without_envoys_prefix_is_none(target: bytes) -> None:
    method = b"OPTIONS" if target == b"*" else b"GET"
    assert ask(Engine.ENVOY, b"", b"%b %b HTTP/1.1\r\nHost: engine\r\n" % (method, target)) is None


def test_a_path_that_begins_like_envoys_prefix_keeps_its_beginning() -> None:
    asked = ask(Engine.ENVOY, b"", b"GET /ext-authz/ext-authz/x HTTP/1.1\r\nHost: engine\r\n")
    assert asked is not None
    assert asked.path == b"/ext-authz/x"


@pytest.mark.parametrize("engine", GOOD)
@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"",
        lambda text: text + text.splitlines(keepends=True)[0],
        lambda text: text + text.splitlines(keepends=True)[1],
        lambda text: text.replace(b"/a?", b"http://evil/a?"),
        lambda text: text.replace(b"/a?", b"a?"),
        lambda text: text.replace(b"%20c", b"#c"),
        lambda text: text.replace(b"%20c", b" c"),
        lambda text: text.replace(b"%20c", b"\xc3\xa4"),
        lambda text: text.replace(b"POST", b"PO ST"),
        lambda text: text.replace(b"POST", b""),
    ],
)
def test_what_is_missing_doubled_or_malformed_is_refused(engine: Engine, change) -> None:
    assert ask(engine, change(GOOD[engine])) is None


@pytest.mark.parametrize(
    ("fields", "line", "expected"),
    [
        (b"", b"GET", False),
        (b"Sec-WebSocket-Key: x\r\n", b"GET", True),  # whatever became of its Upgrade on the way
        (b"", b"CONNECT", True),  # RFC 8441
    ],
)
def test_a_websocket_is_known_without_its_upgrade(fields: bytes, line: bytes, expected: bool) -> None:
    asked = ask(Engine.NGINX, b"X-Original-Method: %b\r\nX-Original-URI: /ws\r\n" % line + fields)
    assert asked is not None
    assert asked.upgrade_websocket is expected


@pytest.mark.parametrize("engine", list(Engine))
@pytest.mark.parametrize(
    "spelling", [b"Connection: sec-websocket-key", b"Connection: close, Sec-WebSocket-Key"]
)
def test_no_connection_field_hides_a_websocket(engine: Engine, spelling: bytes) -> None:
    path = b"/ext-authz/asked" if engine is Engine.ENVOY else b"/"
    line = b"GET %b HTTP/1.1\r\nHost: engine\r\n" % path
    asked = ask(engine, GOOD.get(engine, b"") + b"SEC-WebSocket-Key: x\r\n" + spelling + b"\r\n", line)
    assert asked is not None
    assert asked.upgrade_websocket


@pytest.mark.parametrize("engine", GOOD)
def test_no_connection_field_takes_away_what_is_asked_about(engine: Engine) -> None:
    names = b", ".join(source_names(engine))
    asked = ask(engine, b"Connection: " + names + b"\r\n" + GOOD[engine])
    assert asked is not None
    assert asked.target == b"/a?b=%20c"


def test_an_answer_that_sets_a_cookie_is_nobody_elses() -> None:
    answers = Answers(Engine.NGINX, NAMES)
    moved = Forward(identity=b"X-Forwarded-User: ada\r\n", set_cookie=(b"np=1",))
    assert b"np=1" in answers.passed(moved, b"").ready
    assert b"np=1" not in answers.passed(Forward(identity=moved.identity), b"").ready


@pytest.mark.parametrize("engine", list(Engine))
def test_a_pass_names_every_header_and_the_cookies_without_ours(engine: Engine) -> None:
    answers = Answers(engine, NAMES)
    for _ in range(2):  # made, then remembered
        ready = answers.passed(Forward(identity=b"X-Forwarded-User: ada\r\n"), b"Cookie: x=1").ready
        assert ready == b"X-Forwarded-User: ada\r\nX-Forwarded-Email:\r\nCookie: x=1\r\n"
        ready = answers.passed(Forward(), b"").ready
        assert ready.startswith(b"X-Forwarded-User:\r\nX-Forwarded-Email:\r\nCookie:\r\n")
    told = answers.passed(Forward(set_cookie=(b"np=1; Path=/",)), b"").ready
    assert told.endswith(b"Set-Cookie: np=1; Path=/\r\n")


@pytest.mark.parametrize(
    ("engine", "status", "expected", "more"),
    [
        (Engine.NGINX, 302, 401, [(b"X-Nightporter-Location", b"/oauth2/login")]),
        (Engine.NGINX, 401, 401, []),
        (Engine.NGINX, 503, 403, [(b"X-Nightporter-Status", b"503")]),
        (Engine.NGINX, 400, 403, [(b"X-Nightporter-Status", b"400")]),
        (Engine.TRAEFIK, 302, 302, [(b"Location", b"https://app.example.com/oauth2/login")]),
        (Engine.CADDY, 302, 302, [(b"Location", b"/oauth2/login")]),
        (Engine.ENVOY, 302, 302, [(b"Location", b"/oauth2/login")]),
        (Engine.ENVOY, 503, 429, []),
        (Engine.HAPROXY, 503, 503, []),
    ],
)
def test_a_refusal_in_words_that_the_engine_passes_on(
    engine: Engine, status: int, expected: int, more: list[tuple[bytes, bytes]]
) -> None:
    fields = [(b"Location", b"/oauth2/login")] if status == 302 else []
    answer = Answers(engine, NAMES).refused(Answer(status, fields, b"body", "denied"), HOME)
    assert (answer.status, answer.headers, answer.decision) == (expected, more, "denied")


@pytest.mark.parametrize("engine", GOOD)
def test_a_head_that_is_known_but_for_the_target_is_read_as_if_it_were_new(engine: Engine) -> None:
    """Targets change from question to question; what they may be, and how often, does not."""
    policy = HeaderPolicy([COOKIES], sources=source_names(engine))
    name = b"x-original-uri" if engine is Engine.NGINX else b"x-forwarded-uri"
    rest = [line for line in GOOD[engine].splitlines(keepends=True) if name not in line.lower()]
    fields = b"".join(rest) + b"Cookie: x=1; __Host-np=s\r\nAccept: b\r\n"
    targets = [b"/1", b"/2?q", b"/3#x", b"http://evil/", b"/4\x00", b"/5\xff", b"", b"/6 7", b"/8"]
    blocks = [fields + name + b": " + target + b"\r\n" for target in targets]
    blocks += [
        fields + name + b": /9\r\n" + name.upper() + b": /10\r\n",
        fields,
        name + b": /11\r\n" + fields,
    ]
    blocks += [fields + name + b": /12\r\nConnection: close\r\n", fields + name.title() + b": /13\r\n"]
    known = RequestHeads(policy)
    head = b"GET / HTTP/1.1\r\nHost: engine\r\n"
    for number in range(300):
        known.read(head + fields + name + b": /%d" % number)
    assert known.known(head + fields + name + b": /new\r\n\r\n"), "the name was learned"
    for _ in range(3):
        for block in blocks:
            raw = head + block.removesuffix(b"\r\n")
            assert _read(engine, known, raw) == _read(engine, RequestHeads(policy), raw), raw


def _read(engine: Engine, heads: RequestHeads, raw: bytes) -> object:
    try:
        head = heads.read(raw)
    except ProxyError as error:
        return error.status
    asked = Questions(engine).original(head)
    told = _told(asked) if asked is not None else None
    names = (b"accept", b"cookie", b"x-original-uri", b"x-forwarded-uri")
    return told, head.passed, head.cookie_line, head.keep_alive, [head.get_all(name) for name in names]
