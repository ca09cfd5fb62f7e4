"""Problem details for programs (RFC 9457), as values: header fields and a body.

The pages and the front door answer with the same shape, so a client needs one reader. What
goes in must be safe to show: our own words, never a peer's, never a token.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

MEDIA_TYPE = b"application/problem+json"

Fields = list[tuple[bytes, bytes]]


def problem(status: int, title: str, detail: str, request_id: str, **extra: Any) -> tuple[Fields, bytes]:
    """Header fields and body of a problem.

    `type` is left out, which means ``about:blank`` (RFC 9457 §3.1.1): clients are to go by the
    extension members, `code` first of all.

    Args:
        status: HTTP status code.
        title: short, the same for every problem of its kind; "" = the status code's phrase.
        detail: what happened this time and what to do; "" leaves it out.
        request_id: of the request, to find it in the log.
        extra: extension members; None leaves one out. `retry_after_s` also becomes the
            Retry-After field (RFC 9110 §10.2.3).
    """
    body: dict[str, Any] = {"title": title or HTTPStatus(status).phrase, "status": status}
    if detail:
        body["detail"] = detail
    body["request_id"] = request_id
    body.update((name, value) for name, value in extra.items() if value is not None)
    fields: Fields = [
        (b"Content-Type", MEDIA_TYPE),
        (b"Cache-Control", b"no-store"),
        (b"X-Content-Type-Options", b"nosniff"),
    ]
    retry_after_s = extra.get("retry_after_s")
    if retry_after_s is not None:
        fields.append((b"Retry-After", b"%d" % retry_after_s))
    return fields, json.dumps(body, separators=(",", ":")).encode()
