"""The five engines with the shipped configurations, as real processes on ports of a test."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.scenarios.house import free_port, until

CONFIG = Path(__file__).parents[3] / "config" / "forward-auth"
TOOLS = Path(sys.executable).parent


@dataclass(frozen=True)
class Ports:
    """Who listens where: they take the places of the documented addresses. A text is a whole address."""

    engine: int
    pages: int
    answers: int | str
    app: int

    def put(self, text: str) -> str:
        """A shipped configuration with these ports; every one of the four must have been there."""
        for shipped, port in (
            (8000, self.engine),
            (8080, self.pages),
            (8082, self.answers),
            (9000, self.app),
        ):
            address = port if isinstance(port, str) else f"127.0.0.1:{port}"
            text = text.replace(f"127.0.0.1:{shipped}", address)
            text = text.replace(f"port_value: {shipped}", f"port_value: {port}")
        return text


def _nginx(home: Path, ports: Ports) -> list[str]:
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    text = ports.put((CONFIG / "nginx.conf").read_text())
    user = "user root;" if os.getuid() == 0 else ""  # a test's directory is open to its user only
    # Only where it writes differs from what is shipped.
    paths = "".join(
        f"{name}_temp_path {home}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = text.replace("http {\n", f"http {{\n    access_log off; {paths}\n", 1)
    (home / "nginx.conf").write_text(text)
    return [
        program, "-p", str(home), "-c", str(home / "nginx.conf"),
        "-g", f"{user} daemon off; pid {home}/nginx.pid; error_log {home}/error.log;",
    ]  # fmt: skip


def _caddy(home: Path, ports: Ports) -> list[str]:
    (home / "Caddyfile").write_text(ports.put((CONFIG / "Caddyfile").read_text()))
    return [str(TOOLS / "caddy"), "run", "--config", str(home / "Caddyfile"), "--adapter", "caddyfile"]


def _traefik(home: Path, ports: Ports) -> list[str]:
    for name in ("traefik.yml", "dynamic.yml"):
        (home / name).write_text(ports.put((CONFIG / "traefik" / name).read_text()))
    return [str(TOOLS / "traefik"), "--configFile=traefik.yml"]


def _envoy(home: Path, ports: Ports) -> list[str]:
    (home / "envoy.yaml").write_text(ports.put((CONFIG / "envoy.yaml").read_text()))
    return [
        str(TOOLS / "envoy"), "-c", str(home / "envoy.yaml"), "--concurrency", "1",
        "--disable-hot-restart", "--log-level", "warning",
    ]  # fmt: skip


def _haproxy(home: Path, ports: Ports) -> list[str]:
    (home / "haproxy.cfg").write_text(ports.put((CONFIG / "haproxy" / "haproxy.cfg").read_text()))
    shutil.copy(CONFIG / "haproxy" / "nightporter.lua", home)
    return [shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", "haproxy.cfg"]


ENGINES: dict[str, Callable[[Path, Ports], list[str]]] = {
    "nginx": _nginx,
    "caddy": _caddy,
    "traefik": _traefik,
    "envoy": _envoy,
    "haproxy": _haproxy,
}


class EngineProcess:
    """One engine, running; a context that ends it."""

    def __init__(self, name: str, home: Path, ports: Ports) -> None:
        home.mkdir()
        self.log = home / "log"
        self._ports = ports
        command = ENGINES[name](home, ports)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=home,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"HOME": str(home), "PATH": f"{TOOLS}:/usr/sbin:/usr/bin:/bin"},
            )

    def ready(self) -> bool:
        """Whether it answers; fails if it ended instead."""
        assert self._process.poll() is None, self.log.read_text()
        connection = http.client.HTTPConnection("127.0.0.1", self._ports.engine, timeout=10)
        try:
            connection.request("GET", "/ready")
            return connection.getresponse().status == 401
        except OSError:
            return False
        finally:
            connection.close()

    def __enter__(self) -> EngineProcess:
        try:
            until(self.ready, 60)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def ports_for(app: int) -> Ports:
    return Ports(free_port(), free_port(), free_port(), app)
