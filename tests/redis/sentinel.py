"""A primary, a replica and three Sentinels, and the failovers between them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.redis.servers import RedisServer, need, until

NAME = "nightporter"
"""What the Sentinels call the primary."""

DOWN_AFTER_MS = 1000
_REPLICATION_USER = "replica"


class _Sentinel(RedisServer):
    """One Sentinel; it watches whoever is the primary now, and rewrites its own file."""

    def __init__(self, primary: RedisServer) -> None:
        super().__init__(
            {
                "sentinel monitor": f"{NAME} 127.0.0.1 {primary.port} 2",
                "sentinel down-after-milliseconds": f"{NAME} {DOWN_AFTER_MS}",
                "sentinel failover-timeout": f"{NAME} 4000",
                "sentinel parallel-syncs": f"{NAME} 1",
            }
        )
        for name in ("save", "appendonly"):
            del self.options[name]

    def _command(self, config: Path) -> Sequence[str]:
        return [need("redis-server"), str(config), "--sentinel"]

    def start(self) -> RedisServer:
        super().start()
        self.do(
            "SENTINEL",
            "DEBUG",
            "INFO-PERIOD",
            "500",
            "PUBLISH-PERIOD",
            "500",
            "PING-PERIOD",
            "250",
            "TILT-PERIOD",
            "1000",
        )
        return self

    def primary_port(self) -> int:
        """Where it says the primary is; 0 = it does not know."""
        with self.client() as client:
            address = client.sentinel_get_master_addr_by_name(NAME)
        return int(address[1]) if address else 0

    def sees_all(self, others: int) -> bool:
        with self.client() as client:
            state = client.sentinel_master(NAME)
            replicas = client.sentinel_slaves(NAME)
        return (
            int(state["num-other-sentinels"]) == others
            and state["flags"] == "master"
            and [(r["flags"], r["role-reported"], r["master-link-status"]) for r in replicas]
            == [("slave", "slave", "ok")]
        )


class SentinelRig:
    """Two data nodes and three Sentinels. Context manager.

    Attributes:
        nodes: the two servers; which one is the primary changes.
        sentinels: the three.
    """

    def __init__(self) -> None:
        options = {"repl-diskless-sync-delay": "0", "repl-timeout": "5", "repl-ping-replica-period": "1"}
        self.nodes = [RedisServer(options), RedisServer(options)]
        for node, other in (self.nodes, self.nodes[::-1]):
            node.options[f"user {_REPLICATION_USER}"] = "on >sync +psync +replconf +ping"
            node.options["masteruser"] = _REPLICATION_USER
            node.options["masterauth"] = "sync"
            if node is self.nodes[1]:
                node.options["replicaof"] = f"127.0.0.1 {other.port}"
        self.sentinels: list[_Sentinel] = []

    def __enter__(self) -> SentinelRig:
        try:
            for node in self.nodes:
                node.start()
            until(lambda: self._linked(self.nodes[1]), "the replica follows")
            for _ in range(3):
                sentinel = _Sentinel(self.nodes[0])
                self.sentinels.append(sentinel)
                sentinel.start()
            self.settle()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for server in (*self.sentinels, *self.nodes):
            server.end()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The Sentinels' addresses."""
        return [("127.0.0.1", sentinel.port) for sentinel in self.sentinels]

    @property
    def url(self) -> str:
        hosts = ",".join(f"{host}:{port}" for host, port in self.addresses)
        return f"redis+sentinel://{hosts}/{NAME}"

    @property
    def primary(self) -> RedisServer:
        """Whom most Sentinels call the primary."""
        ports = [sentinel.primary_port() for sentinel in self.sentinels if sentinel.running]
        port = max(set(ports), key=ports.count)
        return next(node for node in self.nodes if node.port == port)

    @property
    def replica(self) -> RedisServer:
        primary = self.primary
        return next(node for node in self.nodes if node is not primary)

    def settle(self) -> None:
        """Wait until everybody sees everybody and the replica has all data."""
        for sentinel in self.sentinels:
            until(lambda sentinel=sentinel: sentinel.sees_all(2), "the Sentinels see each other", 60)
        until(lambda: len({s.primary_port() for s in self.sentinels}) == 1, "they agree on the primary")
        until(lambda: self._linked(self.replica), "the replica follows", 60)

    def flush(self) -> None:
        with self.primary.client() as client:
            client.flushall()
            client.wait(1, 10_000)

    def flush_replication(self) -> None:
        """Wait until the replica has everything that was written so far."""
        primary, replica = self.primary, self.replica

        def level() -> bool:
            with primary.client() as one, replica.client() as other:
                offset = int(other.info("replication")["master_repl_offset"])
                return offset >= int(one.info("replication")["master_repl_offset"])

        until(level, "the replica has caught up")

    def hold_back_replication(self) -> None:
        """From now on the replica hears nothing: what is written will be lost in a failover.

        The replica is locked out at the primary, because Sentinels put back one that merely follows
        somebody else. They elect it all the same, if it was cut off for less than ten times
        `DOWN_AFTER_MS`: fail over soon.
        """
        self.primary.do("ACL", "SETUSER", _REPLICATION_USER, "off")
        self.primary.do("CLIENT", "KILL", "TYPE", "replica")
        replica = self.replica
        until(lambda: not self._linked(replica), "the replica is cut off")

    def fail_over(self, *, kill: bool = True) -> RedisServer:
        """Make the replica the primary; returns it once it takes writes and all Sentinels agree.

        Args:
            kill: SIGKILL the primary and let the Sentinels find out; else they are ordered to.
        """
        old, new = self.primary, self.replica
        if kill:
            old.kill()
        else:
            self.sentinels[0].do("SENTINEL", "FAILOVER", NAME)
        until(lambda: self._role(new) == "master", "the replica is promoted", 60)
        until(
            lambda: all(sentinel.primary_port() == new.port for sentinel in self.sentinels),
            "every Sentinel names the new primary",
            60,
        )
        return new

    def lose_last_writes(self) -> contextlib.AbstractContextManager[None]:
        """`with rig.lose_last_writes(): …` – what is written inside is gone afterwards."""

        @contextlib.contextmanager
        def scope() -> Iterator[None]:
            self.hold_back_replication()
            yield
            self.fail_over()

        return scope()

    def repair(self) -> None:
        """Bring back whoever is down, as a replica, and settle."""
        for server in (*self.nodes, *self.sentinels):
            if not server.running:
                server.start()
        for node in self.nodes:
            node.do("ACL", "SETUSER", _REPLICATION_USER, "on")
        self.settle()

    def _linked(self, node: RedisServer) -> bool:
        with node.client() as client:
            state = client.info("replication")
        return state["role"] == "slave" and state["master_link_status"] == "up"

    def _role(self, node: RedisServer) -> str:
        with node.client() as client:
            return str(client.info("replication")["role"])


@contextlib.contextmanager
def sentinel_rig() -> Iterator[SentinelRig]:
    """A running rig; see `SentinelRig`."""
    with SentinelRig() as rig:
        yield rig
