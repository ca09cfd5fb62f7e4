"""The few pages that must work when nothing else does: plain HTML without templates."""

from __future__ import annotations

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="robots" content="noindex"><meta name="color-scheme" content="light dark">
{refresh}<title>{title}</title>
<style>body{{font:16px/1.6 system-ui,sans-serif;max-width:34rem;margin:18vh auto 0;padding:0 1.5rem}}
h1{{font-size:1.4rem}}p{{opacity:.85}}small{{opacity:.6}}</style></head>
<body><h1>{title}</h1><p>{text}</p><p><small>Request {request_id}</small></p></body></html>
"""

CSP = b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"


def page(title: str, text: str, request_id: bytes, *, retry_s: int | None = None) -> bytes:
    """A page that says what happened and what to do.

    Args:
        retry_s: let the browser try again by itself after this long; None = do not.
    """
    from html import escape  # with the names of all entities, 0.5 MiB: few processes ever show a page

    refresh = f'<meta http-equiv="refresh" content="{retry_s}">' if retry_s is not None else ""
    return _PAGE.format(
        title=escape(title),
        text=escape(text),
        request_id=escape(request_id.decode("latin-1")),
        refresh=refresh,
    ).encode()


def headers(*, retry_s: int | None = None) -> list[tuple[bytes, bytes]]:
    """The header fields that go with `page`."""
    found = [
        (b"Content-Type", b"text/html; charset=utf-8"),
        (b"Cache-Control", b"no-store"),
        (b"Content-Security-Policy", CSP),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"Referrer-Policy", b"no-referrer"),
    ]
    if retry_s is not None:
        found.append((b"Retry-After", b"%d" % retry_s))
    return found
