"""What all contestants have in common: the app, the provider, and an orderly end."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.crowd import CrowdOP
from bench.machine import LOAD_CORE, PROXY_CORE, program
from bench.process import Process
from tests.scenarios.house import free_port, until

ROOT = Path(__file__).resolve().parent.parent
SECRET = "0123456789abcdef0123456789abcdef"


@dataclass
class Stage:
    """Around the contestants.

    Attributes:
        app_port: of the app: nginx on the other core, 1 KiB at every path; `/1m`, `/100m`; `/ws` echoes.
    """

    home: Path
    op: CrowdOP = field(default_factory=CrowdOP)
    app_port: int = 0
    processes: list[Process] = field(default_factory=list[Process])

    def run(
        self,
        command: list[str],
        *,
        core: str = PROXY_CORE,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Process:
        """Start a process; it ends with the stage."""
        log = self.home / f"log-{len(self.processes)}"
        process = Process(command, core, dict(env or {}), cwd or self.home, log)
        process.start()
        self.processes.append(process)
        return process

    def redis(self) -> tuple[int, Process]:
        """A Redis on the other core: its port and process."""
        port = free_port()
        process = self.run(
            [program("redis-server"), "--port", str(port), "--save", "", "--bind", "127.0.0.1"],
            core=LOAD_CORE,
        )
        until(lambda: _pings(port))
        return port, process

    def nginx(self, port: int, http_block: str, *, core: str = PROXY_CORE) -> Process:
        """An nginx with one worker."""
        config = self.home / f"nginx-{port}.conf"
        user = "user root;" if os.getuid() == 0 else ""
        config.write_text(
            f"{user} worker_processes 1; daemon off; pid {self.home}/pid-{port}; "
            f"error_log {self.home}/error-{port} error; worker_rlimit_nofile 32768;"
            "events { worker_connections 16384; } http { access_log off; keepalive_requests 1000000000;"
            f"client_body_temp_path {self.home}/b{port}; proxy_temp_path {self.home}/p{port}; "
            f"fastcgi_temp_path {self.home}/f{port}; uwsgi_temp_path {self.home}/u{port}; "
            f"scgi_temp_path {self.home}/s{port}; {http_block} }}"
        )
        process = self.run([program("nginx"), "-c", str(config)], core=core)
        listening(port)
        return process

    def start_app(self) -> None:
        """The app: files and a fixed answer from nginx, WebSocket echoes from behind it."""
        files, echo_port = self.home / "files", free_port()
        files.mkdir()
        for name, size in (("1m", 1 << 20), ("100m", 100 << 20)):
            with (files / name).open("wb") as out:
                out.truncate(size)
        self.run([sys.executable, "-m", "bench.echo", str(echo_port)], core=LOAD_CORE, cwd=ROOT)
        self.app_port = free_port()
        self.nginx(
            self.app_port,
            f"server {{ listen 127.0.0.1:{self.app_port} backlog=1024; sendfile on; root {files};"
            f'location / {{ return 200 "{"x" * 1024}"; }} location = /1m {{}} location = /100m {{}}'
            f"location /ws {{ proxy_pass http://127.0.0.1:{echo_port}; proxy_http_version 1.1;"
            "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; } }",
            core=LOAD_CORE,
        )

    def end(self) -> None:
        for process in reversed(self.processes):
            process.stop()
        self.op.stop()


@contextlib.contextmanager
def stage(home: Path) -> Iterator[Stage]:
    """The app and the provider; everything that is started on it ends with it."""
    made = Stage(home)
    made.op.at_life_s = 36_000.0
    made.op.client_id, made.op.client_secret = "bench", "bench-secret"
    home.chmod(0o755)  # one of them gives up its rights
    try:
        made.op.start()
        made.start_app()
        yield made
    finally:
        made.end()


def listening(port: int, limit_s: float = 60.0) -> None:
    """Wait until somebody answers there."""

    def answers() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/ready")
            connection.getresponse()
            return True
        except OSError:
            return False
        finally:
            connection.close()

    until(answers, limit_s)


def _pings(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as sock:
            sock.sendall(b"PING\r\n")
            return sock.recv(16).startswith(b"+PONG")
    except OSError:
        return False
