"""The Redis of each kind that the contract suite runs on: started when first asked for, gone with us."""

from __future__ import annotations

import atexit
from functools import cache

from tests.redis.cluster import ClusterRig
from tests.redis.sentinel import SentinelRig
from tests.redis.servers import RedisServer


@cache
def redis_url(kind: str) -> str:
    """The URL of one server, of Sentinels or of a cluster, all of them this test process's own."""
    rig = {"single": RedisServer, "sentinel": SentinelRig, "cluster": ClusterRig}[kind]()
    atexit.register(rig.__exit__)
    rig.__enter__()
    return rig.url
