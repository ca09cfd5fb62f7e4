"""The connections to Redis, wherever it is, and one way to run scripts on them.

redis-py finds primaries and nodes, keeps connections and speaks the protocol. Here is what we add: a
limit on everything, EVAL where a server has forgotten a script, and our own errors.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis import exceptions as foreign
from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from proxy.errors import StoreUnavailable
from proxy.shell.store.redis.options import LinkOptions
from proxy.shell.store.redis.scripts import Script
from proxy.shell.store.redis.trouble import Complaints, translated

log = logging.getLogger("nightporter.store")

AT_ONCE = 32
"""Conversations with Redis at a time, and so connections (with a cluster: to each node)."""


@dataclass(frozen=True, slots=True)
class Call:
    """One script to run.

    Attributes:
        script: which.
        key: the one key that it touches.
        args: what it is given.
    """

    script: Script
    key: str
    args: tuple[str | bytes | float, ...]


class Link:
    """See the module's docstring.

    Args:
        options: how to reach it.
    """

    def __init__(self, options: LinkOptions) -> None:
        self._options = options
        self._timeout_s = options.timeout_s
        self._places = asyncio.Semaphore(AT_ONCE)
        self.complaints = Complaints()
        self.client: Any = _client(options)

    @property
    def clustered(self) -> bool:
        return self._options.address.kind == "cluster"

    async def run(self, call: Call) -> list[Any]:
        """Run one script.

        Raises:
            StoreUnavailable: it may have run or not.
        """
        reply = (await self.run_all([call]))[0]
        if isinstance(reply, StoreUnavailable):
            raise reply
        return reply

    async def run_all(self, calls: Sequence[Call]) -> list[Any]:
        """Run several scripts in one round trip (one for each node); an error is its call's answer."""
        digests = [("EVALSHA", call.script.digest, 1, call.key, *call.args) for call in calls]
        replies = await self.send(digests)
        forgotten = [index for index, reply in enumerate(replies) if isinstance(reply, foreign.NoScriptError)]
        if forgotten:
            # EVAL runs the script and teaches it to the server: after a flush, a restart, a failover.
            sources = [
                ("EVAL", calls[index].script.source, 1, calls[index].key, *calls[index].args)
                for index in forgotten
            ]
            for index, reply in zip(forgotten, await self.send(sources), strict=True):
                replies[index] = reply
        return [self._judged(reply) for reply in replies]

    async def send(self, commands: Sequence[tuple[Any, ...]], **options: Any) -> list[Any]:
        """Send commands in one pipeline; replies and Redis's own errors in the same order.

        Args:
            options: for the cluster's client, where a command names no key.
        """
        try:
            async with asyncio.timeout(self._timeout_s), self._places:
                pipe = (
                    self.client.pipeline(transaction=False) if not self.clustered else self.client.pipeline()
                )
                for command in commands:
                    pipe.execute_command(*command, **options)
                return await pipe.execute(raise_on_error=False)
        except (foreign.RedisError, foreign.RedisClusterException, OSError, TimeoutError) as error:
            return [error] * len(commands)

    def _judged(self, reply: Any) -> Any:
        """A reply as it is, an error in our words; either way the log learns how Redis is."""
        if isinstance(reply, Exception):
            word, ours = translated(reply, self._timeout_s)
            self.complaints.failed(word, ours)
            return ours
        self.complaints.succeeded()
        return reply

    async def close(self) -> None:
        """Drop every connection."""
        try:
            await self.client.aclose()
        except (foreign.RedisError, OSError) as error:
            log.debug("store_close_failed", extra={"detail": type(error).__name__})


def _client(options: LinkOptions) -> Any:
    address = options.address
    common: dict[str, Any] = {
        "username": address.username or None,
        "password": address.password or None,
        "socket_timeout": options.timeout_s,
        "socket_connect_timeout": options.timeout_s,
        "protocol": 2,
        "driver_info": None,
    }
    tls: dict[str, Any] = {}
    if address.tls:
        tls = {
            "ssl_ca_certs": options.ca_file or None,
            "ssl_certfile": options.cert_file or None,
            "ssl_keyfile": options.key_file or options.cert_file or None,
        }
    match address.kind:
        case "single":
            # A connection that was cut while it lay idle is noticed only when it is used: once more then.
            pool = ConnectionPool(
                connection_class=SSLConnection if address.tls else Connection,
                max_connections=2 * AT_ONCE,
                host=address.hosts[0][0],
                port=address.hosts[0][1],
                db=address.db,
                retry=_once_more(),
                **common,
                **tls,
            )
            return Redis(connection_pool=pool)
        case "sentinel":
            sentinels: Any = Sentinel(
                address.hosts,
                sentinel_kwargs={
                    "username": options.sentinel_username or None,
                    "password": options.sentinel_password or None,
                    "socket_timeout": min(1.0, options.timeout_s / 2),
                    "socket_connect_timeout": min(1.0, options.timeout_s / 2),
                    "protocol": 2,
                    "driver_info": None,
                    "retry": Retry(NoBackoff(), 0),
                    "ssl": address.tls,
                    **tls,
                },
            )
            return sentinels.master_for(
                address.service,
                max_connections=2 * AT_ONCE,
                db=address.db,
                retry=_once_more(),
                ssl=address.tls,
                **common,
                **tls,
            )
        case "cluster":
            return RedisCluster(
                startup_nodes=[ClusterNode(host, port) for host, port in address.hosts],
                require_full_coverage=False,
                max_connections=2 * AT_ONCE,
                retry=Retry(NoBackoff(), 3),
                ssl=address.tls,
                **common,
                **tls,
            )


def _once_more() -> Retry:
    return Retry(NoBackoff(), 1, supported_errors=(foreign.ConnectionError,))
