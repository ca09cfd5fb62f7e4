"""A small OpenID provider **for demos only**: anybody signs in as anybody, all is in memory.

It is strict where an RP can go wrong (exact redirect URI, PKCE S256, single-use codes, refresh
tokens that work once, reuse kills the family: `grants.py`) and friendly where a person looks.
It listens on the loopback interface; `--bind` is for the inside of a container whose port is
published on loopback only. It shares no code with the product, so the two cannot agree on a
mistake. Why it exists: docs/adr/0002-demo-op.md.

Run alone: ``python -m proxy.demo.op --port 8082 --client-origin http://127.0.0.1:8080``; the
client's secret comes in the environment variable ``DEMO_OP_CLIENT_SECRET``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from proxy.demo.grants import (
    MAX_KEPT,
    PRESETS,
    AuthorizationRequest,
    Grants,
    Ledger,
    Person,
    Refused,
    person_named,
)
from proxy.demo.listening import run, takes_bind
from proxy.demo.op_requests import SCOPES, BadRequest, authorization_request, protocol_form, read_form, single
from proxy.demo.op_tokens import Mint, claims_for
from proxy.demo.pages import STYLE, page
from proxy.demo.rp import Client

CLIENT_ID = "nightporter-demo"
ACCESS_LIFE_S = 20
MAX_PENDING = 1_000
PENDING_LIFE_S = 600.0
COOKIE = "demo_op"

_NO_STORE = {"cache-control": "no-store", "pragma": "no-cache"}  # RFC 6749 §5.1


@dataclass(frozen=True, slots=True)
class _SignedIn:
    """The OP's own session with a browser."""

    person: Person
    sid: str
    auth_time: int


class DemoOP:
    """The provider's endpoints. One instance is one OP with its own key and memory.

    Args:
        issuer: where it is reached, without a trailing slash.
        client: the RP.
        life_s: how long an access token lives.
        clock: Unix seconds.
    """

    def __init__(
        self,
        issuer: str,
        client: Client,
        *,
        life_s: int = ACCESS_LIFE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.issuer = issuer
        self.client = client
        self.life_s = life_s
        self.ledger = Ledger()
        self._grants = Grants(self.ledger)
        self._clock = clock
        self._mint = Mint(issuer, client, life_s)
        self._pending: dict[str, tuple[AuthorizationRequest, float]] = {}
        self._sessions: dict[str, _SignedIn] = {}
        self._people = {person.sub: person for person in PRESETS.values()}

    def asgi(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/", self.index),
            Route("/.well-known/openid-configuration", self.discovery),
            Route("/jwks", self.jwks),
            Route("/authorize", self.authorize, methods=["GET", "POST"]),
            Route("/sign-in", self.sign_in, methods=["POST"]),
            Route("/token", self.token, methods=["POST"]),
            Route("/userinfo", self.userinfo, methods=["GET", "POST"]),
            Route("/revoke", self.revoke, methods=["POST"]),
            Route("/end-session", self.end_session, methods=["GET", "POST"]),
            Route("/signed-out", self.signed_out, methods=["POST"]),
            Route("/ledger", self.show_ledger),
            STYLE,
        ]
        return Starlette(
            routes=routes,
            exception_handlers={BadRequest: self._explain, Refused: _refuse},
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncGenerator[None]:
        print(f"Demo OpenID provider at {self.issuer}: FOR DEMOS ONLY, anybody signs in as anybody.")
        sys.stdout.flush()
        yield
        print("Ledger:", ", ".join(f"{name} {count}" for name, count in self.ledger.as_dict().items()))
        sys.stdout.flush()

    # -- what an RP reads ----------------------------------------------------------------

    async def discovery(self, _: Request) -> Response:
        """OpenID Connect Discovery 1.0 §3."""
        return JSONResponse(
            {
                "issuer": self.issuer,
                "authorization_endpoint": self.issuer + "/authorize",
                "token_endpoint": self.issuer + "/token",
                "userinfo_endpoint": self.issuer + "/userinfo",
                "jwks_uri": self.issuer + "/jwks",
                "revocation_endpoint": self.issuer + "/revoke",
                "end_session_endpoint": self.issuer + "/end-session",
                "response_types_supported": ["code"],
                "response_modes_supported": ["query"],
                "grant_types_supported": ["authorization_code", "refresh_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "scopes_supported": list(SCOPES),
                "claims_supported": [
                    *("iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "at_hash", "sid"),
                    *("name", "preferred_username", "groups", "email", "email_verified"),
                ],
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
                "revocation_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": True,
                "claims_parameter_supported": False,
                "request_parameter_supported": False,
                "request_uri_parameter_supported": False,
            }
        )

    async def jwks(self, _: Request) -> Response:
        return JSONResponse(self._mint.jwks())

    async def show_ledger(self, _: Request) -> Response:
        """What was counted so far, as JSON."""
        return JSONResponse(
            {**self.ledger.as_dict(), "families_alive": self._grants.families_alive}, headers=_NO_STORE
        )

    # -- what a person sees --------------------------------------------------------------

    async def index(self, _: Request) -> Response:
        return page(
            "op_index.html",
            issuer=self.issuer,
            life_s=self.life_s,
            client=self.client,
            people=PRESETS.values(),
            counts={**self.ledger.as_dict(), "families_alive": self._grants.families_alive},
        )

    async def authorize(self, request: Request) -> Response:
        """OIDC Core §3.1.2: straight back with a code if this browser is signed in, else the page."""
        params = single(
            await read_form(request) if request.method == "POST" else request.query_params.multi_items()
        )
        # Before these two are known to be right, nothing may be redirected (RFC 6749 §4.1.2.1).
        if params.get("client_id") != self.client.client_id:
            raise BadRequest("The request names a client that this provider does not know.")
        if params.get("redirect_uri") != self.client.redirect_uri:
            raise BadRequest("The request names a redirect URI that is not registered.")
        self.ledger.authorizations += 1
        try:
            wanted = authorization_request(params)
        except Refused as error:
            return self._back(params.get("state", ""), error=error.code, error_description=error.why)
        signed_in = self._signed_in(request)
        if signed_in is not None and not self._must_ask(wanted, signed_in):
            return self._answer(wanted, signed_in)
        if "none" in wanted.prompt:
            return self._back(wanted.state, error="login_required", error_description="Nobody is signed in.")
        return self._login_page(wanted)

    def _must_ask(self, wanted: AuthorizationRequest, signed_in: _SignedIn) -> bool:
        if wanted.prompt & {"login", "select_account"}:
            return True
        # `consent` asks nothing here: the login page says what the RP gets.
        return wanted.max_age_s is not None and self._clock() - signed_in.auth_time > wanted.max_age_s

    def _login_page(self, wanted: AuthorizationRequest, *, complaint: str = "") -> Response:
        now = self._clock()
        for ticket, (_, until) in list(self._pending.items()):
            if now >= until or len(self._pending) >= MAX_PENDING:
                del self._pending[ticket]
        ticket = secrets.token_urlsafe(24)
        self._pending[ticket] = (wanted, now + PENDING_LIFE_S)
        return page(
            "op_login.html",
            status=422 if complaint else 200,
            form_action=f"'self' {self.client.origin}",
            ticket=ticket,
            client=self.client,
            people=PRESETS,
            stays="offline_access" in wanted.scope,
            complaint=complaint,
        )

    async def sign_in(self, request: Request) -> Response:
        """The login page's form: a preset person or any name."""
        form = single(await read_form(request))
        wanted, until = self._pending.pop(form.get("ticket", ""), (None, 0.0))
        if wanted is None or self._clock() >= until:
            raise BadRequest("This sign-in page is too old. Go back to the app and start again.")
        person = PRESETS.get(form.get("person", "")) or person_named(form.get("name", ""))
        if person is None:
            return self._login_page(wanted, complaint="Choose somebody, or type a name of 1 to 40 letters.")
        self.ledger.sign_ins += 1
        signed_in = _SignedIn(person, secrets.token_urlsafe(12), int(self._clock()))
        handle = secrets.token_urlsafe(32)
        self._sessions[handle] = signed_in
        self._people[person.sub] = person
        for kept in (self._sessions, self._people):
            if len(kept) > MAX_KEPT:
                del kept[next(iter(kept))]
        response = self._answer(wanted, signed_in)
        response.set_cookie(COOKIE, handle, httponly=True, samesite="lax", path="/")
        return response

    def _answer(self, wanted: AuthorizationRequest, signed_in: _SignedIn) -> Response:
        code = self._grants.issue_code(
            signed_in.person, wanted, signed_in.sid, signed_in.auth_time, self._clock()
        )
        return self._back(wanted.state, code=code)

    def _back(self, state: str, **params: str) -> Response:
        """Send the browser back to the RP, with `iss` (RFC 9207); 303, so that no form travels on."""
        if state:
            params["state"] = state
        query = urlencode({**params, "iss": self.issuer})
        return RedirectResponse(f"{self.client.redirect_uri}?{query}", status_code=303, headers=_NO_STORE)

    def _signed_in(self, request: Request) -> _SignedIn | None:
        return self._sessions.get(request.cookies.get(COOKIE, ""))

    # -- tokens --------------------------------------------------------------------------

    async def token(self, request: Request) -> Response:
        """RFC 6749 §4.1.3 and §6."""
        fields = await read_form(request)
        # Counted after the last await: whoever reads the ledger finds calls and their ends together.
        self.ledger.token_calls += 1
        form = protocol_form(fields)
        self.client.authenticate(request.headers.get("authorization", ""), form)
        match form.get("grant_type"):
            case "authorization_code":
                family = self._grants.redeem(
                    form.get("code", ""),
                    form.get("redirect_uri", ""),
                    form.get("code_verifier", ""),
                    self._clock(),
                )
                nonce = family.nonce
            case "refresh_token":
                family = self._grants.refresh(form.get("refresh_token", ""))
                nonce = ""  # OIDC Core §12.2: should not be repeated
            case None:
                raise Refused("invalid_request", "grant_type is missing.")
            case _:
                raise Refused("unsupported_grant_type", "Only authorization_code and refresh_token.")
        return JSONResponse(self._mint.tokens(family, nonce, int(self._clock())), headers=_NO_STORE)

    async def userinfo(self, request: Request) -> Response:
        """OIDC Core §5.3, for a live access token of ours."""
        self.ledger.userinfo_calls += 1
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        claims = self._mint.claims_of_access_token(token, self._clock())
        if scheme.lower() != "bearer" or claims is None:
            challenge = 'Bearer error="invalid_token"'
            return JSONResponse({"error": "invalid_token"}, 401, headers={"www-authenticate": challenge})
        person = self._people.get(str(claims["sub"]))
        if person is None:
            return JSONResponse({"sub": claims["sub"]}, headers=_NO_STORE)
        scope = tuple(str(claims["scope"]).split())
        return JSONResponse({"sub": person.sub, **claims_for(person, scope)}, headers=_NO_STORE)

    async def revoke(self, request: Request) -> Response:
        """RFC 7009; an access token is left to age out, it lives seconds."""
        form = protocol_form(await read_form(request))
        self.client.authenticate(request.headers.get("authorization", ""), form)
        self._grants.revoke(form.get("token", ""))
        return Response(status_code=200, headers=_NO_STORE)

    # -- signing out ---------------------------------------------------------------------

    async def end_session(self, request: Request) -> Response:
        """RP-Initiated Logout 1.0 §2: at once with a fitting `id_token_hint`, else ask first."""
        params = single(
            await read_form(request) if request.method == "POST" else request.query_params.multi_items()
        )
        hint = self._mint.claims_of_hint(params.get("id_token_hint", ""))
        target = params.get("post_logout_redirect_uri", "")
        client_known = hint is not None or params.get("client_id") == self.client.client_id
        if target and not (client_known and self.client.may_land_on(target)):
            raise BadRequest("The request names a page to return to that is not registered.")
        signed_in = self._signed_in(request)
        if signed_in is not None and (hint is None or hint.get("sid") != signed_in.sid):
            # Without the hint anybody's link could sign people out here.
            return page("op_logout.html", person=signed_in.person, done=False)
        return self._sign_out(request, target, params.get("state", ""))

    async def signed_out(self, request: Request) -> Response:
        """The confirmation page's form. The Lax cookie does not come along from other sites."""
        await read_form(request)
        return self._sign_out(request, "", "")

    def _sign_out(self, request: Request, target: str, state: str) -> Response:
        if self._sessions.pop(request.cookies.get(COOKIE, ""), None) is not None:
            self.ledger.sign_outs += 1
        if target:
            joint = "&" if urlsplit(target).query else "?"
            where = target + (joint + urlencode({"state": state}) if state else "")
            response: Response = RedirectResponse(where, status_code=303, headers=_NO_STORE)
        else:
            response = page("op_logout.html", person=None, done=True)
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")
        return response

    async def _explain(self, _: Request, error: Exception) -> Response:
        return page("op_error.html", status=400, why=str(error), client=self.client)


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    headers = dict(_NO_STORE)
    if error.status == 401:
        headers["www-authenticate"] = 'Basic realm="demo"'  # RFC 6749 §5.2
    return JSONResponse({"error": error.code, "error_description": error.why}, error.status, headers=headers)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m proxy.demo.op", description="An OpenID provider for demos only."
    )
    parser.add_argument("--port", type=int, default=8082)
    parser.add_argument("--host", default="localhost", choices=["localhost", "127.0.0.1"])
    takes_bind(parser)
    parser.add_argument(
        "--issuer", default="", help="what it calls itself, where --host and --port do not say it"
    )
    parser.add_argument("--client-id", default=CLIENT_ID)
    parser.add_argument("--client-origin", default="http://127.0.0.1:8080")
    parser.add_argument("--life-s", type=int, default=ACCESS_LIFE_S, help="life of an access token")
    options = parser.parse_args(argv)
    secret = os.environ.get("DEMO_OP_CLIENT_SECRET", "")
    if not secret:
        parser.error("set DEMO_OP_CLIENT_SECRET to the client's secret")
    client = Client(options.client_id, secret, options.client_origin.rstrip("/"))
    issuer = options.issuer.rstrip("/") or f"http://{options.host}:{options.port}"
    op = DemoOP(issuer, client, life_s=options.life_s)
    run(op.asgi(), bind=options.bind, port=options.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
