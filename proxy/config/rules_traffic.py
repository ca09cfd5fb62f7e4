"""Rules about addresses, paths, headers and the cookies' keys."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from proxy.config.declaration import Settings
from proxy.config.grammar import (
    TOKEN,
    decode_keys,
    is_loopback,
    listen_address,
    origin,
    upstream_address,
    upstream_rule,
    web_url,
)
from proxy.config.rules import plain_allowed, reads, short
from proxy.errors import Problem

# Fields that frame, route or vouch for the message: a claim in one of them would change the request.
_OWN_FIELDS = frozenset(
    {
        *("authorization", "connection", "content-length", "content-type", "cookie", "expect", "forwarded"),
        *("host", "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer"),
        *("transfer-encoding", "upgrade", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port"),
        *("x-forwarded-proto", "x-forwarded-uri", "x-real-ip"),
    }
)


@reads("upstream", "forward_auth.listen")
def _upstream(settings: Settings) -> Iterator[Problem]:
    remedy = "write http://host:port, https://host or unix:/path of the app, without a path behind the port"
    if not settings.upstream:
        if not settings.forward_auth.listen:  # there, the engine carries the traffic
            yield Problem("upstream", "not set", remedy)
        return
    try:
        upstream_address(settings.upstream)
    except ValueError as error:
        yield Problem("upstream", f"not an address of the app ({error})", remedy)


@reads("upstreams", "upstream")
def _upstreams(settings: Settings) -> Iterator[Problem]:
    seen: set[tuple[str, str]] = set()
    for rule, address in settings.upstreams.items():
        remedy = 'write host/path = address, e.g. "/api/" = "http://127.0.0.1:9001"'
        try:
            where = upstream_rule(rule)
        except ValueError as error:
            yield Problem("upstreams", f"{short(rule)}, {error}", remedy)
            continue
        try:
            upstream_address(address)
        except ValueError as error:
            yield Problem("upstreams", f"{short(rule)} leads to no address of an app ({error})", remedy)
        if where in seen:
            yield Problem("upstreams", f"{short(rule)} twice", "name each rule once")
        seen.add(where)
    if settings.upstreams and not settings.upstream:
        yield Problem("upstreams", "set without upstream", "name the app that serves the rest in upstream")


@reads(
    "tls.cert_file", "tls.key_file", "upstream_tls.cert_file", "upstream_tls.key_file", "upstream_tls.ca_file"
)
def _tls(settings: Settings) -> Iterator[Problem]:
    for group, given in (("tls", settings.tls), ("upstream_tls", settings.upstream_tls)):
        if bool(given.cert_file) != bool(given.key_file):
            missing = "key_file" if given.cert_file else "cert_file"
            remedy = "name both files, or neither"
            yield Problem(f"{group}.{missing}", "not set, the other one is", remedy)
            continue
        for name in ("cert_file", "key_file"):
            path = getattr(given, name)
            if path and not os.access(path, os.R_OK):
                remedy = "name a PEM file that Nightporter may read"
                yield Problem(f"{group}.{name}", f"{path} cannot be read", remedy)
        if given.cert_file and os.access(given.cert_file, os.R_OK) and os.access(given.key_file, os.R_OK):
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(given.cert_file, given.key_file)
            except (OSError, ssl.SSLError):
                remedy = "put the certificate, its chain behind it, and the key that belongs to it there"
                yield Problem(f"{group}.cert_file", "no certificate that fits its key", remedy)
    ca_file = settings.upstream_tls.ca_file
    if ca_file and not os.access(ca_file, os.R_OK):
        remedy = "name a PEM file that Nightporter may read"
        yield Problem("upstream_tls.ca_file", f"{ca_file} cannot be read", remedy)


@reads("via")
def _via(settings: Settings) -> Iterator[Problem]:
    if settings.via and not TOKEN.fullmatch(settings.via):
        yield Problem("via", f"{short(settings.via)}, no pseudonym", "write letters, digits and -")


@reads("workers", "store")
def _workers(settings: Settings) -> Iterator[Problem]:
    if settings.workers > 1 and not settings.store.reveal().startswith("redis"):
        remedy = "keep sessions in Redis, or write workers = 1"
        yield Problem("workers", f"{settings.workers}, and this store serves one process", remedy)


@reads("public_url", "insecure_http")
def _public_url(settings: Settings) -> Iterator[Problem]:
    if not settings.public_urls:
        remedy = "set it to the address people type, e.g. https://app.example.com"
        yield Problem("public_url", "not set", remedy)
    for url in settings.public_urls:
        try:
            origin(url)
        except ValueError as error:
            remedy = "write scheme and host only, e.g. https://app.example.com"
            yield Problem("public_url", f"not an origin ({error})", remedy)
            continue
        parts = urlsplit(url)
        if not plain_allowed(parts.scheme, parts.hostname, settings):
            remedy = (
                "write https:// (TLS may end before Nightporter), or set insecure_http = true for a trial"
            )
            yield Problem("public_url", "plain http on a host that is not this machine", remedy)
    if len(set(settings.public_urls)) < len(settings.public_urls):
        yield Problem("public_url", "the same origin twice", "name each origin once")


@reads("forward_auth.listen", "listen", "operations_listen")
def _forward_auth(settings: Settings) -> Iterator[Problem]:
    text = settings.forward_auth.listen
    if not text:
        return
    remedy = "write an address that only the engine reaches, e.g. 127.0.0.1:8082 or unix:/run/np-auth.sock"
    try:
        address = listen_address(text)
    except ValueError as error:
        yield Problem("forward_auth.listen", f"not an address to listen on ({error})", remedy)
        return
    if address[1:3] != (0, "") and text in (settings.listen, settings.operations_listen):
        yield Problem("forward_auth.listen", "the address of another listener", remedy)


@reads("admin_listen", "listen", "operations_listen", "forward_auth.listen")
def _admin_listen(settings: Settings) -> Iterator[Problem]:
    text = settings.admin_listen
    if not text:
        return
    remedy = "write a loopback address or a unix socket, e.g. 127.0.0.1:8083 or unix:/run/np-admin.sock"
    try:
        address = listen_address(text)
    except ValueError as error:
        yield Problem("admin_listen", f"not an address to listen on ({error})", remedy)
        return
    if not address.path and not is_loopback(address.host):
        yield Problem("admin_listen", "an address that other machines reach", remedy)
    others = (settings.listen, settings.operations_listen, settings.forward_auth.listen)
    if address[1:3] != (0, "") and text in others:
        yield Problem("admin_listen", "the address of another listener", remedy)


@reads("listen", "operations_listen")
def _listen(settings: Settings) -> Iterator[Problem]:
    for key, text in (("listen", settings.listen), ("operations_listen", settings.operations_listen)):
        try:
            listen_address(text)
        except ValueError as error:
            remedy = "write host:port, [v6]:port or unix:/path, e.g. 127.0.0.1:8080"
            yield Problem(key, f"not an address to listen on ({error})", remedy)
            return
    if settings.listen == settings.operations_listen and settings.listen_address[1:3] != (0, ""):
        remedy = "give health and metrics an address of their own, e.g. 127.0.0.1:8081"
        yield Problem("operations_listen", "the same address as listen", remedy)


@reads("listen", "upstream", "upstreams")
def _loop(settings: Settings) -> Iterator[Problem]:
    for key, text in [
        ("upstream", settings.upstream),
        *(("upstreams", it) for it in settings.upstreams.values()),
    ]:
        try:
            itself = upstream_address(text)[:3] == settings.listen_address[:3]
        except ValueError:
            continue
        if itself:
            yield Problem(key, "the address that Nightporter listens on", "write the app's own address")


@reads("cookie_keys", "store")
def _cookie_keys(settings: Settings) -> Iterator[Problem]:
    remedy = "write keys of `nightporter keygen`: 32 bytes each as URL-safe base64, newest first"
    if not settings.cookie_keys:
        if settings.store.reveal().startswith("redis"):
            yield Problem("cookie_keys", "not set, and this store keeps none", remedy)
        return
    try:
        keys = decode_keys(settings.cookie_keys.reveal())
    except ValueError as error:
        yield Problem("cookie_keys", str(error), remedy)
        return
    if not keys:
        yield Problem("cookie_keys", "no key in it", remedy)


@reads("journal.dir")
def _journal(settings: Settings) -> Iterator[Problem]:
    if settings.journal.dir and not os.path.isdir(settings.journal.dir):
        remedy = "make it, writable for Nightporter's user only (mode 0700), or leave journal.dir empty"
        yield Problem("journal.dir", f"{settings.journal.dir} is no directory", remedy)


@reads("prefix", "public_paths")
def _paths(settings: Settings) -> Iterator[Problem]:
    prefix = settings.prefix
    if not re.fullmatch(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+", prefix):
        remedy = "write a path that begins with / and does not end with it, e.g. /oauth2"
        yield Problem("prefix", short(prefix), remedy)
        return
    for path in settings.public_paths:
        ambiguous = re.search(
            r"//|/\.{1,2}(?:/|$)|[;\\?#*\x00-\x20\x7f]|%(?:2f|5c|25|00)", path, re.IGNORECASE
        )
        if not path.startswith("/") or ambiguous:
            remedy = "write plain paths: /healthz for one page, /static/ for everything below it"
            yield Problem("public_paths", f"{short(path)}, no plain path", remedy)
        elif path == prefix or (path.endswith("/") and f"{prefix}/".startswith(path)):
            remedy = "leave it out; sign-in pages need no rule, and an app that is all public no Nightporter"
            yield Problem("public_paths", f"{short(path)}, which covers our own pages at {prefix}", remedy)
        elif path.startswith(f"{prefix}/"):
            remedy = "leave it out: the paths below the prefix are Nightporter's own"
            yield Problem("public_paths", f"{short(path)}, which lies below our own prefix", remedy)


@reads("ping_path", "ready_path", "prefix")
def _probes(settings: Settings) -> Iterator[Problem]:
    for key, path in (("ping_path", settings.ping_path), ("ready_path", settings.ready_path)):
        if not path:
            continue
        if not re.fullmatch(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+", path):
            yield Problem(key, f"{short(path)}, no plain path", "write e.g. /ping")
        elif path == settings.prefix or path.startswith(f"{settings.prefix}/"):
            yield Problem(key, f"{short(path)}, which lies below our own prefix", "write e.g. /ping")
    if settings.ping_path and settings.ping_path == settings.ready_path:
        yield Problem("ready_path", "the same as ping_path", "write another path, or leave one out")


@reads("trusted_proxies")
def _trusted_proxies(settings: Settings) -> Iterator[Problem]:
    for network in settings.trusted_proxies:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            try:
                fixed = f", e.g. {ipaddress.ip_network(network, strict=False)}"
            except ValueError:
                fixed = ", e.g. 10.0.0.0/8 or 192.0.2.7"
            yield Problem("trusted_proxies", f"{short(network)}, no network", f"write CIDRs{fixed}")


@reads("headers")
def _headers(settings: Settings) -> Iterator[Problem]:
    seen: set[str] = set()
    for name, claim in settings.headers.items():
        folded = re.sub(r"[^a-z0-9]", "-", name.lower())
        if not TOKEN.fullmatch(name) or not re.search(r"[A-Za-z0-9]", name):
            yield Problem("headers", f"{short(name)}, no header name", "write letters, digits and -")
        elif folded in _OWN_FIELDS or folded.startswith("sec-"):
            yield Problem(
                "headers", f"{name}, which carries the request", "choose another name, e.g. X-Department"
            )
        elif folded in seen:
            yield Problem("headers", f"{name} twice (spelling aside)", "name each header once")
        elif not claim or any(not part for part in claim.split(".")):
            yield Problem("headers", f"{name} without a claim", 'write the claim\'s name, e.g. "department"')
        seen.add(folded)


@reads("post_logout_urls", "insecure_http")
def _post_logout_urls(settings: Settings) -> Iterator[Problem]:
    for text in settings.post_logout_urls:
        try:
            url = web_url(text)
            good = plain_allowed(url.scheme, url.hostname, settings) and "#" not in text
        except ValueError:
            good = False
        if not good:
            remedy = "write absolute https URLs, e.g. https://www.example.com/bye"
            yield Problem("post_logout_urls", f"{short(text)}, no URL to return to", remedy)
