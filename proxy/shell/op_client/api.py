"""Identity from a provider's own API, where OpenID Connect does not tell it.

GitHub has no ID token: who somebody is stands in its REST API. Entra leaves the groups of people
with many out of the ID token and names Microsoft Graph instead.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, cast
from urllib.parse import urlsplit

from proxy.core.token_reply import RawReply
from proxy.errors import OPRejected
from proxy.shell.op_client.http import Http, unusable

MAX_PAGES = 20
"""Pages of one list at most; at 100 entries each that is more than any header holds."""

LAG_TRIES = 3
LAG_S = 0.4
"""A new access token is unknown to some of GitHub's servers for some milliseconds (coder #23473)."""


async def person(http: Http, base: str, issuer: str, access_token: str) -> dict[str, Any]:
    """Who an access token belongs to, as OpenID Connect would claim it.

    `/user` (id, login, name), `/user/emails` (the verified primary address), `/user/orgs` and
    `/user/teams` (groups: ``org`` and ``org/team``). A list that the token may not read is left out.

    Raises:
        OPRejected: the API refuses the token.
        OPUnavailable: no usable answer, or a rate limit.
    """
    user = await _user(http, base, access_token)
    identifier = user.get("id")
    if not isinstance(identifier, int) or isinstance(identifier, bool):
        raise OPRejected("userinfo_sub", detail="the API names no user id")
    login = str(user.get("login") or "")
    claims: dict[str, Any] = {
        "iss": issuer,
        "sub": str(identifier),
        "preferred_username": login,
        "name": user.get("name") or login,
    }
    emails = await _list(http, f"{base}/user/emails?per_page=100", access_token)
    chosen = next((each for each in emails or () if each.get("primary")), None)
    if chosen is not None and isinstance(chosen.get("email"), str):
        claims |= {"email": chosen["email"], "email_verified": chosen.get("verified") is True}
    elif isinstance(user.get("email"), str):
        claims["email"] = user["email"]
    orgs = await _list(http, f"{base}/user/orgs?per_page=100", access_token)
    teams = await _list(http, f"{base}/user/teams?per_page=100", access_token)
    if orgs is not None or teams is not None:
        groups = [str(org["login"]) for org in orgs or () if isinstance(org.get("login"), str)]
        for team in teams or ():
            org = team.get("organization")
            if isinstance(org, dict) and isinstance(team.get("slug"), str):
                groups.append(f"{cast('dict[str, Any]', org).get('login')}/{team['slug']}")
        claims["groups"] = groups
    return claims


async def _user(http: Http, base: str, access_token: str) -> dict[str, Any]:
    reply = await _get(http, base + "/user", access_token)
    for _ in range(LAG_TRIES - 1):
        if reply.status != 401:
            break
        await asyncio.sleep(LAG_S)
        reply = await _get(http, base + "/user", access_token)
    if reply.status in (400, 401, 403, 404):
        raise OPRejected(
            f"userinfo_{reply.status}", http_status=reply.status, detail="the API refuses the token"
        )
    body = _json(reply)
    if reply.status != 200 or not isinstance(body, dict):
        raise unusable(reply, "the API")
    return cast("dict[str, Any]", body)


async def _list(http: Http, url: str, access_token: str) -> list[dict[str, Any]] | None:
    """All pages of a list; None if the token may not read it."""
    found: list[dict[str, Any]] = []
    home = urlsplit(url)
    for _ in range(MAX_PAGES):
        reply = await _get(http, url, access_token)
        if reply.status in (401, 403, 404):
            return None
        body = _json(reply)
        if reply.status != 200 or not isinstance(body, list):
            raise unusable(reply, "the API")
        items = cast("list[object]", body)
        found += [cast("dict[str, Any]", item) for item in items if isinstance(item, dict)]
        # RFC 8288: <https://…?page=2>; rel="next". The token goes to no other host.
        link = re.search(r'<([^<>]+)>\s*;\s*rel="?next"?', reply.headers.get("link", ""))
        if link is None or urlsplit(link[1])[:2] != home[:2]:
            break
        url = link[1]
    return found


async def groups_by_graph(http: Http, url: str, access_token: str) -> list[str]:
    """The object ids of all groups that somebody is in, directly or not.

    Raises:
        OPRejected: the token may not ask (it is for another resource, or lacks the permission).
        OPUnavailable: no usable answer.
    """
    found: list[str] = []
    home = urlsplit(url)
    url += "?$select=id&$top=999"
    for _ in range(MAX_PAGES):
        reply = await _get(http, url, access_token)
        if reply.status in (400, 401, 403):
            raise OPRejected(
                f"groups_{reply.status}", http_status=reply.status, detail="Graph refuses the access token"
            )
        body = _json(reply)
        if reply.status != 200 or not isinstance(body, dict):
            raise unusable(reply, "Graph")
        page = cast("dict[str, Any]", body)
        for item in cast("list[object]", page.get("value") or []):
            identifier = cast("dict[str, Any]", item).get("id") if isinstance(item, dict) else None
            if isinstance(identifier, str):
                found.append(identifier)
        following = page.get("@odata.nextLink")
        if not isinstance(following, str) or urlsplit(following)[:2] != home[:2]:
            break
        url = following
    return found


async def _get(http: Http, url: str, access_token: str) -> RawReply:
    reply = await http.get(url, {"Authorization": f"Bearer {access_token}"})
    if reply.status == 429 or (reply.status == 403 and rate_limited(reply)):
        raise unusable(reply, "the API (rate limit)")
    return reply


def rate_limited(reply: RawReply) -> bool:
    """Whether a 403 speaks of too many requests, not of the token (GitHub; coder #24334)."""
    return "retry-after" in reply.headers or reply.headers.get("x-ratelimit-remaining") == "0"


def _json(reply: RawReply) -> object:
    try:
        return cast("object", json.loads(reply.body))
    except (ValueError, RecursionError):
        raise unusable(reply, "the API") from None
