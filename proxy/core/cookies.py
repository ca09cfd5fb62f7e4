"""The cookie grammar, as far as we need it: find ours, cut ours out, write ours.

Everything works on bytes, because the warm path does. Names are compared exactly (cookie
names are case-sensitive, RFC 6265 §4.1.1). All our cookies share one prefix, so that an
app's `Set-Cookie` for any of them can be dropped and none of them ever reaches the app.
"""

from __future__ import annotations

from msgspec import Struct

FLOW_SUFFIX = b"-flow-"
"""Between the session cookie's name and a sign-in flow's id."""


class CookieNames(Struct, frozen=True):
    """Names of our cookies for one public origin.

    Attributes:
        session: ``__Host-np`` on https, ``np`` where the public URL is plain HTTP
            (browsers refuse the prefix without Secure).
        secure: whether `Secure` is set.
    """

    session: bytes
    secure: bool

    @property
    def flow_prefix(self) -> bytes:
        return self.session + FLOW_SUFFIX

    def is_ours(self, name: bytes) -> bool:
        """Say whether a cookie of this name belongs to us (session or sign-in flow)."""
        return name == self.session or name.startswith(self.session + FLOW_SUFFIX)


def names_for(public_url: str) -> CookieNames:
    """The cookie names for a public URL: `__Host-` needs https (RFC 6265bis §4.1.3.2)."""
    if public_url.startswith("https://"):
        return CookieNames(b"__Host-np", True)
    return CookieNames(b"np", False)


def pairs(value: bytes) -> list[tuple[bytes, bytes]]:
    """Split a `Cookie` field value into name and value, in order, without judging them."""
    found: list[tuple[bytes, bytes]] = []
    for part in value.split(b";"):
        name, _, content = part.strip(b" \t").partition(b"=")
        found.append((name.rstrip(b" \t"), content.lstrip(b" \t")))
    return found


def one(value: bytes, name: bytes) -> bytes | None:
    """The value of our cookie `name`, or None if it is absent or **doubled**.

    A browser sends a name twice only when two cookies of different scope exist, which the
    `__Host-` prefix rules out: a doubled cookie was planted and is no cookie.
    """
    if value.find(name) < 0:
        return None
    hits = [content for found, content in pairs(value) if found == name]
    return hits[0] if len(hits) == 1 else None


def with_prefix(value: bytes, prefix: bytes) -> dict[bytes, bytes]:
    """All cookies whose name starts with `prefix`: full name → value. Doubled names are left out."""
    found: dict[bytes, bytes] = {}
    doubled: set[bytes] = set()
    for name, content in pairs(value):
        if name.startswith(prefix):
            if name in found:
                doubled.add(name)
            found[name] = content
    return {name: content for name, content in found.items() if name not in doubled}


def cut(value: bytes, names: CookieNames) -> bytes:
    """A `Cookie` field value without our cookies; b"" when nothing is left.

    What is not ours is passed on byte for byte, also where it is no legal cookie.
    """
    if value.find(names.session) < 0:
        return value
    kept = [
        part
        for part in value.split(b";")
        if not names.is_ours(part.strip(b" \t").partition(b"=")[0].rstrip(b" \t"))
    ]
    return b";".join(kept).strip(b" \t")


def set_line(names: CookieNames, name: bytes, value: bytes, max_age_s: int) -> bytes:
    """The value of a `Set-Cookie` field for one of our cookies (RFC 6265bis §4.1).

    HttpOnly, SameSite=Lax, Path=/ and no Domain, always; Secure unless the public URL is
    plain HTTP. `max_age_s` = 0 with an empty value deletes the cookie.
    """
    line = b"%s=%s; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax" % (name, value, max_age_s)
    return line + b"; Secure" if names.secure else line
