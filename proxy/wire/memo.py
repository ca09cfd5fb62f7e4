"""Remembers what was made of bytes that come again and again, as long as that pays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

LONGEST = 4_096
"""Bytes of a block that is kept; nobody sends longer ones again and again."""
_ENTRY_BYTES = 1_024
"""What an entry weighs beside its bytes."""
_TRIAL = 256
_REST = 8_192


class Memo(Generic[T]):
    """A bounded memory of whole blocks of bytes. Where most are new (a trace id in every head), it
    rests: looking costs a hash of the block, and keeping costs room.

    Args:
        max_bytes: of blocks and of what was made of them.

    Attributes:
        look: what was made of a block, None if it is not remembered. The dict's own method, because a
            call of ours in between costs as much again as the look.
        hits: to be counted by who looks and finds.
    """

    __slots__ = ("_known", "_limit", "_misses", "_resting", "_size", "hits", "look")

    look: Callable[[bytes], T | None]

    def __init__(self, max_bytes: int = 1 << 20) -> None:
        self._known: dict[bytes, T] = {}
        self._limit = max_bytes
        self._size = 0
        self.hits = self._misses = self._resting = 0
        self.look = self._known.get

    def __len__(self) -> int:
        return len(self._known)

    @property
    def resting(self) -> bool:
        """Whether nothing is kept at the moment."""
        return self._resting > 0

    def keep(self, block: bytes, made: T) -> bool:
        """Remember what was made of a block that was looked for and not found; whether it is."""
        if len(block) > LONGEST or not self.missed():
            return False
        self._size += 3 * len(block) + _ENTRY_BYTES
        if self._size > self._limit:
            self._known.clear()
            self._size = 3 * len(block) + _ENTRY_BYTES
        self._known[block] = made
        return True

    def missed(self) -> bool:
        """Count a look in vain; whether it pays to keep anything."""
        if self._resting:
            self._resting -= 1
            if not self._resting:
                self.look = self._known.get
            return False
        self._misses += 1
        if self._misses < _TRIAL:
            return True
        pays = self.hits >= self._misses
        self.hits = self._misses = 0
        if not pays:
            self._resting = _REST
            self._known.clear()
            self._size = 0
            self.look = _nothing
        return pays


def _nothing(_: bytes) -> None:
    """Nothing is remembered; not even the block's hash is asked for."""
    return
