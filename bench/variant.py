"""The product with one thing changed: ``python -m bench.variant NAME``, settings as ever in the environment.

For `settings.py`, which says what each choice of the runtime is worth.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import uvloop
from msgspec.structs import replace

from proxy import wiring
from proxy.__main__ import main
from proxy.shell import relay, server, telemetry, upload
from proxy.shell.client import Client
from proxy.shell.upstream import Upstream
from proxy.wire.memo import Memo


def _standard_loop() -> None:
    uvloop.run = asyncio.run


def _not_frozen() -> None:
    gc.freeze = lambda: None


def _threshold(count: int) -> None:
    gc.set_threshold(count, 10, 10)


def _write_buffer(size: int) -> None:
    limits_of = wiring.limits_of
    wiring.limits_of = lambda settings: replace(limits_of(settings), write_buffer_bytes=size)


def _join_below(size: int) -> None:
    relay.JOIN_BELOW = upload.JOIN_BELOW = size


def _on_each_socket(value: int, level: int, *options: int) -> None:
    for side in (Client, Upstream):
        side.connection_made = _then_set(side.connection_made, value, level, options)


def _then_set(made: Callable[..., None], value: int, level: int, options: tuple[int, ...]) -> Any:
    def connection_made(self: Any, transport: asyncio.BaseTransport) -> None:
        made(self, transport)
        for option in options:
            transport.get_extra_info("socket").setsockopt(level, option, value)

    return connection_made


def _buffers(size: int) -> None:
    """Of the kernel, either way, instead of those that grow by themselves."""
    _on_each_socket(size, socket.SOL_SOCKET, socket.SO_SNDBUF, socket.SO_RCVBUF)


def _backlog(size: int) -> None:
    server.BACKLOG = size


def _each_line_at_once() -> None:
    telemetry.LINES_AT_ONCE = 1


def _no_blocks() -> None:
    made = Memo.__init__

    def resting(self: Memo[Any], max_bytes: int = 0) -> None:
        made(self, max_bytes)
        self.look = lambda block: None

    Memo.__init__ = resting
    Memo.keep = lambda self, block, made: False


KIB = 1_024

VARIANTS: dict[str, Callable[[], None]] = {
    "as shipped": lambda: None,
    "standard event loop": _standard_loop,
    "garbage: not frozen after the start": _not_frozen,
    "garbage: looked for 15 times less often": partial(_threshold, 10_000),
    "garbage: never looked for": gc.disable,
    "write buffer 16 KiB": partial(_write_buffer, 16 * KIB),
    "write buffer 256 KiB": partial(_write_buffer, 256 * KIB),
    "write buffer 1 MiB": partial(_write_buffer, KIB * KIB),
    "joined below 4 KiB": partial(_join_below, 4 * KIB),
    "joined below 256 KiB": partial(_join_below, 256 * KIB),
    "without TCP_NODELAY": partial(_on_each_socket, 0, socket.IPPROTO_TCP, socket.TCP_NODELAY),
    "with TCP_QUICKACK": partial(_on_each_socket, 1, socket.IPPROTO_TCP, socket.TCP_QUICKACK),
    "socket buffers of 64 KiB": partial(_buffers, 64 * KIB),
    "socket buffers of 1 MiB": partial(_buffers, KIB * KIB),
    "each log line written at once": _each_line_at_once,
    "no whole blocks of lines remembered": _no_blocks,
}

BACKLOGS: dict[str, Callable[[], None]] = {
    f"backlog {size:,}": partial(_backlog, size) for size in (128, 1_024, server.BACKLOG)
}
"""They cost no time: what differs is who gets in while the loop is busy (`settings.py`)."""


if __name__ == "__main__":
    (VARIANTS | BACKLOGS)[sys.argv[1]]()
    sys.exit(main(["serve"]))
