"""Sealing: the only user of `cryptography`, and the only place that draws randomness itself.

Two kinds of key. The **key ring** (the operator's, one or several, the newest seals, all open)
seals cookies. A session's **data key** (random, lives only inside that session's cookie) seals
what the store keeps. So a dump of the store opens nothing, not even with the key ring.

AES-256-GCM everywhere. Keys are derived per purpose by HKDF-SHA256 (RFC 5869), and the associated
data names, length-prefixed, everything the ciphertext must not be moved between: header
bytes, purpose, cookie name, public origin (CVE-2023-35941 is what unprefixed fields cost).
Nonces are drawn here and nowhere else: a nonce used twice is worse than an impure function.

Sealed cookie: base64url of ``format(1) | key id(4) | nonce(12) | ciphertext | tag(16)``.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
import os
import struct
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct

from proxy.errors import CookieError

_FORMAT = b"\x01"
_NONCE_BYTES = 12
_TAG_BYTES = 16
_HEAD_BYTES = 5
MAX_SEALED_CHARS = 4096
"""Longer values are not looked at: a browser keeps no larger cookie (RFC 6265bis §5.6)."""


class Purpose(enum.StrEnum):
    """What a sealed value is for; a value opens under its own purpose only."""

    SESSION = "session"
    FLOW = "flow"
    TOKENS = "tokens"
    WHO = "who"
    JOURNAL = "journal"


class Ticket(Struct, frozen=True, gc=False):
    """What the session cookie holds.

    Attributes:
        session_id: 128 random bits.
        data_key: 256 random bits; the only key to the session's blobs.
        login_at: Unix seconds; the absolute limit counts from here.
    """

    session_id: bytes
    data_key: bytes
    login_at: float

    def __repr__(self) -> str:
        return "Ticket(…)"


def random_id() -> str:
    """128 random bits in hex: attempt ids, request-independent names."""
    return os.urandom(16).hex()


def random_token() -> str:
    """256 random bits, URL-safe: states, nonces, code verifiers (RFC 7636 §4.1: 43 characters)."""
    return b64(os.urandom(32)).decode()


def new_ticket(login_at: float) -> Ticket:
    """A fresh session id and data key."""
    return Ticket(os.urandom(16), os.urandom(32), login_at)


def b64(raw: bytes) -> bytes:
    """URL-safe base64 without padding (RFC 4648 §5)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def unb64(text: bytes) -> bytes:
    """The inverse of `b64`, for its one canonical spelling only.

    Raises:
        CookieError: anything else, so that one sealed value has one spelling.
    """
    try:
        raw = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise CookieError("The cookie is not readable.", detail="base64") from error
    if b64(raw) != text:
        raise CookieError("The cookie is not readable.", detail="not canonical")
    return raw


def _associated(*fields: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(item)) + item for item in fields)


def _derive(key: bytes, purpose: str) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt=None, info=b"nightporter/1/" + purpose.encode()).derive(key)


def key_id(key: bytes) -> bytes:
    """Four bytes that name a key of the ring; derived from the key, not from its position."""
    return _derive(key, "key-id")[:4]


class KeyRing:
    """The operator's cookie keys: one seals (the newest, unless `seal_with` says otherwise), all open.

    Args:
        keys: 32 bytes each, newest first.
        origin: the public origin that cookies are bound to, e.g. ``https://app.example.com``.

    Attributes:
        ids: of the keys, newest first.
    """

    def __init__(self, keys: Sequence[bytes], origin: str) -> None:
        if not keys or any(len(key) != 32 for key in keys):
            raise ValueError("the key ring needs keys of 32 bytes")
        self._origin = origin.encode()
        self._keys = {key_id(key): key for key in reversed(keys)}
        self.ids = tuple(dict.fromkeys(key_id(key) for key in keys))
        self._sealing = self.ids[0]
        self._aeads: dict[tuple[bytes, Purpose], AESGCM] = {}

    @property
    def sealing(self) -> bytes:
        """The id of the key that seals."""
        return self._sealing

    def seal_with(self, name: bytes) -> None:
        """Seal with this key from now on.

        Raises:
            KeyError: the ring does not hold it.
        """
        if name not in self._keys:
            raise KeyError("no such key in the ring")
        self._sealing = name

    def signing_keys(self, purpose: str) -> list[bytes]:
        """Keys for signed, non-secret values (form tokens): all verify, the last one signs."""
        others = [name for name in self.ids if name != self._sealing]
        return [_derive(self._keys[name], "sign/" + purpose) for name in (*others, self._sealing)]

    def seal(self, purpose: Purpose, cookie_name: bytes, plain: bytes) -> bytes:
        """Seal `plain` into a cookie value for `cookie_name`."""
        head = _FORMAT + self._sealing
        nonce = os.urandom(_NONCE_BYTES)
        aead = self._aead(self._sealing, purpose)
        return b64(head + nonce + aead.encrypt(nonce, plain, self._bound(head, purpose, cookie_name)))

    def open(self, purpose: Purpose, cookie_name: bytes, sealed: bytes) -> tuple[bytes, bool]:
        """Open a cookie value.

        Returns:
            The plain bytes, and whether the key that seals now, or a newer one, sealed it
            (False: seal it anew when convenient).

        Raises:
            CookieError: too long, not ours, an unknown key, tampered with.
        """
        if len(sealed) > MAX_SEALED_CHARS:
            raise CookieError("The cookie is not readable.", detail="too long")
        raw = unb64(sealed)
        head, nonce = raw[:_HEAD_BYTES], raw[_HEAD_BYTES : _HEAD_BYTES + _NONCE_BYTES]
        if len(raw) < _HEAD_BYTES + _NONCE_BYTES + _TAG_BYTES or head[:1] != _FORMAT:
            raise CookieError("The cookie is not readable.", detail="format")
        if head[1:] not in self._keys:
            raise CookieError("The cookie was sealed with a key that is no longer known.", detail="key id")
        try:
            plain = self._aead(head[1:], purpose).decrypt(
                nonce, raw[_HEAD_BYTES + _NONCE_BYTES :], self._bound(head, purpose, cookie_name)
            )
        except InvalidTag as error:
            raise CookieError("The cookie is not readable.", detail="tag") from error
        return plain, self.ids.index(head[1:]) <= self.ids.index(self._sealing)

    def seal_ticket(self, cookie_name: bytes, ticket: Ticket) -> bytes:
        """The session cookie's value."""
        plain = ticket.session_id + ticket.data_key + struct.pack(">d", ticket.login_at)
        return self.seal(Purpose.SESSION, cookie_name, plain)

    def open_ticket(self, cookie_name: bytes, sealed: bytes) -> tuple[Ticket, bool]:
        """Open the session cookie; see `open`."""
        plain, newest = self.open(Purpose.SESSION, cookie_name, sealed)
        if len(plain) != 56:
            raise CookieError("The cookie is not readable.", detail="length")
        return Ticket(plain[:16], plain[16:48], struct.unpack(">d", plain[48:])[0]), newest

    def _aead(self, name: bytes, purpose: Purpose) -> AESGCM:
        found = self._aeads.get((name, purpose))
        if found is None:
            found = self._aeads[name, purpose] = AESGCM(_derive(self._keys[name], purpose))
        return found

    def _bound(self, head: bytes, purpose: Purpose, cookie_name: bytes) -> bytes:
        return _associated(head, purpose.encode(), cookie_name, self._origin)


class SessionSeal:
    """Seals one session's blobs with its data key, each bound to the session id and one id.

    Args:
        ticket: of the session.
    """

    def __init__(self, ticket: Ticket) -> None:
        self._session_id = ticket.session_id
        self._data_key = ticket.data_key

    def seal(self, purpose: Purpose, bound_to: str, plain: bytes) -> bytes:
        """Seal `plain`, bound to `bound_to` (`gen` for tokens, `who_id` for the identity)."""
        nonce = os.urandom(_NONCE_BYTES)
        aead = AESGCM(_derive(self._data_key, purpose))
        return _FORMAT + nonce + aead.encrypt(nonce, plain, self._bound(purpose, bound_to))

    def open(self, purpose: Purpose, bound_to: str, sealed: bytes) -> bytes:
        """Open a blob.

        Raises:
            CookieError: the data key does not open it, or it was moved or changed: whoever sent
            this cookie is not the session's bearer.
        """
        nonce = sealed[1 : 1 + _NONCE_BYTES]
        if sealed[:1] != _FORMAT or len(sealed) < 1 + _NONCE_BYTES + _TAG_BYTES:
            raise CookieError("The session is not readable.", detail="blob format")
        try:
            return AESGCM(_derive(self._data_key, purpose)).decrypt(
                nonce, sealed[1 + _NONCE_BYTES :], self._bound(purpose, bound_to)
            )
        except InvalidTag as error:
            raise CookieError("The session is not readable.", detail="blob tag") from error

    def fingerprint(self, token: str) -> str:
        """Names a token without showing it: HMAC under a key from the data key, 128 bits in hex.

        "" for no token. The cookie keys have no part in it, so no key rotation disturbs it.
        """
        if not token:
            return ""
        key = _derive(self._data_key, "fingerprint")
        return hmac.new(key, token.encode(), hashlib.sha256).hexdigest()[:32]

    def _bound(self, purpose: Purpose, bound_to: str) -> bytes:
        return _associated(_FORMAT, purpose.encode(), self._session_id, bound_to.encode())
