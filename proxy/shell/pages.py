"""What people see of us: one calm page in many words, and the same words as JSON for programs.

A `Page` says what happened and what to do; it becomes HTML for a person's browser and problem
details (RFC 9457) for everything else. Nothing here is text that a peer sent, except an
account's own e-mail address, and that is escaped like everything else. The pages need no
JavaScript and load nothing: style and drawing are inside, and the content security policy
lets nothing else run.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from proxy.core.problem import Fields, problem

_TEMPLATES = Path(__file__).parent / "templates"

SECURITY: Fields = [
    (b"Cache-Control", b"no-store"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"X-Frame-Options", b"DENY"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
]
"""On every response of ours, beside a content security policy and the request id."""

BARE_CSP = b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""For redirects and JSON: whoever renders them as a page gets nothing."""

Sign = Literal["door", "lamp", "clock", "key", "shut", "broken"]


@dataclass(frozen=True, slots=True)
class Link:
    """A way on. The first one of a page is the one to take."""

    label: str
    href: str
    logo: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """One thing to tell.

    Attributes:
        status: HTTP status code.
        code: short machine word, for programs and logs.
        title: what happened, in a few words.
        text: what happened, in a sentence or two.
        advice: what to do now; "" where the links say it.
        sign: the drawing in the window.
        links: where to go from here.
        choices: ways of equal rank, a button each.
        account: the account's address or name, where the page is about one.
        retry_after_s: with a 503.
        form: hidden fields of the sign-out form; None = the page has no form.
        form_to: where the form is posted.
        form_label: on its button.
        form_reaches: origins that the answer to the form may redirect to.
    """

    status: int
    code: str
    title: str
    text: str
    advice: str = ""
    sign: Sign = "door"
    links: tuple[Link, ...] = ()
    choices: tuple[Link, ...] = ()
    account: str = ""
    retry_after_s: int | None = None
    form: Mapping[str, str] | None = field(default=None, repr=False)
    form_to: str = ""
    form_label: str = ""
    form_reaches: Sequence[str] = ()

    def as_html(self, request_id: str, place: str) -> tuple[Fields, bytes]:
        """Header fields and body for a person's browser.

        Args:
            place: whose door this is: the public origin's host.
        """
        template = _environment().get_template("page.html")
        html = template.render(page=self, request_id=request_id, place=place, style=_style()[0])
        fields: Fields = [
            (b"Content-Type", b"text/html; charset=utf-8"),
            (b"Content-Security-Policy", self._policy()),
            *SECURITY,
            *self._retry(),
        ]
        return fields, html.encode("utf-8", "replace")

    def as_problem(self, request_id: str) -> tuple[Fields, bytes]:
        """Header fields and body for a program."""
        detail = f"{self.text} {self.advice}".strip()
        fields, body = problem(
            self.status,
            self.title,
            detail,
            request_id,
            code=self.code,
            account=self.account or None,
            links={link.label: link.href for link in (*self.choices, *self.links)} or None,
            retry_after_s=self.retry_after_s,
        )
        return fields, body

    def _policy(self) -> bytes:
        targets = " ".join(("'self'", *self.form_reaches)) if self.form is not None else "'none'"
        return (
            "default-src 'none'; "
            f"style-src '{_style()[1]}'; img-src data:; "
            f"form-action {targets}; base-uri 'none'; frame-ancestors 'none'"
        ).encode("latin-1", "replace")

    def _retry(self) -> Fields:
        return [] if self.retry_after_s is None else [(b"Retry-After", b"%d" % self.retry_after_s)]


@cache
def _style() -> tuple[Markup, str]:
    """The style sheet and its hash for the content security policy (CSP3 §2.3.1)."""
    text = (_TEMPLATES / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    # Our own file, and the hash must speak of exactly these bytes.
    return Markup(text), f"sha256-{digest}"  # noqa: S704


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
