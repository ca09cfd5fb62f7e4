"""Messages through the proxy: framing, keep-alive, pipelining, interim and early responses."""

from __future__ import annotations

import pytest

from tests.integration.datapath.house import HOST, IDENTITY, field, get, house, ok, run


def test_a_request_is_rewritten_and_its_response_passed_on() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(
                get(
                    b"/a%2Fb?c=d",
                    b"Cookie: x=1; __Host-np=secret; y=2\r\nAccept: */*\r\nConnection: keep-alive\r\n",
                )
            )
            app = await h.app()
            head = await app.head()
            request_id = h.door.heads[0].request_id
            assert head == (
                b"GET /a%2Fb?c=d HTTP/1.1\r\n"
                + HOST
                + b"X-Request-Id: "
                + request_id
                + b"\r\nAccept: */*\r\nCookie: x=1; y=2\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: https\r\n"
                b"X-Forwarded-Host: app.example.com\r\nX-Forwarded-Port: 443\r\n" + IDENTITY + b"\r\n"
            )
            app.send(ok(b"hello", b"Date: now\r\nSet-Cookie: __Host-np=evil\r\nX-App: 1\r\n"))
            status, head, data = await client.answer()
            assert (status, data) == (200, b"hello")
            assert head == (
                b"HTTP/1.1 200 OK\r\nDate: now\r\nX-App: 1\r\nCache-Control: private\r\n"
                b"Content-Length: 5\r\n\r\n"
            )
            done = await h.finished()
            assert (done.status, done.path, done.decision, done.bytes_out, done.error) == (
                200, b"/a%2Fb", "session", 5, "",
            )  # fmt: skip

    run(body)


def test_a_head_that_comes_before_its_body_is_written_once() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.client(), None
            for framing, first, second in (
                (b"Content-Length: 4", b"ab", b"cd"),
                (b"Transfer-Encoding: chunked", b"2\r\nab\r\n", b"2\r\ncd\r\n0\r\n\r\n"),
            ):
                client.send(get())
                app = app or await h.app()
                await app.head()
                app.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing)
                head = await client.head()  # it goes out at once, and then never again
                assert head.count(b"HTTP/1.1 200") == 1
                app.send(first)
                assert (await client.until(b"ab")).endswith(b"ab")
                app.send(second)
                rest = await client.until(b"0\r\n\r\n" if b"chunked" in framing else b"cd")
                assert b"HTTP/" not in rest
                assert client.left == b""

    run(body)


def test_both_connections_are_kept_and_pipelined_requests_are_answered_in_order() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(get(b"/1") + get(b"/deny") + get(b"/3") + b"POST /4 HTTP/1.1\r\n" + HOST)
            app = await h.app()
            assert (await app.head()).startswith(b"GET /1 ")
            assert app.left == b""
            app.send(ok(b"one"))
            assert (await app.head()).startswith(b"GET /3 ")
            client.send(b"Content-Length: 2\r\n\r\nhi")
            app.send(ok(b"three"))
            assert (await app.until(b"hi")).startswith(b"POST /4 ")
            app.send(ok(b"four"))
            seen = [(await client.answer())[::2] for _ in range(4)]
            assert seen == [(200, b"one"), (401, b"no\n"), (200, b"three"), (200, b"four")]
            assert h.app_connections == 1

    run(body)


def test_many_pipelined_answers_need_no_stack() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(get(b"/deny") * 3_000)
            for _ in range(3_000):
                assert (await client.answer())[0] == 401

    run(body)


def test_a_chunked_upload_is_framed_anew_and_trailers_are_dropped() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n")
            app = await h.app()
            head = await app.head()
            assert field(head, b"transfer-encoding") == b"chunked"
            assert await app.until(b"abc\r\n") == b"3\r\nabc\r\n"
            client.send(b"2\r\nde\r\n0\r\nX-Checksum: 1\r\n\r\n")
            assert await app.chunks() == b"de"
            assert app.left == b""
            app.send(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"1;q\r\na\r\n1\r\nb\r\n0\r\nX-T: 1\r\n\r\n"
            )
            status, head, data = await client.answer()
            assert (status, data) == (200, b"ab")
            assert field(head, b"transfer-encoding") == b"chunked"
            client.send(get(b"/again"))
            assert (await app.head()).startswith(b"GET /again ")

    run(body)


def test_an_upload_with_a_length_goes_out_as_it_comes() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(b"PUT / HTTP/1.1\r\n" + HOST + b"Content-Length: 6\r\n\r\nab")
            app = await h.app()
            assert field(await app.head(), b"content-length") == b"6"
            assert await app.exactly(2) == b"ab"
            client.send(b"cdef")
            assert await app.exactly(4) == b"cdef"
            app.send(ok())
            assert (await client.answer())[0] == 200

    run(body)


def test_a_post_without_a_body_says_so() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(b"POST / HTTP/1.1\r\n" + HOST + b"\r\n")
            app = await h.app()
            assert field(await app.head(), b"content-length") == b"0"

    run(body)


@pytest.mark.parametrize(
    ("method", "response", "status", "length"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, b"5"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, None),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b"5"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, None),
    ],
)
def test_responses_without_a_body_keep_both_connections(
    method: bytes, response: bytes, status: int, length: bytes | None
) -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.asked(method + b" / HTTP/1.1\r\n" + HOST + b"\r\n" + get(b"/next"))
            app.send(response)
            found, head, _ = await client.answer(head_only=True)
            assert (found, field(head, b"content-length")) == (status, length)
            assert (await app.head()).startswith(b"GET /next ")
            app.send(ok(b"next"))
            assert (await client.answer())[2] == b"next"

    run(body)


def test_a_body_that_the_connection_delimits_becomes_chunks() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.asked()
            app.send(b"HTTP/1.0 200 OK\r\n\r\nabc")
            assert field(await client.head(), b"transfer-encoding") == b"chunked"
            assert await client.until(b"abc\r\n") == b"3\r\nabc\r\n"
            app.send(b"de")
            assert await client.until(b"de\r\n") == b"2\r\nde\r\n"
            app.close()
            assert await client.chunks() == b""
            client.send(get(b"/next"))
            fresh = await h.app()
            assert (await fresh.head()).startswith(b"GET /next ")

    run(body)


def test_http_1_0_clients_get_what_they_understand() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            app = await h.app()
            head = await app.head()
            assert head.startswith(b"GET /1 HTTP/1.1\r\nHost: 127.0.0.1:")
            app.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" + ok(b"one"))
            status, head, data = await client.answer()
            assert (status, data, field(head, b"connection")) == (200, b"one", b"keep-alive")
            client.send(b"GET /2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            await app.head()
            app.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
            head = await client.head()
            assert field(head, b"transfer-encoding") is None
            assert field(head, b"connection") == b"close"
            assert await client.end() == b"abc"

    run(body)


def test_a_client_that_closes_is_closed() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(get(b"/", b"Connection: close\r\n"))
            app = await h.app()
            head = await app.head()
            assert field(head, b"connection") is None
            app.send(ok())
            status, head, _ = await client.answer()
            assert (status, field(head, b"connection")) == (200, b"close")
            assert await client.end() == b""
            # The app's connection is kept all the same.
            other = await h.client()
            other.send(get(b"/other"))
            assert (await app.head()).startswith(b"GET /other ")

    run(body)


def test_an_app_that_closes_costs_the_client_nothing() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.asked()
            app.send(ok(b"x", b"Connection: close\r\n"))
            _, head, _ = await client.answer()
            assert field(head, b"connection") is None
            client.send(get(b"/2"))
            fresh = await h.app()
            assert (await fresh.head()).startswith(b"GET /2 ")

    run(body)


def test_interim_responses_pass_both_ways() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
            app = await h.app()
            assert field(await app.head(), b"expect") == b"100-continue"
            assert client.left == b""
            app.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(b"hi")
            assert await app.exactly(2) == b"hi"
            app.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nSet-Cookie: __Host-np=x\r\n\r\n" + ok())
            assert await client.head() == b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
            assert (await client.answer())[0] == 200

    run(body)


def test_a_final_answer_instead_of_100_arrives_and_the_body_is_not_waited_for() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.asked(
                b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
            )
            app.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
            status, head, data = await client.answer()
            assert (status, data, field(head, b"connection")) == (413, b"no", b"close")
            assert await client.end() == b""
            assert await app.gone()  # it may wait for the body still

    run(body)


def test_what_is_refused_behind_a_request_waits_for_that_requests_answer() -> None:
    async def body() -> None:
        async with house() as h:
            client, app = await h.asked(
                get(b"/1") + b"GET /2 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + get(b"/3")
            )
            app.send(ok(b"one"))
            assert (await client.answer())[2] == b"one"
            status, head, _ = await client.answer()
            assert (status, field(head, b"connection")) == (400, b"close")
            assert await client.end() == b""
            assert app.left == b""
            assert len(h.door.heads) == 1

    run(body)


def test_a_refused_request_is_never_told_to_continue() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(
                b"POST /deny HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
            )
            status, head, _ = await client.answer()
            assert (status, field(head, b"connection")) == (401, b"close")
            assert await client.end() == b""
            assert h.nothing_reached_the_app

    run(body)


def test_an_answer_to_a_body_that_is_here_keeps_the_connection() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(b"POST /deny HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\nhi" + get(b"/deny"))
            for _ in range(2):
                status, head, _ = await client.answer()
                assert (status, field(head, b"connection")) == (401, None)
            client.send(b"POST /deny HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nhi")
            status, head, _ = await client.answer()
            assert (status, field(head, b"connection")) == (401, b"close")
            # What still comes is thrown away; it does not reset the answer.
            client.send(b"rest")
            assert await client.end() == b""

    run(body)


def test_an_early_response_is_delivered_and_its_connections_are_not_reused() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\nab")
            app = await h.app()
            await app.until(b"ab")
            app.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
            status, head, data = await client.answer()
            assert (status, data, field(head, b"connection")) == (413, b"no", b"close")
            client.send(b"c" * 98 + get(b"/smuggled"))
            assert await client.end() == b""
            assert await app.gone()
            other = await h.client()
            other.send(get(b"/other"))
            assert (await (await h.app()).head()).startswith(b"GET /other ")

    run(body)


def test_an_answer_has_a_date_and_a_request_id_and_no_body_for_head() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(b"HEAD /deny HTTP/1.1\r\n" + HOST + b"\r\n" + get(b"/deny"))
            status, head, _ = await client.answer(head_only=True)
            assert (status, field(head, b"content-length")) == (401, b"3")
            assert field(head, b"date") is not None
            assert field(head, b"x-request-id") == h.door.heads[0].request_id
            assert (await client.answer())[2] == b"no\n"
            first, second = await h.finished(), await h.finished()
            assert (first.status, first.decision, first.request_id) == (
                401,
                "denied",
                h.door.heads[0].request_id,
            )
            assert (first.bytes_out, second.bytes_out) == (0, 3)

    run(body)


def test_a_half_closed_client_still_gets_its_answer() -> None:
    async def body() -> None:
        async with house() as h:
            client = await h.client()
            client.send(get(b"/1") + get(b"/2"))
            client.half_close()
            app = await h.app()
            for number in (b"1", b"2"):
                await app.head()
                app.send(ok(number))
                assert (await client.answer())[2] == number
            assert await client.end() == b""

    run(body)
