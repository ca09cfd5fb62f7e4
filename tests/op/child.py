"""A program of somebody else as a child process: started, waited for by an event, ended by its id."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

START_S = 120.0
"""A real provider on a busy machine takes its time; nothing waits longer than it must."""


class ChildFailed(Exception):
    """It ended, or never said what it was waited for; the message shows its last words."""


class Child:
    """One process of its own group; what it says is kept in a file and can be waited for.

    Args:
        name: for messages.
        command: arguments, nothing through a shell.
        log: where its output goes, both streams.
        environ: added to ours.
        cwd: where it runs.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        kept = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTPORTER_")}
        self._process = subprocess.Popen(
            command,
            env={**kept, **(environ or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def line(self, containing: str, limit_s: float = START_S) -> str:
        """The next line of its output that contains this.

        Raises:
            ChildFailed: it ended without saying so, or took too long.
        """
        while True:
            try:
                found = self._lines.get(timeout=limit_s)
            except queue.Empty:
                raise ChildFailed(f"{self.name} said nothing for {limit_s:.0f} s:\n{self._tail()}") from None
            if found is None:
                raise ChildFailed(f"{self.name} ended while starting:\n{self._tail()}")
            if containing in found:
                return found

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self, limit_s: float = 20.0) -> int:
        """End it: asked first, then not; its exit status."""
        if self.alive:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(limit_s)
            except subprocess.TimeoutExpired:
                self.kill()
        self._reader.join(5)
        return self._process.wait()

    def kill(self) -> None:
        """End it at once, with whatever it started itself."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()

    def text(self) -> str:
        """All that it said."""
        return self.log.read_text(errors="replace")

    def _tail(self) -> str:
        return "\n".join(self.text().splitlines()[-30:])

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self.log.open("ab", buffering=0) as kept, self._process.stdout as pipe:
            for raw in pipe:
                kept.write(raw)
                self._lines.put(raw.decode(errors="replace"))
        self._lines.put(None)
