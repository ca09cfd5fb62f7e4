"""Remembers what was made of bytes that come again and again, as long as that pays."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")

_LONGEST = 4_096
_ENTRY_BYTES = 1_024
"""What an entry weighs beside its bytes."""
_TRIAL = 256
_REST = 8_192


class Memo(Generic[T]):
    """A bounded memory of whole blocks of bytes. Where most are new (a trace id in every head), it
    rests: looking costs a hash of the block, and keeping costs room.

    Args:
        max_bytes: of blocks and of what was made of them.
    """

    __slots__ = ("_hits", "_known", "_limit", "_misses", "_resting", "_size")

    def __init__(self, max_bytes: int = 1 << 20) -> None:
        self._known: dict[bytes, T] = {}
        self._limit = max_bytes
        self._size = 0
        self._hits = self._misses = self._resting = 0

    def __len__(self) -> int:
        return len(self._known)

    def look(self, block: bytes) -> T | None:
        """What was made of this block, if it is remembered."""
        if self._resting:
            self._resting -= 1
            return None
        found = self._known.get(block)
        if found is not None:
            self._hits += 1
        return found

    def keep(self, block: bytes, made: T) -> None:
        """Remember what was made of a block."""
        if self._resting or len(block) > _LONGEST:
            return
        self._misses += 1
        if self._misses >= _TRIAL:
            if self._hits < self._misses:
                self._resting = _REST
                self._known.clear()
                self._size = 0
            self._hits = self._misses = 0
            if self._resting:
                return
        self._size += 2 * len(block) + _ENTRY_BYTES
        if self._size > self._limit:
            self._known.clear()
            self._size = 2 * len(block) + _ENTRY_BYTES
        self._known[block] = made
