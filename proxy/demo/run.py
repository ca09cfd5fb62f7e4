"""The demo's runner: an OP, an app, Nightporter between them, one URL.

With a terminal it waits for a person; without one it plays the person (`walk.py`), says what it
saw and exits 0, or 1 with a sentence about what was off. All children listen on the loopback
interface, live in a temporary directory and are ended by their process ids.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import errno
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from proxy.config.redis_address import is_redis
from proxy.demo.op import ACCESS_LIFE_S, CLIENT_ID, SCOPES
from proxy.demo.visitor import Lost
from proxy.demo.walk import EXPIRIES, walk

PORT = 8080
READY_S = 30.0
END_S = 10.0
MIN_LIFE_S = 2
TOLD = ("sign_ins", "refreshes", "invalid_grant", "sign_outs")
"""Counters of the OP that are worth a line when they change."""


class DemoFailed(Exception):
    """The demo cannot go on; the message is for the person who started it."""


class _Interrupted(BaseException):
    """Ctrl-C, SIGTERM or a closed terminal."""


@dataclass(frozen=True, slots=True)
class Ports:
    front: int
    operations: int
    op: int
    app: int
    others: tuple[int, ...] = ()
    """For two proxies behind a balancer: where each serves, then the second one's operations port."""


@dataclass(slots=True)
class Child:
    """A process of ours and where it writes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def last_words(self, lines: int = 12) -> str:
        text = self.log.read_text(errors="replace").rstrip()
        return "\n".join("    " + line for line in text.splitlines()[-lines:])


class House:
    """The three processes, from start to end.

    Args:
        ports: where they listen.
        life_s: life of an access token.
        home: a directory of this run: the session store and the logs.
        store: a Redis for two proxies behind a balancer; "" = one proxy on a file.
    """

    def __init__(self, ports: Ports, life_s: int, home: Path, store: str = "") -> None:
        self._ports = ports
        self._store = store
        self._prefix = f"np-demo-{secrets.token_hex(4)}:"
        self._cookie_key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        self._life_s = life_s
        self._home = home
        self._secret = secrets.token_urlsafe(32)
        self._children: list[Child] = []
        self.public_url = f"http://127.0.0.1:{ports.front}"
        # Another *host* than the app's: cookies know no ports, and a provider is another site.
        self.issuer = f"http://localhost:{ports.op}"

    def start(self) -> None:
        """Start everything and wait until it answers.

        Raises:
            DemoFailed: a child ended or did not become ready.
        """
        ports = self._ports
        op = [
            *(sys.executable, "-m", "proxy.demo.op", "--port", str(ports.op)),
            *("--client-origin", self.public_url, "--life-s", str(self._life_s)),
        ]
        self._spawn("provider", op, {"DEMO_OP_CLIENT_SECRET": self._secret})
        self._spawn("app", [sys.executable, "-m", "proxy.demo.app", "--port", str(ports.app)], {})
        self._await_ready(ports.op, "/.well-known/openid-configuration")
        self._await_ready(ports.app, "/healthz")
        serve = [sys.executable, "-m", "proxy", "serve"]
        if not self._store:
            self._spawn("nightporter", serve, self.configuration())
            self._await_ready(ports.operations, "/readyz")
            return
        one, other, operations = ports.others
        self._spawn("nightporter-1", serve, self.configuration() | _listening(one, ports.operations))
        self._spawn("nightporter-2", serve, self.configuration() | _listening(other, operations))
        balancer = [sys.executable, "-m", "proxy.demo.balancer", "--port", str(ports.front)]
        self._spawn("balancer", [*balancer, "--to", str(one), str(other)], {})
        self._await_ready(ports.operations, "/readyz")
        self._await_ready(operations, "/readyz")
        if b'"store"' in (_fetch(ports.operations, "/readyz") or b""):
            raise DemoFailed(f"Redis does not answer:\n{self._children[2].last_words(3)}")

    def configuration(self) -> dict[str, str]:
        """All that `nightporter serve` is told: what anybody would write who deploys it."""
        shared = {
            "NIGHTPORTER_STORE": self._store,
            # A prefix of this run, and keys that are gone in an hour: the Redis may be in use.
            "NIGHTPORTER_STORE_PREFIX": self._prefix,
            "NIGHTPORTER_IDLE_S": "3600",
            "NIGHTPORTER_ABSOLUTE_S": "3600",
        }
        return self._alone() | (shared if self._store else {})

    def _alone(self) -> dict[str, str]:
        return {
            "NIGHTPORTER_ISSUER": self.issuer,
            "NIGHTPORTER_CLIENT_ID": CLIENT_ID,
            "NIGHTPORTER_CLIENT_SECRET": self._secret,
            "NIGHTPORTER_SCOPES": " ".join(SCOPES),
            "NIGHTPORTER_UPSTREAM": f"http://127.0.0.1:{self._ports.app}",
            "NIGHTPORTER_PUBLIC_URL": self.public_url,
            "NIGHTPORTER_LISTEN": f"127.0.0.1:{self._ports.front}",
            "NIGHTPORTER_OPERATIONS_LISTEN": f"127.0.0.1:{self._ports.operations}",
            "NIGHTPORTER_STORE": f"sqlite:{self._home / 'sessions.db'}",
            "NIGHTPORTER_COOKIE_KEYS": self._cookie_key,
            "NIGHTPORTER_PASS_ACCESS_TOKEN": "true",
        }

    def ledger(self) -> dict[str, int]:
        """What the OP counted."""
        return json.loads(_fetch(self._ports.op, "/ledger") or b"{}")

    def fallen(self) -> Child | None:
        """A child that has ended although nobody asked it to; of two proxies one may."""
        ended = [child for child in self._children if child.process.poll() is not None]
        if self._store and len(ended) == 1 and ended[0].name.startswith("nightporter-"):
            return None  # somebody tries what two are for
        return next(iter(ended), None)

    def stop(self) -> None:
        """End the children, the proxy first: it finishes what is in flight while the others live."""
        while self._children:
            child = self._children.pop()
            if child.process.poll() is None:
                child.process.terminate()
                try:
                    child.process.wait(END_S)
                except subprocess.TimeoutExpired:
                    child.process.kill()
                    child.process.wait()

    def _spawn(self, name: str, command: Sequence[str], settings: Mapping[str, str]) -> None:
        # Settings of the caller's shell would make this another program than the one described.
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("NIGHTPORTER_", "DEMO_OP_"))}
        log = self._home / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(  # noqa: S603  # our own modules under our own interpreter
                command,
                env={**kept, **settings, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches a terminal's whole process group; the order of ending is ours.
                start_new_session=True,
            )
        self._children.append(Child(name, process, log))

    def _await_ready(self, port: int, path: str) -> None:
        until = time.monotonic() + READY_S
        while True:
            fallen = self.fallen()
            if fallen is not None:
                raise DemoFailed(f"The {fallen.name} ended while starting:\n{fallen.last_words()}")
            if _fetch(port, path) is not None:
                return
            if time.monotonic() > until:
                child = self._children[-1]
                raise DemoFailed(
                    f"The {child.name} was not ready within {READY_S:.0f} s:\n{child.last_words()}"
                )
            time.sleep(0.05)


def _listening(front: int, operations: int) -> dict[str, str]:
    return {
        "NIGHTPORTER_LISTEN": f"127.0.0.1:{front}",
        "NIGHTPORTER_OPERATIONS_LISTEN": f"127.0.0.1:{operations}",
    }


def _fetch(port: int, path: str) -> bytes | None:
    """The body of a 200 answer on a local port, else None."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return body if response.status == 200 else None


def choose_ports(front: int | None, *, two: bool = False) -> Ports:
    """Four free ports, or seven: the usual ones where they are free, any others where not.

    Args:
        front: the port that the person asked for, None = no wish.
        two: for two proxies behind a balancer.
    Raises:
        DemoFailed: that one port is taken.
    """
    if front is not None and not _free(front):
        raise DemoFailed(f"Port {front} is in use. Choose another with --port, or leave it out.")
    taken: set[int] = set()
    chosen: list[int] = []
    for wish in (front or PORT, *range(PORT + 1, PORT + (7 if two else 4))):
        port = wish if wish not in taken and _free(wish) else _any_free(taken)
        taken.add(port)
        chosen.append(port)
    return Ports(*chosen[:4], others=tuple(chosen[4:]))


def _free(port: int) -> bool:
    """Whether a port is free on every loopback address that `localhost` may mean."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            if family == socket.AF_INET:
                raise
    return True


def _any_free(taken: set[int]) -> int:
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in taken and _free(port):
            return port


class _Signals:
    """Turns the first signal that ends programs into `_Interrupted`; further ones change nothing.

    Children are always ended: a second Ctrl-C must not leave them behind, and ending them takes
    seconds at most.
    """

    def __init__(self) -> None:
        self._ending = False

    def end(self) -> None:
        """From here on signals are ignored."""
        self._ending = True

    def _handle(self, _: int, __: FrameType | None) -> None:
        if not self._ending:
            self._ending = True
            raise _Interrupted

    @contextlib.contextmanager
    def handled(self) -> Generator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [signal.signal(number, self._handle) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


def _wait_for_a_person(house: House, life_s: int) -> None:
    """Say what to do, then report refreshes as the OP counts them, until interrupted.

    Raises:
        DemoFailed: a child ended.
    """
    print(
        f"""
  Open  {house.public_url}/

  1. You land on the demo provider's page. Be Ada, be Grace, or type any name.
  2. The app greets you by that name. It has no login of its own: see which header
     fields it is told, and that the session's cookie is not among them.
  3. Stay on the page. The access token lives {life_s} s; watch it being renewed, and
     "Expiries outlived" go up while "Redirects seen" stays at 0.
  4. Sign out. The provider forgets you too, and the old cookie opens nothing.

  The provider's own count: {house.issuer}/
  Ctrl-C stops everything.
""",
        flush=True,
    )
    seen = house.ledger()
    while True:
        time.sleep(0.5)
        fallen = house.fallen()
        if fallen is not None:
            raise DemoFailed(f"The {fallen.name} ended by itself:\n{fallen.last_words()}")
        ledger = house.ledger() or seen
        if any(
            ledger[name] != seen[name] for name in ("sign_ins", "refreshes", "invalid_grant", "sign_outs")
        ):
            told = ", ".join(f"{name.replace('_', '-')} {ledger[name]}" for name in TOLD)
            print(f"  {time.strftime('%H:%M:%S')}  {told}", flush=True)
        seen = ledger


def _play_the_person(house: House, life_s: int) -> int:
    """Walk through it without anybody; 0 if all was as promised."""
    print(
        f"No terminal: signing in by myself at {house.public_url}/ and staying for {EXPIRIES} expiries of "
        f"a {life_s} s token. This takes about {EXPIRIES * life_s + 3} s.",
        flush=True,
    )
    findings = walk(house.public_url, house.ledger, life_s)
    width = max(len(finding.what) for finding in findings)
    print()
    for finding in findings:
        mark = "ok " if finding.good else "OFF"
        print(f"  {mark}  {finding.what:<{width}}  {finding.seen}")
    print()
    off = [finding for finding in findings if not finding.good]
    if off:
        print("Not as it should be: " + "; ".join(f"{f.what}: {f.seen}, not {f.wanted}" for f in off) + ".")
        return 1
    print("Still signed in after the token expired, and signed out for good when asked to.")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo.

    Returns:
        The exit status: 0, or 1 after a sentence that says what was off.
    """
    parser = argparse.ArgumentParser(
        prog="nightporter demo",
        description="A demo provider, a sample app, and Nightporter between them. Loopback only.",
    )
    parser.add_argument("--port", type=_port, help=f"where to open it (default: {PORT}, or any free one)")
    parser.add_argument("--headless", action="store_true", help="sign in by itself, also with a terminal")
    parser.add_argument(
        "--life-s",
        type=_life,
        default=ACCESS_LIFE_S,
        metavar="SECONDS",
        help=f"life of an access token (default: {ACCESS_LIFE_S})",
    )
    parser.add_argument(
        "--store",
        default="",
        metavar="URL",
        help="sessions in this Redis (redis://host:6379/0), for two proxies behind a tiny balancer",
    )
    options = parser.parse_args(argv)
    if options.store and not is_redis(options.store):
        parser.error("--store takes a Redis: redis://, rediss://, redis+sentinel:// or redis+cluster://")
    alone = options.headless or not (sys.stdin.isatty() and sys.stdout.isatty())
    signals = _Signals()
    with signals.handled():
        return _run(options.port, options.life_s, options.store, alone, signals)


def _run(port: int | None, life_s: int, store: str, alone: bool, signals: _Signals) -> int:
    """Set everything up, wait or walk, and leave nothing behind but the logs of a failure."""
    home = Path(tempfile.mkdtemp(prefix="nightporter-demo-"))
    house: House | None = None
    status, keep = 1, False
    try:
        house = House(choose_ports(port, two=bool(store)), life_s, home, store)
        house.start()
        if alone:
            status = _play_the_person(house, life_s)
            keep = status != 0
        else:
            _wait_for_a_person(house, life_s)
    except (DemoFailed, Lost) as error:
        print(f"\nThe demo cannot go on. {error}", file=sys.stderr)
        keep = house is not None
    except _Interrupted:
        print("\nInterrupted before the end." if alone else "\nStopping the demo.", flush=True)
        status = 130 if alone else 0
    finally:
        signals.end()
        if house is not None:
            house.stop()
        if keep:
            print(f"The logs are in {home}", file=sys.stderr)
        else:
            shutil.rmtree(home, ignore_errors=True)
    return status


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 65536:
        raise argparse.ArgumentTypeError("a port is a number from 1 to 65535")
    return port


def _life(text: str) -> int:
    life_s = int(text)
    if life_s < MIN_LIFE_S:
        raise argparse.ArgumentTypeError(f"at least {MIN_LIFE_S} seconds")
    return life_s


if __name__ == "__main__":
    sys.exit(main())
