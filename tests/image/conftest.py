"""One engine, one image for all tests of this directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from testcontainers.community.redis import RedisContainer
from testcontainers.core.config import testcontainers_config

from tests.image.engine import ROOT, Engine
from tests.image.house import App, Container
from tests.op.scripted import ScriptedOP


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    made = Engine(ROOT / "build/engine")
    yield made
    made.close()


@pytest.fixture(scope="session")
def image(engine: Engine) -> str:
    """The image, built from this tree; layers of an earlier run are used again."""
    engine.script("build-image", "nightporter:test")
    return "nightporter:test"


@pytest.fixture
def redis_url(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Redis of its own, from the public image (or a stand-in where no registry is), through testcontainers."""
    engine.script("base-images", "redis:7")
    for name in ("DOCKER_HOST",):
        if name in engine.environ:
            monkeypatch.setenv(name, engine.environ[name])
    # Its reaper is another image to pull; the context manager below ends the container.
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)
    with RedisContainer("redis:7") as container:
        yield f"redis://127.0.0.1:{container.get_exposed_port(6379)}/0"


@pytest.fixture
def app() -> Iterator[App]:
    made = App()
    yield made
    made.go_on.set()
    made.shutdown()
    made.server_close()


@pytest.fixture
def op() -> Iterator[ScriptedOP]:
    with ScriptedOP() as made:
        yield made


StartContainer = Callable[..., Container]


@pytest.fixture
def start(engine: Engine, image: str) -> Iterator[StartContainer]:
    """Starts containers of the image; they end with the test."""
    made: list[Container] = []

    def run(
        settings: Mapping[str, str], *, mounts: Mapping[Path, str] | None = None, port: int = 0
    ) -> Container:
        container = Container(engine, image, settings, mounts=mounts, port=port)
        made.append(container)
        return container

    yield run
    for container in made:
        container.remove()
