"""Waiting for what only asking shows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def until(check: Callable[[], object], limit_s: float = 60.0, *, what: str = "") -> None:
    """Ask until it is so; fails after `limit_s`."""
    end = time.monotonic() + limit_s
    pause = threading.Event()
    while not check():
        assert time.monotonic() < end, f"it never happened{': ' + what if what else ''}"
        pause.wait(0.02)
