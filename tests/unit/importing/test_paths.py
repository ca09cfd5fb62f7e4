"""Regular expressions of `skip-auth-route` as plain paths: right, or refused, and never wider."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.routes import Route, Routes
from proxy.importing.paths import NotPlain, plain_paths


@pytest.mark.parametrize(
    ("expression", "paths", "narrower"),
    [
        ("^/healthz$", ["/healthz"], False),
        ("^/static/", ["/static/"], False),
        ("^/static/.*", ["/static/"], False),
        ("^/static/(.*)$", ["/static/"], False),
        ("^/docs(/.*)?$", ["/docs", "/docs/"], False),
        ("^/(css|js)/", ["/css/", "/js/"], False),
        ("^/(?:css|js)/", ["/css/", "/js/"], False),
        ("^/a$|^/b/", ["/a", "/b/"], False),
        ("^(/a|/b)$", ["/a", "/b"], False),
        ("(^/a$|^/b$)", ["/a", "/b"], False),
        ("^/favicon\\.ico$", ["/favicon.ico"], False),
        ("^/favicon.ico$", ["/favicon.ico"], False),
        ("^/api\\/v1/", ["/api/v1/"], False),
        ("^/public", ["/public", "/public/"], True),
        ("/healthz", ["/healthz", "/healthz/"], True),
        ("^/a/?$", ["/a"], True),
        ("^/a.*", ["/a", "/a/"], True),
        ("^/(v1|v2)/(x|y)$", ["/v1/x", "/v1/y", "/v2/x", "/v2/y"], False),
    ],
)
def test_plain_ones_are_carried(expression: str, paths: list[str], narrower: bool) -> None:
    assert plain_paths(expression) == (paths, narrower)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        ".*",
        "^/",
        "^/$",
        "/",
        "^/files/[0-9]+$",
        "\\.(css|js)$",
        "^/x/$",
        "^/x/.+$",
        "^/a{2}",
        "^/ab?c",
        "^/(a|b)*c",
        "^/(?i)x$",
        "^/(?!private)",
        "^/\\w+$",
        "^/a b$",
        "^/a(b",
        "^/a)b",
        "^/x\\",
        "^/../secret$",
        "^//x$",
        "^static/",
        "^/(a|b|c|d)/(a|b|c|d)/(a|b|c|d)$",
        "^/é$",
    ],
)
def test_others_are_refused(expression: str) -> None:
    with pytest.raises(NotPlain):
        plain_paths(expression)


PIECES = st.sampled_from(
    [
        "^",
        "$",
        "/",
        "a",
        "ab",
        "/a",
        "/b/",
        "(a|b)",
        "(?:/a|b/)",
        "|",
        ".",
        ".*",
        "(/.*)?",
        "/?",
        "\\.",
        "(",
        ")",
    ]
)
_BODY = st.lists(st.sampled_from(["/a", "/b/", "/", "(a|b)", "/(a|b/)", "ab", "\\."]), min_size=1, max_size=3)
_BRANCH = st.tuples(
    st.sampled_from(["^", ""]),
    _BODY.map("".join),
    st.sampled_from(["", "$", ".*", ".*$", "(.*)$", "(/.*)?$", "(/.*)?", "/?$", "/?", "/$"]),
).map("".join)
LIKELY = st.lists(_BRANCH, min_size=1, max_size=2).map("|".join)
ANYTHING = st.lists(PIECES, min_size=1, max_size=7).map("".join)
EXPRESSIONS = st.one_of(LIKELY, LIKELY, ANYTHING)
TAILS = st.text("ab/.", max_size=6)


@settings(max_examples=1_000, deadline=None)
@given(EXPRESSIONS, TAILS)
def test_no_path_becomes_public_that_the_expression_does_not_match(expression: str, tail: str) -> None:
    try:
        compiled = re.compile(expression)
        paths, _ = plain_paths(expression)
    except (re.error, NotPlain):
        return
    routes = Routes("/oauth2", paths)
    for path in [*paths, *(path + tail for path in paths), "/" + tail]:
        if "." not in path and routes.of(path.encode()) is Route.PUBLIC:
            assert compiled.search(path), (expression, path)


def test_whether_it_is_exact_is_said_truly() -> None:
    """Where nothing is said to be narrower, every plain path that matches is public."""
    for expression in ("^/a$", "^/a/", "^/a(/.*)?$", "^/(a|b)/", "^/a$|^/b/"):
        paths, narrower = plain_paths(expression)
        assert not narrower
        routes = Routes("/oauth2", paths)
        for path in ("/", "/a", "/a/", "/a/b", "/ab", "/b", "/b/", "/b/a", "/ba", "/c"):
            assert (routes.of(path.encode()) is Route.PUBLIC) == bool(re.search(expression, path)), path
