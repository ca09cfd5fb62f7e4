"""A refresh on a connection of its own: provably not sent, or possibly processed. Cut for real, at every
stage."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.core.providers import Profile
from proxy.core.token_reply import RawReply
from proxy.errors import NotSent, ReplyLost
from tests.integration.op.support import Person, until, with_person
from tests.op.certs import authority
from tests.op.scripted import Gate, Rotation, Script, ScriptedOP, fingerprint, scripted_op


def refresh_once(op: ScriptedOP, token: str, **config: Any) -> RawReply:
    return with_person(op, lambda person: person.refresh(token), **config)


# -- the happy way --


def test_a_refresh_is_one_call_on_a_fresh_connection() -> None:
    with ScriptedOP() as op:
        token = op.grant()
        reply = refresh_once(op, token)
        body = json.loads(reply.body)
        assert reply.status == 200
        assert reply.headers["content-type"] == "application/json"
        assert body["refresh_token"] != token
        (call,) = op.ledger
        assert (call.rt, call.auth, call.scope, call.outcome) == (fingerprint(token), "basic", None, "issued")
        assert call.form == ("grant_type", "refresh_token")
        assert op.connections == 2  # discovery, and this one
        request = op.requests[-1]
        assert request.headers["accept"] == "application/json"
        assert request.headers["accept-encoding"] == "identity"


def test_scope_and_redirect_uri_go_along_only_where_the_profile_says_so() -> None:
    profile = Profile("gitlab-like", send_redirect_uri=True)

    async def work(person: Person) -> None:
        call = await person.client.connect()
        await call.refresh(op.grant(), scope="openid offline_access", last_check=lambda: True)
        await call.aclose()

    with ScriptedOP() as op:
        with_person(op, work, profile=profile, redirect_uri="https://app.example.com/oauth2/callback")
        assert op.ledger[0].form == ("grant_type", "redirect_uri", "refresh_token", "scope")
        assert op.ledger[0].scope == "openid offline_access"


def test_statuses_headers_and_bodies_come_raw() -> None:
    with ScriptedOP() as op:
        op.script_next(
            Script(process=False, status=429, headers={"Retry-After": "7", "X-Odd": "ü"}, body="<html>")
        )
        reply = refresh_once(op, op.grant())
        assert (reply.status, reply.headers["retry-after"], reply.body) == (429, "7", b"<html>")


def test_a_redirect_is_not_followed() -> None:
    with ScriptedOP() as op:
        op.script_next(Script(status=307, headers={"Location": op.issuer + "/collector"}))
        assert refresh_once(op, op.grant()).status == 307
        assert op.hits.get("collector", 0) == 0


# -- not sent --


def test_the_connection_is_open_before_anything_is_sent() -> None:
    with ScriptedOP() as op:

        async def work(person: Person) -> None:
            call = await person.client.connect()
            await until(lambda: op.connections == 2)
            assert not op.ledger
            await call.aclose()

        with_person(op, work)
        assert not op.ledger


def test_a_last_check_that_says_no_sends_nothing() -> None:
    with ScriptedOP() as op:
        asked: list[int] = []

        async def work(person: Person) -> None:
            call = await person.client.connect()
            with pytest.raises(NotSent):
                await call.refresh(op.grant(), last_check=lambda: bool(asked.append(1)))
            await call.aclose()
            await person.refresh(op.grant())

        with_person(op, work)
        assert asked == [1]
        assert len(op.ledger) == 1  # the second one's


def test_the_last_check_is_asked_in_the_loop_turn_of_the_first_byte() -> None:
    with ScriptedOP() as op:
        turns = 0
        asked_in: list[int] = []
        written_in: list[int] = []

        async def work(person: Person) -> None:
            nonlocal turns
            call = await person.client.connect()
            writer: asyncio.StreamWriter = call._stream._writer  # pyright: ignore
            write = writer.write

            def watched(data: bytes) -> None:
                written_in.append(turns)
                write(data)

            writer.write = watched  # type: ignore[method-assign]
            loop = asyncio.get_running_loop()

            def tick() -> None:
                nonlocal turns
                turns += 1
                if not written_in:
                    loop.call_soon(tick)

            tick()
            await call.refresh(op.grant(), last_check=lambda: not asked_in.append(turns))
            await call.aclose()

        with_person(op, work)
        assert asked_in == written_in[:1]


def test_refused_connections_are_not_sent() -> None:
    with ScriptedOP() as op:

        async def work(person: Person) -> None:
            await person.client.metadata()
            op.refuse()
            with pytest.raises(NotSent):
                await person.client.connect()
            op.accept()
            await person.refresh(op.grant())

        with_person(op, work)


def test_without_discovery_nothing_is_sent() -> None:
    with scripted_op(always={"discovery": Script(status=500)}) as op, pytest.raises(NotSent):
        refresh_once(op, op.grant())


def test_a_connection_that_the_op_closed_meanwhile_is_not_sent() -> None:
    with ScriptedOP() as op:

        async def work(person: Person) -> None:
            await person.client.metadata()
            before = op.connections
            call = await person.client.connect()
            await until(lambda: op.connections > before)
            op.hang_up()
            await until(lambda: call._stream._reader.at_eof())  # pyright: ignore
            with pytest.raises(NotSent):
                await call.refresh(op.grant(), last_check=lambda: True)
            await call.aclose()

        with_person(op, work)
        assert not op.ledger


def test_a_call_works_once_and_not_after_its_end() -> None:
    with ScriptedOP() as op:

        async def work(person: Person) -> None:
            call = await person.client.connect()
            await call.refresh(op.grant())
            with pytest.raises(NotSent):
                await call.refresh(op.grant())
            await call.aclose()
            await call.aclose()
            closed = await person.client.connect()
            await closed.aclose()
            with pytest.raises(NotSent):
                await closed.refresh(op.grant())

        with_person(op, work)
        assert len(op.ledger) == 1


def test_a_client_key_that_cannot_sign_sends_nothing() -> None:
    with ScriptedOP() as op, pytest.raises(NotSent) as caught:
        refresh_once(op, op.grant(), client_auth="private_key_jwt", client_key="-----BEGIN PRIVATE KEY-----x")
    assert "BEGIN" not in str(caught.value) + caught.value.detail
    assert not op.ledger


# -- lost --


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("cut", ["at_once", "unanswered", "mid_head", "mid_body"])
def test_a_reply_that_breaks_off_is_lost(cut: str, reset: bool) -> None:
    with ScriptedOP() as op:
        token = op.grant()
        op.script_next(Script(cut=cut, reset=reset))
        with pytest.raises(ReplyLost):
            refresh_once(op, token)
        assert op.ledger[0].processed == (cut != "at_once")
        assert op.is_valid(token) == (cut == "at_once")


def test_a_reply_that_is_too_long_is_lost() -> None:
    with ScriptedOP() as op:
        op.script_next(Script(body=b"x" * 3000))
        with pytest.raises(ReplyLost):
            refresh_once(op, op.grant(), max_answer_bytes=2000)
        op.script_next(Script(body=b"x" * 2000))
        assert len(refresh_once(op, op.grant(), max_answer_bytes=2000).body) == 2000


def test_no_http_is_lost() -> None:
    with ScriptedOP() as op:
        op.script_next(Script(cut="at_once", stray=b"SSH-2.0-OpenSSH_9.2\r\n\r\n"))
        with pytest.raises(ReplyLost):
            refresh_once(op, op.grant())


def test_a_compressed_reply_is_read_all_the_same() -> None:
    plain = b'{"access_token": "at-gz"}'
    with ScriptedOP() as op:
        op.script_next(Script(body=gzip.compress(plain), headers={"Content-Encoding": "gzip"}))
        assert refresh_once(op, op.grant()).body == plain
        for body in (gzip.compress(b"0" * (4 << 20)), gzip.compress(plain)[:-9], plain):
            op.script_next(Script(body=body, headers={"Content-Encoding": "gzip"}))
            with pytest.raises(ReplyLost):
                refresh_once(op, op.grant())
        op.script_next(Script(body=plain, headers={"Content-Encoding": "br"}))
        with pytest.raises(ReplyLost):
            refresh_once(op, op.grant())


# -- late, and given up --


def test_a_late_reply_is_read() -> None:
    with ScriptedOP() as op:
        gate = Gate()
        token = op.grant()
        op.script_next(Script(after=gate))

        async def work(person: Person) -> RawReply:
            # Far beyond the limit of an ordinary request: only the caller decides when it is over.
            call = await person.client.connect()
            reply = asyncio.create_task(call.refresh(token, last_check=lambda: True))
            await until(gate.reached.is_set)
            await asyncio.wait([reply], timeout=0.3)
            assert not reply.done()
            gate.open()
            try:
                return await reply
            finally:
                await call.aclose()

        reply = with_person(op, work, timeout_s=0.1, connect_timeout_s=5.0)
        assert fingerprint(json.loads(reply.body)["refresh_token"]) == op.ledger[0].issued_rt


def test_giving_up_makes_the_pending_call_lost() -> None:
    with ScriptedOP() as op:
        gate = Gate()
        op.script_next(Script(after=gate))

        async def work(person: Person) -> None:
            call = await person.client.connect()
            reply = asyncio.create_task(call.refresh(op.grant(), last_check=lambda: True))
            await until(gate.reached.is_set)
            await call.aclose()
            with pytest.raises(ReplyLost):
                await reply

        with_person(op, work)
        gate.open()


def test_giving_up_in_the_middle_of_a_body_without_a_length_is_lost_too() -> None:
    """A body that ends with its connection must not look whole because *we* closed it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}")
        sent.set()
        await over.wait()
        writer.close()

    sent, over = asyncio.Event(), asyncio.Event()

    async def work(person: Person) -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        op.discovery["token_endpoint"] = f"http://127.0.0.1:{port}/token"
        call = await person.client.connect()
        reply = asyncio.create_task(call.refresh(op.grant(), last_check=lambda: True))
        await sent.wait()
        await call.aclose()
        with pytest.raises(ReplyLost):
            await reply
        over.set()
        server.close()

    with ScriptedOP() as op:
        with_person(op, work)


def test_a_cancelled_caller_leaves_no_call_behind() -> None:
    with ScriptedOP() as op:
        gate = Gate()
        op.script_next(Script(after=gate))

        async def work(person: Person) -> None:
            call = await person.client.connect()
            reply = asyncio.create_task(call.refresh(op.grant(), last_check=lambda: True))
            await until(gate.reached.is_set)
            reply.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reply
            await call.aclose()
            gate.open()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, left

        with_person(op, work)


# -- TLS and egress proxies --


def test_tls_is_verified(tmp_path: Path) -> None:
    ca, certificate, key = authority(tmp_path)
    with ScriptedOP(tls=(certificate, key)) as op:
        token = op.grant()
        assert refresh_once(op, token, ca_file=str(ca)).status == 200

        async def mistrust(person: Person) -> None:
            with pytest.raises(NotSent) as caught:
                await person.client.connect()
            assert "Connect" in caught.value.detail
            # With discovery at hand the connection itself is what fails.
            person.client._metadata = await known.client.metadata()  # pyright: ignore
            person.client._fetched_at = person.clock.monotonic()  # pyright: ignore
            with pytest.raises(NotSent) as caught:
                await person.client.connect()
            assert "certificate" in caught.value.detail.lower()

        async def work(person: Person) -> None:
            nonlocal known
            known = person
            await mistrust(Person(op.issuer))

        known: Person
        with_person(op, work, ca_file=str(ca))
        assert len(op.ledger) == 1


def test_a_ca_file_that_is_none_is_an_unavailable_op(tmp_path: Path) -> None:
    with ScriptedOP() as op, pytest.raises(NotSent):
        refresh_once(op, op.grant(), ca_file=str(tmp_path / "absent.pem"))


class EgressProxy:
    """A small CONNECT proxy (and forward proxy for plain requests) in the test's own loop."""

    def __init__(self, answer: bytes = b"") -> None:
        self.answer = answer
        self.seen: list[str] = []
        self.url = ""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://user:p%40ss@127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def stop(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.seen.append(head)
        if self.answer:
            writer.write(self.answer)
            writer.close()
            return
        method, target, _ = head.split("\r\n")[0].split(" ")
        authority = target if method == "CONNECT" else target.split("/")[2]
        host, _, port = authority.rpartition(":")
        there, back = await asyncio.open_connection(host, int(port))
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            back.write(head.replace(target, "/" + target.split("/", 3)[3]).encode())
        await asyncio.gather(self._pump(reader, back), self._pump(there, writer))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            sink.close()


def through(proxy: EgressProxy, op: ScriptedOP, work: Callable[[Person], Any], **config: Any) -> Any:
    async def run() -> Any:
        await proxy.start()
        person = Person(op.issuer, proxy=proxy.url, **config)
        try:
            return await work(person)
        finally:
            await person.client.close()
            proxy.stop()

    return asyncio.run(run())


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_an_egress_proxy_is_a_tunnel_that_is_open_before_the_call(secure: bool, tmp_path: Path) -> None:
    ca, certificate, key = authority(tmp_path)
    proxy = EgressProxy()
    with ScriptedOP(tls=(certificate, key) if secure else None) as op:

        async def work(person: Person) -> None:
            call = await person.client.connect()
            tunnels = [head for head in proxy.seen if head.startswith(f"CONNECT 127.0.0.1:{op.port} ")]
            assert tunnels
            assert "proxy-authorization: basic dxnlcjpwqhnz" in tunnels[-1].lower()
            assert not op.ledger
            with pytest.raises(NotSent):
                await call.refresh(op.grant(), last_check=lambda: False)
            await call.aclose()
            assert (await person.refresh(op.grant())).status == 200

        through(proxy, op, work, ca_file=str(ca) if secure else "")
        assert len(op.ledger) == 1
        assert "proxy-authorization" not in op.requests[-1].headers


def test_an_egress_proxy_that_refuses_is_not_sent() -> None:
    proxy = EgressProxy()
    with ScriptedOP() as op:

        async def work(person: Person) -> None:
            await person.client.metadata()
            proxy.answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
            with pytest.raises(NotSent) as caught:
                await person.client.connect()
            assert "407" in caught.value.detail

        through(proxy, op, work)


# -- what the scripted OP itself promises --


@pytest.mark.parametrize(
    ("rotation", "old_again_at_once", "old_later", "new_later"),
    [
        (Rotation("none"), 200, 200, 0),
        (Rotation("rotate"), 400, 400, 200),
        (Rotation("rotate", 30), 200, 400, 200),
        (Rotation("idempotent", 30), 200, 400, 200),
        (Rotation("deferred"), 200, 200, 200),
        (Rotation("family_revoke"), 400, 400, 400),
        (Rotation("family_revoke", 30), 200, 400, 400),
    ],
    ids=lambda value: f"{value.kind}-{value.grace_s}" if isinstance(value, Rotation) else "",
)
def test_the_scripted_ops_rotations(
    rotation: Rotation, old_again_at_once: int, old_later: int, new_later: int
) -> None:
    with scripted_op(rotation=rotation) as op:

        async def work(person: Person) -> None:
            old = op.grant()
            first = json.loads((await person.refresh(old)).body)
            again = await person.refresh(old)
            assert again.status == old_again_at_once
            new = first.get("refresh_token", "")
            if rotation.kind == "idempotent":
                assert json.loads(again.body)["refresh_token"] == new
            op.advance(31)
            assert (await person.refresh(old)).status == old_later
            if new:
                assert (await person.refresh(new)).status == new_later

        with_person(op, work)


def test_uvloop_too() -> None:
    uvloop = pytest.importorskip("uvloop")
    with ScriptedOP() as op:

        async def work() -> None:
            person = Person(op.issuer)
            assert (await person.refresh(op.grant())).status == 200
            op.script_next(Script(cut="unanswered", reset=True))
            with pytest.raises(ReplyLost):
                await person.refresh(op.grant())
            await person.client.metadata()
            before = op.connections
            call = await person.client.connect()
            await until(lambda: op.connections > before)
            op.hang_up()
            await until(lambda: call._stream._reader.at_eof())  # pyright: ignore
            with pytest.raises(NotSent):
                await call.refresh(op.grant())
            await call.aclose()
            await person.client.close()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work())


def test_the_stock_of_modules_stays_small_until_the_first_call() -> None:
    """Constructing a client loads neither the HTTP client nor JOSE: memory at rest."""
    import subprocess

    code = (
        "import sys\n"
        "from proxy.shell.op_client import OPClient, OPConfig\n"
        "from proxy.shell.clock import SystemClock\n"
        "OPClient(OPConfig('https://op.example', 'c'), SystemClock())\n"
        "print([m for m in ('httpx2', 'httpcore2', 'joserfc', 'authlib') if m in sys.modules])\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
