"""Field lines with another value in nearly every head: a trace id, the target that an engine asks about,
and the cookies, where so many people come that a block of each would not be remembered.

One of them makes every block of lines a new one, and nothing is found in a memory of blocks
(`memo.py`). So blocks are remembered without them, and each of them is looked at by itself
(4 µs less a head). Which names vary is learned from the heads that had to be read line by line.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.core.headers import COOKIE, DROP, PASS, REQUEST_ID, SOURCE

_KINDS = frozenset((PASS, DROP, REQUEST_ID, SOURCE, COOKIE))
"""Of lines that say nothing about where a message ends, whatever their value."""
_MOST = 3
_WINDOW = 256
_REST = 2_048
"""Heads after a name was learned in which no other is: each one costs what is remembered."""
_LONGEST_NAME = 64


class Varying:
    """The names of lines that vary; a few at most, the newest win.

    Attributes:
        names: in lower case.
    """

    __slots__ = ("_marks", "_new", "_resting", "_seen", "names")

    def __init__(self) -> None:
        self._marks: tuple[tuple[bytes, int], ...] = ()
        self.names: frozenset[bytes] = frozenset()
        self._new: dict[bytes, int] = {}
        self._seen = 0
        self._resting = 0

    def cut(self, block: bytes) -> tuple[bytes, list[tuple[int, bytes]]]:
        """A block without its first line of each name that varies, and those lines with their kinds.

        The very first line of a block stays. What is left of a block that ends in an empty line is
        a block that was kept, only if this is one, too: a cut never makes an end where none was.

        Args:
            block: field lines, the empty line at the end included.
        """
        found: list[tuple[int, bytes]] = []
        for mark, kind in self._marks:
            at = block.find(mark)
            if at >= 0:
                end = block.find(b"\r\n", at + 2)
                found.append((kind, block[at + 2 : end]))
                block = block[:at] + block[end:]
        return block, found

    def learn(self, new: Sequence[tuple[int, bytes]]) -> bool:
        """Count the lines of one head that nobody had seen before.

        Args:
            new: kind and line of each.

        Returns:
            Whether a name was learned: what was remembered under the old ones is of no use.
        """
        if self._resting:
            self._resting -= 1
            return False
        self._seen += 1
        learned: list[tuple[bytes, int]] = []
        if len(new) <= _MOST:
            for kind, line in new:
                name = line.partition(b":")[0]
                if kind in _KINDS and len(name) <= _LONGEST_NAME:
                    count = self._new[name] = self._new.get(name, 0) + 1
                    if count >= _WINDOW // 2:
                        learned.append((b"\r\n%b:" % name, kind))
        if learned:
            # One spelling of a name: two would be cut in an order of their own (RFC 9110 §5.3).
            one = {mark.lower(): (mark, kind) for mark, kind in learned}
            kept = [each for each in self._marks if each[0].lower() not in one]
            self._marks = (*kept, *one.values())[-_MOST:]
            self.names = frozenset(mark[2:-1].lower() for mark, _ in self._marks)
            self._resting = _REST
        if learned or self._seen >= _WINDOW:
            self._new.clear()
            self._seen = 0
        return bool(learned)
