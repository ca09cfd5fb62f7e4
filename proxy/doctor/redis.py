"""The session store on Redis, looked at from here: will it keep what is written to it?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, cast

from proxy import wiring
from proxy.config import Settings
from proxy.doctor.report import Finding, Level, fail, ok, warn
from proxy.errors import StoreUnavailable

OLDEST = (6, 2)
SLOW_S = 0.05
SKEW_S = 30.0

_EVICTS = "Sessions are deleted when memory runs short: people are signed out."
_LOSES = "A restart of Redis signs everybody out."


async def checks(settings: Settings) -> AsyncIterator[Finding]:
    """Reachable, version, memory policy, persistence, replicas, clock, permissions, latency."""
    # The client library is loaded for those who keep their sessions there.
    from proxy.shell.store.redis.link import Link
    from proxy.shell.store.redis.primaries import Primaries

    options = wiring.redis_options(settings)
    kind = options.address.kind
    link = Link(options, Primaries(one=kind != "cluster", monotonic=time.monotonic))
    try:
        began = time.monotonic()
        try:
            await link.ready()
            told = await link.ask("TIME")
        except StoreUnavailable as error:
            why = "Nobody can sign in; those who are in go on for a while."
            fix = "Check the address, the password, TLS files and firewalls."
            yield fail("store.reach", f"{settings.store}: {error.detail or error.message}", why, fix)
            return
        took = time.monotonic() - began
        yield ok("store.reach", f"{settings.store} answers")
        async for finding in _latency(link, took):
            yield finding
        yield clock(told, time.time())
        try:
            for finding in server(_sections(await link.ask("INFO")), settings, clustered=link.clustered):
                yield finding
        except StoreUnavailable:
            yield warn(
                "store.info",
                "INFO is not permitted to this user",
                "Version, memory policy and persistence cannot be looked at.",
                "Grant +info to the user, or look yourself: maxmemory-policy noeviction, appendonly yes.",
            )
        async for finding in _permissions(link, options.prefix):
            yield finding
    finally:
        await link.close()


def warnings(settings: Settings) -> list[str]:
    """What is wrong with the store's Redis, a sentence or three each; [] if all is well."""

    async def gather() -> list[str]:
        return [
            " ".join(
                part if part.endswith(".") else part + "." for part in (each.what, each.why, each.remedy)
            )
            async for each in checks(settings)
            if each.level is not Level.OK
        ]

    return asyncio.run(gather())


async def _latency(link: Any, first: float) -> AsyncIterator[Finding]:
    times = [first]
    for _ in range(5):
        began = time.monotonic()
        try:
            await link.ask("TIME")
        except StoreUnavailable:
            break
        times.append(time.monotonic() - began)
    best = min(times)
    if best <= SLOW_S:
        yield ok("store.latency", f"a round trip takes {best * 1e3:.1f} ms")
    else:
        yield warn(
            "store.latency",
            f"a round trip takes {best * 1e3:.0f} ms",
            "Every new session and renewal takes several.",
            "Put Redis nearer, in the same zone.",
        )


def clock(told: object, here: float) -> Finding:
    """Redis's clock beside ours: it decides about leases, ours about ID tokens."""
    seconds = cast("tuple[Any, ...]", told)[0] if isinstance(told, (tuple, list)) else told
    off = float(cast("Any", seconds)) - here
    if abs(off) <= SKEW_S:
        return ok("store.clock", f"its clock and ours differ by {abs(off):.0f} s")
    return warn(
        "store.clock",
        f"its clock and ours differ by {abs(off):.0f} s",
        "Leases go by Redis's clock and are safe; limits of sessions are off by as much.",
        "Synchronise both clocks (NTP).",
    )


def server(info: Mapping[str, str], settings: Settings, *, clustered: bool) -> Iterator[Finding]:
    """What INFO says of the server's version, memory, persistence and replicas."""
    version = info.get("redis_version", "") or info.get("valkey_version", "")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < OLDEST:
        what = f"version {version}"
        yield fail("store.version", what, "The scripts need 6.2 or newer.", "Update the server.")
    else:
        yield ok("store.version", f"version {version or 'not said'}")
    policy = info.get("maxmemory_policy", "")
    limit = int(info.get("maxmemory", "0") or 0)
    if policy and policy != "noeviction" and limit:
        yield fail(
            "store.eviction", f"maxmemory-policy {policy}", _EVICTS, "Set maxmemory-policy noeviction."
        )
    elif policy and policy != "noeviction":
        why = "As soon as a maxmemory is set, sessions are deleted."
        yield warn("store.eviction", f"maxmemory-policy {policy}", why, "Set maxmemory-policy noeviction.")
    else:
        yield ok("store.eviction", f"maxmemory-policy {policy or 'not said'}")
    replicas = int(info.get("connected_slaves", "0") or 0)
    appends = info.get("aof_enabled") == "1"
    if appends:
        yield ok("store.persistence", "every write goes to the append-only file")
    elif replicas:
        yield ok("store.persistence", f"{replicas} replicas; nothing on disk at every write")
    else:
        yield warn(
            "store.persistence", "neither an append-only file nor a replica", _LOSES, "Set appendonly yes."
        )
    wanted = settings.store_wait_replicas
    if wanted > replicas and not clustered:
        yield fail(
            "store.replicas",
            f"store_wait_replicas is {wanted}, connected are {replicas}",
            "Every commit waits in vain and is logged.",
            "Add replicas, or lower store_wait_replicas.",
        )
    elif replicas and not wanted:
        yield warn(
            "store.replicas",
            f"{replicas} replicas, and store_wait_replicas is 0",
            "A failover may lose the last renewals; at a provider that punishes reuse that costs sessions.",
            "Set store_wait_replicas = 1.",
        )
    elif not replicas and not clustered:
        yield warn(
            "store.replicas",
            "no replica",
            "While this server is away nobody can sign in, and tokens are not renewed.",
            "Add a replica, and Sentinels or a cluster that fail over to it.",
        )
    else:
        yield ok("store.replicas", f"{replicas} replicas, {wanted} are waited for")


async def _permissions(link: Any, prefix: str) -> AsyncIterator[Finding]:
    for check, what, command in (
        ("store.scripts", "scripts", ("EVAL", "return 1", "1", f"{prefix}check")),
        ("store.publish", "publishing", ("PUBLISH", f"{prefix}check", "")),
    ):
        try:
            await link.ask(*command)
            yield ok(check, f"{what} are permitted" if what == "scripts" else f"{what} is permitted")
        except StoreUnavailable as error:
            why = "No session can begin." if what == "scripts" else "A sign-out is seen late elsewhere."
            fix = f"Grant the user +@scripting and +publish on {prefix}*."
            yield fail(check, f"{what}: {error.detail or error.message}", why, fix)


def _sections(told: object) -> dict[str, str]:
    """INFO as one flat mapping, whether the library parsed it or not; of a cluster, one node's."""
    if isinstance(told, (bytes, str)):
        text = told.decode("utf-8", "replace") if isinstance(told, bytes) else told
        pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
        return {name: value.strip() for name, _, value in pairs}
    found = cast("dict[Any, Any]", told)
    first = next(iter(found.values()), None)
    if isinstance(first, dict) and "redis_version" not in found:
        found = cast("dict[Any, Any]", first)
    return {_text(name): _text(value) for name, value in found.items()}


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
