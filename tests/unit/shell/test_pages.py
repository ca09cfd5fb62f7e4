"""A page as HTML for a person and as problem details for a program."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from proxy.core.problem import problem
from proxy.shell.pages import BARE_CSP, Link, Page

HOSTILE = "<script>alert(1)</script>\"'&"


def fields(page: Page) -> dict[str, str]:
    return {name.decode().lower(): value.decode() for name, value in page.as_html("r", "app.example.com")[0]}


def html(page: Page, request_id: str = "req-1", place: str = "app.example.com") -> str:
    return page.as_html(request_id, place)[1].decode()


PLAIN = Page(503, "away", "One moment", "It is away.", "Try again.", retry_after_s=7)


class Balanced(HTMLParser):
    """Notes elements that are closed in the wrong order or never."""

    VOID = frozenset({"meta", "link", "input", "path", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.mark.parametrize("sign", ["door", "lamp", "clock", "key", "shut", "broken"])
def test_every_drawing_makes_a_well_formed_page(sign: str) -> None:
    page = Page(200, "c", "T", "x", sign=sign, form={"token": "t"}, form_to="/f", form_label="Go")  # type: ignore[arg-type]
    parser = Balanced()
    parser.feed(html(page))
    assert parser.open == []


def test_the_policy_names_the_style_that_is_in_the_page() -> None:
    style = re.search(r"<style>(.*?)</style>", html(PLAIN), re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in fields(PLAIN)["content-security-policy"]


def test_a_page_without_a_form_posts_nowhere() -> None:
    assert "form-action 'none'" in fields(PLAIN)["content-security-policy"]
    assert b"form-action 'none'" in BARE_CSP


def test_a_form_reaches_what_it_says() -> None:
    page = Page(
        200, "c", "T", "x", form={}, form_to="/f", form_label="Go", form_reaches=["https://a.example"]
    )
    assert "form-action 'self' https://a.example;" in fields(page)["content-security-policy"]


def test_everything_shown_is_escaped() -> None:
    page = Page(
        403,
        "c",
        HOSTILE,
        HOSTILE,
        HOSTILE,
        account=HOSTILE,
        form={HOSTILE: HOSTILE},
        form_to=HOSTILE,
        form_label=HOSTILE,
        links=(Link(HOSTILE, HOSTILE),),
    )
    text = html(page, HOSTILE, HOSTILE)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 14


def test_text_that_no_encoding_can_carry_is_no_error() -> None:
    assert "T" in html(Page(200, "c", "T", "x", account="\ud800"))


def test_retry_after_is_on_both_forms() -> None:
    assert fields(PLAIN)["retry-after"] == "7"
    problem_fields, body = PLAIN.as_problem("req-1")
    assert (b"Retry-After", b"7") in problem_fields
    assert json.loads(body) == {
        "title": "One moment",
        "status": 503,
        "detail": "It is away. Try again.",
        "request_id": "req-1",
        "code": "away",
        "retry_after_s": 7,
    }


def test_the_first_link_is_the_way_on_unless_a_form_is() -> None:
    links = (Link("A", "/a"), Link("B", "/b"))
    assert html(Page(200, "c", "T", "x", links=links)).count('class="first"') == 1
    assert 'class="first"' not in html(
        Page(200, "c", "T", "x", links=links, form={}, form_to="/f", form_label="Go")
    )


def test_a_page_stays_small() -> None:
    assert len(PLAIN.as_html("r", "app.example.com")[1]) < 8_192


def test_problem_details() -> None:
    found, body = problem(
        401, "", "Sign in.", "req-1", code="no_session", login="/oauth2/login", nothing=None
    )
    assert found[:2] == [(b"Content-Type", b"application/problem+json"), (b"Cache-Control", b"no-store")]
    assert json.loads(body) == {
        "title": "Unauthorized",
        "status": 401,
        "detail": "Sign in.",
        "request_id": "req-1",
        "code": "no_session",
        "login": "/oauth2/login",
    }


def test_problem_details_survive_any_text() -> None:
    assert json.loads(problem(400, "T\ud800", "é\r\n", "r")[1])["detail"] == "é\r\n"
