"""Field lines: checked byte by byte once, then known by their bytes.

Most lines of most heads repeat, so a warm head costs one dict lookup a line. Of a line that is new
(a trace id, a referrer) the name mostly is not: what the name means was found out before, and only
the value is checked. Nothing is ever decoded to `str`.

Sources: RFC 9110 §5, §7.6.1; RFC 9112 §5.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from proxy.core.headers import PASS
from proxy.errors import ProxyError

# Bits of `Connection`.
CLOSE, KEEP_ALIVE, UPGRADES = 1, 2, 4
_OPTIONS = {b"close": CLOSE, b"keep-alive": KEEP_ALIVE, b"upgrade": UPGRADES}

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110 §5.5: VCHAR, obs-text, SP and HTAB. NUL, bare CR, bare LF and obs-fold are none of them,
# and white space before the colon is no part of a name.
IN_VALUE = bytes(c for c in range(256) if c == 9 or 32 <= c != 127)
_NAMES = 1_024


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """Bounds on one head; each is checked before anything is interpreted.

    Attributes:
        head_bytes: the whole head (nginx 4×8 KiB, Envoy 60 KiB, Go 1 MiB) → 431.
        line_bytes: the request line (RFC 9112 §3 recommends ≥ 8,000) → 414.
        fields: number of field lines (Envoy 100, Apache 100) → 431.
    """

    head_bytes: int = 65_536
    line_bytes: int = 16_384
    fields: int = 100


class Field:
    """What a field line is to us.

    Attributes:
        kind: one of the constants of `core/headers.py`.
        value: the value without white space around it.
        line: as it came.
        out: the line to pass on, rewritten where a rule says so; b"" if nothing is left.
        number: Content-Length, or the bits of Connection.
        names: lower-case field names that a Connection line nominates.
    """

    __slots__ = ("kind", "line", "names", "number", "out", "value")

    def __init__(self, kind: int, value: bytes, line: bytes, out: bytes | None = None) -> None:
        self.kind = kind
        self.value = value
        self.line = line
        self.out = line if out is None else out
        self.number = 0
        self.names: tuple[bytes, ...] = ()


PASSED = Field(PASS, b"", b"")
"""What every line of the kind PASS is: nobody asks more of it, so one stands for all."""


class Lines:
    """The bounded memory of field lines that were found legal, for one direction.

    Two generations bound it: when the young one holds half of the bytes allowed, it becomes
    the old one and what was old is forgotten. A line that is still in use moves up again,
    so a flood of new lines costs its own checks and nothing else.

    Args:
        kind_of: lower-case name → kind; the same for every value.
        judge: (kind, value, line) → Field, for kinds other than PASS; raises what refuses the message.
        malformed: makes what is raised for a line that is not plainly legal.
        max_bytes: of lines remembered, both generations together.
    """

    __slots__ = ("_judge", "_kind_of", "_kinds", "_limit", "_malformed", "_old", "_size", "young")

    def __init__(
        self,
        kind_of: Callable[[bytes], int],
        judge: Callable[[int, bytes, bytes], Field],
        malformed: Callable[[str], ProxyError],
        max_bytes: int = 1 << 20,
    ) -> None:
        self.young: dict[bytes, Field] = {}
        self._old: dict[bytes, Field] = {}
        self._kind_of = kind_of
        self._kinds: dict[bytes, int] = {}
        self._judge = judge
        self._malformed = malformed
        self._limit = max_bytes // 2
        self._size = 0

    def learn(self, line: bytes) -> Field:
        """The field of a line that is not in `young`: from the old generation, or checked now.

        Raises:
            ProxyError: the line is not plainly legal, or its value is refused.
        """
        field = self._old.get(line)
        if field is None:
            field = self._checked(line)
        if len(line) <= 4096:  # what is longer than a cookie may be is not worth its room
            self._size += 2 * len(line) + 256
            if self._size > self._limit:
                self._old, self.young, self._size = self.young, {}, 2 * len(line) + 256
            self.young[line] = field
        return field

    def _checked(self, line: bytes) -> Field:
        name, colon, value = line.partition(b":")
        if not colon or value.translate(None, IN_VALUE):
            raise self._malformed("A header line is malformed.")
        kind = self._kinds.get(name)
        if kind is None:
            if _NAME.fullmatch(name) is None:
                raise self._malformed("A header line is malformed.")
            kind = self._kind_of(name.lower())
            if len(self._kinds) >= _NAMES:
                self._kinds.clear()
            if len(name) <= 64:
                self._kinds[name] = kind
        return PASSED if kind == PASS else self._judge(kind, value.strip(b" \t"), line)


def connection_options(field: Field) -> None:
    """Read a `Connection` value into bits and nominated names (RFC 9110 §7.6.1)."""
    names: list[bytes] = []
    for option in field.value.lower().split(b","):
        option = option.strip(b" \t")
        bit = _OPTIONS.get(option, 0)
        field.number |= bit
        if option and not bit:
            names.append(option)
    field.names = tuple(names)


def nominated(lines: list[bytes], names: list[bytes]) -> list[bytes]:
    """Lines without those whose name a Connection field listed (RFC 9110 §7.6.1)."""
    return [line for line in lines if line.partition(b":")[0].lower() not in names]
