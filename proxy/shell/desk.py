"""What the pages work with (`Desk`), and one request to them (`Visit`).

The data path hands a request over as it came, but its `X-Request-Id` is ours. The `Host` only
chooses among the configured origins; every address that we write comes from configuration.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import Response

from proxy.config.declaration import Settings
from proxy.core.choice import Offer
from proxy.core.gate import is_navigation
from proxy.core.identity import ClaimRules
from proxy.core.login import Flow
from proxy.core.logout import LogoutToken
from proxy.core.metadata import Metadata
from proxy.core.observed import Observed
from proxy.core.origin import Origin, Origins
from proxy.core.problem import Fields
from proxy.core.providers import Profile
from proxy.core.seal import random_id
from proxy.core.session import Identity, Tokens
from proxy.core.token_reply import RawReply
from proxy.errors import BadRequest
from proxy.shell import pages
from proxy.shell.background import Background
from proxy.shell.keeper import Keeper
from proxy.shell.open_session import OpenSession
from proxy.shell.register import Register
from proxy.shell.sessions import Sessions
from proxy.shell.store.contract import Store

MAX_FIELDS = 64
"""Fields of a query or a form: the protocol's and ours are a dozen."""


_ONLY = Offer("", "")
"""The offer of the only provider: nobody chooses it."""


class OP(Protocol):
    """The part of the OP client that the pages use."""

    async def metadata(self) -> Metadata: ...

    async def authorization_url(
        self, flow: Flow, *, redirect_uri: str, extra: Mapping[str, str] | None = None
    ) -> str: ...

    async def redeem(self, code: str, verifier: str, *, redirect_uri: str) -> RawReply: ...

    async def verify_id_token(
        self, raw: str, *, nonce: str | None, access_token: str, previous: Identity | None, now: float
    ) -> dict[str, Any]: ...

    async def userinfo(self, access_token: str, sub: str) -> dict[str, Any]: ...

    async def groups(self, access_token: str) -> list[str]: ...

    async def revoke(self, token: str, hint: str) -> bool | None: ...

    async def verify_logout_token(self, raw: str, *, now: float) -> LogoutToken: ...


class EndsSessions(Protocol):
    """What ends sessions because an OP says so (see `logouts.py`)."""

    async def obey(self, logout: LogoutToken) -> int: ...

    async def end(self, iss: str, sub: str, sid: str) -> int: ...


class Event(Protocol):
    """Writes one audit line."""

    def __call__(self, name: str, **fields: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Desk:
    """Everything that the pages work with.

    Attributes:
        settings: the configuration.
        origins: our public origins.
        sessions: opens sessions.
        register: begins and ends them.
        now: store time.
        keeper: says what a session's tokens are good for, forces a renewal.
        store: spends sign-in flows.
        op: the OP client.
        profile: the provider's ways.
        claims: which claims mean what.
        background: carries what no request waits for.
        event: audit log.
        logouts: ends sessions because the provider says so.
        observed: what the provider is seen to do.
        offer: the provider as people may choose it.
        desks: of all providers, by name, this one's included; empty = there is only this one.
    """

    settings: Settings
    origins: Origins
    sessions: Sessions
    register: Register
    now: Callable[[], float]
    keeper: Keeper
    store: Store
    op: OP
    profile: Profile
    claims: ClaimRules
    background: Background
    event: Event
    logouts: EndsSessions
    observed: Observed = field(default_factory=Observed)
    offer: Offer = _ONLY
    desks: Mapping[str, Desk] = field(default_factory=dict[str, "Desk"], repr=False)

    @property
    def name(self) -> str:
        """The provider's name."""
        return self.offer.name or self.profile.name

    @property
    def issuer(self) -> str:
        """The provider's issuer, as configured."""
        return self.profile.issuer_of(self.settings.issuer)

    @property
    def all(self) -> list[Desk]:
        """The desks of all providers, in the order of the configuration."""
        return list(self.desks.values()) or [self]

    def of(self, tokens: Tokens) -> Desk:
        """The desk of the provider that issued these tokens; this one if there is none."""
        key = (tokens.issuer, tokens.client_id)
        return next((desk for desk in self.all if (desk.issuer, desk.settings.client_id) == key), self)

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that a sign-in asks for."""
        return self.settings.scopes or self.profile.scopes


@dataclass(frozen=True, slots=True)
class Visit:
    """One request to the pages.

    Attributes:
        desk: see there.
        request: Starlette's.
        origin: at which it came in.
        request_id: ours.
        cookie: the Cookie field's value.
        person: a browser is showing a page: it gets HTML, anything else JSON.
        scripted: plainly a script's call (`fetch`, an API client): no redirect helps it.
        speculative: a prefetch: nothing may happen because of it.
    """

    desk: Desk
    request: Request
    origin: Origin
    request_id: str
    cookie: bytes
    person: bool
    scripted: bool
    speculative: bool

    @classmethod
    def of(cls, request: Request, desk: Desk) -> Visit:
        """Read what every page wants to know from a request."""
        headers = request.headers

        def get(name: bytes) -> bytes | None:
            value = headers.get(name.decode())
            return None if value is None else value.encode("latin-1")

        # A form's POST shows a page, too: what counts is where the answer goes.
        person = is_navigation(b"GET", get)
        mode = headers.get("sec-fetch-mode")
        accept = headers.get("accept", "").lower()
        purpose = headers.get("sec-purpose", "") + headers.get("purpose", "") + headers.get("x-moz", "")
        return cls(
            desk=desk,
            request=request,
            origin=desk.origins.of(headers.get("host", "").encode("latin-1")),
            request_id=headers.get("x-request-id") or random_id(),
            cookie=b"; ".join(value.encode("latin-1") for value in headers.getlist("cookie")),
            person=person,
            # Without fetch metadata only what says so itself is a script: curl may follow us.
            scripted=(mode is not None and mode.lower() != "navigate")
            or headers.get("x-requested-with", "").lower() == "xmlhttprequest"
            or ("json" in accept and "text/html" not in accept),
            speculative="prefetch" in purpose.lower(),
        )

    def at(self, desk: Desk) -> Visit:
        """The same visit, to another provider's desk."""
        return replace(self, desk=desk)

    # -- asking --

    async def session(self) -> OpenSession | None:
        """The session that came with the request; raises StoreUnavailable."""
        return await self.desk.sessions.open(self.origin, self.cookie)

    def parameters(self) -> list[tuple[str, str]]:
        """The query's parameters, in order, doubled ones too."""
        return _fields(self.request.url.query)

    def parameter(self, name: str) -> str:
        """The one value of a query parameter; "" if it is absent or doubled."""
        found = [value for key, value in self.parameters() if key == name]
        return found[0] if len(found) == 1 else ""

    async def form(self) -> dict[str, str]:
        """The fields of a posted form; of doubled ones the last. Raises what `form_fields` raises."""
        return dict(await self.form_fields())

    async def form_fields(self) -> list[tuple[str, str]]:
        """The fields of a posted form, in order, doubled ones too; empty for any other body.

        Raises:
            BadRequest: the body is longer than a page's may be.
        """
        limit = self.desk.settings.limits.page_body_bytes
        body = bytearray()
        async for chunk in self.request.stream():
            body += chunk
            if len(body) > limit:
                raise BadRequest(413, "What was sent is longer than this page takes.")
        kind = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            return []
        return _fields(body.decode("utf-8", "replace"))

    # -- addresses --

    def path(self, name: str) -> str:
        """The path of a page of ours."""
        return f"{self.desk.settings.prefix}/{name}"

    def address(self, name: str, **query: str) -> str:
        """The public address of a page of ours."""
        asked = urlencode({key: value for key, value in query.items() if value})
        return f"{self.origin.url}{self.path(name)}" + (f"?{asked}" if asked else "")

    def login(self, return_to: str = "", **query: str) -> str:
        """The address that starts a sign-in and comes back to `return_to`."""
        return self.address("login", rd="" if return_to == "/" else return_to, **query)

    # -- answering --

    def page(
        self, page: pages.Page, *, cookies: Sequence[bytes] = (), more: Fields | None = None
    ) -> Response:
        """Tell `page`: as HTML to a person, as problem details to a program."""
        if self.person:
            fields, body = page.as_html(self.request_id, self.origin.authority)
        else:
            fields, body = page.as_problem(self.request_id)
        return self._response(page.status, [*fields, *(more or [])], body, cookies)

    def redirect(self, to: str, *, cookies: Sequence[bytes] = ()) -> Response:
        """Send the browser on: 302 after a GET, 303 after a POST, never a method kept."""
        status = 302 if self.request.method == "GET" else 303
        return self._response(status, [(b"Location", to.encode("latin-1"))], b"", cookies)

    def json(self, status: int, body: Mapping[str, object], *, cookies: Sequence[bytes] = ()) -> Response:
        """Plain JSON."""
        fields = [(b"Content-Type", b"application/json")]
        return self._response(status, fields, json.dumps(body).encode(), cookies)

    def empty(self, status: int) -> Response:
        """Nothing but a status."""
        return self._response(status, [], b"", [])

    def framed(self, status: int, by: Sequence[str], *, cookies: Sequence[bytes] = ()) -> Response:
        """An empty page that these origins may show in a frame: the only one of ours that anybody may.

        `X-Frame-Options` knows no list; where it is set beside `frame-ancestors`, old browsers obey it.
        """
        ancestors = " ".join(by).encode("latin-1", "replace") or b"'none'"
        policy = b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors " + ancestors
        fields = [
            (b"Content-Type", b"text/html; charset=utf-8"),
            (b"Content-Security-Policy", policy),
            (b"Cross-Origin-Resource-Policy", b"cross-origin"),
        ]
        response = self._response(status, fields, b"", cookies)
        del response.headers["x-frame-options"]
        return response

    def _response(self, status: int, fields: Fields, body: bytes, cookies: Sequence[bytes]) -> Response:
        """Every answer of the pages is made here: what must be on all of them is on all of them."""
        found = {name.lower(): value for name, value in pages.SECURITY}
        found[b"content-security-policy"] = pages.BARE_CSP
        found.update((name.lower(), value) for name, value in fields)
        found[b"x-request-id"] = self.request_id.encode("latin-1")
        response = Response(body, status)
        response.raw_headers.extend(found.items())
        response.raw_headers.extend((b"set-cookie", line) for line in cookies)
        return response


def _fields(text: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise BadRequest(400, "This address holds more parameters than any page takes.") from error
