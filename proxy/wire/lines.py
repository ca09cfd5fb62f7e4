"""Field lines: checked byte by byte once, then known by their bytes.

Most lines of most heads repeat, so a warm head costs one dict lookup a line. Names and
values are cut apart only where a rule needs them; nothing is ever decoded to `str`.

Sources: RFC 9110 §5, §7.6.1; RFC 9112 §5.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from proxy.errors import ProxyError

# Bits of `Connection`.
CLOSE, KEEP_ALIVE, UPGRADES = 1, 2, 4
_OPTIONS = {b"close": CLOSE, b"keep-alive": KEEP_ALIVE, b"upgrade": UPGRADES}

# RFC 9110 §5.5: VCHAR, obs-text, SP and HTAB. No alternation and no lazy part, so matching
# is linear; white space around the value is stripped afterwards. NUL, bare CR, bare LF,
# obs-fold and white space before the colon all fail to match.
_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t -~\x80-\xff]*)")


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


class Lines:
    """The bounded memory of field lines that were found legal, for one direction.

    Two generations bound it: when the young one holds half of the bytes allowed, it becomes
    the old one and what was old is forgotten. A line that is still in use moves up again,
    so a flood of new lines costs its own checks and nothing else.

    Args:
        judge: (lower-case name, value, line) → Field; raises what refuses the message.
        max_bytes: of lines remembered, both generations together.
    """

    __slots__ = ("_judge", "_limit", "_malformed", "_old", "_size", "young")

    def __init__(
        self,
        judge: Callable[[bytes, bytes, bytes], Field],
        malformed: Callable[[str], ProxyError],
        max_bytes: int = 2 << 20,
    ) -> None:
        self.young: dict[bytes, Field] = {}
        self._old: dict[bytes, Field] = {}
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
            match = _LINE.fullmatch(line)
            if match is None:
                raise self._malformed("A header line is malformed.")
            field = self._judge(match[1].lower(), match[2].strip(b" \t"), line)
        if len(line) <= 4096:  # what is longer than a cookie may be is not worth its room
            self._size += 2 * len(line) + 256
            if self._size > self._limit:
                self._old, self.young, self._size = self.young, {}, 2 * len(line) + 256
            self.young[line] = field
        return field


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
