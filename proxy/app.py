"""The whole system, joined: the only file that builds adapters and knows all of them.

::

    browser ──> Server(FrontDoor) ──> app            everything that is not ours
                  │  gate: session? renew? sign in?
                  ├─> Sessions, Register ──> Store   the sealed records
                  ├─> Keeper ──> SingleFlight ──> OPClient ──> OP
                  └─> pages (Starlette)              below the prefix
    probes  ──> Server(OperationsDoor)               livez, readyz, metrics

`wiring.py` says what each part is told; `service.py` listens, reloads and stops.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from proxy import wiring
from proxy.config import Settings, Several, cookie_keys
from proxy.config.redis_address import is_redis
from proxy.core.breaker import Breaker
from proxy.core.choice import Offer, offered
from proxy.core.identity import ClaimRules
from proxy.core.observed import Observed
from proxy.core.origin import Origins
from proxy.core.providers import Profile
from proxy.core.routes import Routes
from proxy.core.seal import random_id
from proxy.core.session import Tokens
from proxy.core.session_policy import Served
from proxy.shell.aftercare import Aftercare
from proxy.shell.background import Background
from proxy.shell.clock import StoreTime, SystemClock
from proxy.shell.door import FrontDoor
from proxy.shell.giving_back import GivingBack
from proxy.shell.journal import Journal
from proxy.shell.keeper import Keeper
from proxy.shell.kit import Kit
from proxy.shell.op_client import OPClient, OPConfig
from proxy.shell.register import Register
from proxy.shell.session_rules import SessionRules
from proxy.shell.sessions import Sessions
from proxy.shell.single_flight import Hooks, SingleFlight
from proxy.shell.store.contract import Store
from proxy.shell.store.memory import MemoryStore
from proxy.shell.store.timed import TimedStore
from proxy.shell.streams import Streams
from proxy.shell.telemetry import Telemetry
from proxy.shell.watch import signature

if TYPE_CHECKING:
    from starlette.types import ASGIApp

MAX_CALLS = 32
"""Renewals at once: enough for a morning's log-ins, few enough for any OP."""


class Provider(Struct, frozen=True):
    """One OP and how we get along with it.

    Attributes:
        name: as configured; the profile's, where there is one provider only.
        several: its settings, and where it is offered.
        config: what the OP client was told.
        ca: signature of the CA file, which may change under the same name.
        profile: its ways.
        op: talks to it.
        claims: which claims mean what.
        breaker: keeps quiet towards it for a while.
        observed: what it is seen to do.
    """

    name: str
    several: Several
    config: OPConfig
    ca: object
    profile: Profile
    op: OPClient
    claims: ClaimRules
    breaker: Breaker
    observed: Observed

    @property
    def key(self) -> tuple[str, str]:
        """Issuer and client id: what its tokens are known by."""
        return (self.config.issuer, self.config.client_id)


class Base(Struct, frozen=True):
    """What lives as long as the process.

    Attributes:
        clock: of this process.
        time: the store's.
        store: of sessions.
        journal: of commits that wait; None = off.
        telemetry: figures and logs.
        background: work of nobody's request.
        replica: id of this process.
    """

    clock: SystemClock
    time: StoreTime
    store: TimedStore
    journal: Journal | None
    telemetry: Telemetry
    background: Background
    replica: str


class Parts(Struct, frozen=True):
    """Everything below the listeners, joined for one configuration.

    Attributes:
        settings: the configuration.
        base: outlives it.
        providers: the OPs by name.
        origins: ours, with the cookie keys.
        sessions: the open ones; they outlive a configuration too, and so do the flights.
        register: begins and ends them.
        flights: renewals under way.
        keeper: joins the two.
        front: the door for browsers.
        streams: what is open longer than a request takes.
    """

    settings: Settings
    base: Base
    providers: dict[str, Provider]
    origins: Origins
    sessions: Sessions
    register: Register
    flights: SingleFlight
    keeper: Keeper
    front: FrontDoor
    streams: Streams

    @property
    def provider(self) -> Provider:
        """The only provider, or the first one."""
        return next(iter(self.providers.values()))


async def open_store(settings: Settings, clock: SystemClock, time: StoreTime) -> Store:
    """The configured store, ready; a Redis that is away is found out by who asks it."""
    if is_redis(settings.store.reveal()):
        from proxy.shell.store.redis.steadfast import open_redis

        return open_redis(wiring.redis_options(settings), clock.monotonic, time.observe)
    if not settings.sqlite_path:
        return MemoryStore(clock.now)
    from proxy.shell.store.sqlite import SqliteStore

    store = SqliteStore(settings.sqlite_path, clock.now)
    await store.open()
    return store


async def open_base(settings: Settings) -> Base:
    """Open what lives as long as the process."""
    clock, telemetry = SystemClock(), Telemetry(log_requests=settings.access_log)
    time = StoreTime(clock)
    store = TimedStore(await open_store(settings, clock, time), telemetry.store)
    journal = Journal(Path(settings.journal.dir)) if settings.journal.dir else None
    return Base(clock, time, store, journal, telemetry, Background(), random_id())


def provider_of(name: str, several: Several, base: Base, before: Provider | None, *, only: bool) -> Provider:
    """A configured OP; the one from before, with all that it knows, where nothing changed for it.

    Args:
        only: there is no other one; then it comes back to the plain callback.
    """
    settings = several.settings
    profile = wiring.profile_of(settings)
    config = wiring.op_config(settings, profile, "callback" if only else f"callback/{name}")
    ca = signature(settings.ca_file)
    claims = wiring.claim_rules(settings, profile)
    if before is not None and (before.config, before.ca) == (config, ca):
        return Provider(
            name, several, config, ca, profile, before.op, claims, before.breaker, before.observed
        )
    observed = Observed(rotates_at_times=profile.rotates_at_times)
    op = OPClient(config, base.clock, observed.uses_secret)
    if before is not None:
        op.learn_from(before.op)
    return Provider(name, several, config, ca, profile, op, claims, Breaker(), observed)


def providers_of(settings: Settings, base: Base, before: Parts | None) -> dict[str, Provider]:
    """Every configured OP by its name."""
    known = before.providers if before is not None else {}
    every = wiring.each_provider(settings)
    only = not settings.providers
    # A profile that is recognised under another name is still the same OP.
    same = next(iter(known.values()), None) if only and len(known) == 1 else None
    return {
        name: provider_of(name, several, base, known.get(name, same), only=only)
        for name, several in every.items()
    }


def join(settings: Settings, base: Base, before: Parts | None = None) -> Parts:
    """Build every part and connect them; nothing listens yet.

    Args:
        before: parts under the configuration until now. What holds people's sessions is
            carried over; the rest is made anew.

    Raises:
        ConfigError: found only now (a kept key file, a client key that cannot sign).
    """
    providers = providers_of(settings, base, before)
    origins = Origins(settings.public_urls, cookie_keys(settings))
    if before is not None:
        origins.seal_with(before.origins.sealing)  # until the other replicas know the new keys
    names = {each.key: each.name for each in providers.values()} if settings.providers else None
    front: FrontDoor
    rules = SessionRules(
        policy=wiring.session_policy(settings, _served(providers, origins)),
        refresh=wiring.refresh_policy(settings, next(iter(providers.values())).profile),
        block=wiring.identity_headers(settings, names).block,
        dress=lambda session, forward: front.dress(session, forward),
    )
    if before is not None:
        sessions, register = before.sessions, before.register
    else:
        sessions = Sessions(store=base.store, rules=rules, clock=base.clock, time=base.time)
        sessions.evicted = lambda session: base.telemetry.event("session_evicted", session=session.key[:12])
        register = Register(base.store, sessions, base.time)
    keeper = Keeper(
        sessions=sessions,
        flights=lambda: flights,
        time=base.time,
        wait_s=settings.refresh.wait_s,
        count=base.telemetry.refresh,
    )

    def flying(provider: Provider) -> tuple[Kit, Hooks]:
        given = provider.several.settings
        aftercare = Aftercare(
            sessions=sessions,
            store=base.store,
            op=provider.op,
            rules=wiring.identity_rules(given, provider.claims),
            now=base.time.now,
            background=base.background,
            alarm=lambda check: base.telemetry.event("refreshed_identity_mismatch", check=check),
        )
        kit = Kit(
            store=base.store,
            op=provider.op,
            profile=provider.profile,
            policy=wiring.refresh_policy(given, provider.profile),
            clock=base.clock,
            time=base.time,
            journal=base.journal,
            breaker=provider.breaker,
            holder=base.replica,
            spread=random.random,
            observed=provider.observed,
        )
        return kit, Hooks(aftercare.examine, keeper.settled)

    def issuer_of(tokens: Tokens) -> tuple[Profile, OPClient] | None:
        for each in providers.values():
            if each.key == (tokens.issuer, tokens.client_id):
                return each.profile, each.op
        return None

    sessions.ended_outside = GivingBack(base.store, issuer_of, base.background)
    flying_by = {each.key: flying(each) for each in providers.values()}
    kit, hooks = next(iter(flying_by.values()))
    flights = before.flights if before is not None else SingleFlight(kit, hooks, MAX_CALLS, flying_by)
    front = FrontDoor(
        origins=origins,
        routes=Routes(settings.prefix, settings.public_paths),
        sessions=sessions,
        register=register,
        keeper=keeper,
        clock=base.clock,
        time=base.time,
        background=base.background,
        prefix=settings.prefix,
        ttl_s=settings.cache.ttl_s,
        token_passed=settings.pass_access_token or settings.pass_authorization,
    )
    if before is not None:
        flights.reconfigure(kit, hooks, flying_by)
        sessions.reconfigure(rules, {origin.url: origin for origin in origins.all})
    streams = before.streams if before is not None else Streams(sessions, base.time, base.background)
    return Parts(settings, base, providers, origins, sessions, register, flights, keeper, front, streams)


def pages(parts: Parts) -> ASGIApp:
    """The Starlette app below the prefix; loaded with the first request to it."""
    from proxy.shell.endpoints import Desk
    from proxy.shell.endpoints import build as build_pages
    from proxy.shell.logouts import Logouts

    base = parts.base
    logouts = Logouts(base.store, parts.sessions, base.background, base.telemetry.event, base.time)
    desks: dict[str, Desk] = {}
    for provider in parts.providers.values():
        desks[provider.name] = Desk(
            settings=provider.several.settings,
            origins=parts.origins,
            sessions=parts.sessions,
            register=parts.register,
            now=parts.base.time.now,
            keeper=parts.keeper,
            store=base.store,
            op=provider.op,
            profile=provider.profile,
            claims=provider.claims,
            background=base.background,
            event=base.telemetry.event,
            logouts=logouts,
            observed=provider.observed,
            offer=_offer(provider, only=not parts.settings.providers),
            desks=desks,
        )
    return build_pages(desks[parts.provider.name])


def _offer(provider: Provider, *, only: bool) -> Offer:
    several = provider.several
    return Offer(
        provider.name,
        several.title or provider.profile.title,
        hosts=frozenset(map(str.lower, several.hosts)),
        paths=several.paths,
        callback="callback" if only else f"callback/{provider.name}",
    )


def _served(providers: Mapping[str, Provider], origins: Origins) -> dict[tuple[str, str], Served]:
    """Whose sessions are good where: only where the provider signs people in."""
    offers = {name: _offer(each, only=False) for name, each in providers.items()}
    hosts = {origin.host for origin in origins.all}
    found: dict[tuple[str, str], Served] = {}
    for name, each in providers.items():
        own = {host for host in hosts if offers[name] in offered(list(offers.values()), host)}
        found[each.key] = Served(
            wiring.config_epoch(each.config), frozenset() if own == hosts else frozenset(own or {""})
        )
    return found
