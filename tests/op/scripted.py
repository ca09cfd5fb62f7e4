"""`ScriptedOP`: our own OpenID provider for tests, on a real loopback socket, in a thread of its own.

Raw asyncio, so that it can cut, hold back and drop at will. It knows one client and signs its one
user in at once. Everything that an OP can do wrong is a knob or a script; everything that
happened is in the ledger. Nothing here sleeps for a test's sake: a `Gate` holds a reply until
the test opens it, and says when the OP got there.

It shares no code with the product except what signs tokens (joserfc).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import secrets
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit

from joserfc import jws, jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey, import_key

CLIENT_ID = "np test/client"
CLIENT_SECRET = "s3cret +%/:ü&canary"
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"

LIMIT_S = 60.0
"""How long a test waits for an event before it calls it missing; only a failure lasts that long."""

REDIRECT_URI = "http://127.0.0.1:1/oauth2/callback"

Params = list[tuple[str, str]]


def fingerprint(token: str) -> str:
    """A short name for a token, so that no ledger holds one."""
    return hashlib.sha256(token.encode()).hexdigest()[:12] if token else ""


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


_RSA_POOL: list[RSAKey] = []


def rsa_key(kid: str, number: int = 0) -> RSAKey:
    """An RSA key with this `kid`; the numbers are made once per process, because they cost time."""
    while len(_RSA_POOL) <= number:
        _RSA_POOL.append(RSAKey.generate_key(2048))
    return RSAKey.import_key({**_RSA_POOL[number].as_dict(private=True), "kid": kid})


class Gate:
    """Holds the OP at a point until the test opens it.

    Attributes:
        reached: set once the OP stands before it.
    """

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()
        self._wakers: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def open(self) -> None:
        """Let everybody through, from now on."""
        with self._lock:
            self._open.set()
            wakers, self._wakers = self._wakers, []
        for wake in wakers:
            with contextlib.suppress(RuntimeError):  # the OP has stopped meanwhile
                wake()

    def wait_reached(self, timeout: float = LIMIT_S) -> None:
        assert self.reached.wait(timeout), "the OP did not get to the gate"

    async def pass_through(self) -> None:
        loop, opened = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            if not self._open.is_set():
                self._wakers.append(lambda: loop.call_soon_threadsafe(opened.set))
            else:
                opened.set()
        self.reached.set()
        await opened.wait()


@dataclass
class Script:
    """What happens to one call. The default is: process it, answer.

    Attributes:
        before: gate before processing; `delay_s` is the same with a timer.
        process: whether the OP does what it was asked.
        after: gate between processing and the reply; `reply_delay_s` is the same with a timer.
        cut: "" = answer; "at_once" = close before processing; "unanswered" = process, then close
            without a byte; "mid_head", "mid_body" = process, send that much, then close.
        reset: close with RST instead of FIN.
        status, headers, body: override the reply.
        change: edits a JSON reply.
        change_id_token: edits a draft of the ID token (see `Draft`).
        stray: bytes to send before anything is read.
    """

    before: Gate | None = None
    delay_s: float = 0.0
    process: bool = True
    after: Gate | None = None
    reply_delay_s: float = 0.0
    cut: str = ""
    reset: bool = False
    status: int | None = None
    headers: Mapping[str, str] | None = None
    body: bytes | str | None = None
    change: Callable[[dict[str, Any]], None] | None = None
    change_id_token: Callable[[Draft], None] | None = None
    stray: bytes = b""


@dataclass
class Draft:
    """An ID token before it is signed.

    Attributes:
        header, claims: as they will be signed.
        key: signs.
        altered: the signature's bytes are changed afterwards.
        raw: sent instead of anything that was signed.
    """

    header: dict[str, Any]
    claims: dict[str, Any]
    key: Any
    altered: bool = False
    raw: str | None = None
    omit: bool = False

    def signed(self) -> str:
        if self.raw is not None:
            return self.raw
        alg = self.header["alg"]
        # Signed by hand, so that headers that the library refuses (`crit`, `jku`) come out too.
        signing_input = f"{b64(json.dumps(self.header).encode())}.{b64(json.dumps(self.claims).encode())}"
        model = jws.JWSRegistry.algorithms[alg]
        signature = model.sign(signing_input.encode(), self.key)
        if self.altered:
            signature = signature[:-1] + bytes([signature[-1] ^ 1])
        return f"{signing_input}.{b64(signature)}"


@dataclass
class Rotation:
    """What becomes of a refresh token that is used.

    Attributes:
        kind: none, rotate, idempotent, deferred, family_revoke.
        grace_s: how long after its first use it still works (rotate, family_revoke) or answers with
            the same successor (idempotent), on the OP's clock.
    """

    kind: str = "rotate"
    grace_s: float = 0.0


@dataclass
class Call:
    """One token call, as the ledger keeps it.

    Attributes:
        at: OP time of its arrival.
        grant: grant_type.
        rt: fingerprint of the refresh token that was sent.
        auth: how the client proved itself (basic, post, client_secret_jwt, …; "bad" = it did not).
        form: names of the form's fields.
        scope: the value, None if there was none.
        at_once: token calls under way when it came, itself included.
        processed: whether the OP acted on it.
        outcome: issued, an error code, or cut.
        issued_rt: fingerprint of the refresh token that it issued.
    """

    at: float
    grant: str
    rt: str
    auth: str
    form: tuple[str, ...]
    scope: str | None
    at_once: int
    processed: bool = False
    outcome: str = ""
    issued_rt: str = ""


@dataclass
class Grant:
    """One sign-in and all tokens that came from it."""

    sub: str
    nonce: str
    scope: str
    auth_time: int
    sid: str
    alive: bool = True
    used: dict[str, float] = field(default_factory=dict[str, float])
    successor: dict[str, str] = field(default_factory=dict[str, str])
    valid: set[str] = field(default_factory=set[str])
    access: dict[str, float] = field(default_factory=dict[str, float])
    deferred: dict[str, str] = field(default_factory=dict[str, str])


@dataclass
class _Code:
    grant: Grant
    challenge: str
    redirect_uri: str
    spent: bool = False


@dataclass
class Request:
    """One HTTP request as it came."""

    method: str
    path: str
    query: Params
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


@dataclass
class Reply:
    status: int = 200
    body: dict[str, Any] | bytes = b""
    headers: dict[str, str] = field(default_factory=dict[str, str])


class _Refuse(Exception):
    def __init__(self, code: str, status: int = 400) -> None:
        super().__init__(code)
        self.code = code
        self.status = status


class ScriptedOP:
    """The provider. Use it as a context manager, or call `start` and `stop`.

    Args:
        redirect_uri: the registered one; "" = any.
        tls: certificate and key files; None = plain HTTP.

    Attributes (knobs; set them before or between calls):
        client_id, client_secret, client_jwk: the client. `client_jwk` is its public key.
        auth_methods: accepted, and announced.
        rotation: see there.
        old_at_dies: a rotation ends the access tokens before it.
        at_life_s: life of access tokens.
        expires_in: announced life; ... = `at_life_s`, None = left out, anything else as it is.
        rt_in_reply: "new" as the rotation has it, "omit", "empty".
        id_token_on_refresh: whether a refresh brings one.
        nonce_on_refresh: "absent", "equal" or "different".
        rt_bytes: length of refresh tokens.
        user: claims of the person who is signed in at once. Put another dictionary here and another
            person comes; change the one that is here and the same person's claims change.
        id_token_claims: names of the user's claims that go into the ID token; None = all.
        names_itself: `iss` in authorization responses (RFC 9207), announced.
        par: "none", "offered", "required" or "broken".
        discovery: changes to the discovery document.
        keys: signing keys, the last one signs; `published` overrides the JWKS's list.
        change_id_token: edits every ID token.
        answer: edits the authorization response's parameters.
        always: a script per endpoint (discovery, jwks, code, refresh, userinfo, revoke, par).
        clock_off_s: how wrong this OP's clock is.
        sids: session ids of its sign-ins, in order (told in the ID tokens).
        logout_state: what comes back from the end-session endpoint: "same", "other" or "none".
    """

    def __init__(self, *, redirect_uri: str = "", tls: tuple[Path, Path] | None = None) -> None:
        self.redirect_uri = redirect_uri
        self.reset()
        self.clock_off_s = 0.0

        self.ledger: list[Call] = []
        self.hits: dict[str, int] = {}
        self.requests: list[Request] = []
        self.invalid_grant = 0
        self.reuse_events = 0
        self.revoked: list[str] = []
        self.pushed = 0
        self.connections = 0
        self.sids: list[str] = []

        self._tls = tls
        self._codes: dict[str, _Code] = {}
        self._by_rt: dict[str, Grant] = {}
        self._by_at: dict[str, Grant] = {}
        self._people: dict[str, dict[str, Any]] = {}
        self._par_requests: dict[str, Params] = {}
        self._jtis: set[str] = set()
        self._under_way = 0
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    def reset(self) -> None:
        """Set every knob back to what it was at first; the clock, tokens, ledger and counters stay."""
        self.client_id = CLIENT_ID
        self.client_secret = CLIENT_SECRET
        self.client_jwk: dict[str, Any] | None = None
        self.auth_methods: list[str] = ["client_secret_basic", "client_secret_post"]
        self.rotation = Rotation()
        self.old_at_dies = False
        self.at_life_s = 300.0
        self.expires_in: Any = ...
        self.rt_in_reply = "new"
        self.id_token_on_refresh = True
        self.nonce_on_refresh = "absent"
        self.rt_bytes = 35
        self.user: dict[str, Any] = {
            "sub": "ada-1",
            "email": "ada@example.com",
            "email_verified": True,
            "name": "Ada Lovelace",
            "preferred_username": "ada",
            "groups": ["staff"],
        }
        self.id_token_claims: set[str] | None = None
        self.names_itself = True
        self.par = "none"
        self.discovery: dict[str, Any] = {}
        self.keys: list[Any] = [rsa_key("k1")]
        self.published: list[dict[str, Any]] | None = None
        self.change_id_token: Callable[[Draft], None] | None = None
        self.answer: Callable[[Params], Params] | None = None
        self.always: dict[str, Script] = {}
        self.logout_state = "same"
        self._next: dict[str, deque[Script]] = {}

    # -- life --

    def __enter__(self) -> ScriptedOP:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> ScriptedOP:
        self._thread = threading.Thread(target=self._run, name="scripted-op", daemon=True)
        self._thread.start()
        self.accept()
        return self

    def stop(self) -> None:
        self.refuse()
        self._call(self._drop_everybody())
        self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread is not None:
            self._thread.join(10)
        self._loop.close()

    def refuse(self) -> None:
        """Listen no more: connections are refused from now on. Open ones stay."""
        self._call(self._close_listener())

    def accept(self) -> None:
        """Listen (again), on the same port."""
        self._call(self._listen())

    def hang_up(self) -> None:
        """Close every open connection."""
        self._call(self._drop_everybody())

    @property
    def issuer(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def now(self) -> float:
        return time.time() + self.clock_off_s

    def advance(self, seconds: float) -> None:
        """Move this OP's clock (graces, lives); nobody else's."""
        self.clock_off_s += seconds

    # -- for tests --

    def script_next(self, script: Script, endpoint: str = "token") -> Script:
        """Do this with the next call of an endpoint; several queue up. "token" = code or refresh."""
        self._next.setdefault(endpoint, deque()).append(script)
        return script

    def forget_scripts(self) -> None:
        """What was queued and did not come is not done."""
        self._next.clear()

    def wait_calls(self, n: int, timeout: float = LIMIT_S) -> list[Call]:
        """Wait until the ledger holds `n` token calls."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.ledger) >= n, timeout), (
                f"{len(self.ledger)} token calls instead of {n}"
            )
            return list(self.ledger)

    def wait_refreshes(self, n: int, timeout: float = LIMIT_S) -> list[Call]:
        """Wait until the ledger holds `n` refreshes."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.refreshes()) >= n, timeout), (
                f"{len(self.refreshes())} refreshes instead of {n}"
            )
            return self.refreshes()

    def refreshes(self) -> list[Call]:
        return [call for call in self.ledger if call.grant == "refresh_token"]

    def rotate_key(self, kid: str = "k2", number: int = 1) -> None:
        """A new signing key; the old one is published no more."""
        self.keys = [rsa_key(kid, number)]

    def grant(self, *, nonce: str = "", scope: str = "openid offline_access") -> str:
        """A refresh token out of nothing, for tests that need no sign-in."""
        made = Grant(self.user["sub"], nonce, scope, int(self.now()), secrets.token_hex(8))
        return self._new_rt(made)

    def logout_draft(self, *, sub: str = "ada-1", sid: str = "") -> Draft:
        """A back-channel logout token before it is signed, for a person and perhaps one sign-in of theirs."""
        now, key = int(self.now()), self.keys[-1]
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.client_id,
            "iat": now,
            "exp": now + 120,
            "jti": secrets.token_hex(8),
            "events": {LOGOUT_EVENT: {}},
        }
        if sub:
            claims["sub"] = sub
        if sid:
            claims["sid"] = sid
        return Draft({"alg": alg_of(key), "typ": "logout+jwt", "kid": key.kid}, claims, key)

    def end_grants(self) -> None:
        """Somebody else ends every grant there is: an administrator, a limit of the OP's."""
        for grant in list(self._by_rt.values()):
            grant.alive = False

    def revoke_grant(self, refresh_token: str) -> None:
        """Somebody else ends the grant."""
        self._by_rt[refresh_token].alive = False

    def is_valid(self, refresh_token: str) -> bool:
        """Whether a refresh with it would succeed now, and cost nothing."""
        made = self._by_rt.get(refresh_token)
        if made is None or not made.alive or refresh_token not in made.valid:
            return False
        used = made.used.get(refresh_token)
        return used is None or self.rotation.kind == "deferred" or self.now() - used < self.rotation.grace_s

    def code_for(self, url: str) -> Params:
        """What the browser would bring back from this authorization URL (without a browser)."""
        parts = urlsplit(url)
        request = Request("GET", parts.path, parse_qsl(parts.query, keep_blank_values=True), {}, b"")
        location = self._authorize(request).headers["Location"]
        return parse_qsl(urlsplit(location).query, keep_blank_values=True)

    def expires_at(self, access_token: str) -> float:
        """Until when an access token lives, on the OP's clock; 0 = it is none."""
        made = self._by_at.get(access_token)
        return made.access.get(access_token, 0.0) if made is not None else 0.0

    def access_token_works(self, token: str) -> bool:
        """What an app that asks the OP would find; the first use of a token counts (deferred)."""
        made = self._by_at.get(token)
        if made is None or not made.alive or made.access.get(token, 0) <= self.now():
            return False
        if old := made.deferred.pop(token, ""):
            made.valid.discard(old)
        return True

    # -- the server --

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LIMIT_S)

    async def _listen(self) -> None:
        if self._server is not None:
            return
        context = None
        if self._tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._tls)
        listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        self.port = listener.getsockname()[1]
        self._server = await asyncio.start_server(self._connected, sock=listener, ssl=context)

    async def _close_listener(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _drop_everybody(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; whether the connection goes on."""
        request = await self._read(reader)
        endpoint = self._endpoint(request)
        self.hits[endpoint] = self.hits.get(endpoint, 0) + 1
        self.requests.append(request)
        script = self._script(endpoint)
        token = endpoint in ("code", "refresh")
        if script.stray:
            writer.write(script.stray)
        if token:
            self._under_way += 1
        try:
            entry = self._enter(request) if token else None
            if script.before is not None:
                await script.before.pass_through()
            if script.delay_s:
                await asyncio.sleep(script.delay_s)
            if script.cut == "at_once":
                return self._close(writer, script, entry)
            reply = self._process(request, endpoint, script, entry) if script.process else Reply()
            if script.after is not None:
                await script.after.pass_through()
            if script.reply_delay_s:
                await asyncio.sleep(script.reply_delay_s)
        finally:
            if token:
                self._under_way -= 1
        return await self._answer(writer, reply, script, entry, request)

    async def _read(self, reader: asyncio.StreamReader) -> Request:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        parts = urlsplit(target)
        return Request(method, parts.path, parse_qsl(parts.query, keep_blank_values=True), headers, body)

    def _endpoint(self, request: Request) -> str:
        name = {
            "/.well-known/openid-configuration": "discovery",
            "/jwks": "jwks",
            "/authorize": "authorize",
            "/token": "token",
            "/userinfo": "userinfo",
            "/revoke": "revoke",
            "/end-session": "end_session",
            "/par": "par",
            "/collector": "collector",
        }.get(request.path, "unknown")
        if name == "token":
            return "refresh" if request.form.get("grant_type") == "refresh_token" else "code"
        return name

    def _script(self, endpoint: str) -> Script:
        names = (endpoint, "token") if endpoint in ("code", "refresh") else (endpoint,)
        for name in names:
            if self._next.get(name):
                return self._next[name].popleft()
        for name in names:
            if name in self.always:
                return self.always[name]
        return Script()

    def _close(self, writer: asyncio.StreamWriter, script: Script, entry: Call | None) -> bool:
        if entry is not None:
            self._note(entry, entry.outcome or "cut")
        if script.reset:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    async def _answer(
        self, writer: asyncio.StreamWriter, reply: Reply, script: Script, entry: Call | None, request: Request
    ) -> bool:
        body = reply.body
        if isinstance(body, dict):
            if script.change is not None:
                script.change(body)
            body = json.dumps(body).encode()
            reply.headers.setdefault("Content-Type", "application/json")
            reply.headers.setdefault("Cache-Control", "no-store")
        if script.body is not None:
            body = script.body.encode() if isinstance(script.body, str) else script.body
        status = script.status if script.status is not None else reply.status
        headers = {**reply.headers, **(script.headers or {})}
        headers.setdefault("Content-Length", str(len(body)))
        lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers.items())]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        if script.cut == "unanswered":
            return self._close(writer, script, entry)
        if script.cut == "mid_head":
            writer.write(head[: len(head) // 2])
        elif script.cut == "mid_body":
            writer.write(head + body[: len(body) // 2])
        else:
            if entry is not None:
                self._note(entry, entry.outcome or f"http_{status}")
            writer.write(head + body)
        await writer.drain()
        if script.cut:
            # The bytes are to arrive before the end does.
            writer.write_eof() if writer.can_write_eof() and not script.reset else None
            return self._close(writer, script, entry)
        return request.headers.get("connection", "").lower() != "close"

    # -- what an OP does --

    def _process(self, request: Request, endpoint: str, script: Script, entry: Call | None) -> Reply:
        try:
            match endpoint:
                case "discovery":
                    return Reply(200, self._document())
                case "jwks":
                    return Reply(200, {"keys": self._jwks()})
                case "authorize":
                    return self._authorize(request)
                case "code" | "refresh":
                    assert entry is not None
                    return self._token(request, endpoint, script, entry)
                case "userinfo":
                    return self._userinfo(request)
                case "revoke":
                    return self._revoke(request)
                case "par":
                    return self._par(request)
                case "end_session":
                    return self._end_session(request)
                case _:
                    return Reply(404 if endpoint == "unknown" else 200, b"")
        except _Refuse as error:
            if entry is not None:
                entry.outcome = error.code
                if error.code == "invalid_grant":
                    self.invalid_grant += 1
            return Reply(error.status, {"error": error.code, "error_description": "<b>said by the OP</b>"})

    def _document(self) -> dict[str, Any]:
        here = self.issuer
        document: dict[str, Any] = {
            "issuer": here,
            "authorization_endpoint": here + "/authorize",
            "token_endpoint": here + "/token",
            "jwks_uri": here + "/jwks",
            "userinfo_endpoint": here + "/userinfo",
            "revocation_endpoint": here + "/revoke",
            "end_session_endpoint": here + "/end-session",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": sorted({alg_of(key) for key in self.keys} | {"RS256"}),
            "token_endpoint_auth_methods_supported": list(self.auth_methods),
            "code_challenge_methods_supported": ["S256"],
        }
        if self.names_itself:
            document["authorization_response_iss_parameter_supported"] = True
        if self.par != "none":
            document["pushed_authorization_request_endpoint"] = here + "/par"
            document["require_pushed_authorization_requests"] = self.par == "required"
        document.update(self.discovery)
        return {name: value for name, value in document.items() if value is not None}

    def _jwks(self) -> list[dict[str, Any]]:
        if self.published is not None:
            return self.published
        return [{**key.as_dict(private=False), "use": "sig"} for key in self.keys]

    def _authorize(self, request: Request) -> Reply:
        params = dict(request.query)
        if "request_uri" in params:
            params = dict(self._par_requests.pop(params["request_uri"], []))
        elif self.par == "required":
            raise _Refuse("invalid_request")
        if params.get("client_id") != self.client_id:
            raise _Refuse("invalid_client")
        redirect_uri = params.get("redirect_uri", "")
        if not redirect_uri or (self.redirect_uri and redirect_uri != self.redirect_uri):
            raise _Refuse("invalid_request")
        if params.get("code_challenge_method") != "S256" or len(params.get("code_challenge", "")) != 43:
            raise _Refuse("invalid_request")
        self._people[self.user["sub"]] = self.user
        grant = Grant(
            self.user["sub"],
            params.get("nonce", ""),
            params.get("scope", ""),
            int(self.now()),
            secrets.token_hex(8),
        )
        self.sids.append(grant.sid)
        code = secrets.token_urlsafe(24)
        self._codes[code] = _Code(grant, params["code_challenge"], redirect_uri)
        answer: Params = [("code", code), ("state", params.get("state", ""))]
        if self.names_itself:
            answer.append(("iss", self.issuer))
        if self.answer is not None:
            answer = self.answer(answer)
        return Reply(302, b"", {"Location": f"{redirect_uri}?{urlencode(answer)}"})

    def _enter(self, request: Request) -> Call:
        form = request.form
        entry = Call(
            at=self.now(),
            grant=form.get("grant_type", ""),
            rt=fingerprint(form.get("refresh_token", "")),
            auth="",
            form=tuple(sorted(form)),
            scope=form.get("scope"),
            at_once=self._under_way,
        )
        with self._changed:
            self.ledger.append(entry)
            self._changed.notify_all()
        return entry

    def _note(self, entry: Call, outcome: str) -> None:
        with self._changed:
            entry.outcome = outcome
            self._changed.notify_all()

    def _token(self, request: Request, endpoint: str, script: Script, entry: Call) -> Reply:
        entry.processed = True
        entry.auth = self._authenticated(request)
        if entry.auth == "bad":
            raise _Refuse("invalid_client", 401)
        form = request.form
        if endpoint == "code":
            grant, refresh_token = self._redeem(form), ""
            refresh_token = self._new_rt(grant) if self.issues_refresh_token(grant) else ""
            nonce = grant.nonce
        else:
            grant, refresh_token = self._refresh(form.get("refresh_token", ""))
            nonce = {"absent": "", "equal": grant.nonce}.get(self.nonce_on_refresh, "another-nonce")
        access_token = self._access_token(grant, endpoint, form.get("refresh_token", ""))
        body: dict[str, Any] = {
            "access_token": access_token,
            "token_type": "Bearer",
            "scope": grant.scope,
        }
        if self.expires_in is not None:
            body["expires_in"] = int(self.at_life_s) if self.expires_in is ... else self.expires_in
        sent_rt = {"omit": None, "empty": ""}.get(self.rt_in_reply, refresh_token or None)
        if endpoint == "code":
            sent_rt = refresh_token or None
        if sent_rt is not None:
            body["refresh_token"] = sent_rt
        if endpoint == "code" or self.id_token_on_refresh:
            draft = self._draft(grant, nonce, access_token)
            self.edit_id_token(draft, endpoint)
            for change in (self.change_id_token, script.change_id_token):
                if change is not None:
                    change(draft)
            if not draft.omit:
                body["id_token"] = draft.signed()
        self.edit_tokens(body, endpoint)
        entry.outcome = "issued"
        entry.issued_rt = fingerprint(body.get("refresh_token", ""))
        return Reply(200, body)

    # What a provider of its own ways changes (see `quirks.py`).

    def issues_refresh_token(self, grant: Grant) -> bool:
        return "offline_access" in grant.scope.split()

    def edit_id_token(self, draft: Draft, endpoint: str) -> None: ...

    def edit_tokens(self, body: dict[str, Any], endpoint: str) -> None: ...

    def _redeem(self, form: dict[str, str]) -> Grant:
        code = self._codes.get(form.get("code", ""))
        if code is None or code.spent or form.get("redirect_uri") != code.redirect_uri:
            raise _Refuse("invalid_grant")
        code.spent = True
        challenge = b64(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if not hmac.compare_digest(challenge, code.challenge):
            raise _Refuse("invalid_grant")
        return code.grant

    def _refresh(self, token: str) -> tuple[Grant, str]:
        grant = self._by_rt.get(token)
        if grant is None or not grant.alive:
            raise _Refuse("invalid_grant")
        kind, now = self.rotation.kind, self.now()
        if token not in grant.valid:
            self.reuse_events += 1
            raise _Refuse("invalid_grant")
        if kind == "none":
            return grant, ""
        again = token in grant.used
        first_use = grant.used.setdefault(token, now)
        if again and kind != "deferred" and now - first_use >= self.rotation.grace_s:
            self.reuse_events += 1
            if kind == "family_revoke":
                grant.alive = False
            raise _Refuse("invalid_grant")
        if kind == "idempotent" and token in grant.successor:
            return grant, grant.successor[token]
        if self.old_at_dies:
            grant.access.clear()
        if kind == "rotate" and self.rotation.grace_s <= 0:
            grant.valid.discard(token)
        new = self._new_rt(grant)
        grant.successor[token] = new
        return grant, new

    def _new_rt(self, grant: Grant) -> str:
        token = "rt-" + secrets.token_urlsafe(24)
        token += "x" * (self.rt_bytes - len(token))
        grant.valid.add(token)
        self._by_rt[token] = grant
        return token

    def _access_token(self, grant: Grant, endpoint: str, consumed: str) -> str:
        token = "at-" + secrets.token_urlsafe(24)
        grant.access[token] = self.now() + self.at_life_s
        self._by_at[token] = grant
        if endpoint == "refresh" and self.rotation.kind == "deferred":
            grant.deferred[token] = consumed
        return token

    def _draft(self, grant: Grant, nonce: str, access_token: str) -> Draft:
        key = self.keys[-1]
        alg = alg_of(key)
        now = int(self.now())
        names = self.id_token_claims
        known = self._people.get(grant.sub, self.user)
        person = {n: v for n, v in known.items() if names is None or n in names}
        half = hashlib.new(f"sha{alg[2:]}" if alg[2:].isdigit() else "sha512", access_token.encode()).digest()
        claims = {
            **person,
            "iss": self.issuer,
            "sub": grant.sub,
            "aud": self.client_id,
            "iat": now,
            "exp": now + 300,
            "auth_time": grant.auth_time,
            "sid": grant.sid,
            "at_hash": b64(half[: len(half) // 2]),
        }
        if nonce:
            claims["nonce"] = nonce
        return Draft({"alg": alg, "typ": "JWT", "kid": key.kid}, claims, key)

    def _userinfo(self, request: Request) -> Reply:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not self.access_token_works(token):
            return Reply(401, b"", {"WWW-Authenticate": 'Bearer error="invalid_token"'})
        sub = self._by_at[token].sub
        return Reply(200, {**self._people.get(sub, self.user), "sub": sub})

    def _revoke(self, request: Request) -> Reply:
        if self._authenticated(request) == "bad":
            raise _Refuse("invalid_client", 401)
        token = request.form.get("token", "")
        self.revoked.append(token)
        grant = self._by_rt.get(token) or self._by_at.get(token)
        if grant is not None:
            grant.alive = False
        return Reply(200, b"")

    def _par(self, request: Request) -> Reply:
        if self.par == "broken":
            return Reply(500, b"<html>PAR is down</html>", {"Content-Type": "text/html"})
        if self._authenticated(request) == "bad":
            raise _Refuse("invalid_client", 401)
        uri = "urn:ietf:params:oauth:request_uri:" + secrets.token_urlsafe(12)
        self._par_requests[uri] = list(request.form.items())
        self.pushed += 1
        return Reply(201, {"request_uri": uri, "expires_in": 60})

    def _end_session(self, request: Request) -> Reply:
        params = dict(request.query)
        target = params.get("post_logout_redirect_uri", "")
        if not target:
            return Reply(200, b"signed out")
        if self.logout_state == "none":
            return Reply(302, b"", {"Location": target})
        state = params.get("state", "") if self.logout_state == "same" else "https://evil.example.net/"
        return Reply(302, b"", {"Location": f"{target}?{urlencode({'state': state})}"})

    def _authenticated(self, request: Request) -> str:
        """Which way the client proved itself; "bad" if it did not."""
        form = request.form
        basic = request.headers.get("authorization", "")
        if basic.startswith("Basic "):
            name, _, secret = base64.b64decode(basic[6:]).decode().partition(":")
            good = (unquote_plus(name), unquote_plus(secret)) == (self.client_id, self.client_secret)
            return self._way("basic", "client_secret_basic", good)
        if form.get("client_id") != self.client_id:
            return "bad"
        if "client_secret" in form:
            return self._way("post", "client_secret_post", form["client_secret"] == self.client_secret)
        if "client_assertion" in form:
            return self._asserted(form["client_assertion"])
        return self._way("none", "none", True)

    def _way(self, name: str, method: str, good: bool) -> str:
        return name if good and method in self.auth_methods else "bad"

    def _asserted(self, assertion: str) -> str:
        header = json.loads(base64.urlsafe_b64decode(assertion.partition(".")[0] + "=="))
        secret = header["alg"].startswith("HS")
        key: Any = OctKey.import_key(self.client_secret) if secret else import_key(self.client_jwk or {})
        try:
            claims = jwt.decode(assertion, key, algorithms=[header["alg"]]).claims
        except Exception:
            return "bad"
        good = (
            claims["iss"] == claims["sub"] == self.client_id
            and claims["aud"] in (self.issuer, self.issuer + "/token")
            and claims["exp"] > self.now()
            and claims["jti"] not in self._jtis
        )
        self._jtis.add(claims["jti"])
        method = "client_secret_jwt" if secret else "private_key_jwt"
        return self._way(method, method, good)


def alg_of(key: Any) -> str:
    """The algorithm that a test key signs with."""
    return {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}[key.key_type]


def jwks_of(keys: Sequence[Any], *, private: bool = False) -> list[dict[str, Any]]:
    return [dict(key) for key in KeySet(list(keys)).as_dict(private=private)["keys"]]


def ec_key(kid: str) -> ECKey:
    return ECKey.generate_key("P-256", {"kid": kid})


@contextlib.contextmanager
def scripted_op(**knobs: Any) -> Iterator[ScriptedOP]:
    """A running OP with some knobs set."""
    with ScriptedOP() as op:
        for name, value in knobs.items():
            assert hasattr(op, name), name
            setattr(op, name, value)
        yield op
