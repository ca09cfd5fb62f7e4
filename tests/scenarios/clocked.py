"""`python -m proxy`, with clocks that the test moves: ``python -m tests.scenarios.clocked FILE serve``.

FILE holds two little-endian doubles: the seconds by which this process's clocks (wall and
monotonic alike) are ahead of the machine's, and those by which the wall clock alone is off. It is
mapped, so a test's write counts at once. The program that runs is the product's own; nothing else
of it is changed.
"""

from __future__ import annotations

import mmap
import struct
import sys
from pathlib import Path

from proxy.shell.clock import SystemClock

_AHEAD = struct.Struct("<dd")


def write_ahead(path: Path, seconds: float, wall_off_s: float) -> None:
    """Set how far ahead the clocks are that read `path`, and how wrong the wall clock is besides."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.write(_AHEAD.pack(seconds, wall_off_s))


def move_clocks(path: Path) -> None:
    """From now on the product's clocks are ahead by what `path` says."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    now, monotonic = SystemClock.now, SystemClock.monotonic

    def moved_now(clock: SystemClock) -> float:
        return now(clock) + sum(_AHEAD.unpack_from(mapped))

    def moved_monotonic(clock: SystemClock) -> float:
        return monotonic() + float(_AHEAD.unpack_from(mapped)[0])

    SystemClock.now = moved_now  # type: ignore[method-assign]
    SystemClock.monotonic = moved_monotonic  # type: ignore[method-assign]


if __name__ == "__main__":
    from proxy.cli import main

    move_clocks(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
