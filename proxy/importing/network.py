"""Addresses: where people come from, where the app is, where Nightporter listens."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from proxy.importing.draft import Draft, harmless
from proxy.importing.given import Given, Upstream

DEFAULT_LISTEN = "127.0.0.1:4180"
DEFAULT_PREFIX = "/oauth2"
FORWARD_AUTH_LISTEN = "127.0.0.1:8082"


def translate(given: Given, draft: Draft) -> None:
    """Write upstream, public URL, prefix, listeners and trusted proxies."""
    _upstream(given, draft)
    _public_url(given, draft)
    _listen(given, draft)
    networks = given.items("trusted-proxy-ip")
    if networks:
        draft.put("trusted_proxies", tuple(networks), given.place("trusted-proxy-ip"))
    elif given.flag("reverse-proxy"):
        draft.missing(
            given.place("reverse-proxy"),
            "oauth2-proxy believes everybody's X-Forwarded-*: name the proxies' networks in trusted_proxies, "
            "or the app sees their address as the client's",
        )
    timeout_s = given.seconds("upstream-timeout")
    if timeout_s:
        draft.put("timeouts.first_byte_s", max(timeout_s, 0.1), given.place("upstream-timeout"))
    domains = foreign(given, "whitelist-domain")
    if domains:
        draft.missing(
            given.place("whitelist-domain"),
            f"{harmless(' '.join(domains))}: a sign-in returns to its own address only. Where a sign-out may "
            "end, write whole URLs into post_logout_urls; other hosts of the app belong into public_url",
        )


def foreign(given: Given, name: str) -> list[str]:
    """The domains of a flag that are more than the one public host."""
    host = urlsplit(given.text("redirect-url")).hostname
    return [domain for domain in given.items(name) if domain.partition(":")[0] != host]


def upstreams(given: Given) -> list[Upstream]:
    """All apps, of the flags or of the alpha configuration."""
    if given.upstreams is not None:
        return given.upstreams
    found: list[Upstream] = []
    place = given.place("upstream")
    for text in given.items("upstream"):
        url = urlsplit(text)
        if url.scheme == "static":
            found.append(Upstream("", "/", place, static=int(url.netloc) if url.netloc.isdigit() else 200))
        elif url.scheme == "unix":
            found.append(Upstream(text, "/", place))
        elif url.scheme == "file":
            found.append(Upstream(text.partition("#")[0], url.fragment or url.path, place))
        else:
            found.append(Upstream(text, url.path or "/", place))
    return found


def _upstream(given: Given, draft: Draft) -> None:
    apps: list[tuple[str, Upstream]] = []
    fixed: list[Upstream] = []
    for app in upstreams(given):
        address = _address(app.uri)
        if app.static:
            fixed.append(app)
        elif app.uri.startswith("file:"):
            draft.missing(
                app.place, f"{harmless(app.uri)}: files are not served; put a web server behind Nightporter"
            )
        elif address is None:
            draft.decide(app.place, "no address of an app; write upstream by hand")
        elif app.rewrite:
            draft.missing(app.place, f"{app.path} to {app.rewrite}: paths are passed on unchanged")
        else:
            apps.append((address, app))
    if fixed and not apps:
        _forward_auth(fixed[0], draft)
        return
    for app in fixed:
        draft.missing(app.place, f"a fixed answer, {app.static}, for {app.path}: let the app give it")
    if apps:
        _apps(apps, draft)


def _apps(apps: list[tuple[str, Upstream]], draft: Draft) -> None:
    # The one for everything, else the one for most.
    apps.sort(key=lambda each: len(each[1].path))
    address, main = apps[0]
    draft.put("upstream", address, main.place)
    if main.path != "/":
        draft.changed(
            main.place,
            f"only {main.path} was passed on; now every path of the app is (to people who are signed in)",
        )
    further: dict[str, str] = {}
    for other, app in apps[1:]:
        if other == address:
            continue
        further[app.path] = other
        if not app.path.endswith("/"):
            draft.changed(app.place, f"{app.path} alone went to its app; now everything below it does, too")
    if further:
        places = [app.place for _, app in apps[1:] if app.path in further]
        draft.put("upstreams", further, ", ".join(dict.fromkeys(places)))


def _forward_auth(fixed: Upstream, draft: Draft) -> None:
    draft.put(
        "forward_auth.listen",
        FORWARD_AUTH_LISTEN,
        f"{fixed.place}: a fixed answer {fixed.static} and no app",
        "Another proxy asks and carries the traffic. Nobody else may reach this address.",
    )
    draft.put("forward_auth.engine", "nginx", "a guess; also traefik, caddy, haproxy, envoy")
    draft.missing(
        fixed.place,
        "the proxy in front must ask at forward_auth.listen, in the way of docs/forward-auth.md. Until it "
        "does, /oauth2/auth at listen answers yes (202) or no (401), without any identity",
    )


def _address(uri: str) -> str | None:
    url = urlsplit(uri)
    if url.scheme == "unix":
        return f"unix:{url.path}"
    if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc:
        return None
    return f"{url.scheme}://{url.netloc}"


def _public_url(given: Given, draft: Draft) -> None:
    prefix = given.text("proxy-prefix").rstrip("/") or DEFAULT_PREFIX
    if prefix != DEFAULT_PREFIX:
        draft.put("prefix", prefix, given.place("proxy-prefix"))
    about = given.place("redirect-url") or "redirect_url"
    url = urlsplit(given.text("redirect-url"))
    if not url.scheme or not url.netloc:
        draft.decide(
            about,
            "oauth2-proxy takes the public address from each request; write all of them into public_url, "
            "e.g. https://app.example.com",
        )
        return
    draft.put("public_url", f"{url.scheme}://{url.netloc}", about)
    callback = f"{prefix}/callback"
    if url.path not in ("", "/", callback):
        draft.decide(
            about,
            f"the callback is {url.scheme}://{url.netloc}{callback} now: register it at the provider",
        )
    if foreign(given, "cookie-domain"):
        draft.changed(
            about,
            "oauth2-proxy's cookie was good for a whole domain: add every other address of the app to "
            f"public_url, and its {callback} at the provider",
        )


def _listen(given: Given, draft: Draft) -> None:
    name, default = "http-address", DEFAULT_LISTEN
    if given.text("tls-cert-file") and given.text("tls-key-file"):
        # oauth2-proxy listens on one of the two.
        name, default = "https-address", ":443"
        draft.put("tls.cert_file", given.text("tls-cert-file"), given.place("tls-cert-file"))
        draft.put("tls.key_file", given.text("tls-key-file"), given.place("tls-key-file"))
    about = given.place(name) or "oauth2-proxy's default"
    address = _listening(given.text(name) or default)
    if address is None:
        draft.decide(about, "no address that is known here; write listen by hand, e.g. 0.0.0.0:4180")
    else:
        draft.put("listen", address, about)
    metrics = given.text("metrics-address")
    if metrics:
        about, address = given.place("metrics-address"), _listening(metrics)
        if address is None:
            draft.decide(about, "no address that is known here; write operations_listen by hand")
        else:
            draft.put("operations_listen", address, about)
    for name, key, default in (("ping-path", "ping_path", "/ping"), ("ready-path", "ready_path", "/ready")):
        draft.put(key, given.text(name) or default, given.place(name) or "oauth2-proxy's default")
    if not given.flag("request-logging", True):
        draft.put("access_log", False, given.place("request-logging"))


def _listening(text: str) -> str | None:
    text = re.sub(r"^https?://", "", text, flags=re.IGNORECASE)
    if text.lower().startswith("unix:"):
        # A mode may follow: unix:///run/x.sock,mode=0660
        return "unix:" + text[5:].partition(",")[0].replace("//", "", 1)
    if text.startswith(":"):
        return f"0.0.0.0{text}"  # noqa: S104  # as there: the operator asked for every address
    return text if re.fullmatch(r"(?:\[[0-9A-Fa-f:.]+\]|[^:\s\[\]]+):\d{1,5}", text) else None
