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
from proxy.shell import relay, telemetry, upload
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


def _on_each_socket(option: int, value: int) -> None:
    for side in (Client, Upstream):
        side.connection_made = _then_set(side.connection_made, option, value)


def _then_set(made: Callable[..., None], option: int, value: int) -> Any:
    def connection_made(self: Any, transport: asyncio.BaseTransport) -> None:
        made(self, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, option, value)

    return connection_made


def _each_line_at_once() -> None:
    telemetry.LINES_AT_ONCE = 1


def _no_blocks() -> None:
    Memo.look = lambda self, block: None
    Memo.keep = lambda self, block, made: None


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
    "without TCP_NODELAY": partial(_on_each_socket, socket.TCP_NODELAY, 0),
    "with TCP_QUICKACK": partial(_on_each_socket, socket.TCP_QUICKACK, 1),
    "each log line written at once": _each_line_at_once,
    "no whole blocks of lines remembered": _no_blocks,
}


if __name__ == "__main__":
    VARIANTS[sys.argv[1]]()
    sys.exit(main(["serve"]))
