"""What an ID token must say, once its signature holds (OIDC Core §3.1.3.7, §12.2)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, cast

from msgspec import Struct

from proxy.errors import IdTokenRejected

_HASHES = {"256": hashlib.sha256, "384": hashlib.sha384, "512": hashlib.sha512}


class Previous(Struct, frozen=True):
    """What a refreshed ID token must agree with (OIDC Core §12.2).

    Attributes:
        iss: the session's issuer.
        sub: the session's subject.
        auth_time: of the first ID token, 0 = it had none.
        nonce: of the sign-in.
        strict_auth_time: another `auth_time` is another authentication.
    """

    iss: str
    sub: str
    auth_time: float = 0.0
    nonce: str = ""
    strict_auth_time: bool = True


class Expected(Struct, frozen=True):
    """What the token is compared with.

    Attributes:
        issuer: exact.
        client_id: must be in `aud`.
        skew_s: tolerated difference between the OP's clock and ours.
        access_token: that came with it, for `at_hash`; "" = none.
        nonce: of the sign-in, required to be equal; None when refreshing.
        previous: set when refreshing.
    """

    issuer: str
    client_id: str
    skew_s: float = 60.0
    access_token: str = ""
    nonce: str | None = None
    previous: Previous | None = None


def check_claims(
    header: Mapping[str, Any], claims: Mapping[str, Any], expected: Expected, now: float
) -> None:
    """Check everything that is not the signature.

    Args:
        header: the verified JOSE header.
        claims: the verified claims.
        now: Unix seconds.

    Raises:
        IdTokenRejected: `code` names the first check that failed.
    """
    # Explicitly typed tokens (logout+jwt, at+jwt, …) are for another purpose (RFC 8725 §3.11).
    if str(header.get("typ", "JWT")).lower().endswith("+jwt") or "events" in claims:
        raise IdTokenRejected("typ", detail=f"no ID token: typ {header.get('typ')!r:.60}")
    if claims.get("iss") != expected.issuer:
        raise IdTokenRejected("iss", detail=f"iss is {claims.get('iss')!r:.200}")
    sub = claims.get("sub")
    if not _subject(sub):
        raise IdTokenRejected("sub", detail="sub is no string of 1 to 255 visible ASCII characters")
    _check_audience(claims, expected.client_id)
    # Whose token it is comes before how old it is: a failed check of time or of `at_hash` may be
    # forgiven after a refresh, and must not hide that the token speaks of somebody else.
    if expected.previous is not None:
        _check_previous(claims, expected.previous)
    _check_nonce(claims, expected)
    _check_times(claims, expected.skew_s, now)
    if expected.access_token and claims.get("at_hash") is not None:
        _check_at_hash(header, claims, expected.access_token)


def check_signed_userinfo(claims: Mapping[str, Any], issuer: str, client_id: str) -> None:
    """Check a signed userinfo answer's `iss` and `aud`, where it has them (OIDC Core §5.3.2).

    Raises:
        IdTokenRejected: it is another OP's or another client's.
    """
    if claims.get("iss", issuer) != issuer:
        raise IdTokenRejected("userinfo_iss", detail="signed userinfo of another issuer")
    aud: object = claims.get("aud", client_id)
    if client_id not in (cast("list[object]", aud) if isinstance(aud, list) else [aud]):
        raise IdTokenRejected("userinfo_aud", detail="signed userinfo for another client")


def _subject(sub: object) -> bool:
    """OIDC Core §2: a case-sensitive string of at most 255 ASCII characters."""
    return isinstance(sub, str) and 0 < len(sub) <= 255 and sub.isascii() and sub.isprintable()


def _check_audience(claims: Mapping[str, Any], client_id: str) -> None:
    aud = claims.get("aud")
    audience: list[object] = cast("list[object]", aud) if isinstance(aud, list) else [aud]
    if client_id not in audience:
        raise IdTokenRejected("aud", detail="aud does not hold our client id")
    azp = claims.get("azp")
    if azp is not None and azp != client_id:
        raise IdTokenRejected("azp", detail="azp is another client")
    if azp is None and any(other != client_id for other in audience):
        raise IdTokenRejected("aud", detail="aud holds other clients and azp does not name us")


def _check_times(claims: Mapping[str, Any], skew_s: float, now: float) -> None:
    exp = numeric_date(claims, "exp")
    iat = numeric_date(claims, "iat")
    if exp is None or iat is None:
        missing = "exp" if exp is None else "iat"
        raise IdTokenRejected(missing, detail=f"{missing} is missing")
    if now >= exp + skew_s:
        raise IdTokenRejected("exp", detail=f"expired: exp {exp:.0f}, our clock {now:.0f}")
    if iat > now + skew_s:
        raise IdTokenRejected(
            "iat", detail=f"issued in the future: iat {iat:.0f}, our clock {now:.0f}; compare the clocks"
        )
    nbf = numeric_date(claims, "nbf")
    if nbf is not None and nbf > now + skew_s:
        raise IdTokenRejected(
            "nbf", detail=f"not valid yet: nbf {nbf:.0f}, our clock {now:.0f}; compare the clocks"
        )


def numeric_date(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate claim (RFC 7519 §2), None if it is missing.

    Raises:
        IdTokenRejected: it is something else: a string, a boolean, milliseconds, no finite number.
    """
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e12:
        raise IdTokenRejected("time_type", detail=f"{name} is no NumericDate")
    return float(value)


def _check_nonce(claims: Mapping[str, Any], expected: Expected) -> None:
    nonce = claims.get("nonce")
    if expected.previous is not None:
        if nonce is not None and expected.previous.nonce and nonce != expected.previous.nonce:
            raise IdTokenRejected("nonce", detail="the refreshed ID token has another nonce")
        return
    if expected.nonce is not None and (not isinstance(nonce, str) or not _same(nonce, expected.nonce)):
        raise IdTokenRejected("nonce", detail="nonce is missing or another")


def _same(found: str, wanted: str) -> bool:
    return hmac.compare_digest(found.encode(errors="surrogatepass"), wanted.encode())


def _check_at_hash(header: Mapping[str, Any], claims: Mapping[str, Any], access_token: str) -> None:
    """OIDC Core §3.1.3.6: the left half of the hash that the signature uses."""
    alg = str(header.get("alg", ""))
    make = _HASHES.get(alg[-3:], hashlib.sha512 if alg.startswith("Ed") else None)
    if make is None:
        return
    digest = make(access_token.encode()).digest()
    half = base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()
    if claims.get("at_hash") != half:
        raise IdTokenRejected("at_hash", detail="at_hash is of another access token")


def _check_previous(claims: Mapping[str, Any], previous: Previous) -> None:
    if claims.get("iss") != previous.iss:
        raise IdTokenRejected("iss", detail="the refreshed ID token is of another issuer")
    if claims.get("sub") != previous.sub:
        raise IdTokenRejected("sub", detail="the refreshed ID token is of another subject")
    auth_time = numeric_date(claims, "auth_time")
    if previous.strict_auth_time and previous.auth_time and auth_time not in (None, previous.auth_time):
        raise IdTokenRejected("auth_time", detail="the refreshed ID token is of another authentication")
