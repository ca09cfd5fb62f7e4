"""What the app is told, and by which names."""

from __future__ import annotations

from proxy.importing.draft import Draft
from proxy.importing.given import Given, Header

CLAIMS = {"user": "sub"}
"""oauth2-proxy's words for what a session holds, where ours differ."""

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
    if extra:
        draft.put("headers", extra, ", ".join(origins))
    for header in given.response_headers or ():
        draft.missing(
            header.place,
            f"{header.name}: a response header for the proxy that asks; identity goes to the app with the "
            "request, and a proxy that only asks uses forward auth",
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
