"""Whether a cache in front of a store may be believed: one number that the warm path compares."""

from __future__ import annotations

from math import inf


class Coherence:
    """How long changes made elsewhere are known to have reached this process.

    Attributes:
        until: reading of the process's monotonic clock (`Clock.monotonic`): up to then every change
            has been told to the listeners. An embedded store's is infinite: nobody else changes it.
    """

    __slots__ = ("until",)

    def __init__(self, until: float = inf) -> None:
        self.until = until
