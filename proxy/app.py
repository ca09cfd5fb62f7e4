"""The whole system, joined: the only file that builds adapters and knows all of them.

::

    browser ──> Server(FrontDoor) ──> app            everything that is not ours
                  │  gate: session? renew? sign in?
                  ├─> Sessions (cache) ──> Store     the sealed records
                  ├─> Keeper ──> SingleFlight ──> OPClient ──> OP
                  └─> pages (Starlette)              below the prefix
    probes  ──> Server(OperationsDoor)               livez, readyz, metrics
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import signal
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from proxy.config import Settings, cookie_keys, warnings
from proxy.core.breaker import Breaker
from proxy.core.headers import HeaderPolicy, Trusted, identity_block
from proxy.core.identity import ClaimRules, claim, refreshed_identity
from proxy.core.origin import Origins
from proxy.core.providers import PROFILES, Profile, Reuse
from proxy.core.routes import Routes
from proxy.core.seal import random_id
from proxy.core.session import Identity, Tokens
from proxy.core.timing import RefreshPolicy, backoff_s
from proxy.errors import ConfigError, ProxyError, StoreUnavailable
from proxy.shell.aftercare import Aftercare, IdentityRules
from proxy.shell.background import Background
from proxy.shell.clock import StoreTime, SystemClock
from proxy.shell.door import FrontDoor
from proxy.shell.journal import Journal
from proxy.shell.keeper import Keeper
from proxy.shell.listening import bound
from proxy.shell.op_client import OPClient, OPConfig
from proxy.shell.operations import OperationsDoor
from proxy.shell.renewal import Kit
from proxy.shell.server import Server, make_pool
from proxy.shell.sessions import SessionPolicy, Sessions
from proxy.shell.single_flight import Hooks, SingleFlight
from proxy.shell.site import Limits, Timeouts
from proxy.shell.store.memory import MemoryStore
from proxy.shell.store.sqlite import SqliteStore
from proxy.shell.store.timed import TimedStore
from proxy.shell.telemetry import Telemetry, set_up_logging

if TYPE_CHECKING:
    from starlette.types import ASGIApp

log = logging.getLogger("nightporter")

MAX_CALLS = 32
"""Renewals at once: enough for a morning's log-ins, few enough for any OP."""

LAG_ALIVE_S = 5.0
"""A loop that is later than this is not well."""


def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT.

    Returns:
        The exit status: 0 after an orderly end, 1 if a part could not be started.

    Raises:
        ConfigError: found only now (a kept key file, a client key that cannot sign).
    """
    import uvloop

    set_up_logging(settings.log_level)
    for warning in warnings(settings):
        log.warning("configuration", extra={"detail": warning})
    try:
        return uvloop.run(_serve(settings))
    except ConfigError:
        raise
    except ProxyError as error:
        log.error("cannot_start", extra={"detail": error.detail or error.message})
        return 1


async def _serve(settings: Settings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    service = Service(await join(settings))
    await service.start()
    await stop.wait()
    await service.stop()
    return 0


def profile_of(settings: Settings) -> Profile:
    """The provider's profile: as named, else the one whose issuer it is, else the generic one."""
    if settings.provider:
        return PROFILES[settings.provider]
    for profile in PROFILES.values():
        if profile.issuer and profile.issuer == settings.issuer:
            return profile
    return PROFILES["generic"]


def refresh_policy(settings: Settings, profile: Profile) -> RefreshPolicy:
    """How renewals are done: the profile's ways, where the operator does not know better."""
    given = settings.refresh
    return RefreshPolicy(
        reuse=profile.reuse if given.reuse == "profile" else Reuse(given.reuse),
        margin_s=given.margin_s,
        margin_share=given.margin_share,
        call_s=settings.op.timeout_s,
        intent_wait_s=given.intent_wait_s,
        default_life_s=given.expires_in_default_s,
        min_life_s=given.min_life_s,
        max_life_s=given.max_life_s,
        send_scope=profile.send_scope,
    )


@dataclass(frozen=True, slots=True)
class IdentityHeaders:
    """The header lines that tell the app who is calling.

    Attributes:
        settings: which headers, whether the access token goes along.
    """

    settings: Settings

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that we may set, to be stripped from what clients send."""
        fixed = ("User", "Email", "Preferred-Username", "Groups", "Access-Token")
        return (*(f"X-Forwarded-{name}" for name in fixed), *self.settings.headers)

    def block(self, identity: Identity, tokens: Tokens, now: float) -> bytes:
        """The ready lines for one version of a session."""
        settings = self.settings
        known = (
            identity.groups_at is not None and now - identity.groups_at < settings.refresh.groups_max_age_s
        )
        values: list[tuple[str, str | tuple[str, ...]]] = [("X-Forwarded-User", identity.sub)]
        if identity.email:
            values.append(("X-Forwarded-Email", identity.email))
        if identity.preferred_username:
            values.append(("X-Forwarded-Preferred-Username", identity.preferred_username))
        if identity.groups and known:
            values.append(("X-Forwarded-Groups", identity.groups))
        for name, path in settings.headers.items():
            value = _said(identity, path)
            if value:
                values.append((name, value))
        if settings.pass_access_token:
            values.append(("X-Forwarded-Access-Token", tokens.access_token))
        block = identity_block(values)
        if settings.pass_authorization:
            block += b"Authorization: Bearer %s\r\n" % tokens.access_token.encode("ascii")
        return block


def _said(identity: Identity, path: str) -> str | tuple[str, ...]:
    if path in ("sub", "email", "name", "preferred_username", "iss", "sid"):
        return str(getattr(identity, path))
    if path == "groups":
        return identity.groups
    value = identity.claims.get(path)
    if isinstance(value, list):
        items = cast("list[object]", value)
        return tuple(str(item) for item in items if isinstance(item, (str, int, float)))
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (str, int, float)) else ""


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything below the listeners, joined.

    Attributes:
        settings: the configuration.
        store: of sessions.
        telemetry: figures and logs.
        background: work of nobody's request.
        sessions: the cache.
        flights: renewals under way.
        keeper: joins the two.
        front: the door for browsers.
        op: the OP client.
        journal: None = off.
    """

    settings: Settings
    store: TimedStore
    telemetry: Telemetry
    background: Background
    sessions: Sessions
    flights: SingleFlight
    keeper: Keeper
    front: FrontDoor
    op: OPClient
    origins: Origins
    profile: Profile
    claims: ClaimRules
    breaker: Breaker
    journal: Journal | None


async def open_store(settings: Settings, clock: SystemClock) -> MemoryStore | SqliteStore:
    """The configured store, ready."""
    if not settings.sqlite_path:
        return MemoryStore(clock.now)
    store = SqliteStore(settings.sqlite_path, clock.now)
    await store.open()
    return store


async def join(settings: Settings) -> Parts:
    """Build every part and connect them; nothing listens yet."""
    clock = SystemClock()
    telemetry = Telemetry()
    store = TimedStore(await open_store(settings, clock), telemetry.store)
    store_time, background, breaker = StoreTime(clock), Background(), Breaker()
    profile = profile_of(settings)
    policy = refresh_policy(settings, profile)
    origins = Origins(settings.public_urls, cookie_keys(settings))
    claims = ClaimRules(profile, settings.groups_claim, tuple(settings.headers.values()))
    op = OPClient(op_config(settings, profile), clock)
    headers = IdentityHeaders(settings)
    journal = Journal(Path(settings.journal.dir)) if settings.journal.dir else None
    front: FrontDoor

    sessions = Sessions(
        store=store,
        policy=SessionPolicy(
            idle_s=settings.idle_s,
            absolute_s=settings.absolute_s,
            ttl_s=settings.cache.ttl_s,
            stale_s=settings.cache.stale_s,
            max_bytes=settings.cache.max_bytes,
        ),
        refresh=policy,
        block=headers.block,
        dress=lambda session, forward: front.dress(session, forward),
        clock=clock,
        time=store_time,
    )
    keeper = Keeper(
        sessions=sessions,
        flights=lambda: flights,
        time=store_time,
        wait_s=settings.refresh.wait_s,
        count=telemetry.refresh,
    )
    aftercare = Aftercare(
        sessions=sessions,
        store=store,
        op=op,
        rules=identity_rules(settings, claims),
        now=store_time.now,
        background=background,
        alarm=lambda check: telemetry.event("refreshed_identity_mismatch", check=check),
    )
    kit = Kit(
        store=store,
        op=op,
        profile=profile,
        policy=policy,
        clock=clock,
        time=store_time,
        journal=journal,
        breaker=breaker,
        holder=random_id(),
        spread=random.random,
    )
    flights = SingleFlight(kit, Hooks(aftercare.examine, keeper.settled), MAX_CALLS)
    front = FrontDoor(
        origins=origins,
        routes=Routes(settings.prefix, settings.public_paths),
        sessions=sessions,
        keeper=keeper,
        clock=clock,
        time=store_time,
        background=background,
        prefix=settings.prefix,
        ttl_s=settings.cache.ttl_s,
        token_passed=settings.pass_access_token or settings.pass_authorization,
    )
    return Parts(
        settings,
        store,
        telemetry,
        background,
        sessions,
        flights,
        keeper,
        front,
        op,
        origins,
        profile,
        claims,
        breaker,
        journal,
    )


def op_config(settings: Settings, profile: Profile) -> OPConfig:
    """What the OP client is told."""
    params = settings.authorize_params
    return OPConfig(
        issuer=settings.issuer or profile.issuer,
        client_id=settings.client_id,
        client_secret=settings.client_secret.reveal(),
        client_key=settings.client_key.reveal(),
        client_auth=settings.client_auth,
        scopes=settings.scopes or profile.scopes,
        authorize_params=params if params is not None else profile.authorize_params,
        profile=profile,
        ca_file=settings.ca_file,
        proxy=settings.op.proxy.reveal(),
        timeout_s=settings.op.timeout_s,
        connect_timeout_s=settings.op.connect_timeout_s,
        max_answer_bytes=settings.op.max_answer_bytes,
        jwks_refetch_s=settings.op.jwks_refetch_s,
        skew_s=settings.op.clock_skew_s,
        insecure_http=settings.insecure_http,
    )


def identity_rules(settings: Settings, claims: ClaimRules) -> IdentityRules:
    """How identity is learned again after a refresh."""

    def learn(
        told: dict[str, Any] | None, userinfo: dict[str, Any] | None, before: Identity, now: float
    ) -> Identity:
        return refreshed_identity(told, userinfo, before, claims, now)

    def userinfo(told: dict[str, Any] | None, before: Identity) -> bool:
        if settings.op.userinfo != "when_missing":
            return settings.op.userinfo == "always"
        # Only what the ID token used to leave to userinfo is asked for again.
        missing = told is None or claim(told, claims.groups_claim) is None
        return bool(before.groups) and missing

    return IdentityRules(learn, userinfo)


def header_policy(parts: Parts) -> HeaderPolicy:
    """What the data path does with header fields."""
    settings = parts.settings
    return HeaderPolicy(
        (parts.origins.main.names,),
        settings.public_urls,
        identity=IdentityHeaders(settings).names,
        authorization_from_us=settings.pass_authorization,
    )


def pages(parts: Parts) -> ASGIApp:
    """The Starlette app below the prefix; loaded with the first request to it."""
    from proxy.shell.endpoints import Desk
    from proxy.shell.endpoints import build as build_pages

    return build_pages(
        Desk(
            settings=parts.settings,
            origins=parts.origins,
            sessions=parts.sessions,
            keeper=parts.keeper,
            store=parts.store,
            op=parts.op,
            profile=parts.profile,
            claims=parts.claims,
            background=parts.background,
            event=parts.telemetry.event,
        )
    )


class Service:
    """The listeners in front of the parts: start, and the orderly end.

    Args:
        parts: joined.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._ready = False
        settings = parts.settings
        policy = header_policy(parts)
        limits = Limits(
            max_head_bytes=settings.limits.max_head_bytes,
            max_fields=settings.limits.max_fields,
            max_connections=settings.limits.max_connections,
            pool_size=settings.limits.pool_size,
            pool_queue=settings.limits.pool_queue,
            page_body_bytes=settings.limits.page_body_bytes,
        )
        timeouts = Timeouts(
            head_s=settings.timeouts.head_s,
            idle_s=settings.timeouts.idle_s,
            body_idle_s=settings.timeouts.body_idle_s,
            connect_s=settings.timeouts.connect_s,
            first_byte_s=settings.timeouts.first_byte_s,
            tunnel_idle_s=settings.timeouts.tunnel_idle_s,
        )
        upstream = settings.upstream_address
        tls = ssl.create_default_context(cafile=settings.ca_file or None) if upstream.tls else None
        self._front = Server(
            parts.front,
            policy,
            upstreams=make_pool(
                policy,
                host=upstream.host,
                port=upstream.port,
                path=upstream.path,
                tls=tls,
                limits=limits,
                timeouts=timeouts,
            ),
            pages=lambda: pages(parts),
            limits=limits,
            timeouts=timeouts,
            trusted=Trusted(settings.trusted_proxies),
            on_done=parts.telemetry.request,
        )
        telemetry = parts.telemetry
        self._operations = Server(
            OperationsDoor(
                ready=lambda: self._ready,
                alive=lambda: telemetry.lag_s < LAG_ALIVE_S,
                away=self._away,
                scrape=telemetry.scrape,
            ),
            policy,
        )
        telemetry.gauges["nightporter_connections"] = (
            "Open connections from clients.",
            lambda: self._front.connections,
        )
        telemetry.gauges["nightporter_sessions_cached"] = ("Opened sessions.", lambda: len(parts.sessions))
        telemetry.gauges["nightporter_refreshes_running"] = ("Renewals now.", lambda: len(parts.flights))

    async def start(self) -> None:
        """Listen and become ready; an OP or a store that is away holds nothing up."""
        settings, parts = self._parts.settings, self._parts
        if parts.journal is not None:
            parts.background.spawn("journal", self._replay(parts.journal))
        front, operations = settings.listen_address, settings.operations_address
        await self._operations.start(
            [bound("operations_listen", host=operations.host, port=operations.port, path=operations.path)]
        )
        await self._front.start([bound("listen", host=front.host, port=front.port, path=front.path)])
        self._lag = asyncio.get_running_loop().create_task(parts.telemetry.watch_lag())
        gc.collect()
        gc.freeze()  # what is here now stays: no later collection walks it again
        self._ready = True
        log.info("ready", extra={"listen": settings.listen, "public_url": settings.public_url})

    async def stop(self) -> None:
        """Unready, stop accepting, finish requests and renewals in flight, close."""
        parts, timeout_s = self._parts, self._parts.settings.timeouts.drain_s
        self._ready = False
        log.info("draining")
        began = time.monotonic()
        await self._front.drain(timeout_s)
        left_s = max(1.0, timeout_s - (time.monotonic() - began))
        lost = await parts.flights.drain(left_s)
        lost += await parts.background.drain(5.0)
        self._lag.cancel()
        await parts.op.close()
        await parts.store.close()
        self._operations.close()
        log.info("stopped", extra={"unfinished": lost})

    def _away(self) -> list[str]:
        away: list[str] = []
        if self._parts.sessions.store_away_since is not None:
            away.append("store")
        if self._parts.breaker.open:
            away.append("op")
        return away

    async def _replay(self, journal: Journal) -> None:
        tries = 0
        while True:
            try:
                await journal.replay(self._parts.store)
            except StoreUnavailable:
                tries += 1
                await asyncio.sleep(backoff_s(tries, 0.5))
            else:
                return
