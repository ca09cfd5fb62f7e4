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

from bench.contestants import ROOT, Contestant, Stage, listening, redis, settings, signed_in, stage
from bench.machine import script, wrk
from tests.scenarios.house import free_port


def crew(made: Stage) -> Contestant:
    """The product with two workers."""
    port = free_port()
    redis_port, _ = redis(made)
    env = settings(made, port, port, free_port(), f"redis://127.0.0.1:{redis_port}/0")
    env["NIGHTPORTER_WORKERS"] = "2"
    process = made.run([sys.executable, "-m", "proxy", "serve"], env=env, cwd=ROOT)
    listening(port)
    return Contestant("Nightporter, two workers", port, [process.pid], signed_in(made, port))


def workers(pid: int) -> set[str]:
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def main(goal: int = 100_000) -> int:
    """Restart under load until enough was asked; answer 1 if anything failed."""
    with stage(Path(tempfile.mkdtemp(prefix="nightporter-rolling-"))) as made:
        each = crew(made)
        lua = made.home / "load.lua"
        lua.write_text(script(each.cookie, "browser", ""))
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
                load = wrk(each.port, lua, 5, strict=False)
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
