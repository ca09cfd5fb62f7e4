"""The two sealed blobs of a record, to and from their values."""

from __future__ import annotations

import msgspec

from proxy.core.seal import Purpose, SessionSeal
from proxy.core.session import Identity, Record, Tokens
from proxy.errors import CookieError

_encode = msgspec.msgpack.Encoder().encode
_decode_tokens = msgspec.msgpack.Decoder(Tokens).decode
_decode_identity = msgspec.msgpack.Decoder(Identity).decode


def seal_tokens(seal: SessionSeal, gen: str, tokens: Tokens) -> bytes:
    """The `tokens` blob for a commit under `gen`."""
    return seal.seal(Purpose.TOKENS, gen, _encode(tokens))


def open_tokens(seal: SessionSeal, record: Record) -> Tokens:
    """Open a record's tokens.

    Raises:
        CookieError: this cookie does not open this record, or the blob is not readable.
    """
    try:
        return _decode_tokens(seal.open(Purpose.TOKENS, record.gen, record.tokens))
    except msgspec.DecodeError as error:
        raise CookieError("The session is not readable.", detail="tokens schema") from error


def seal_identity(seal: SessionSeal, who_id: str, identity: Identity) -> bytes:
    """The `who` blob under its own random id."""
    return seal.seal(Purpose.WHO, who_id, _encode(identity))


def open_identity(seal: SessionSeal, record: Record) -> Identity:
    """Open a record's identity; raises CookieError like `open_tokens`."""
    try:
        return _decode_identity(seal.open(Purpose.WHO, record.who_id, record.who))
    except msgspec.DecodeError as error:
        raise CookieError("The session is not readable.", detail="identity schema") from error
