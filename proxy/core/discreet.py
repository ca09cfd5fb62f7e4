"""A value of which no text shows anything."""

from __future__ import annotations

from msgspec import Struct


class Discreet(Struct, frozen=True):
    """Base of values that hold something secret: nothing of them gets into a log or a traceback."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"
