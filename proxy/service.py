"""A running process: its listeners, and the orderly end."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from proxy import wiring
from proxy.app import Parts, join, open_base, pages
from proxy.config import Loaded, Settings
from proxy.config.grammar import Address
from proxy.core.timing import backoff_s
from proxy.errors import ConfigError, ProxyError, StoreUnavailable
from proxy.reloads import Reloads, warn
from proxy.shell import open_files
from proxy.shell.admin_door import AdminDoor, names_this_machine
from proxy.shell.announcer import Announcer
from proxy.shell.auth_door import AuthDoor, Engine
from proxy.shell.crew import Crew, path_of
from proxy.shell.health_door import with_probes
from proxy.shell.journal import Journal
from proxy.shell.limits import Limits
from proxy.shell.listening import bound
from proxy.shell.op_client import OPClient
from proxy.shell.operations import OperationsDoor
from proxy.shell.path_metrics import families
from proxy.shell.pool import Upstreams
from proxy.shell.server import Server
from proxy.shell.serving import Door, Serving
from proxy.shell.telemetry import set_up_logging
from proxy.shell.turns import Turns

if TYPE_CHECKING:
    from proxy.workers import Share

log = logging.getLogger("nightporter")

LAG_ALIVE_S = 5.0
"""A loop that is later than this is not well."""

APP_PROBE_S = 1.0
"""How long the app may take to accept a connection before it counts as not there."""

FIRST_WORD_S = 2.0
"""How long a start waits for the other replicas' cookie keys."""

OLD_OP_S = 60.0
"""How long an OP client is kept for what began with it."""


def serve(read: Callable[[], Loaded]) -> int:
    """Run until SIGTERM or SIGINT.

    Args:
        read: reads the configuration; asked again by SIGHUP and when one of its files changed.

    Returns:
        The exit status: 0 after an orderly end, 1 if a part could not be started.

    Raises:
        ConfigError: there is nothing to run with.
    """
    loaded = read()
    set_up_logging(loaded.settings.log_level)
    warn(loaded)
    if loaded.settings.workers > 1:
        from proxy.workers import Supervisor  # one process needs none

        # A worker that takes another's place takes over what changed.
        return Supervisor(loaded.settings, lambda share: _run(read(), read, share)).run()
    return _run(loaded, read, None)


def _run(loaded: Loaded, read: Callable[[], Loaded], share: Share | None) -> int:
    """One process that serves, to its end; the exit status."""
    import uvloop

    try:
        return uvloop.run(_serve(loaded, read, share))
    except ConfigError:
        raise
    except ProxyError as error:
        log.error("cannot_start", extra={"detail": error.detail or error.message})
        return 1


async def _serve(loaded: Loaded, read: Callable[[], Loaded], share: Share | None) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    if share is not None:
        _end_with(share.supervisor_fd, stop)
    base = await open_base(loaded.settings)
    service = Service(join(loaded.settings, base), share)
    reloads = Reloads(service, loaded, read)
    loop.add_signal_handler(signal.SIGHUP, reloads.watch.ask)
    await service.start()
    watching = loop.create_task(reloads.watch.run())
    await stop.wait()
    watching.cancel()
    await service.stop()
    return 0


def _end_with(supervisor_fd: int, stop: asyncio.Event) -> None:
    """Stop once the supervisor is gone; see `proxy/workers.py`."""
    loop = asyncio.get_running_loop()

    def gone() -> None:
        loop.remove_reader(supervisor_fd)
        log.error("supervisor_gone")
        stop.set()

    loop.add_reader(supervisor_fd, gone)


class Service:
    """The listeners in front of the parts.

    Args:
        parts: joined.
        share: what several workers have in common; None = this is the only process.

    Attributes:
        parts: as the configuration is now.
    """

    def __init__(self, parts: Parts, share: Share | None = None) -> None:
        self.parts = parts
        self._share = share
        self._ready = False
        settings, telemetry = parts.settings, parts.base.telemetry
        self._tls = wiring.load_tls(settings)
        policy = wiring.header_policy(settings)
        upstreams = wiring.upstreams_of(settings, policy)
        limits = _limits(settings, upstreams)
        self._front = Server(
            wiring.public_serving(settings, self._public_door(parts), policy, upstreams, limits),
            tls=self._tls,
            pages=lambda: pages(self.parts),
            on_done=telemetry.request,
        )
        self._crew: Server | None = None
        door = self._operations_door(telemetry.scrape, self._front.let_go)
        if share is not None:
            crew = Crew(share.crew_dir, share.number, telemetry.scrape)
            self._crew = Server(Serving(door, policy))
            door = self._operations_door(crew.scrape, lambda: self._all_let_go(crew))
        self._operations = Server(Serving(door, policy))
        self._auth: Server | None = None
        if settings.forward_auth.listen:
            self._auth = Server(
                wiring.asked_serving(settings, self._auth_door(parts), limits),
                on_done=telemetry.request,
            )
        self._admin = Server(Serving(self._admin_door(), policy)) if settings.admin_listen else None
        self._announcer = Announcer(
            parts.base.store,
            parts.base.replica,
            lambda: self.parts.origins,
            parts.sessions.cache.forget_spellings,
        )
        self._running: list[asyncio.Task[None]] = []
        telemetry.observed = lambda: {
            name: provider.observed for name, provider in self.parts.providers.items()
        }
        telemetry.more.append(lambda: families(self._front, self._auth))
        store, clock = parts.base.store, parts.base.clock
        telemetry.gauges["nightporter_store_up"] = (
            "1 while the session store answers.",
            lambda: 0 if store.problem or parts.sessions.store_away_since is not None else 1,
        )
        telemetry.gauges["nightporter_store_subscribed"] = (
            "1 while changes made by other replicas are heard (else every request reads its session).",
            lambda: 1 if clock.monotonic() < store.coherence.until else 0,
        )
        telemetry.gauges["nightporter_sessions_cached"] = (
            "Opened sessions.",
            lambda: len(parts.sessions.cache),
        )
        telemetry.gauges["nightporter_refreshes_running"] = ("Renewals now.", lambda: len(parts.flights))

    def _public_door(self, parts: Parts) -> Door:
        settings = parts.settings
        return with_probes(parts.front, settings.ping_path, settings.ready_path, lambda: self._ready)

    def _all_let_go(self, crew: Crew) -> None:
        self._front.let_go()
        self.parts.base.background.spawn("let-go", crew.tell(b"/let-go"))

    def _operations_door(
        self, scrape: Callable[[], bytes | Awaitable[bytes]], let_go: Callable[[], None]
    ) -> OperationsDoor:
        telemetry = self.parts.base.telemetry
        return OperationsDoor(
            ready=lambda: self._ready,
            alive=lambda: telemetry.lag_s < LAG_ALIVE_S,
            away=self._away,
            scrape=scrape,
            app=self._app_accepts,
            let_go=let_go,
        )

    def _admin_door(self) -> AdminDoor:
        from proxy.doctor.page import Page  # for those who want it

        page = Page(lambda: self.settings, lambda: self.parts.base.telemetry.observed())
        if self.settings.admin_address.path:
            return AdminDoor(page, lambda host: True)
        return AdminDoor(page, names_this_machine)

    @staticmethod
    def _auth_door(parts: Parts) -> AuthDoor:
        settings = parts.settings
        names = wiring.identity_headers(settings).all_names
        engine, longest = Engine(settings.forward_auth.engine), settings.limits.max_head_bytes
        return AuthDoor(engine, parts.front, names, lambda host: parts.origins.of(host).url, longest)

    @property
    def settings(self) -> Settings:
        """The configuration that is served."""
        return self.parts.settings

    async def start(self) -> None:
        """Listen and become ready; an OP or a store that is away holds nothing up."""
        settings, base = self.settings, self.parts.base
        if base.journal is not None:
            base.background.spawn("journal", self._replay(base.journal))
        await self._first_word()
        await self._operations.start([self._socket("operations_listen", settings.operations_address)])
        if self._crew is not None and self._share is not None:
            path = path_of(self._share.crew_dir, self._share.number)
            await self._crew.start([bound("workers", host="", port=0, path=path)])
        if self._auth is not None:
            await self._auth.start([self._socket("forward_auth.listen", settings.forward_auth_address)])
        if self._admin is not None:
            await self._admin.start([self._socket("admin_listen", settings.admin_address)])
        await self._front.start([self._socket("listen", settings.listen_address)])
        loop = asyncio.get_running_loop()
        self._running = [
            loop.create_task(base.telemetry.watch_lag()),
            loop.create_task(self._announcer.run()),
            loop.create_task(self.parts.streams.run(lambda: self.parts.keeper)),
        ]
        auth = self._auth
        if auth is not None:
            turns = Turns(lambda: auth.site.engine.found if auth.site.engine is not None else 0)
            self._running.append(loop.create_task(turns.run()))
        gc.collect()
        gc.freeze()  # what is here now stays: no later collection walks it again
        self._ready = True
        if self._share is not None:
            self._share.tell_ready()
        log.info("ready", extra={"listen": settings.listen, "public_url": settings.public_url})

    def _socket(self, setting: str, address: Address) -> socket.socket:
        if self._share is not None:
            return self._share.sockets[setting]
        private = setting == "admin_listen"
        return bound(setting, host=address.host, port=address.port, path=address.path, private=private)

    async def _first_word(self) -> None:
        """Learn which cookie keys the other replicas open, before the first cookie is sealed."""
        try:
            async with asyncio.timeout(FIRST_WORD_S):
                heard = await self._announcer.once()
        except TimeoutError:
            heard = False
        if not heard:
            # The oldest key is the one that every replica has known for longest.
            origins = self.parts.origins
            origins.seal_with(origins.key_ids[-1])

    async def reconfigure(self, settings: Settings) -> None:
        """Go on with another configuration; no connection is dropped, no session ends.

        Raises:
            ConfigError: it cannot be used; nothing changed.
        """
        before = self.parts
        policy = wiring.header_policy(settings)
        upstreams = wiring.upstreams_of(settings, policy)
        limits = _limits(settings, upstreams)
        if self._tls is not None:
            wiring.load_tls(settings, self._tls)
        self.parts = parts = join(settings, before.base, before)  # the last step that may refuse
        door = self._public_door(parts)
        self._front.reconfigure(wiring.public_serving(settings, door, policy, upstreams, limits))
        if self._auth is not None:
            self._auth.reconfigure(wiring.asked_serving(settings, self._auth_door(parts), limits))
        kept = {id(provider.op) for provider in parts.providers.values()}
        for provider in before.providers.values():
            if id(provider.op) not in kept:
                parts.base.background.spawn("old OP client", _retire(provider.op))
        await self._announcer.once()

    async def stop(self) -> None:
        """Unready, stop accepting, finish requests and renewals in flight, close."""
        parts, base, timeout_s = self.parts, self.parts.base, self.settings.timeouts.drain_s
        self._ready = False
        log.info("draining")
        if self._share is not None:  # probes go to those who stay
            self._operations.stop_listening()
        began = time.monotonic()
        draining = [self._front, *([self._auth] if self._auth is not None else [])]
        await asyncio.gather(*(server.drain(timeout_s) for server in draining))
        left_s = max(1.0, timeout_s - (time.monotonic() - began))
        lost = await parts.flights.drain(left_s)
        lost += await base.background.drain(5.0)
        for task in self._running:
            task.cancel()
        for provider in parts.providers.values():
            await provider.op.close()
        await base.store.close()
        self._operations.close()
        for server in (self._crew, self._admin):
            if server is not None:
                server.close()
        base.telemetry.flush()
        log.info("stopped", extra={"unfinished": lost})

    async def _app_accepts(self) -> bool:
        app = self.settings.upstream_address
        try:
            async with asyncio.timeout(APP_PROBE_S):
                if app.path:
                    _, writer = await asyncio.open_unix_connection(app.path)
                else:
                    _, writer = await asyncio.open_connection(app.host, app.port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    def _away(self) -> list[str]:
        away: list[str] = []
        base = self.parts.base
        if base.store.problem or self.parts.sessions.store_away_since is not None:
            away.append("store")
        if base.clock.monotonic() >= base.store.coherence.until:
            away.append("store subscription")
        away += [
            f"op {provider.name}" if self.settings.providers else "op"
            for provider in self.parts.providers.values()
            if provider.breaker.open
        ]
        return away

    async def _replay(self, journal: Journal) -> None:
        tries = 0
        while True:
            try:
                await journal.replay(self.parts.base.store)
            except StoreUnavailable:
                tries += 1
                await asyncio.sleep(backoff_s(tries, 0.5))
            else:
                return


def _limits(settings: Settings, upstreams: Upstreams | None) -> Limits:
    pools = len(upstreams.pools()) if upstreams is not None else 0
    return open_files.within(wiring.limits_of(settings), pools)


async def _retire(op: OPClient) -> None:
    """Close an OP client once what began with it is over."""
    try:
        await asyncio.sleep(OLD_OP_S)
    finally:
        await op.close()
