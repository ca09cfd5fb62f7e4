"""What the demo's OP remembers: codes, token families, counters. No sockets; `now` is an argument.

The rules are the strictest a real OP has (RFC 9700 §4.14.2): a refresh token works **once**,
there is no grace, and presenting a used one kills its whole family. An RP that sends a token
twice, even once in a thousand requests, is signed out here. That is what makes a quiet
`invalid_grant` counter worth looking at.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TypeVar

T = TypeVar("T")

CODE_LIFE_S = 60.0
"""RFC 6749 §4.1.2 recommends ten minutes at most; a loopback redirect takes milliseconds."""

MAX_KEPT = 10_000
"""Of codes and of families each; the oldest go first. A demo forgets rather than grows."""

_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636 §4.1


class Refused(Exception):
    """A token request that is refused, in the protocol's words (RFC 6749 §5.2).

    Args:
        code: the `error` member.
        why: the `error_description` member; our own words, never the caller's.
    """

    def __init__(self, code: str, why: str, *, status: int = 400) -> None:
        super().__init__(why)
        self.code = code
        self.why = why
        self.status = status


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who can sign in. Nobody has a password here."""

    sub: str
    name: str
    preferred_username: str
    email: str
    groups: tuple[str, ...] = ()


PRESETS = {
    "ada": Person("ada", "Ada Lovelace", "Ada", "ada@example.org", ("engines", "poetry")),
    "grace": Person("grace", "Grace Hopper", "Grace", "grace@example.org", ("compilers", "navy")),
}


def person_named(name: str) -> Person | None:
    """A person for a name that somebody typed, or None if it is no name to show.

    The same name is the same person (`sub` is derived from it), as long as the demo runs.
    """
    tidy = " ".join(name.split())
    if not tidy or len(tidy) > 40 or not tidy.isprintable():
        return None
    sub = "guest-" + hashlib.sha256(tidy.encode()).hexdigest()[:12]
    return Person(sub, tidy, tidy, f"{sub}@example.org", ("guests",))


@dataclass(slots=True)
class Ledger:
    """What the OP counted since it started."""

    authorizations: int = 0
    sign_ins: int = 0
    token_calls: int = 0
    codes_redeemed: int = 0
    refreshes: int = 0
    invalid_grant: int = 0
    reuse_detected: int = 0
    families_killed: int = 0
    userinfo_calls: int = 0
    revocations: int = 0
    sign_outs: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """One validated request of the RP for a person (OIDC Core §3.1.2.1)."""

    redirect_uri: str
    state: str
    nonce: str
    scope: tuple[str, ...]
    code_challenge: str
    prompt: frozenset[str]
    max_age_s: int | None


@dataclass(slots=True)
class Family:
    """All refresh tokens that descend from one sign-in, of which only the last one works.

    Attributes:
        sid: the OP's session that it was issued in.
        current: the one refresh token that works; "" if none was issued.
        alive: False once a used token came back, or it was revoked.
    """

    person: Person
    scope: tuple[str, ...]
    nonce: str
    auth_time: int
    sid: str
    current: str = ""
    alive: bool = True


@dataclass(slots=True)
class _Code:
    family: Family
    request: AuthorizationRequest
    expires_at: float
    used: bool = False


@dataclass(slots=True)
class Grants:
    """Codes and families of one client.

    Args:
        ledger: counts what happens here.
        draw: makes codes and tokens.
    """

    ledger: Ledger
    draw: Callable[[], str] = lambda: secrets.token_urlsafe(32)
    _codes: dict[str, _Code] = field(default_factory=dict[str, _Code])
    _families: dict[str, Family] = field(default_factory=dict[str, Family])

    @property
    def families_alive(self) -> int:
        """Sign-ins whose refresh token still works."""
        return len({id(f) for f in self._families.values() if f.alive and f.current})

    def issue_code(
        self, person: Person, request: AuthorizationRequest, sid: str, auth_time: int, now: float
    ) -> str:
        """A code for a person who signed in; single use, bound to the request."""
        family = Family(person, request.scope, request.nonce, auth_time, sid)
        code = self.draw()
        _keep(self._codes, code, _Code(family, request, now + CODE_LIFE_S))
        return code

    def redeem(self, code: str, redirect_uri: str, verifier: str, now: float) -> Family:
        """Exchange a code for a family (RFC 6749 §4.1.3, RFC 7636 §4.6).

        Raises:
            Refused: ``invalid_grant``; a code that comes twice also kills what it brought.
        """
        known = self._codes.get(code)
        if known is None or now >= known.expires_at:
            raise self._invalid("This code is unknown or too old.")
        if known.used:
            self._kill(known.family)
            raise self._invalid("This code was used before; what it brought is revoked.")
        known.used = True
        if not hmac.compare_digest(redirect_uri.encode(), known.request.redirect_uri.encode()):
            raise self._invalid("redirect_uri is not the one of the authorization request.")
        if not _VERIFIER.fullmatch(verifier) or challenge_of(verifier) != known.request.code_challenge:
            raise self._invalid("code_verifier does not fit code_challenge.")
        self.ledger.codes_redeemed += 1
        if "offline_access" in known.family.scope:  # OIDC Core §11
            self._rotate(known.family)
        return known.family

    def refresh(self, token: str) -> Family:
        """Take a refresh token and put its successor into the family.

        Raises:
            Refused: ``invalid_grant``: unknown, revoked, or used before. The last kills the family.
        """
        family = self._families.get(token)
        if family is None or not family.alive:
            raise self._invalid("This refresh token is unknown or revoked.")
        if token != family.current:
            self.ledger.reuse_detected += 1
            self._kill(family)
            raise self._invalid("This refresh token was used before; its whole family is revoked.")
        self.ledger.refreshes += 1
        self._rotate(family)
        return family

    def revoke(self, token: str) -> None:
        """Revoke a family by any of its refresh tokens; an unknown token is no error (RFC 7009 §2.2)."""
        self.ledger.revocations += 1
        family = self._families.get(token)
        if family is not None:
            family.alive = False

    def _rotate(self, family: Family) -> None:
        family.current = self.draw()
        _keep(self._families, family.current, family)

    def _kill(self, family: Family) -> None:
        if family.alive:
            family.alive = False
            self.ledger.families_killed += 1

    def _invalid(self, why: str) -> Refused:
        self.ledger.invalid_grant += 1
        return Refused("invalid_grant", why)


def challenge_of(verifier: str) -> str:
    """`code_challenge` of a verifier, method S256 (RFC 7636 §4.2)."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _keep(held: dict[str, T], key: str, value: T) -> None:
    held[key] = value
    if len(held) > MAX_KEPT:
        del held[next(iter(held))]
