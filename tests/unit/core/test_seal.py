"""Sealing: what opens, and everything that must not."""

from __future__ import annotations

import pytest

from proxy.core.seal import KeyRing, Purpose, SessionSeal, b64, key_id, new_ticket, unb64
from proxy.errors import CookieError

OLD, NEW = bytes(32), bytes(range(32))
NAME = b"__Host-np"
ORIGIN = "https://app.example.com"


def test_a_ticket_comes_back_as_it_went() -> None:
    ring, ticket = KeyRing([NEW], ORIGIN), new_ticket(1_700_000_000.5)
    opened, newest = ring.open_ticket(NAME, ring.seal_ticket(NAME, ticket))
    assert (opened, newest) == (ticket, True)


def test_every_flipped_bit_is_refused() -> None:
    ring = KeyRing([NEW], ORIGIN)
    raw = unb64(ring.seal_ticket(NAME, new_ticket(1.0)))
    for index in range(len(raw)):
        changed = raw[:index] + bytes([raw[index] ^ 1]) + raw[index + 1 :]
        with pytest.raises(CookieError):
            ring.open_ticket(NAME, b64(changed))


@pytest.mark.parametrize("cut", [0, 1, 5, 16, 33, -1])
def test_truncated_values_are_refused(cut: int) -> None:
    ring = KeyRing([NEW], ORIGIN)
    with pytest.raises(CookieError):
        ring.open_ticket(NAME, ring.seal_ticket(NAME, new_ticket(1.0))[:cut])


@pytest.mark.parametrize("suffix", [b"=", b"==", b"\n", b" ", b"A"])
def test_a_value_has_one_spelling(suffix: bytes) -> None:
    ring = KeyRing([NEW], ORIGIN)
    with pytest.raises(CookieError):
        ring.open_ticket(NAME, ring.seal_ticket(NAME, new_ticket(1.0)) + suffix)


def test_oversized_values_are_not_looked_at() -> None:
    with pytest.raises(CookieError, match="readable"):
        KeyRing([NEW], ORIGIN).open_ticket(NAME, b"A" * 65_536)


def test_values_do_not_move_between_names_purposes_and_origins() -> None:
    ring = KeyRing([NEW], ORIGIN)
    sealed = ring.seal(Purpose.SESSION, NAME, b"x")
    for purpose, name, other in (
        (Purpose.FLOW, NAME, ring),
        (Purpose.SESSION, b"__Host-n", ring),
        (Purpose.SESSION, NAME, KeyRing([NEW], "https://other.example.com")),
    ):
        with pytest.raises(CookieError):
            other.open(purpose, name, sealed)


def test_an_old_key_opens_and_says_that_it_is_old() -> None:
    sealed = KeyRing([OLD], ORIGIN).seal(Purpose.SESSION, NAME, b"x")
    assert KeyRing([NEW, OLD], ORIGIN).open(Purpose.SESSION, NAME, sealed) == (b"x", False)
    assert KeyRing([OLD, NEW], ORIGIN).open(Purpose.SESSION, NAME, sealed) == (b"x", True)
    with pytest.raises(CookieError, match="no longer known"):
        KeyRing([NEW], ORIGIN).open(Purpose.SESSION, NAME, sealed)


def test_a_key_is_named_by_itself_not_by_its_place() -> None:
    assert key_id(OLD) != key_id(NEW)
    assert len(key_id(NEW)) == 4


def test_a_blob_is_bound_to_session_purpose_and_id() -> None:
    ticket = new_ticket(1.0)
    seal = SessionSeal(ticket)
    blob = seal.seal(Purpose.TOKENS, "gen-1", b"secret")
    assert seal.open(Purpose.TOKENS, "gen-1", blob) == b"secret"
    for other, purpose, bound in (
        (seal, Purpose.TOKENS, "gen-2"),
        (seal, Purpose.WHO, "gen-1"),
        (SessionSeal(new_ticket(1.0)), Purpose.TOKENS, "gen-1"),
    ):
        with pytest.raises(CookieError):
            other.open(purpose, bound, blob)


def test_fingerprints_name_tokens_per_session_and_show_nothing() -> None:
    one, two = SessionSeal(new_ticket(1.0)), SessionSeal(new_ticket(1.0))
    assert one.fingerprint("rt") == one.fingerprint("rt")
    assert one.fingerprint("rt") != two.fingerprint("rt")
    assert one.fingerprint("") == ""
    assert "rt" not in repr(new_ticket(1.0))
