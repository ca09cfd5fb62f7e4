"""A process that refreshes one session for ever, until somebody kills it.

Prints a line after each answered commit: what was printed must survive.

    python -m tests.contract.writer_process PATH
"""

from __future__ import annotations

import asyncio
import sys
import time

from proxy.core.answers import Committed, Granted
from proxy.shell.store.sqlite import SqliteStore
from tests.contract.sessions import DAY_S, KEY, ask, new_record, reply


async def main(path: str) -> None:
    store = SqliteStore(path, time.time)
    await store.open()
    record = (await store.read(KEY)).record
    if record is None:
        now = time.time()
        record = new_record(gen="0", rt="rt of 0", born=now, seen=now, end=now + DAY_S)
        await store.create(KEY, record)
    print("ready", flush=True)
    while True:
        attempt = str(int(record.gen) + 1)
        granted = await store.acquire(KEY, ask(attempt, record.gen, record.rt))
        assert isinstance(granted, Granted), granted
        done = await store.commit(KEY, reply(attempt, record.rt, record.gen))
        assert isinstance(done, Committed), done
        record = done.record
        print(attempt, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
