"""What never reaches the app, and whose word about the client counts."""

from __future__ import annotations

import contextlib

import pytest

from proxy.core.gate import Forward
from tests.integration.datapath.house import HOST, IDENTITY, field, get, house, ok, run

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

SMUGGLING = {
    "length and coding": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
    "length list": b"Content-Length: 5, 0\r\n\r\nhello",
    "space before colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "other coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "folded coding": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "vertical tab": b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "bare LF": b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare CR": b"X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "NUL": b"X: \x00\r\n\r\n",
    "two hosts": b"Host: b\r\n\r\n",
}


@pytest.mark.parametrize("case", SMUGGLING)
@pytest.mark.parametrize("cut", [False, True])
def test_what_two_readers_might_read_differently_never_reaches_the_app(case: str, cut: bool) -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            stream = b"POST / HTTP/1.1\r\n" + HOST + SMUGGLING[case] + SMUGGLED
            if cut:
                client.transport.set_write_buffer_limits(0)
                for at in range(len(stream)):
                    client.send(stream[at : at + 1])
                    await client.writer.drain()
            else:
                client.send(stream)
            status, head, _ = await client.answer()
            assert status in (400, 501)
            assert field(head, b"connection") == b"close"
            await client.gone()
            assert h.nothing_reached_the_app
            assert h.door.heads == []
            done = await h.finished()
            assert (done.status, done.decision) == (status, "rejected")
            assert h.server.counters.rejected == {status: 1}

    run(body)


def test_a_body_that_turns_out_malformed_never_becomes_a_request() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(
                b"POST / HTTP/1.1\r\n"
                + HOST
                + b"Transfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n"
                + SMUGGLED
            )
            assert (await client.answer())[0] == 400
            await client.gone()
            assert len(h.door.heads) == 1

    run(body)


SPOOFED = [
    b"X-Forwarded-User: evil",
    b"x-forwarded-user: evil",
    b"X_Forwarded_User: evil",
    b"X.Forwarded.User: evil",
    b"X-FORWARDED_user: evil",
    b"X-Forwarded-Groups: evil",
    b"X-Auth-Request-User: evil",
    b"X-Auth-Request-Email: evil",
    b"Remote-User: evil",
    b"X-Authentik-Username: evil",
    b"X-Pomerium-Jwt-Assertion: evil",
    b"X-Goog-Authenticated-User-Email: evil",
    b"X-Amzn-Oidc-Data: evil",
    b"X-Original-Url: /evil",
    b"X-Rewrite-Url: /evil",
    b"X-Http-Method-Override: evil",
    b"X-Forwarded-Prefix: /evil",
    b"X-Forwarded-For: evil",
    b"X-Forwarded-Host: evil",
    b"X_Forwarded_Host: evil",
    b"Forwarded: for=evil",
    b"X-Real-Ip: evil",
    b"Proxy: evil",
    b"Proxy-Authorization: evil",
    b"Transfer_Encoding: evil",
    b"Content_Length: evil",
]


@pytest.mark.parametrize("public", [False, True])
def test_no_spelling_of_an_identity_reaches_the_app(public: bool) -> None:
    async def body() -> None:
        async with house() as h:
            identity = b"" if public else IDENTITY
            h.door.rule = lambda head: Forward(identity=identity)
            client = await h.client()
            block = b"".join(line + b"\r\n" for line in SPOOFED * 2)
            client.send(
                b"POST / HTTP/1.1\r\n" + HOST + block
                + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            )  # fmt: skip
            app = await h.app()
            head = await app.head()
            assert b"evil" not in head
            assert head.endswith(b"X-Forwarded-Port: 443\r\n" + identity + b"\r\n")
            assert await app.until(b"\r\n\r\n") == b"0\r\n\r\n"
            app.send(ok())
            await client.answer()
            assert app.left == b""

    run(body)


def test_no_spelling_of_an_identity_hides_in_a_trailer() -> None:
    async def body() -> None:
        async with house() as h:
            for line in SPOOFED:
                client = await h.client()
                client.send(b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
                app = await h.app()
                await app.until(b"x\r\n")
                client.send(b"0\r\n" + line + b"\r\n\r\n")
                assert (await client.answer())[0] == 400
                with contextlib.suppress(ConnectionError):
                    assert await app.end() == b""  # never a last chunk

    run(body)


def test_connection_cannot_take_ours_away() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            names = (
                b"X-Forwarded-User, X-Forwarded-Groups, X-Forwarded-For, Host, Cookie, X-Request-Id, x-own"
            )
            client.send(
                get(b"/", b"Connection: " + names + b"\r\nCookie: a=b\r\nX-Own: gone\r\nX-Other: stays\r\n")
            )
            app = await h.app()
            head = await app.head()
            assert head.endswith(IDENTITY + b"\r\n")
            for name in (b"x-forwarded-for", b"host", b"cookie", b"x-request-id", b"x-other"):
                assert field(head, name)
            assert b"gone" not in head

    run(body)


def test_our_cookies_never_reach_the_app_in_any_arrangement() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(
                get(b"/", b"Cookie: a=1; __Host-np=s\r\ncookie: __Host-np-flow-x=s; b=2\r\nCookie: c\r\n")
            )
            app = await h.app()
            assert field(await app.head(), b"cookie") == b"a=1; b=2; c"
            assert h.door.heads[0].cookie == b"a=1; __Host-np=s; __Host-np-flow-x=s; b=2; c"

    run(body)


def test_authorization_is_the_clients_unless_it_carries_our_token() -> None:
    async def body() -> None:
        for ours in (False, True):
            async with house(authorization_from_us=ours) as h:
                client = await h.client()
                client.send(get(b"/", b"Authorization: Bearer theirs\r\n"))
                app = await h.app()
                found = field(await app.head(), b"authorization")
                assert found == (None if ours else b"Bearer theirs")

    run(body)


def test_a_trusted_peer_is_believed_and_extended() -> None:
    async def body() -> None:
        async with house(trusted=["127.0.0.0/8"]) as h:
            client = await h.client()
            client.send(
                get(
                    b"/",
                    b"X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: pub.example\r\n"
                    b"X-Real-Ip: 203.0.113.9\r\nX-Request-Id: edge-1\r\nX-Forwarded-User: evil\r\n"
                    b"X_Forwarded_For: evil\r\n",
                )
            )
            app = await h.app()
            head = await app.head()
            assert field(head, b"x-forwarded-for") == b"203.0.113.9, 127.0.0.1"
            assert field(head, b"x-forwarded-proto") == b"http"
            assert field(head, b"x-forwarded-host") == b"pub.example"
            assert field(head, b"x-real-ip") == b"203.0.113.9"
            assert field(head, b"x-request-id") == b"edge-1"
            assert b"evil" not in head

    run(body)


def test_an_absolute_target_decides_about_the_host() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(b"GET http://other.example/x HTTP/1.1\r\n" + HOST + b"\r\n")
            app = await h.app()
            assert (await app.head()).startswith(b"GET /x HTTP/1.1\r\nHost: other.example\r\n")
            assert h.door.heads[0].host == b"other.example"

    run(body)


@pytest.mark.parametrize(
    ("forward", "sent", "expected"),
    [
        (Forward(protected=True), b"", b"private"),
        (Forward(protected=True), b"Cache-Control: public, max-age=5\r\n", b"private, max-age=5"),
        (Forward(protected=True), b"Cache-Control: no-store\r\n", b"no-store"),
        (Forward(protected=True, shared_cache_ok=True), b"Cache-Control: public\r\n", b"public"),
        (Forward(protected=True, shared_cache_ok=True), b"", None),
        (Forward(), b"Cache-Control: public\r\n", b"public"),
        (Forward(), b"", None),
        (Forward(protected=True, set_cookie=(b"a=b",)), b"Cache-Control: public\r\n", b"no-store"),
    ],
)
def test_caches_are_told_what_they_may_keep(forward: Forward, sent: bytes, expected: bytes | None) -> None:
    async def body() -> None:
        async with house() as h:
            h.door.rule = lambda head: forward
            client, app = await h.asked()
            app.send(ok(b"x", sent + b"CDN-Cache-Control: max-age=60\r\n"))
            _, head, _ = await client.answer()
            assert field(head, b"cache-control") == expected
            shared = not forward.protected or forward.shared_cache_ok
            assert (field(head, b"cdn-cache-control") is not None) is shared
            assert field(head, b"set-cookie") == (b"a=b" if forward.set_cookie else None)

    run(body)
