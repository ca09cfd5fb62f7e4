"""A process of the bench: started on a core, ended, started again."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

# Whoever installs a package gets its bytecode, so a shell that forbids writing it must not have 300 ms of
# compiling counted as a start, and 2 MiB of its leavings as memory at rest.
_NOT_INHERITED = ("NIGHTPORTER_", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")


@dataclass
class Process:
    """A command that runs on one core; its output goes to a file.

    Attributes:
        env: added to ours; what is ours is not inherited, nor what keeps Python from writing bytecode.
        log: where its output goes, appended to.
    """

    command: list[str]
    core: str
    env: dict[str, str]
    cwd: Path
    log: Path
    _running: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        assert self._running is not None
        return self._running.pid

    def start(self) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(
                ["taskset", "-c", self.core, *self.command],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.cwd,
                env={**inherited, **self.env},
            )

    def stop(self) -> None:
        """End it, by force after 20 s."""
        process, self._running = self._running, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
