"""100,000 sessions in Redis: written and read back by the store's own code, and what each one weighs.

`make bench-sessions`, or ``python -m bench.sessions [COUNT]``. Tokens are as long as typical OPs': 3 KiB in
all (access and ID token 1,200 bytes each, refresh token 672), random, so that nothing compresses. Weighed
by `used_memory`, everything that Redis keeps for a session included (key, expiry, its places on the lists of its
user and of its session at the OP, allocator).
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from msgspec.structs import replace

from bench.report import Report
from proxy.config.redis_address import redis_address
from proxy.core.blobs import open_tokens, seal_identity, seal_tokens
from proxy.core.seal import SessionSeal, new_ticket, random_id
from proxy.core.session import Identity, Record, Tokens, op_session_name, store_key, user_name
from proxy.shell.store.redis.options import LinkOptions
from proxy.shell.store.redis.steadfast import open_redis
from tests.redis.servers import RedisServer, redis_server

TOKEN_BYTES = 1200 + 1200 + 672
OVERHEAD_BYTES, GOAL_BYTES = 600, 400
AT_ONCE = 64

Made = tuple[str, SessionSeal, Record]


def session(n: int, now: float) -> Made:
    """A session as a sign-in makes it."""
    ticket = new_ticket(now)
    seal = SessionSeal(ticket)
    gen, who_id = random_id(), random_id()
    tokens = Tokens(
        secrets.token_urlsafe(900),
        secrets.token_urlsafe(504),
        secrets.token_urlsafe(900),
        "openid profile email offline_access",
        now,
        now + 300,
        "https://sso.corp.example.net/auth/realms/staff",
        "3f1c9d52-intranet",
    )
    assert len(tokens.access_token) + len(tokens.refresh_token) + len(tokens.id_token) == TOKEN_BYTES
    identity = Identity(
        "https://sso.corp.example.net/auth/realms/staff",
        f"user-{n}",
        f"user-{n}@corp.example.net",
        preferred_username=f"user-{n}",
        groups=("payroll", "floor-3"),
    )
    record = Record(
        gen=gen,
        rt=seal.fingerprint(tokens.refresh_token),
        tokens=seal_tokens(seal, gen, tokens),
        who=seal_identity(seal, who_id, identity),
        who_id=who_id,
        born=now,
        seen=now,
        end=now + 2_592_000,
        idle_s=604_800,
        due=now + 240,
        provider="generic",
        config="0123456789ab",
        user=user_name(identity.iss, identity.sub),
        op_session=op_session_name(identity.iss, f"sid-{n}"),
    )
    return store_key(ticket.session_id), seal, record


async def at_once(work: Sequence[Made], do: Callable[[Made], Awaitable[None]]) -> None:
    """`AT_ONCE` of them at a time."""
    left = iter(work)

    async def worker() -> None:
        for each in left:
            await do(each)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))


async def fill_and_read(report: Report, redis: RedisServer, count: int) -> None:
    """Write, weigh, read back, compare."""
    now = time.time()
    made = [session(n, now) for n in range(count)]
    store = open_redis(LinkOptions(redis_address(redis.url)), time.monotonic)
    try:
        await store.read("0" * 64)
        empty = used(redis)

        began, before = time.monotonic(), cpu_s()
        await at_once(made, lambda each: store.create(each[0], each[2]))
        wrote_s, wrote_cpu = time.monotonic() - began, cpu_s() - before
        weight = (used(redis) - empty) / count

        wrong = 0

        async def look(each: Made) -> None:
            nonlocal wrong
            key, seal, record = each
            found = (await store.read(key)).record
            if (
                found != replace(record, op_session="")  # which is on its list, not in the record
                or open_tokens(seal, found).issuer != "https://sso.corp.example.net/auth/realms/staff"
            ):
                wrong += 1

        began, before = time.monotonic(), cpu_s()
        await at_once(made, look)
        read_s, read_cpu = time.monotonic() - began, cpu_s() - before
    finally:
        await store.close()

    with redis.client() as client:
        keyspace = client.info("keyspace")["db0"]
        stored = sum(1 for _ in client.scan_iter("np:{*", count=10_000))
    report.bound("sessions that came back otherwise", wrong, 0)
    report.bound("keys without an expiry", keyspace["keys"] - keyspace["expires"], 0)
    report.bound("sessions missing", count - stored, 0)
    report.bound("bytes a session beyond its tokens", round(weight - TOKEN_BYTES), OVERHEAD_BYTES)
    print(f"{count:,} sessions, {TOKEN_BYTES:,} bytes of tokens each")
    report.table(
        ["", "seconds", "a second", "CPU \u00b5s each"],
        [
            ["written", f"{wrote_s:.1f}", f"{count / wrote_s:,.0f}", f"{wrote_cpu / count * 1e6:.0f}"],
            ["read back", f"{read_s:.1f}", f"{count / read_s:,.0f}", f"{read_cpu / count * 1e6:.0f}"],
        ],
    )
    print(
        f"bytes a session in Redis: {weight:,.0f}, beyond the tokens {weight - TOKEN_BYTES:,.0f} "
        f"(bound {OVERHEAD_BYTES}, goal {GOAL_BYTES})"
    )


def used(redis: RedisServer) -> int:
    with redis.client() as client:
        return int(client.info("memory")["used_memory"])


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def run(count: int) -> Report:
    """Measure and print."""
    report = Report()
    with redis_server() as redis:
        asyncio.run(fill_and_read(report, redis, count))
    return report


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("count", nargs="?", type=int, default=100_000)
    sys.exit(run(arguments.parse_args().count).status)
