"""Houses on Redis that serve many tests; see `redis_house.py`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.redis.servers import RedisServer, redis_server
from tests.scenarios.redis_house import RedisHouse


@pytest.fixture(scope="session")
def redis_process() -> Iterator[RedisServer]:
    """One Redis for all scenarios; each test finds it empty."""
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def _strict(redis_process: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisHouse]:
    env = {"NIGHTPORTER_REFRESH_REUSE": "punished", "NIGHTPORTER_STORE_PREFIX": "strict:"}
    with RedisHouse(tmp_path_factory.mktemp("strict"), redis_process, env=env) as house:
        yield house


@pytest.fixture(scope="session")
def _lenient(redis_process: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisHouse]:
    env = {"NIGHTPORTER_REFRESH_REUSE": "grace", "NIGHTPORTER_STORE_PREFIX": "lenient:"}
    with RedisHouse(tmp_path_factory.mktemp("lenient"), redis_process, env=env) as house:
        yield house


@pytest.fixture
def strict(_strict: RedisHouse) -> RedisHouse:
    """Three replicas that believe their OP punishes a token that comes twice."""
    _strict.renew()
    return _strict


@pytest.fixture
def lenient(_lenient: RedisHouse) -> RedisHouse:
    """Three replicas that believe their OP gives a grace."""
    _lenient.renew()
    return _lenient
