"""A Redis Cluster of six: three primaries, a replica each."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

from tests.ports import free_port
from tests.redis.servers import READY_S, RedisServer, need, until

NODES = 6
SLOTS = 16_384


class ClusterRig:
    """Six nodes, made into a cluster by `redis-cli --cluster create`. Context manager."""

    def __init__(self) -> None:
        self.nodes: list[RedisServer] = []
        for _ in range(NODES):
            options = {
                "cluster-enabled": "yes",
                "cluster-node-timeout": "2000",
                "cluster-port": str(free_port()),
                "repl-diskless-sync-delay": "0",
            }
            self.nodes.append(RedisServer(options))

    def __enter__(self) -> ClusterRig:
        try:
            for node in self.nodes:
                node.start()
            self._create()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.end()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        return [("127.0.0.1", node.port) for node in self.nodes]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{host}:{port}" for host, port in self.addresses[:3])

    def primaries(self) -> list[RedisServer]:
        return [node for node in self.nodes if node.running and self._role(node) == "master"]

    def replicas(self) -> list[RedisServer]:
        return [node for node in self.nodes if node.running and self._role(node) == "slave"]

    def owner(self, key: str) -> RedisServer:
        """The primary that holds this key's slot."""
        node = self.primaries()[0]
        slot = int(str(node.do("CLUSTER", "KEYSLOT", key)))
        with node.client() as client:
            for low, high, primary, *_ in client.execute_command("CLUSTER SLOTS"):
                if int(low) <= slot <= int(high):
                    return next(n for n in self.nodes if n.port == int(primary[1]))
        raise AssertionError(f"nobody holds slot {slot}")

    def fail_over(self, node: RedisServer) -> RedisServer:
        """Kill this primary; returns its replica once it has taken over and the cluster is whole."""
        with node.client() as client:
            replica_port = int(client.info("replication")["slave0"]["port"])
        replica = next(n for n in self.nodes if n.port == replica_port)
        node.kill()
        until(lambda: self._role(replica) == "master", "the replica is promoted", 60)
        until(self._whole, "the cluster serves all slots again", 60)
        return replica

    def repair(self) -> None:
        """Start whoever is down, wait until every primary has its replica."""
        for node in self.nodes:
            if not node.running:
                node.start()
        self.settle()

    def settle(self) -> None:
        until(self._whole, "the cluster serves all slots", 60)
        until(lambda: len(self.replicas()) == NODES // 2, "three replicas", 60)
        for node in self.replicas():
            until(lambda node=node: self._linked(node), "a replica follows", 60)

    def flush(self) -> None:
        for node in self.primaries():
            node.do("FLUSHALL")

    def _create(self) -> None:
        subprocess.run(
            [
                need("redis-cli"),
                "--cluster",
                "create",
                *(f"127.0.0.1:{node.port}@{node.options['cluster-port']}" for node in self.nodes),
                "--cluster-replicas",
                "1",
                "--cluster-yes",
            ],
            check=True,
            capture_output=True,
            timeout=READY_S * 2,
        )
        self.settle()

    def _whole(self) -> bool:
        for node in self.nodes:
            if not node.running:
                continue
            with node.client() as client:
                state = client.execute_command("CLUSTER INFO")
            if state["cluster_state"] != "ok" or int(state["cluster_slots_ok"]) != SLOTS:
                return False
        return True

    def _role(self, node: RedisServer) -> str:
        with node.client() as client:
            return str(client.info("replication")["role"])

    def _linked(self, node: RedisServer) -> bool:
        with node.client() as client:
            return client.info("replication").get("master_link_status") == "up"


@contextlib.contextmanager
def cluster_rig() -> Iterator[ClusterRig]:
    """A running cluster; see `ClusterRig`."""
    with ClusterRig() as rig:
        yield rig
