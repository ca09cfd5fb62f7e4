"""`FaultProxy`: between one client and one Redis, on loopback, and it understands what passes.

It can do to a single command, or to its reply, what a network and a server can do to it::

    with FaultProxy(redis.port) as proxy:                 # the product gets redis.url_at(proxy.port)
        rule = proxy.next("commit", lose_reply=True)      # carried out, then the connection breaks
        rule = proxy.next("acquire", hold=gate)           # held until gate.open(), before Redis gets it
        rule = proxy.next("commit", hold_reply=gate)      # carried out, its reply held
        rule = proxy.next("renew", error="LOADING Redis is loading the dataset in memory")
        proxy.next("commit", nth=3, cut=True)             # the third one never arrives
        rule.wait()                                       # it has happened

A command is named by its word (`"PUBLISH"`), or, for a script of the store's, by the name of its file
(`"commit"`). For everything at once: `refuse()` and `accept()` (nobody listens), `silence()` and `speak()` (connections
stand, nothing moves: a partition), `fail("OOM …")` and `heal()`, `slow(seconds)`. One proxy for each
replica partitions one replica.

`ahead_s` moves the store's time for everybody who comes through here: the scripts take
their time as an argument and use the server's only if it is empty, so it is filled in. Leases and
tokens then age without waiting.

Runs in a thread of its own; all methods may be called from the test's.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.op.scripted import Gate

STORE = Path(__file__).parents[2] / "proxy" / "shell" / "store" / "redis"


@cache
def script_names() -> dict[str, str]:
    """Digest → file name, of the store's scripts."""
    from proxy.shell.store.redis.scripts import script

    names = [path.stem for path in sorted((STORE / "lua").glob("*.lua")) if path.stem != "common"]
    return {script(name).digest: name for name in names}


@dataclass
class Command:
    """A command on its way.

    Attributes:
        name: of the script that it runs, else its word in upper case.
        args: its parts, the word included.
        at: monotonic seconds of its arrival.
    """

    name: str
    args: list[bytes]
    at: float = field(default_factory=time.monotonic)

    @property
    def key(self) -> str:
        """The key that a script is about."""
        return self.args[3].decode() if len(self.args) > 3 else ""


class Rule:
    """What happens to one command. Made by `FaultProxy.next`.

    Attributes:
        command: the one that it happened to; None = not yet.
    """

    def __init__(self, matches: Callable[[Command], bool], nth: int) -> None:
        self.matches = matches
        self.left = nth
        self.lose_reply = self.cut = False
        self.error = ""
        self.hold: Gate | None = None
        self.hold_reply: Gate | None = None
        self.command: Command | None = None
        self._happened = threading.Event()

    @property
    def happened(self) -> bool:
        return self._happened.is_set()

    def wait(self, limit_s: float = 30.0) -> Command:
        """Wait until it has happened (for a lost or held reply: Redis has carried the command out)."""
        assert self._happened.wait(limit_s), "no such command came"
        assert self.command is not None
        return self.command

    def happens(self) -> None:
        self._happened.set()


@dataclass
class _Expected:
    """A reply that the client waits for, in order."""

    command: Command
    rule: Rule | None = None
    ready: bytes | None = None


class FaultProxy:
    """See the module's docstring. Context manager.

    Args:
        port: where Redis listens.
        tls: for a Redis behind TLS: how to reach it; the client's side is plain.

    Attributes:
        port: where this listens; stays the same from `refuse` to `accept`.
        ahead_s: how far the store's time is ahead of the machine's.
        seen: every command that came, in order.
        connections: how many were accepted.
    """

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._to = port
        self._tls = tls
        self.port = 0
        self.ahead_s = 0.0
        self.seen: list[Command] = []
        self.connections = 0
        self._rules: list[Rule] = []
        self._failure = ""
        self._slow_s = 0.0
        self._spoken = asyncio.Event()
        self._flowing = asyncio.Event()
        self._lock = threading.Lock()
        self._pipes: set[_Pipe] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    # -- life --

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self._call(self._set(self._flowing, True))
        self.speak()
        self.accept()
        return self

    def __exit__(self, *_: object) -> None:
        self.speak()
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # -- one command --

    def next(
        self,
        name: str | Callable[[Command], bool] = "",
        *,
        nth: int = 1,
        lose_reply: bool = False,
        cut: bool = False,
        error: str = "",
        hold: Gate | None = None,
        hold_reply: Gate | None = None,
    ) -> Rule:
        """Do this to the `nth` command from now on that is called `name` ("" = whatever comes).

        Args:
            lose_reply: Redis carries it out; then the connection breaks.
            cut: the connection breaks before Redis gets it.
            error: Redis does not get it; the client gets this error.
            hold: wait here before Redis gets it (what follows on the connection waits, too).
            hold_reply: Redis carries it out; the reply waits here.
        """
        matches = name if callable(name) else (lambda command: name in ("", command.name))
        rule = Rule(matches, nth)
        rule.lose_reply, rule.cut, rule.error = lose_reply, cut, error
        rule.hold, rule.hold_reply = hold, hold_reply
        with self._lock:
            self._rules.append(rule)
        return rule

    def forget(self) -> None:
        """Drop all rules that have not happened, and what was seen; all is well again, but the time stays."""
        with self._lock:
            self._rules.clear()
        self.seen.clear()
        self.heal()
        self.slow(0)
        self.speak()
        self.accept()

    def count(self, name: str) -> int:
        """How many commands of this name have come."""
        return sum(command.name == name for command in self.seen)

    # -- everything --

    def refuse(self) -> None:
        """Listen no more, and break every connection."""
        self._call(self._close())

    def accept(self) -> None:
        """Listen (again), on the same port."""
        self._call(self._listen())

    def cut(self) -> None:
        """Break every connection; new ones are welcome."""
        self._call(self._drop())

    def silence(self) -> None:
        """From now on nothing passes, either way; connections are accepted and stand."""
        self._call(self._set(self._spoken, False))

    def speak(self) -> None:
        """Undo `silence`; what was sent meanwhile arrives."""
        self._call(self._set(self._spoken, True))

    @contextlib.contextmanager
    def between_commands(self, limit_s: float = 0.5) -> Iterator[None]:
        """Inside, nothing is under way, as far as no rule holds it back; commands that come wait."""
        self._call(self._set(self._flowing, False))
        end, pause = time.monotonic() + limit_s, threading.Event()
        while any(pipe.pending for pipe in list(self._pipes)) and time.monotonic() < end:
            pause.wait(0.001)
        try:
            yield
        finally:
            self._call(self._set(self._flowing, True))

    def fail(self, error: str) -> None:
        """Answer every command with this error, without asking Redis."""
        self._failure = error

    def heal(self) -> None:
        self._failure = ""

    def slow(self, seconds: float) -> None:
        """Let every command wait this long before Redis gets it."""
        self._slow_s = seconds

    # -- inside --

    def _call(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)  # type: ignore[arg-type]

    async def _set(self, event: asyncio.Event, on: bool) -> None:
        event.set() if on else event.clear()

    async def _listen(self) -> None:
        if self._server is not None:
            return
        end = time.monotonic() + 10
        while True:
            try:
                listener = socket.create_server(("127.0.0.1", self.port or _free_port()), backlog=256)
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.05)
        self.port = listener.getsockname()[1]
        self._server = await asyncio.start_server(self._connected, sock=listener)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._drop()

    async def _drop(self) -> None:
        for pipe in list(self._pipes):
            pipe.break_off()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        pipe = _Pipe(self, reader, writer)
        self._pipes.add(pipe)
        try:
            await pipe.run(self._to, self._tls)
        finally:
            self._pipes.discard(pipe)

    def rule_for(self, command: Command) -> Rule | None:
        with self._lock:
            for rule in self._rules:
                if rule.matches(command):
                    rule.left -= 1
                    if rule.left > 0:
                        continue
                    self._rules.remove(rule)
                    rule.command = command
                    return rule
        return None

    def rearm(self, rule: Rule) -> None:
        """The server did not know the script: the command comes again, whole."""
        with self._lock:
            rule.left = 1
            self._rules.insert(0, rule)


class _Pipe:
    """One client's connection and ours to Redis behind it."""

    def __init__(self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = reader, writer
        self._expected: deque[_Expected] = deque()
        self._wake = asyncio.Event()
        self._subscribed = False
        self._broken = False
        self._redis_writer: asyncio.StreamWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self, port: int, tls: ssl.SSLContext | None) -> None:
        try:
            if not self._proxy._spoken.is_set():
                await self._proxy._spoken.wait()
            reader, self._redis_writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=tls, server_hostname="127.0.0.1" if tls else None
            )
            self._tasks = [
                asyncio.ensure_future(self._commands(self._redis_writer)),
                asyncio.ensure_future(self._replies(reader)),
            ]
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self.break_off()
            for task in self._tasks:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                    await task

    @property
    def pending(self) -> int:
        """Replies that are under way and that no rule holds back."""
        return sum(each.rule is None or each.rule.hold_reply is None for each in list(self._expected))

    def break_off(self) -> None:
        self._broken = True
        self._client[1].transport.abort()
        if self._redis_writer is not None:
            self._redis_writer.transport.abort()
        for task in self._tasks:
            task.cancel()

    async def _commands(self, redis_writer: asyncio.StreamWriter) -> None:
        while True:
            raw, args = await _read_command(self._client[0])
            command = Command(_name(args), args)
            proxy = self._proxy
            proxy.seen.append(command)
            rule = proxy.rule_for(command)
            expected = _Expected(command, rule)
            if proxy._slow_s:
                await asyncio.sleep(proxy._slow_s)
            await proxy._spoken.wait()
            await proxy._flowing.wait()
            if rule is not None and rule.hold is not None:
                rule.happens()
                await rule.hold.pass_through()
            if rule is not None and rule.cut:
                self.break_off()
                rule.happens()
                return
            failure = rule.error if rule is not None and rule.error else proxy._failure
            if failure:
                expected.ready = f"-{failure}\r\n".encode()
                self._expected.append(expected)
                if rule is not None:
                    rule.happens()
                if len(self._expected) == 1:
                    self._answer_ready()
                continue
            if command.args[0].upper() in (b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE"):
                self._subscribed = True
            self._expected.append(expected)
            redis_writer.write(self._moved(raw, command))
            await redis_writer.drain()

    def _moved(self, raw: bytes, command: Command) -> bytes:
        """The command, with the time of its script filled in where it is the server's own."""
        ahead_s = self._proxy.ahead_s
        args = command.args
        if not ahead_s or args[0].upper() not in (b"EVAL", b"EVALSHA"):
            return raw
        at = 3 + int(args[2])
        if at >= len(args) or args[at] != b"":
            return raw
        moved = [*args[:at], repr(time.time() + ahead_s).encode(), *args[at + 1 :]]
        return b"*%d\r\n" % len(moved) + b"".join(b"$%d\r\n%s\r\n" % (len(each), each) for each in moved)

    def _answer_ready(self) -> None:
        while self._expected and self._expected[0].ready is not None:
            self._client[1].write(self._expected.popleft().ready or b"")

    async def _replies(self, reader: asyncio.StreamReader) -> None:
        while True:
            raw = await _read_reply(reader)
            await self._proxy._spoken.wait()
            if raw[:1] == b">" or (self._subscribed and raw[:1] == b"*"):
                if self._expected and self._expected[0].command.args[0].upper().endswith(b"SUBSCRIBE"):
                    self._expected.popleft()
                self._client[1].write(raw)
                continue
            expected = self._expected.popleft() if self._expected else None
            rule = expected.rule if expected is not None else None
            if rule is not None and raw.startswith(b"-NOSCRIPT"):
                self._proxy.rearm(rule)
                rule = None
            if rule is not None:
                rule.happens()
                if rule.hold_reply is not None:
                    await rule.hold_reply.pass_through()
                if rule.lose_reply:
                    self.break_off()
                    return
            self._client[1].write(raw)
            self._answer_ready()
            await self._client[1].drain()


def _name(args: Sequence[bytes]) -> str:
    word = args[0].decode().upper()
    if word == "EVALSHA":
        return script_names().get(args[1].decode(), word)
    if word == "EVAL":
        digest = hashlib.sha1(args[1], usedforsecurity=False).hexdigest()
        return script_names().get(digest, word)
    return word


def _free_port() -> int:
    from tests.ports import free_port

    return free_port()


async def _read_command(reader: asyncio.StreamReader) -> tuple[bytes, list[bytes]]:
    """One command: an array of bulk strings; as it came, and its parts."""
    head = await reader.readuntil(b"\r\n")
    assert head[:1] == b"*", "a client of ours speaks RESP"
    raw, args = bytearray(head), []
    for _ in range(int(head[1:])):
        size_line = await reader.readuntil(b"\r\n")
        part = await reader.readexactly(int(size_line[1:]) + 2)
        raw += size_line + part
        args.append(part[:-2])
    return bytes(raw), args


async def _read_reply(reader: asyncio.StreamReader) -> bytes:
    """One whole reply of RESP 2 or 3."""
    line = await reader.readuntil(b"\r\n")
    kind = line[:1]
    if kind in b"$=!":
        size = int(line[1:])
        return line if size < 0 else line + await reader.readexactly(size + 2)
    if kind in b"*~>%|":
        count = max(0, int(line[1:])) * (2 if kind in b"%|" else 1)
        parts = [line]
        parts.extend([await _read_reply(reader) for _ in range(count)])
        if kind == b"|":  # attributes come before the reply that they are about
            parts.append(await _read_reply(reader))
        return b"".join(parts)
    return line
