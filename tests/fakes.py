"""Stand-ins that several suites share."""

from __future__ import annotations

START = 1_800_000_000.0
"""Where virtual time begins: late enough that a mix-up with monotonic time shows."""


class Clock:
    """Store time that moves only when told to. Calling it gives `now`.

    Attributes:
        now: Unix seconds.
    """

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> float:
        """Let `seconds` pass; returns the new `now`."""
        self.now += seconds
        return self.now
