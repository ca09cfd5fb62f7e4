"""What the app is told, and by which names."""

from __future__ import annotations

from proxy.importing.draft import Draft
from proxy.importing.given import Given, Header

CLAIMS = {"user": "sub"}
"""oauth2-proxy's words for what a session holds, where ours differ."""

ASKED = {
    "X-Auth-Request-User": "user",
    "X-Auth-Request-Email": "email",
    "X-Auth-Request-Preferred-Username": "preferred_username",
    "X-Auth-Request-Groups": "groups",
}
"""What `set-xauthrequest` says to the proxy that asks."""

ALWAYS = {
    "x-forwarded-user": "sub",
    "x-forwarded-email": "email",
    "x-forwarded-preferred-username": "preferred_username",
    "x-forwarded-groups": "groups",
}
"""What every app is told anyway."""


def translate(given: Given, draft: Draft) -> None:
    """Write `headers`, `pass_access_token` and `pass_authorization`."""
    extra: dict[str, str] = {}
    origins: list[str] = []
    if given.request_headers is None:
        if given.flag("prefer-email-to-user"):
            extra["X-Forwarded-User"] = "email"
            origins.append(given.place("prefer-email-to-user"))
        if given.flag("pass-access-token"):
            draft.put("pass_access_token", True, given.place("pass-access-token"))
    else:
        for header in given.request_headers:
            claim = _injected(header, draft)
            if claim:
                extra[header.name] = claim
                origins.append(header.place)
        told = {header.name.lower() for header in given.request_headers}
        more = sorted(name for name in ALWAYS if name not in told)
        if more:
            draft.changed("injectRequestHeaders", f"the app is told more than before: {', '.join(more)}")
    _for_the_asking_proxy(given, draft, extra, origins)
    if extra:
        draft.put("headers", extra, ", ".join(dict.fromkeys(origins)))


def _for_the_asking_proxy(given: Given, draft: Draft, extra: dict[str, str], origins: list[str]) -> None:
    """Headers of answers: with forward auth, the proxy that asks reads them there."""
    headers = list(given.response_headers or ())
    if given.response_headers is None and given.flag("set-xauthrequest"):
        place = given.place("set-xauthrequest")
        headers = [Header(name, ((claim, ""),), place) for name, claim in ASKED.items()]
        if given.flag("pass-access-token") and "forward_auth.listen" in draft.lines:
            draft.missing(place, "X-Auth-Request-Access-Token: read X-Forwarded-Access-Token of the answer")
    for header in headers:
        if "forward_auth.listen" in draft.lines:
            claim = _injected(header, draft)
            if claim:
                extra[header.name] = claim
                origins.append(header.place)
        else:
            draft.missing(
                header.place,
                "headers for a proxy that only asks: such a one uses forward auth (docs/forward-auth.md). "
                "The app is told by the request",
            )


def _injected(header: Header, draft: Draft) -> str:
    """The claim that a header of ours is to hold, "" if none is needed or possible."""
    name = header.name.lower()
    if header.kept:
        draft.missing(header.place, f"{header.name}: a value from outside is always removed first")
    if header.password:
        draft.missing(header.place, f"{header.name}: no password is made up for the app")
        return ""
    if len(header.claims) > 1:
        draft.missing(header.place, f"{header.name}: several values; only the first is kept")
    claim, prefix = header.claims[0] if header.claims else ("", "")
    claim = CLAIMS.get(claim, claim)
    if not claim:
        draft.missing(header.place, f"{header.name}: a fixed value; set it in the app or in front of it")
    elif claim == "access_token":
        if name == "x-forwarded-access-token" and not prefix:
            draft.put("pass_access_token", True, header.place)
        elif name == "authorization" and prefix.strip().lower() == "bearer":
            draft.put("pass_authorization", True, header.place)
        else:
            draft.missing(
                header.place,
                f"{header.name}: the access token goes by X-Forwarded-Access-Token or Authorization",
            )
    elif claim in ("id_token", "refresh_token", "created_at", "expires_on"):
        draft.missing(header.place, f"{header.name}: {claim} is not passed on")
    elif prefix or name == "authorization":
        draft.missing(
            header.place, f"{header.name}: a claim is sent as it is, without a prefix, and under its own name"
        )
    elif ALWAYS.get(name) != claim:
        return claim
    return ""
