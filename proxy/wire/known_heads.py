"""Request heads that came before, found again by their bytes.

Most of what browsers send is the block of lines that they sent a moment ago, behind another request
line. Such a block is judged once, as a whole, so it ends where it ended then: a lookup instead of a
search for the end and a look at each line. Lines that are new in every request (a trace id) are cut
out of it (`varying.py`) and looked at by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from proxy.core.headers import COOKIE, IN_TARGET, METHODS, PASS, SOURCE
from proxy.wire.lines import IN_VALUE, HeadLimits, Lines
from proxy.wire.memo import LONGEST, Memo
from proxy.wire.varying import Varying

if TYPE_CHECKING:
    from proxy.wire.head import RequestHead

END = b"\r\n\r\n"
"""Of a head."""


class Ready:
    """What all heads of one block of lines share, once it is remembered.

    Attributes:
        line: the request line that the block came with at first.
        lines: those that an app is sent of it, ready to be sent again (`rewrite.py`); None = not yet.
    """

    __slots__ = ("line", "lines")

    def __init__(self, line: bytes) -> None:
        self.line = line
        self.lines: bytes | None = None


class KnownHeads:
    """See the module's docstring.

    Args:
        lines: those that were found legal.
        limits: bounds on one head.
    """

    def __init__(self, lines: Lines, limits: HeadLimits) -> None:
        self._lines = lines
        self._limits = limits
        self._blocks: Memo[RequestHead] = Memo()
        self._varying = Varying()
        # A request line that is no longer fits into any head that can be found here.
        self._plain_line = min(limits.line_bytes, limits.head_bytes - LONGEST)

    def look(self, data: bytes) -> RequestHead | None:
        """The head that these bytes are, if they are nothing else (3 µs less than to read it).

        Returns:
            None = it has to be read.
        """
        line, _, block = data.partition(b"\r\n")
        varying: Sequence[tuple[int, bytes]] = ()
        if self._varying.names and block.endswith(END):
            block, varying = self._varying.cut(block)
        known = self._blocks.look(block)
        if known is None:
            return None
        assert known.ready is not None
        head = known.__copy__()
        if line != known.ready.line:
            plain = plain_line(line)
            if plain is None or len(line) > self._plain_line:
                return None
            head.method, head.target, head.path = plain
        if varying and not self._add(head, varying, len(data)):
            return None
        self._blocks.hits += 1
        return head

    def _add(self, head: RequestHead, varying: Sequence[tuple[int, bytes]], size: int) -> bool:
        """Add lines that vary to a head that is known without them, if they are legal."""
        limits = self._limits
        if size > limits.head_bytes or len(head.lines) + len(varying) > limits.fields:
            return False
        for kind, line in varying:
            head.more = (*head.more, line)
            field = self._lines.young.get(line) if kind == COOKIE else None
            if field is None and line.translate(None, IN_VALUE):
                return False
            if kind == COOKIE:
                field = field or self._lines.learn(line)
                head.cookie = field.value
                head.cookie_line = field.out
            elif kind == PASS:
                head.varying += line + b"\r\n"
            elif kind == SOURCE:
                head.sources = (*head.sources, line)
        head.by_name = None
        return True

    def keep(self, line: bytes, block: bytes, head: RequestHead, new: Sequence[tuple[int, bytes]]) -> None:
        """Remember a head by its block of lines, the empty one included, without those that vary.

        Args:
            new: kind and line of those that never came before.
        """
        if new and self._varying.learn(new):
            self._blocks = Memo()
        if self._blocks.resting:
            self._blocks.keep(block, head)
            return
        head, names = head.__copy__(), self._varying.names
        head.by_name = None
        if names:
            block, found = self._varying.cut(block)
            varying = {line for _, line in found}
            # Of a name that varies there is one line, the one that was cut: so order means nothing.
            if sum(each.partition(b":")[0].lower() in names for each in head.lines) != len(found):
                return
            head.lines = [each for each in head.lines if each not in varying]
            head.passed = [each for each in head.passed if each not in varying]
            head.sources = tuple(each for each in head.sources if each not in varying)
            if b"cookie" in names:
                head.cookie = head.cookie_line = b""
        if self._blocks.keep(block, head):
            head.ready = Ready(line)


def plain_line(line: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Method, target and path of a request line as nearly all are: usual method, HTTP/1.1, origin form."""
    parts = line.split(b" ")
    if len(parts) != 3 or parts[2] != b"HTTP/1.1":
        return None
    method, target, _ = parts
    if method not in METHODS or target[:1] != b"/" or target.translate(None, IN_TARGET):
        return None
    return method, target, target.partition(b"?")[0]
