"""Signing out: here first, then at the OP, then to a page that says so.

A sign-out changes state, so it is a same-origin POST; the GET only shows the form for it. What
the OP sends back with the browser decides nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.responses import Response

from proxy.core.logout import end_session_url, given_back, may_revoke, post_logout_target
from proxy.core.origin import Origin
from proxy.core.seal import random_id
from proxy.core.session import Ended
from proxy.errors import ProxyError, StoreUnavailable
from proxy.shell.desk import Desk, Visit
from proxy.shell.giving_back import give_back
from proxy.shell.open_session import OpenSession
from proxy.shell.pages import Link, Page

FORM_S = 86_400
"""A confirmation page may lie open this long; it is bound to its session anyway."""

OP_WAIT_S = 5.0
"""How long a sign-out waits to learn the OP's logout address. Here it is done by then."""


# -- who may ask --


@dataclass(frozen=True, slots=True)
class Asker:
    """What a request says about where it comes from.

    Attributes:
        origins: its Origin fields; browsers send one with every POST.
        site: Sec-Fetch-Site, "" if absent; no page can forge it.
    """

    origins: Sequence[str]
    site: str

    @classmethod
    def of(cls, visit: Visit) -> Asker:
        headers = visit.request.headers
        return cls(headers.getlist("origin"), headers.get("sec-fetch-site", "").lower())

    def same_origin(self, known: Callable[[str], bool], *, form_token: Callable[[], bool]) -> bool:
        """Whether our own page (or a program that names us as its origin) is asking.

        An Origin that names somebody decides at once. Our own forms may carry ``null``, as
        `Referrer-Policy: no-referrer` makes browsers write it (Fetch §3.2.1); so may a sandboxed
        frame of a stranger. Then Sec-Fetch-Site decides, and where the browser sends none
        (plain HTTP, old ones), the form's own token.

        Args:
            known: whether an origin is one of ours.
            form_token: whether the form holds a good token; asked last.
        """
        if len(self.origins) > 1:
            return False
        if self.origins and self.origins[0] != "null":
            return known(self.origins[0])
        if self.site:
            return self.site == "same-origin"
        return form_token()


def _signer(origin: Origin, salt: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(
        origin.ring.signing_keys(salt),
        salt=salt,
        signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
    )


def form_token(session: OpenSession) -> str:
    """A token for the sign-out form of this session and of no other."""
    return str(_signer(session.origin, "sign-out").dumps(session.seal.fingerprint("sign-out")))


def form_token_holds(session: OpenSession | None, token: str) -> bool:
    """Whether `token` came from a form of ours that was made for this session."""
    if session is None:
        return False
    try:
        bound_to = _signer(session.origin, "sign-out").loads(token, max_age=FORM_S)
    except BadData:
        return False
    return bool(bound_to == session.seal.fingerprint("sign-out"))


# -- the pages --


async def confirm(visit: Visit) -> Response:
    """`GET logout`: ask, in a form. Nothing has happened yet."""
    session = await visit.session()
    asked = visit.parameter("rd")
    if session is None:
        return visit.page(
            _signed_out(visit, "You are not signed in", "There is nothing to sign out of.", "Sign in")
        )
    identity = session.identity
    fields = {"token": form_token(session)}
    if asked in visit.desk.settings.post_logout_urls:
        fields["rd"] = asked
    return visit.page(
        Page(
            200,
            "confirm_sign_out",
            "Sign out?",
            "You will be signed out here and, where it offers that, at your identity provider.",
            sign="door",
            account=identity.email or identity.preferred_username or identity.name,
            form=fields,
            form_to=visit.path("logout"),
            form_label="Sign out",
            form_reaches=await _form_reaches(visit.desk.of(session.tokens)),
            links=(Link("Stay signed in", visit.origin.url + "/"),),
        )
    )


async def _form_reaches(desk: Desk) -> list[str]:
    """What the answer to the form may redirect to.

    Chromium holds `form-action` against every redirect that follows a form's POST: ours to the
    OP, and the OP's own ones, to the identity provider behind it or to a page of the operator's.
    Those cannot be known here, so where the OP has a logout address, the policy names its scheme,
    not its host.
    """
    url = await _end_session_endpoint(desk)
    return [f"{urlsplit(url).scheme}:"] if url else _origins(desk.settings.post_logout_urls)


def _origins(urls: Sequence[str]) -> list[str]:
    found = (urlsplit(url) for url in urls)
    return sorted({f"{parts.scheme}://{parts.netloc}" for parts in found})


async def _end_session_endpoint(desk: Desk) -> str:
    try:
        async with asyncio.timeout(OP_WAIT_S):
            metadata = await desk.op.metadata()
    except (ProxyError, TimeoutError):
        return ""
    if not metadata.end_session_endpoint and desk.profile.own_logout is not None:
        return metadata.authorization_endpoint
    return metadata.end_session_endpoint if desk.profile.end_session else ""


async def sign_out(visit: Visit) -> Response:
    """`POST logout`: end the session here, then go and end the OP's."""
    desk = visit.desk
    form = await visit.form()
    try:
        session = await visit.session()
        token = form.get("token", "")
        if not Asker.of(visit).same_origin(
            desk.origins.known, form_token=lambda: form_token_holds(session, token)
        ):
            return _refuse(visit)
        if session is not None:
            await desk.register.end(session, Ended.SIGNED_OUT)
    except StoreUnavailable as error:
        desk.event("sign_out_failed", request=visit.request_id, detail=error.detail)
        return visit.page(_still_in(visit))
    forget = [desk.register.forget_cookie(visit.origin)]
    own_page = visit.address("logged-out")
    asked = form.get("rd", "") or visit.parameter("rd")
    return_to = post_logout_target(asked, desk.settings.post_logout_urls, own_page)
    if session is None:
        return _done(visit, return_to, "", forget)
    identity = session.identity
    desk.event("signed_out", request=visit.request_id, iss=identity.iss, sub=identity.sub)
    visit = visit.at(desk.of(session.tokens))
    url = await _op_address(visit, session, return_to)
    _revoke(visit.desk, session, at_op=bool(url))
    return _done(visit, url or return_to, url, forget)


def _done(visit: Visit, to: str, op_address: str, forget: list[bytes]) -> Response:
    if not visit.scripted:
        return visit.redirect(to, cookies=forget)
    body = {
        "signed_out": True,
        "continue_at": op_address or None,
        "signed_out_page": visit.address("logged-out"),
    }
    return visit.json(200, body, cookies=forget)


async def _op_address(visit: Visit, session: OpenSession, return_to: str) -> str:
    """The OP's logout address; "" if it has none or cannot be asked. Here we are done already.

    A script is not given the ID token that goes to the OP as a hint: no token ever reaches a page's
    code. The OP asks the person instead.
    """
    desk = visit.desk
    try:
        async with asyncio.timeout(OP_WAIT_S):
            metadata = await desk.op.metadata()
    except (ProxyError, TimeoutError) as error:
        detail = error.detail if isinstance(error, ProxyError) else "timeout"
        desk.event("op_sign_out_skipped", request=visit.request_id, detail=detail)
        return ""
    return end_session_url(
        metadata,
        desk.profile,
        id_token="" if visit.scripted else session.tokens.id_token,
        client_id=desk.settings.client_id,
        return_to=return_to,
        state=str(_signer(visit.origin, "signed-out").dumps(random_id())),
    )


def _revoke(desk: Desk, session: OpenSession, *, at_op: bool) -> None:
    """Revoke the refresh token behind the request, where that reaches nobody else's session.

    A revocation that reaches the OP's session goes along when that session is being ended
    anyway. One that reaches the whole grant would sign the person out on their other
    devices: the token is forgotten instead and ages out.
    """
    back = given_back(desk.profile, session.tokens)
    if back is not None and may_revoke(desk.profile.reach, ends_at_op=at_op):
        desk.background.spawn("revoke", give_back(desk.op, *back))


async def logged_out(visit: Visit) -> Response:
    """`GET logged-out`: the page at the end, whatever `state` the OP sent back."""
    try:
        session = await visit.session()
    except StoreUnavailable:
        session = None  # somebody else's outage: the page says what it can
    if session is not None:
        return visit.page(
            Page(
                200,
                "signed_in",
                "You are signed in",
                "This browser has a session here.",
                sign="lamp",
                account=session.identity.email or session.identity.preferred_username,
                links=(
                    Link("Go to the start page", visit.origin.url + "/"),
                    Link("Sign out", visit.address("logout")),
                ),
            )
        )
    return visit.page(
        _signed_out(
            visit,
            "You are signed out",
            "Your session here has ended. On a shared computer, close the browser as well.",
            "Sign in again",
        )
    )


def _signed_out(visit: Visit, title: str, text: str, label: str) -> Page:
    return Page(200, "signed_out", title, text, sign="shut", links=(Link(label, visit.address("login")),))


def _refuse(visit: Visit) -> Response:
    visit.desk.event("sign_out_refused", request=visit.request_id)
    return visit.page(
        Page(
            403,
            "not_same_origin",
            "That did not come from here",
            "Another site asked for this, so nothing was done: you are as signed in as before.",
            "To sign out, use the button on our own page.",
            sign="key",
            links=(Link("Sign out here", visit.address("logout")), Link("Go back", visit.origin.url + "/")),
        )
    )


def _still_in(visit: Visit) -> Page:
    return Page(
        503,
        "not_signed_out",
        "You are still signed in",
        "The sign-out could not be written down just now, so it did not happen.",
        "Wait a moment, then try again. On a shared computer, do not leave before it worked.",
        sign="clock",
        links=(Link("Try again", visit.address("logout")),),
        retry_after_s=5,
    )
