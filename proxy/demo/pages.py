"""The demo's HTML: templates with autoescape, one stylesheet, headers that a page gets."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

_HERE = Path(__file__).parent / "pages"
_templates = Environment(
    loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


def page(
    template: str, *, status: int = 200, form_action: str | None = "'self'", **values: Any
) -> HTMLResponse:
    """Render a template with the headers that every page of the demo gets.

    Args:
        form_action: where a form of this page may lead, **redirects included** (browsers check
            the whole chain); None = anywhere, for a page that cannot know.
    """
    nonce = secrets.token_urlsafe(16)
    policy = [
        "default-src 'none'",
        "style-src 'self'",
        f"script-src 'nonce-{nonce}'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
    if form_action is not None:
        policy.append(f"form-action {form_action}")
    return HTMLResponse(
        _templates.get_template(template).render(nonce=nonce, **values),
        status_code=status,
        headers={
            "content-security-policy": "; ".join(policy),
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            # same-origin, not no-referrer: the latter makes browsers send `Origin: null` with
            # a form, and a same-origin check would refuse the sign-out.
            "referrer-policy": "same-origin",
        },
    )


async def _style(_: object) -> Response:
    return Response(
        (_HERE / "demo.css").read_bytes(), media_type="text/css", headers={"cache-control": "max-age=60"}
    )


STYLE = Route("/demo.css", _style)
"""Both servers of the demo serve the stylesheet from their own origin."""
