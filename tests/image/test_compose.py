"""compose.yaml as people would start it, by plain `docker run`: its services, variables, names and limits."""

from __future__ import annotations

import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.demo.visitor import NAVIGATION, PROGRAM, Visitor, forms
from tests.image.engine import ROOT, Engine
from tests.image.house import COOKIE_KEY, free_port, until

pytestmark = pytest.mark.timeout(600)

TEXT = (ROOT / "compose.yaml").read_text()
FIRST, SECOND, OP = "nightporter-1", "nightporter-2", "op"


class Composed:
    """The services of a compose file, without the balancer, each replica on a port of its own.

    Args:
        text: of the file, its variables filled in.
        published: port on the host by service.
    """

    def __init__(self, engine: Engine, image: str, text: str, published: dict[str, tuple[int, int]]) -> None:
        self._engine = engine
        self.network = f"compose-{secrets.token_hex(4)}"
        self.ids: dict[str, str] = {}
        engine.run("network", "create", self.network)
        for name, service in yaml.safe_load(text)["services"].items():
            if name != "balancer":
                self.ids[name] = self._run(name, service, image, published.get(name))

    def _run(self, name: str, service: dict[str, Any], image: str, port: tuple[int, int] | None) -> str:
        options = ["--network", self.network, "--network-alias", name]
        for alias in service.get("networks", {}).get("default", {}).get("aliases", ()):
            options += ["--network-alias", alias]
        for variable, value in service.get("environment", {}).items():
            options += ["--env", f"{variable}={value}"]
        if service.get("read_only"):
            options += ["--read-only", "--cap-drop", *service["cap_drop"], "--memory", service["mem_limit"]]
            options += ["--pids-limit", str(service["pids_limit"]), "--security-opt", "no-new-privileges"]
        if port:
            options += ["--publish", f"127.0.0.1:{port[0]}:{port[1]}"]
        entry = [str(word) for word in service.get("entrypoint", ())]
        words = [*entry[1:], *(str(word) for word in service.get("command", ()))]
        if entry:
            options += ["--entrypoint", entry[0]]
        source = image if service["image"].startswith("nightporter:") else service["image"]
        return self._engine.run("run", "--detach", *options, source, *words)

    def log(self, name: str) -> str:
        done = self._engine.ask("logs", self.ids[name])
        return done.stdout + done.stderr

    def kill(self, name: str) -> None:
        self._engine.run("kill", self.ids[name])

    def remove(self) -> None:
        for container in self.ids.values():
            self._engine.ask("rm", "--force", container)
        self._engine.ask("network", "rm", self.network)


@pytest.fixture
def ports() -> dict[str, int]:
    return {name: free_port() for name in (FIRST, SECOND, OP)}


@pytest.fixture
def composed(engine: Engine, image: str, ports: dict[str, int]) -> Iterator[Composed]:
    engine.script("base-images", "redis:7")
    text = re.sub(r"\$\{CLIENT_SECRET:\?[^}]*\}", "demo-secret", TEXT)
    text = re.sub(r"\$\{COOKIE_KEYS:\?[^}]*\}", COOKIE_KEY, text)
    assert "${" not in text
    text = text.replace("localhost:8080", f"localhost:{ports[FIRST]}")
    text = text.replace("op.localhost:8082", f"op.localhost:{ports[OP]}").replace('"8082"', f'"{ports[OP]}"')
    published = {FIRST: (ports[FIRST], 8080), SECOND: (ports[SECOND], 8080), OP: (ports[OP], ports[OP])}
    made = Composed(engine, image, text, published)
    yield made
    made.remove()


def test_somebody_signs_in_and_outlives_a_killed_replica(
    composed: Composed, ports: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def as_browsers_do(host: Any, *rest: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if str(host).endswith("localhost") else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", as_browsers_do)
    visitor = Visitor()
    url = f"http://localhost:{ports[FIRST]}/"

    discovery = f"http://op.localhost:{ports[OP]}/.well-known/openid-configuration"

    def up() -> bool:
        try:
            return visitor.get(discovery, PROGRAM).status == 200 and visitor.get(url, PROGRAM).status == 401
        except OSError:
            return False

    until(up, what=f"provider and first replica answer\n{composed.log(OP)}{composed.log(FIRST)}")
    reply = visitor.get(url, NAVIGATION)
    for _ in range(10):
        if reply.redirect:
            reply = visitor.get(reply.redirect, NAVIGATION)
        elif found := [form for form in forms(reply.text) if f"localhost:{ports[OP]}" in reply.url]:
            name, value = found[0].buttons[0]
            action = found[0].action or reply.url
            target = action if action.startswith("http") else f"http://op.localhost:{ports[OP]}{action}"
            reply = visitor.post(target, {**found[0].fields, name: value})
        else:
            break
    assert (reply.status, reply.url) == (200, url), composed.log(FIRST)
    composed.kill(FIRST)
    assert visitor.get(f"http://localhost:{ports[SECOND]}/", PROGRAM).status == 200, composed.log(SECOND)


def test_only_loopback_is_published_and_no_secret_is_in_the_file() -> None:
    services = yaml.safe_load(TEXT)["services"]
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    for name in (FIRST, SECOND):
        environment = services[name]["environment"]
        assert environment["NIGHTPORTER_CLIENT_SECRET"].startswith("${CLIENT_SECRET:?")
        assert environment["NIGHTPORTER_COOKIE_KEYS"].startswith("${COOKIE_KEYS:?")


def test_the_image_is_the_one_that_make_builds() -> None:
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    services = yaml.safe_load(TEXT)["services"]
    ours = {service["image"] for service in services.values() if service["image"].startswith("nightporter:")}
    assert ours == {f"nightporter:{version[1]}"}
    assert f"nightporter:{version[1]} keygen" in TEXT


def test_the_balancers_configuration_is_one(tmp_path: Path) -> None:
    haproxy = shutil.which("haproxy") or "/usr/sbin/haproxy"
    content = yaml.safe_load(TEXT)["configs"]["balancer"]["content"]
    path = tmp_path / "haproxy.cfg"
    path.write_text(content.replace("nightporter-1:", "127.0.0.1:").replace("nightporter-2:", "127.0.0.1:"))
    done = subprocess.run([haproxy, "-c", "-f", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
