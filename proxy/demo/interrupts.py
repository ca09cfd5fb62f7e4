"""Ctrl-C, SIGTERM and a closed terminal, once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator
from types import FrameType


class Interrupted(BaseException):
    """Ctrl-C, SIGTERM or a closed terminal."""


class Signals:
    """Turns the first signal that ends programs into `Interrupted`; further ones change nothing.

    Children are always ended: a second Ctrl-C must not leave them behind, and ending them takes
    seconds at most.
    """

    def __init__(self) -> None:
        self._ending = False

    def end(self) -> None:
        """From here on signals are ignored."""
        self._ending = True

    def _handle(self, _: int, __: FrameType | None) -> None:
        if not self._ending:
            self._ending = True
            raise Interrupted

    @contextlib.contextmanager
    def handled(self) -> Generator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [signal.signal(number, self._handle) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)
