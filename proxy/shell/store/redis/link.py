"""The connections to Redis, wherever it is, and one way to run scripts on them.

redis-py finds primaries and nodes, keeps connections and speaks the protocol. Here is what we add: a
limit on everything, EVAL where a server has forgotten a script, and our own errors.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

from msgspec import Struct
from redis import exceptions as foreign
from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from proxy.errors import StoreUnavailable
from proxy.shell.store.redis.options import LinkOptions
from proxy.shell.store.redis.primaries import Primaries
from proxy.shell.store.redis.scripts import Script
from proxy.shell.store.redis.trouble import Complaints, translated

log = logging.getLogger("nightporter.store")

AT_ONCE = 32
"""Conversations with Redis at a time, and so connections (with a cluster: to each node)."""


class Call(Struct, frozen=True):
    """One script to run.

    Attributes:
        script: which.
        key: the one key that it touches.
        args: what it is given.
    """

    script: Script
    key: str
    args: tuple[str | bytes, ...]

    @property
    def short(self) -> tuple[Any, ...]:
        """The command, for a server that knows the script."""
        return ("EVALSHA", self.script.digest, 1, self.key, *self.args)

    @property
    def long(self) -> tuple[Any, ...]:
        """The command, for one that does not."""
        return ("EVAL", self.script.source, 1, self.key, *self.args)


class Plain(Struct, frozen=True):
    """One command of Redis's own that names a key first.

    Attributes:
        command: with its arguments.
    """

    command: tuple[Any, ...]

    @property
    def short(self) -> tuple[Any, ...]:
        return self.command

    @property
    def long(self) -> tuple[Any, ...]:
        return self.command


class Link:
    """See the module's docstring.

    Args:
        options: how to reach it.
        primaries: learns who answers.
    """

    def __init__(self, options: LinkOptions, primaries: Primaries) -> None:
        self.timeout_s = options.timeout_s
        self.clustered = options.address.kind == "cluster"
        self._wait_replicas = options.wait_replicas
        self._places = asyncio.Semaphore(AT_ONCE)
        self._seen = primaries
        self._mute = False
        self.complaints = Complaints()
        self.client: Any = _client(options, primaries)

    # -- scripts --

    async def run(self, call: Call, *, safely: bool = False) -> list[Any]:
        """Run one script.

        Args:
            safely: wait until as many replicas have it as the operator wants. That they do not is
                logged; the reply's last element says whether they had it.

        Raises:
            StoreUnavailable: it may have run or not.
        """
        wait = self._wait_replicas if safely else 0
        reply = (await self.run_all([call], wait=wait))[0]
        if isinstance(reply, StoreUnavailable):
            raise reply
        return reply

    async def run_all(self, calls: Sequence[Call | Plain], *, wait: int = 0) -> list[Any]:
        """Run several scripts in one round trip (one for each node); an error is its call's answer."""
        replies = await self._send([call.short for call in calls], wait)
        forgotten = [index for index, reply in enumerate(replies) if isinstance(reply, foreign.NoScriptError)]
        if forgotten:
            # EVAL runs the script and teaches it to the server: after a flush, a restart, a failover.
            again = await self._send([calls[index].long for index in forgotten], wait)
            for index, reply in zip(forgotten, again, strict=True):
                replies[index] = reply
        return [self._judged(reply) for reply in replies]

    def noted(self, error: Exception) -> None:
        """Something else than a script failed: the log and the metrics learn it."""
        self._judged(error)

    def _judged(self, reply: Any) -> Any:
        """A reply as it is, an error in our words; either way the log learns how Redis is."""
        if isinstance(reply, Exception):
            if isinstance(reply, (foreign.ConnectionError, foreign.TimeoutError, OSError)):
                self._seen.broke()
            word, ours = translated(reply, self.timeout_s)
            self.complaints.failed(word, ours)
            return ours
        self._seen.answered()
        self.complaints.succeeded()
        return reply

    async def _send(self, commands: Sequence[tuple[Any, ...]], wait: int = 0) -> list[Any]:
        """Send commands of scripts together; replies and Redis's own errors in the same order.

        Args:
            wait: replicas to wait for, behind the one command that there is then.
        """
        try:
            async with asyncio.timeout(self.timeout_s), self._places:
                await self.ready()
                pipe = self.client.pipeline() if self.clustered else self.client.pipeline(transaction=False)
                for command in commands:
                    pipe.execute_command(*command)
                if wait:
                    self._wait_behind(pipe, commands[0], wait)
                replies: list[Any] = await pipe.execute(raise_on_error=False)
                if self.clustered:
                    await self._follow_failover(commands, replies)
                if wait and isinstance(replies[0], list):
                    replies[0] = [*cast("list[Any]", replies[0]), self._confirmed(replies[1], wait)]
                return replies[: len(commands)]
        except (foreign.RedisError, foreign.RedisClusterException, OSError, TimeoutError) as error:
            return [error] * len(commands)

    async def _follow_failover(self, commands: Sequence[tuple[Any, ...]], replies: list[Any]) -> None:
        """A node that has gone: one by one the client looks for its heir. Every script may run twice."""
        for index, command in enumerate(commands):
            if isinstance(replies[index], (foreign.ConnectionError, foreign.ClusterDownError)):
                try:
                    replies[index] = await self.client.execute_command(*command)
                except foreign.RedisError as error:
                    replies[index] = error
        self._seen.serve(frozenset(node.name for node in self.client.get_primaries()))

    # -- replicas --

    def _wait_behind(self, pipe: Any, command: tuple[Any, ...], wait: int) -> None:
        ms = int(min(1.0, self.timeout_s / 2) * 1000)
        if self.clustered:
            # WAIT speaks of the writes of its own connection: to the same node, in the same pipeline.
            node = self.client.get_node_from_key(command[3])
            pipe.execute_command("WAIT", wait, ms, target_nodes=[node])
        else:
            pipe.execute_command("WAIT", wait, ms)

    def _confirmed(self, reply: Any, wait: int) -> bool:
        if isinstance(reply, int) and reply >= wait:
            return True
        have = reply if isinstance(reply, int) else 0
        log.warning("replicas_behind", extra={"wanted": wait, "have": have})
        return False

    # -- for the subscription --

    async def ready(self) -> None:
        """Find the nodes of a cluster; others are found by connecting."""
        if self.clustered:
            await self.client.initialize()
            self._seen.serve(frozenset(node.name for node in self.client.get_primaries()))

    def primaries(self) -> list[str]:
        """Names of those who take writes, as far as known; one without a name where there is no cluster."""
        if self.clustered:
            return [node.name for node in self.client.get_primaries()]
        return [""]

    async def publish(self, primary: str, channel: str, text: str) -> None:
        """Publish through one primary; a failure is only noted. It waits behind nothing else."""
        options: dict[str, Any] = {}
        if primary:
            options["target_nodes"] = [self.client.get_node(node_name=primary)]
        try:
            async with asyncio.timeout(self.timeout_s):
                reply: Any = await self.client.execute_command("PUBLISH", channel, text, **options)
        except (foreign.RedisError, foreign.RedisClusterException, OSError, TimeoutError) as error:
            if isinstance(error, foreign.NoPermissionError):
                if not self._mute:
                    log.error("cannot_publish", extra={"detail": f"grant the user +publish on {channel}"})
                    self._mute = True
                return
            reply = error
        self._judged(reply)

    async def ask(self, *command: Any) -> Any:
        """One command of an operator's question, with its errors in our words (`StoreUnavailable`)."""
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self.client.execute_command(*command)
        except (foreign.RedisError, foreign.RedisClusterException, OSError, TimeoutError) as error:
            raise translated(error, self.timeout_s)[1] from error

    async def scan(self, pattern: str) -> AsyncIterator[list[bytes]]:
        """Walk through the keys that match, some at a time, on every primary.

        Raises:
            StoreUnavailable: the walk cannot go on.
        """
        some: list[bytes] = []
        try:
            await self.ready()
            async for key in self.client.scan_iter(match=pattern, count=500):
                some.append(key)
                if len(some) >= 500:
                    yield some
                    some = []
        except (foreign.RedisError, foreign.RedisClusterException, OSError, TimeoutError) as error:
            raise translated(error, self.timeout_s)[1] from error
        yield some

    async def close(self) -> None:
        """Drop every connection."""
        try:
            await self.client.aclose()
        except (foreign.RedisError, OSError) as error:
            log.debug("store_close_failed", extra={"detail": type(error).__name__})


def _client(options: LinkOptions, primaries: Primaries) -> Any:
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
                redis_connect_func=primaries.greet,
                **common,
                **tls,
            )
            client: Any = Redis(connection_pool=pool)
            return client
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
                redis_connect_func=primaries.greet,
                ssl=address.tls,
                **common,
                **tls,
            )
        case "cluster":
            cluster: Any = RedisCluster(
                startup_nodes=[ClusterNode(host, port) for host, port in address.hosts],
                require_full_coverage=False,
                max_connections=2 * AT_ONCE,
                retry=Retry(NoBackoff(), 3),
                ssl=address.tls,
                **common,
                **tls,
            )
            # Its constructor has no place for a connect hook; its connections take one all the same.
            for kwargs in (
                cluster.connection_kwargs,
                *(node.connection_kwargs for node in cluster.startup_nodes),
            ):
                kwargs["redis_connect_func"] = primaries.greet
            return cluster


def _once_more() -> Retry:
    return Retry(NoBackoff(), 1, supported_errors=(foreign.ConnectionError,))
