"""Which provider a sign-in goes to."""

from __future__ import annotations

import pytest

from proxy.core.choice import Offer, chosen, offered

GOOGLE = Offer("google", "Google")
STAFF = Offer("staff", "Staff of Acme", hosts=frozenset({"staff.example.com"}))
ADMIN = Offer("admin", "Admin", paths=("/admin/", "/ops/"))
DEEP = Offer("deep", "Deep", paths=("/admin/deep/",))
EVERY = [GOOGLE, STAFF, ADMIN, DEEP]


@pytest.mark.parametrize(
    ("host", "path", "hint", "names"),
    [
        ("app.example.com", "/", "", ["google", "admin", "deep"]),
        ("app.example.com", "/", "admin", ["admin"]),
        ("app.example.com", "/", "staff", ["google", "admin", "deep"]),
        ("app.example.com", "/", "nobody", ["google", "admin", "deep"]),
        ("staff.example.com", "/", "", ["staff"]),
        ("staff.example.com", "/admin/", "google", ["staff"]),
        ("app.example.com", "/admin/users", "", ["admin"]),
        ("app.example.com", "/admin/deep/down?x=/ops/", "", ["deep"]),
        ("app.example.com", "/x?rd=/admin/", "", ["google", "admin", "deep"]),
        ("app.example.com", "/admin/users", "google", ["google"]),
    ],
)
def test_the_host_restricts_the_hint_decides_the_path_chooses(
    host: str, path: str, hint: str, names: list[str]
) -> None:
    assert [offer.name for offer in chosen(EVERY, host=host, path=path, hint=hint)] == names


def test_where_everybody_has_a_host_nobody_is_offered_elsewhere() -> None:
    assert offered([STAFF], "app.example.com") == []


@pytest.mark.parametrize(
    ("title", "logo"), [("Google", "G"), ("Staff of Acme", "SO"), ("& Co", "C"), ("—", "?")]
)
def test_a_button_has_a_letter_or_two(title: str, logo: str) -> None:
    assert Offer("x", title).logo == logo
