"""A house for the pages: a `Desk` with real sessions on the memory store, an OP made of paper, and
a browser with a cookie jar that calls the ASGI app directly."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from msgspec.structs import replace

from proxy.config.declaration import Limits, Op, Settings
from proxy.core.breaker import Breaker
from proxy.core.gate import Forward
from proxy.core.identity import ClaimRules
from proxy.core.login import Flow
from proxy.core.metadata import Metadata
from proxy.core.origin import Origins
from proxy.core.providers import PROFILES, Profile
from proxy.core.seal import b64, random_id, unb64
from proxy.core.session import Identity
from proxy.core.session_policy import SessionPolicy
from proxy.core.steps import Result
from proxy.core.timing import RefreshPolicy
from proxy.core.token_reply import RawReply
from proxy.errors import IdTokenRejected, NotSent, OPUnavailable, StoreUnavailable
from proxy.shell.background import Background
from proxy.shell.clock import StoreTime
from proxy.shell.desk import Desk
from proxy.shell.endpoints import build
from proxy.shell.keeper import Keeper
from proxy.shell.kit import Kit
from proxy.shell.logouts import Logouts
from proxy.shell.open_session import OpenSession
from proxy.shell.register import Register
from proxy.shell.session_rules import SessionRules
from proxy.shell.sessions import Sessions
from proxy.shell.single_flight import Hooks, SingleFlight
from proxy.shell.store.memory import MemoryStore
from proxy.shell.subject import Subject

START = 1_800_000_000.0
ISSUER = "https://login.example.org"
APP = "https://app.example.com"
KEY = bytes(range(32))
CANARY = "canary-7f3a"
"""Part of every token, code and secret here: it may show nowhere."""

CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "sub": "ada-1",
    "email": "ada@example.com",
    "email_verified": True,
    "name": "Ada Lovelace",
    "preferred_username": "ada",
    "groups": ["staff"],
}


@dataclass
class HandClock:
    """A clock that moves when told to."""

    at: float = 0.0

    def now(self) -> float:
        return START + self.at

    def monotonic(self) -> float:
        return self.at


class FragileStore(MemoryStore):
    """The memory store, with a plug to pull."""

    away = False

    async def _change(self, key: str, change: Any) -> Any:
        self._plug()
        return await super()._change(key, change)

    async def spend_flow(self, flow_id: str, keep_s: float) -> bool:
        self._plug()
        return await super().spend_flow(flow_id, keep_s)

    async def read(self, key: str) -> Any:
        self._plug()
        return await super().read(key)

    def _plug(self) -> None:
        if self.away:
            raise StoreUnavailable("the plug is pulled")


@dataclass
class PaperOP:
    """An OP without a network. Its ID tokens are unsigned paper; the client's own checks of them
    have their own tests."""

    issuer: str = ISSUER
    away: bool = False
    claims: dict[str, Any] = field(default_factory=lambda: dict(CLAIMS))
    told_by_userinfo: dict[str, Any] | None = None
    end_session: str = "/logout"
    names_itself: bool = True
    reply: RawReply | None = None
    token_extra: dict[str, Any] = field(default_factory=dict[str, Any])
    redeemed: list[str] = field(default_factory=list[str])
    revoked: list[str] = field(default_factory=list[str])
    refreshed: int = 0
    issued: int = 0
    asked: dict[str, str] = field(default_factory=dict[str, str])
    nonces: dict[str, str] = field(default_factory=dict[str, str])

    async def metadata(self) -> Metadata:
        if self.away:
            raise OPUnavailable("connection refused")
        return Metadata(
            issuer=self.issuer,
            authorization_endpoint=self.issuer + "/authorize",
            token_endpoint=self.issuer + "/token",
            jwks_uri=self.issuer + "/jwks",
            userinfo_endpoint=self.issuer + "/userinfo",
            end_session_endpoint=self.end_session and self.issuer + self.end_session,
            names_itself=self.names_itself,
        )

    async def authorization_url(
        self, flow: Flow, *, redirect_uri: str, extra: Mapping[str, str] | None = None
    ) -> str:
        await self.metadata()
        params = {
            "state": flow.id,
            "nonce": flow.nonce,
            "redirect_uri": redirect_uri,
            **(extra or {}),
        }
        return f"{self.issuer}/authorize?{urlencode(params)}"

    def consents(self, location: str, **answer: str) -> str:
        """The address to which the OP sends the browser back."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        self.asked = asked
        code = f"{CANARY}-code-{random_id()}"
        self.nonces[code] = asked["nonce"]
        told = {"code": code, "state": asked["state"], "iss": self.issuer, **answer}
        return f"{asked['redirect_uri']}?{urlencode({k: v for k, v in told.items() if v})}"

    async def redeem(self, code: str, verifier: str, *, redirect_uri: str) -> RawReply:
        self.redeemed.append(code)
        if self.away:
            raise NotSent("connection refused")
        if self.reply is not None:
            return self.reply
        return self._tokens({**self.claims, "nonce": self.nonces.get(code, "")})

    async def verify_id_token(
        self, raw: str, *, nonce: str | None, access_token: str, previous: Identity | None, now: float
    ) -> dict[str, Any]:
        claims: dict[str, Any] = json.loads(unb64(raw.partition(".")[2].encode()))
        if nonce is not None and claims.get("nonce") != nonce:
            raise IdTokenRejected("nonce")
        return claims

    async def userinfo(self, access_token: str, sub: str) -> dict[str, Any]:
        if self.told_by_userinfo is None:
            raise OPUnavailable("userinfo: connection refused")
        return self.told_by_userinfo

    async def revoke(self, token: str, hint: str) -> bool:
        self.revoked.append(token)
        return True

    async def connect(self) -> PaperOP:
        return self

    async def refresh(
        self, refresh_token: str, *, scope: str = "", last_check: Callable[[], bool]
    ) -> RawReply:
        assert last_check()
        self.refreshed += 1
        if self.reply is not None:
            return self.reply
        return self._tokens(None)

    async def aclose(self) -> None:
        pass

    def _tokens(self, claims: dict[str, Any] | None) -> RawReply:
        self.issued += 1
        body: dict[str, Any] = {
            "access_token": f"{CANARY}-at-{self.issued}",
            "refresh_token": f"{CANARY}-rt-{self.issued}",
            "token_type": "Bearer",
            "expires_in": 300,
        }
        if claims is not None:
            body["id_token"] = f"{CANARY}-idt." + b64(json.dumps(claims).encode()).decode()
        body.update(self.token_extra)
        body = {name: value for name, value in body.items() if value is not None}
        return RawReply(200, {"content-type": "application/json"}, json.dumps(body).encode())


class House:
    """Everything behind the pages, and the pages."""

    def __init__(
        self,
        op: Any = None,
        *,
        url: str = APP,
        more_urls: tuple[str, ...] = (),
        profile: Profile | None = None,
        limits: Limits | None = None,
        op_settings: Op | None = None,
        clock: Any = None,
        **settings: Any,
    ) -> None:
        self.op = op if op is not None else PaperOP()
        self.clock = clock if clock is not None else HandClock()
        self.events: list[tuple[str, dict[str, object]]] = []
        self.background = Background()
        time = StoreTime(self.clock)
        self.store = FragileStore(self.clock.now)
        origins = Origins((url, *more_urls), [KEY])
        profile = profile or PROFILES["generic"]
        self.settings = replace(
            Settings(
                issuer=ISSUER,
                client_id="app",
                public_urls=(url, *more_urls),
                limits=limits or Limits(),
                op=op_settings or Op(),
            ),
            **settings,
        )
        policy = RefreshPolicy()

        def block(identity: Identity, tokens: Any, now: float) -> bytes:
            return b"X-Forwarded-User: " + identity.sub.encode() + b"\r\n"

        def dress(session: OpenSession, forward: Forward) -> Forward:
            return forward

        self.sessions = Sessions(
            store=self.store,
            rules=SessionRules(
                policy=SessionPolicy(idle_s=self.settings.idle_s, absolute_s=self.settings.absolute_s),
                refresh=policy,
                block=block,
                dress=dress,
            ),
            clock=self.clock,
            time=time,
        )

        self.register = Register(self.store, self.sessions, time)

        async def examine(subject: Subject, result: Result) -> Result:
            session = self.sessions.cached(subject.key)
            record = getattr(result, "record", None)
            if session is not None and record is not None:
                self.sessions.adopt(session, record)
            return result

        kit = Kit(
            self.store, self.op, profile, policy, self.clock, time, None, Breaker(), "here", lambda: 0.5
        )
        self.keeper = Keeper(
            sessions=self.sessions,
            flights=lambda: self.flights,
            time=time,
            wait_s=5.0,
            count=lambda outcome, code, took_s: None,
        )
        self.flights = SingleFlight(
            kit, Hooks(examine, lambda key, result, s: self.keeper.settled(key, result, s)), 4
        )
        self.desk = Desk(
            settings=self.settings,
            origins=origins,
            sessions=self.sessions,
            register=self.register,
            now=time.now,
            keeper=self.keeper,
            store=self.store,
            op=self.op,
            profile=profile,
            claims=ClaimRules(profile),
            background=self.background,
            event=self.event,
            logouts=Logouts(self.store, self.sessions, self.background, self.event, time),
        )
        self.app = build(self.desk)

    def event(self, name: str, **fields: object) -> None:
        self.events.append((name, fields))

    def happened(self, name: str) -> list[dict[str, object]]:
        return [fields for found, fields in self.events if found == name]


@dataclass
class Reply:
    """An answer of the pages."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str:
        """The one value of a field; "" if it is absent."""
        found = self.all(name)
        assert len(found) <= 1, f"{name} came {len(found)} times"
        return found[0] if found else ""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


NAVIGATION = {"sec-fetch-mode": "navigate", "accept": "text/html,*/*;q=0.8", "sec-fetch-dest": "document"}
FETCH = {"sec-fetch-mode": "cors", "sec-fetch-site": "same-origin", "accept": "*/*"}


class Browser:
    """Calls the ASGI app and keeps cookies the way a browser does for one host."""

    def __init__(self, app: Any, host: str = "app.example.com") -> None:
        self.app = app
        self.host = host
        self.cookies: dict[str, str] = {}
        self.seen: list[Reply] = []

    async def get(self, url: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Reply:
        """GET as a navigation, unless `headers` say otherwise."""
        return await self.call(method, url, NAVIGATION if headers is None else headers)

    async def post(self, url: str, form: Mapping[str, str] | None = None, **headers: str) -> Reply:
        """POST as a form would."""
        fields = {**NAVIGATION, "content-type": "application/x-www-form-urlencoded"}
        fields.update({name.replace("_", "-"): value for name, value in headers.items()})
        return await self.call("POST", url, fields, urlencode(form or {}).encode())

    async def call(
        self, method: str, url: str, headers: Mapping[str, str] | list[tuple[str, str]], body: bytes = b""
    ) -> Reply:
        parts = urlsplit(url)
        lines = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
        raw = [(b"host", self.host.encode()), (b"x-request-id", b"req-0123456789abcdef")]
        raw += [(name.encode(), value.encode("latin-1")) for name, value in lines]
        if self.cookies:
            line = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            raw.append((b"cookie", line.encode()))
        reply = await call(self.app, method, parts.path, parts.query, raw, body)
        self.seen.append(reply)
        for line in reply.all("set-cookie"):
            name, _, rest = line.partition("=")
            value, *attributes = rest.split("; ")
            if "Max-Age=0" in attributes:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return reply

    async def sign_in(self, house: House, rd: str = "/", **answer: str) -> Reply:
        """The whole way: to the OP and back."""
        there = await self.get(f"/oauth2/login?{urlencode({'rd': rd})}")
        assert there.status == 302, there.text
        return await self.get(house.op.consents(there["location"], **answer))


async def call(
    app: Any, method: str, path: str, query: str, raw: list[tuple[bytes, bytes]], body: bytes
) -> Reply:
    """One request to an ASGI app."""
    status = 0
    headers: list[tuple[str, str]] = []
    chunks: list[bytes] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status = message["status"]
            headers = [(name.decode(), value.decode("latin-1")) for name, value in message["headers"]]
        else:
            chunks.append(message.get("body", b""))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": raw,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8080),
    }
    await app(scope, receive, send)
    return Reply(status, headers, b"".join(chunks))
