"""A rolling restart under load: ``python -m bench.rolling [REQUESTS]``, two workers, 100,000 requests.

Both workers are replaced over and over (SIGUSR1) while wrk keeps 32 connections busy. Every answer has
to be a 2xx, and no connection may break.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench.peers.nightporter import sidecar
from bench.stage import stage
from bench.wrk import script, wrk


def workers(pid: int) -> set[str]:
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def main(goal: int = 100_000) -> int:
    """Restart under load until enough was asked; answer 1 if anything failed."""
    with tempfile.TemporaryDirectory(prefix="nightporter-rolling-") as home, stage(Path(home)) as made:
        each = sidecar(made, more={"NIGHTPORTER_WORKERS": "2"})
        each.sign_in()
        load_of = script(each.cookie, "browser", "")
        ending, replaced = threading.Event(), 0

        def replace() -> None:
            nonlocal replaced
            while not ending.is_set():
                before = workers(each.pids[0])
                os.kill(each.pids[0], signal.SIGUSR1)
                while workers(each.pids[0]) & before and not ending.is_set():
                    time.sleep(0.2)
                replaced += len(before)

        thread = threading.Thread(target=replace)
        thread.start()
        asked = errors = refused = 0
        try:
            while asked < goal:
                load = wrk(each.port, load_of, 5, strict=False)
                asked, errors, refused = asked + load.requests, errors + load.errors, refused + load.refused
        finally:
            ending.set()
            thread.join()
        print(
            f"{asked:,} requests, {replaced} workers replaced, {refused} refused, {errors} broken connections"
        )
        return 1 if errors or refused else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
