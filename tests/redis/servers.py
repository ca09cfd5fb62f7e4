"""One redis-server as a process of its own."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from tests import waiting
from tests.op import certs
from tests.ports import free_port

READY_S = 30.0


def need(program: str) -> str:
    """The program's path; the test fails, with the remedy, where it is missing."""
    found = shutil.which(program)
    if found is None:
        pytest.fail(f"{program} is not installed; `make test-tools` installs it")
    return found


def until(check: Callable[[], bool], what: str, limit_s: float = READY_S) -> None:
    """Ask until it is so; servers cannot be waited for in any other way."""

    def answered() -> bool:
        try:
            return check()
        except (redis.RedisError, OSError):
            return False

    waiting.until(answered, limit_s, what=what)


@dataclass(frozen=True)
class Tls:
    """Files of a throw-away authority: what the server and its clients present."""

    ca: Path
    cert: Path
    key: Path
    client_cert: Path
    client_key: Path


class RedisServer:
    """A redis-server. Stop it, kill it, freeze it, start it again on the same port.

    Args:
        options: directives beyond the defaults, as in redis.conf ("appendonly": "yes").
        user, password: an ACL user; the default user is switched off then. Only a password = `requirepass`.
        acl: what the user may do.
        tls: listen with TLS only, and demand a client certificate.

    Attributes:
        port: where it listens.
        directory: its data and its log.
    """

    def __init__(
        self,
        options: Mapping[str, str] | None = None,
        *,
        user: str = "",
        password: str = "",
        acl: str = "~* &* +@all",
        tls: bool = False,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="np-redis-"))
        self.port = free_port()
        self.user, self.password, self._acl = user, password, acl
        self.tls = _tls_files(self.directory) if tls else None
        self.options: dict[str, str] = {"save": "", "appendonly": "no", **(options or {})}
        self._process: subprocess.Popen[bytes] | None = None

    # -- life --

    def __enter__(self) -> RedisServer:
        try:
            return self.start()
        except BaseException:
            self.end()
            raise

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self) -> RedisServer:
        """Start it, and wait until it answers."""
        assert not self.running, "it runs already"
        need("redis-server")
        config = self.directory / "redis.conf"
        if not config.exists():
            config.write_text("".join(f"{line}\n" for line in self._directives()))
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(config), stdout=log, stderr=log, cwd=self.directory, start_new_session=True
            )
        until(self._answers, f"redis-server on port {self.port} answers")
        return self

    def stop(self) -> None:
        """Ask it to end (SIGTERM: it saves, where its options say so)."""
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait(READY_S)

    def kill(self) -> None:
        """SIGKILL, by its own pid."""
        if self._process is not None and self.running:
            self._process.kill()
            self._process.wait(READY_S)

    def freeze(self) -> None:
        """SIGSTOP: it accepts connections (the kernel does) and never answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Kill it and forget its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    # -- for tests --

    @property
    def url(self) -> str:
        """The store URL that the product gets; certificates are named by settings beside it."""
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """The same through another port (a proxy's)."""
        login = f"{quote(self.user)}:{quote(self.password, safe='')}@" if self.password else ""
        return f"{'rediss' if self.tls else 'redis'}://{login}127.0.0.1:{port}/0"

    def client(self, *, timeout_s: float = 10.0) -> redis.Redis:
        """A connection of the test's own, which sees everything. Close it, or use it with `with`."""
        files = {}
        if self.tls is not None:
            files = {
                "ssl": True,
                "ssl_ca_certs": str(self.tls.ca),
                "ssl_certfile": str(self.tls.client_cert),
                "ssl_keyfile": str(self.tls.client_key),
            }
        return redis.Redis(
            "127.0.0.1",
            self.port,
            username=self.user or None,
            password=self.password or None,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            **files,
        )

    def do(self, *command: str | bytes | int | float) -> object:
        """Run one command on a fresh connection."""
        with self.client() as client:
            return client.execute_command(*command)

    def commands(self) -> dict[str, int]:
        """Commands carried out since the start or `reset_commands`, by name (INFO commandstats).

        Those that a script runs are counted too, beside its own EVALSHA.
        """
        with self.client() as client:
            stats = client.info("commandstats")
        return {name.removeprefix("cmdstat_"): int(of["calls"]) for name, of in stats.items()}

    def reset_commands(self) -> None:
        self.do("CONFIG", "RESETSTAT")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"redis-server ended with status {self._process.returncode}:\n{self.log}")
        return bool(self.do("PING"))

    def _command(self, config: Path) -> Sequence[str]:
        return [need("redis-server"), str(config)]

    def _directives(self) -> Iterator[str]:
        yield "bind 127.0.0.1"
        yield "protected-mode no"
        yield f"dir {self.directory}"
        yield "daemonize no"
        if self.tls is None:
            yield f"port {self.port}"
        else:
            yield "port 0"
            yield f"tls-port {self.port}"
            yield f"tls-ca-cert-file {self.tls.ca}"
            yield f"tls-cert-file {self.tls.cert}"
            yield f"tls-key-file {self.tls.key}"
            yield "tls-auth-clients yes"
        if self.user:
            yield "user default off"
            yield f"user {self.user} on >{self.password} {self._acl}"
        elif self.password:
            yield f"requirepass {self.password}"
        for name, value in self.options.items():
            yield f"{name} {value or chr(34) * 2}"


def _tls_files(folder: Path) -> Tls:
    authority = certs.Authority(folder)
    cert, key = authority.issue("server")
    client_cert, client_key = authority.issue("client")
    return Tls(authority.ca, cert, key, client_cert, client_key)


@contextlib.contextmanager
def redis_server(
    options: Mapping[str, str] | None = None,
    *,
    user: str = "",
    password: str = "",
    acl: str = "~* &* +@all",
    tls: bool = False,
) -> Iterator[RedisServer]:
    """A running server; see `RedisServer`."""
    with RedisServer(options, user=user, password=password, acl=acl, tls=tls) as server:
        yield server
