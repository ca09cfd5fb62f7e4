"""Redis: from oauth2-proxy's many flags to one URL of the store."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from proxy.importing.draft import Draft
from proxy.importing.given import Elsewhere, Given
from proxy.importing.provider import SECRETS, secret_file

STORE_FILE = f"{SECRETS}/nightporter_store"
PASSWORD_FILE = f"{SECRETS}/nightporter_store_password"


@dataclass(slots=True)
class Place:
    """One of its URLs, taken apart."""

    scheme: str
    hosts: str
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    db: str = ""


def translate(given: Given, draft: Draft) -> None:
    """Write `store`, and beside it what is needed to get in."""
    names = ("redis-connection-url",)
    kind = ""
    if given.flag("redis-use-sentinel"):
        names, kind = ("redis-sentinel-connection-urls", "redis-sentinel-master-name"), "+sentinel"
    elif given.flag("redis-use-cluster"):
        names, kind = ("redis-cluster-connection-urls",), "+cluster"
    about = given.place(*names) or names[0]
    urls = given.items(names[0]) if kind else [given.text(names[0])]
    hidden = next((url for url in urls if isinstance(url, Elsewhere)), None)
    if hidden is not None:
        _unseen(given, draft, hidden, kind, about)
        return
    try:
        places = [_place(url) for url in urls if url]
    except ValueError as error:
        draft.decide(about, f"{error}; write store by hand")
        return
    if not places:
        draft.decide(about, "no URL of Redis; write store by hand")
        return
    _write(given, draft, places, kind, about)


def _unseen(given: Given, draft: Draft, where: str, kind: str, about: str) -> None:
    draft.put(
        "store_file",
        STORE_FILE,
        about,
        f"Put the URL of {where} into this file, as redis{kind}://…",
        secret=f"redis{kind}://host" + ("/name" if kind == "+sentinel" else ""),
    )


def _place(url: str) -> Place:
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise ValueError("no redis:// or rediss:// URL with a host (unix sockets are not supported)")
    hosts = parts.netloc.rpartition("@")[2]
    if parts.query:
        raise ValueError("parameters in Redis's URL are not supported")
    return Place(
        parts.scheme,
        hosts,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        parts.path.strip("/"),
    )


def _write(given: Given, draft: Draft, places: list[Place], kind: str, about: str) -> None:
    # oauth2-proxy takes user, password and TLS of the last URL, unless flags say otherwise.
    last = places[-1]
    tls = last.scheme == "rediss" or bool(given.text("redis-ca-path"))
    username = given.text("redis-username") or last.username
    password = given.text("redis-password") or last.password
    scheme = ("rediss" if tls else "redis") + kind
    hosts = ",".join(place.hosts for place in places)
    path = ""
    if kind == "+sentinel":
        path = "/" + quote(given.text("redis-sentinel-master-name"), safe="")
    elif not kind and last.db:
        path = f"/{last.db}"
    draft.put("store", f"{scheme}://{hosts}{path}", about)
    if username:
        draft.put("store_username", username, given.place("redis-username") or about)
    if password:
        place = given.place("redis-password") or about
        advice = "Put the password of Redis into this file, as it is, readable for Nightporter only."
        if isinstance(password, Elsewhere):
            advice = (
                f"Put {password} into this file, or into NIGHTPORTER_STORE_PASSWORD instead of this line."
            )
        secret = "" if isinstance(password, Elsewhere) else password
        draft.put("store_password_file", PASSWORD_FILE, place, advice, secret=secret)
    if given.text("redis-ca-path") and not draft.put(
        "store_ca_file", given.text("redis-ca-path"), given.place("redis-ca-path")
    ):
        draft.missing(given.place("redis-ca-path"), "this version has no CA file of its own for Redis")
    if given.text("redis-sentinel-password"):
        secret_file(
            given,
            draft,
            "redis-sentinel-password",
            "store_sentinel_password_file",
            "nightporter_sentinel_password",
        )
