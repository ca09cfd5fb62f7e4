"""Several apps behind one proxy: by path and host, over TCP, TLS and unix sockets; TLS to browsers."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from proxy.core.headers import HeaderPolicy
from proxy.shell.pool import Upstreams
from proxy.shell.server import make_pool
from tests.integration.datapath.house import NAMES, Wire, get, house, ok, run
from tests.op.certs import Authority
from tests.scenarios.house import House, free_port, until

POLICY = HeaderPolicy([NAMES])


class Head:
    def __init__(self, host: bytes, path: bytes) -> None:
        self.host, self.path = host, path


def chosen(host: bytes, path: bytes) -> str:
    pools = {name: make_pool(POLICY, host=name, port=1) for name in ("rest", "api", "v2", "admin", "deep")}
    upstreams = Upstreams(
        pools["rest"],
        [
            (b"", b"/api", pools["api"]),
            (b"", b"/api/v2", pools["v2"]),
            (b"admin.example.com", b"", pools["admin"]),
            (b"admin.example.com", b"/deep/er", pools["deep"]),
        ],
    )
    return upstreams.choose(Head(host, path)).name.partition(":")[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "path", "name"),
    [
        (b"a", b"/", "rest"),
        (b"a", b"/api", "api"),
        (b"a", b"/api/", "api"),
        (b"a", b"/api/x", "api"),
        (b"a", b"/apix", "rest"),
        (b"a", b"/api/v2/x", "v2"),
        (b"a", b"/%61pi/x", "api"),
        (b"Admin.Example.com", b"/api/x", "admin"),
        (b"admin.example.com:8443", b"/", "admin"),
        (b"admin.example.com.", b"/", "admin"),  # the same host (RFC 3986 §3.2.2)
        (b"ADMIN.example.com.:8443", b"/deep/er", "deep"),
        (b"admin.example.com..", b"/", "rest"),
        (b"[::1]:80", b"/", "rest"),
        (b"admin.example.com", b"/deep/er/x", "deep"),
        (b"xadmin.example.com", b"/", "rest"),
        (b"a", b"/other//x", "rest"),  # ambiguous, but it does not matter
    ],
)
def test_the_longest_prefix_wins_and_a_host_comes_first(host: bytes, path: bytes, name: str) -> None:
    run_in_loop(lambda: chosen(host, path) == name)


def run_in_loop(check: Callable[[], bool]) -> None:
    async def body() -> None:
        assert check()

    run(body)


@pytest.mark.parametrize(
    "path", [b"/x/../api/y", b"/api/../x", b"//api/x", b"/api%2fx", b"/x;/../api/y", b"/\\api"]
)
def test_a_path_that_leads_to_two_apps_is_refused(path: bytes) -> None:
    async def body() -> None:
        async with house() as h:
            site = h.server.site
            api = make_pool(POLICY, host="127.0.0.1", port=1)
            site.upstreams = Upstreams(site.upstreams.default, [(b"", b"/api", api)])
            client = await h.client()
            client.send(get(path))
            assert (await client.answer())[0] == 400
            assert h.nothing_reached_the_app

    run(body)


def test_an_app_behind_a_unix_socket(tmp_path: Path) -> None:
    async def body() -> None:
        async with house() as h:
            path = str(tmp_path / "app.sock")

            async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                head = await reader.readuntil(b"\r\n\r\n")
                assert b"X-Forwarded-User: alice\r\n" in head
                writer.write(ok(b"by unix"))

            listener = await asyncio.start_unix_server(app, path)
            pool = make_pool(POLICY, path=path)
            h.server.site.upstreams = Upstreams(pool)
            client = await h.client()
            client.send(get())
            assert (await client.answer())[2] == b"by unix"
            assert pool.name == f"unix:{path}"
            pool.close()
            listener.close()

    run(body)


def test_the_app_speaks_tls_with_its_own_ca_and_wants_a_certificate(tmp_path: Path) -> None:
    """A private CA, another name than the address (SNI), a client certificate; and each of them wrong."""
    (tmp_path / "other").mkdir()
    ours, strange = Authority(tmp_path), Authority(tmp_path / "other")
    cert, key = ours.issue()

    def client(ca: Path, certificate: bool) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(ca))
        if certificate:
            context.load_cert_chain(cert, key)
        return context

    async def body() -> None:
        async with house() as h:
            asked: list[str] = []
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(cert, key)
            context.load_verify_locations(ours.ca)
            context.verify_mode = ssl.CERT_REQUIRED
            context.sni_callback = lambda _socket, name, _context: asked.append(name or "")

            async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                try:
                    while await reader.readuntil(b"\r\n\r\n"):
                        writer.write(ok(b"by tls"))
                except (asyncio.IncompleteReadError, OSError, ssl.SSLError):
                    writer.close()

            listener = await asyncio.start_server(app, "127.0.0.1", 0, ssl=context)
            port = listener.sockets[0].getsockname()[1]

            async def status(ca: Path, certificate: bool, name: str) -> int:
                pool = make_pool(
                    POLICY, host="127.0.0.1", port=port, tls=client(ca, certificate), server_name=name
                )
                h.server.site.upstreams = Upstreams(pool)
                wire = await h.client()
                wire.send(get())
                found, _, data = await wire.answer()
                assert (data == b"by tls") == (found == 200)
                pool.close()
                return found

            assert await status(ours.ca, True, "localhost") == 200
            assert asked[-1] == "localhost"
            assert await status(ours.ca, True, "other.internal") == 502
            assert await status(strange.ca, True, "localhost") == 502
            assert await status(ours.ca, False, "localhost") == 502
            listener.close()

    run(body)


@pytest.mark.parametrize("says_so", [True, False])
def test_the_end_of_a_tls_app_counts_only_if_it_says_so(tmp_path: Path, says_so: bool) -> None:
    """Where only the connection's end delimits a body, anybody on the way could end it (RFC 9112 §9.8)."""
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue())

    async def body() -> None:
        async with house() as h:
            apps: asyncio.Queue[Wire] = asyncio.Queue()
            listener = await asyncio.start_server(
                lambda reader, writer: apps.put_nowait(Wire(reader, writer)), "127.0.0.1", 0, ssl=context
            )
            tls = ssl.create_default_context(cafile=str(authority.ca))
            port = listener.sockets[0].getsockname()[1]
            pool = make_pool(POLICY, host="127.0.0.1", port=port, tls=tls, server_name="localhost")
            h.server.site.upstreams = Upstreams(pool)
            client = await h.client()
            client.send(get())
            app = await apps.get()
            await app.head()
            app.send(b"HTTP/1.0 200 OK\r\n\r\nabc")
            await client.until(b"abc\r\n")
            if says_so:
                app.close()
                assert await client.chunks() == b""
            else:
                with socket.socket(fileno=os.dup(app.transport.get_extra_info("socket").fileno())) as end:
                    end.shutdown(socket.SHUT_WR)
                with pytest.raises(ConnectionError):
                    await client.end()
            pool.close()
            listener.close()

    run(body)


def test_browsers_over_tls_and_a_renewed_certificate(tmp_path: Path) -> None:
    """Sign-in, pages and the app over our own TLS; a new certificate is shown without a restart."""
    for name in ("first", "second", "live"):
        (tmp_path / name).mkdir()
    first, second = Authority(tmp_path / "first"), Authority(tmp_path / "second")
    live = tmp_path / "live"

    def put(authority: Authority) -> None:
        for name, path in zip(("cert", "key"), authority.issue(), strict=True):
            (live / name).write_bytes(path.read_bytes())

    put(first)
    port = free_port()
    env = {
        "NIGHTPORTER_LISTEN": f"127.0.0.1:{port}",
        "NIGHTPORTER_PUBLIC_URL": f"https://127.0.0.1:{port}",
        "NIGHTPORTER_TLS_CERT_FILE": str(live / "cert"),
        "NIGHTPORTER_TLS_KEY_FILE": str(live / "key"),
        "NIGHTPORTER_TIMEOUTS_HEAD_S": "5",
    }

    def ask(ca: Path, path: str, connection: http.client.HTTPSConnection | None = None) -> int:
        context = ssl.create_default_context(cafile=str(ca))
        connection = connection or http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status

    with House(tmp_path / "house", env=env) as h:
        assert ask(first.ca, "/") == 401
        assert ask(first.ca, "/oauth2/session") == 401  # a page, handed over to uvicorn on the TLS transport
        assert urlsplit(h.replica.env["NIGHTPORTER_PUBLIC_URL"]).scheme == "https"
        open_one = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=30, context=ssl.create_default_context(cafile=str(first.ca))
        )
        assert ask(first.ca, "/", open_one) == 401
        put(second)

        def renewed() -> bool:
            try:
                return ask(second.ca, "/") == 401
            except ssl.SSLError:
                return False

        until(renewed)
        assert ask(first.ca, "/", open_one) == 401  # a connection that was open goes on
        (live / "key").write_bytes(first.issue()[1].read_bytes())  # does not belong to the certificate
        until(lambda: h.replica.events("configuration_refused"))
        assert ask(second.ca, "/") == 401
        # Who does not shake hands, or only begins to, is closed; others are served meanwhile.
        with (
            socket.create_connection(("127.0.0.1", port), 60) as silent,
            socket.create_connection(("127.0.0.1", port), 60) as slow,
        ):
            slow.sendall(b"\x16\x03\x01\x02\x00\x01")
            assert ask(second.ca, "/") == 401
            for sock in (silent, slow):
                with contextlib.suppress(ConnectionResetError):
                    assert sock.recv(1) == b""
