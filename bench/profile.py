"""Where the microseconds of a warm request go: `make profile`, or ``python -m bench.profile [COUNT]``.

First the Python of one exchange, stage by stage: the real parts, joined as in the product, between
transports that only take bytes. Then, with nginx and wrk at hand, the same request through the
running product, split into user and kernel time by the kernel's own account.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any, cast

import uvloop

from bench.machine import cpu_split_s
from bench.peers.nightporter import sidecar
from bench.stage import stage
from bench.wrk import script, wrk
from proxy import wiring
from proxy.app import Parts, join, open_base
from proxy.config import load
from proxy.core.session import Identity, Tokens
from proxy.shell.done import Done
from proxy.shell.downstream import Downstream
from proxy.shell.server import Server
from proxy.shell.serving import Serving
from proxy.shell.telemetry import Telemetry
from proxy.wire.head import RequestHead
from proxy.wire.rewrite import request_bytes, response_bytes

HEAD = (
    b"GET /item/%d?q=%d HTTP/1.1\r\nHost: app.example.com\r\nConnection: keep-alive\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    b"Accept-Language: en-GB,en;q=0.8\r\nAccept-Encoding: gzip, deflate, br\r\n"
    b"Sec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Dest: empty\r\n"
    b"Referer: http://app.example.com/page\r\nDNT: 1\r\nPragma: no-cache\r\nCookie: theme=dark; %s; lang=en\r\n\r\n"
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 1024\r\nConnection: keep-alive\r\n\r\n" + b"x" * 1024
)


class Sink:
    """A transport that takes bytes and counts them."""

    def __init__(self) -> None:
        self.taken = 0

    def write(self, data: bytes) -> None:
        self.taken += len(data)

    def writelines(self, data: list[bytes]) -> None:
        self.taken += sum(map(len, data))

    def get_extra_info(self, name: str) -> Any:
        return ("192.0.2.1", 1) if name == "peername" else None

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...


async def parts() -> tuple[Parts, bytes]:
    """The product's parts, and the Cookie pair of a session."""
    settings = load(
        env={},
        toml={
            "issuer": "http://127.0.0.1:1",
            "client_id": "bench",
            "client_secret": "bench",
            "upstream": "http://127.0.0.1:1",
            "public_url": "https://app.example.com",
            "store": "memory:",
        },
    )
    joined = join(settings, await open_base(settings))
    now = joined.base.time.now()
    tokens = Tokens("at", "rt", "", "openid", now, now + 36_000, "http://127.0.0.1:1", "bench")
    who = Identity("http://127.0.0.1:1", "ada", email="ada@example.com", groups=("staff",), groups_at=now)
    line = await joined.register.begin(joined.origins.main, tokens, who, provider="generic", replaces=None)
    return joined, line.partition(b";")[0]


def timed(work: Callable[[int], object], count: int) -> float:
    """Microseconds of CPU of one call: the least of five rounds."""
    best = float("inf")
    for turn in range(5):
        begin = process_time()
        for n in range(count):
            work(turn * count + n)
        best = min(best, process_time() - begin)
    return best / count * 1e6


async def stages(count: int) -> dict[str, float]:
    """Microseconds per stage, and of the whole exchange."""
    joined, cookie = await parts()
    settings = joined.settings
    policy = wiring.header_policy(settings)
    with open(os.devnull, "w") as nowhere:  # noqa: ASYNC230
        telemetry = Telemetry(nowhere.write)
        server = Server(
            Serving(joined.front, policy, upstreams=wiring.upstreams_of(settings, policy)),
            on_done=telemetry.request,
        )
        site = server.site
        assert site.upstreams is not None
        pool = site.upstreams.default
        down = Downstream(site)
        down.connection_made(cast(asyncio.Transport, Sink()))
        up = pool._protocol()
        up.connection_made(cast(asyncio.Transport, Sink()))
        pool._idle[up] = None

        def exchange(n: int) -> None:
            down.data_received(HEAD % (n, n, cookie))
            up.data_received(ANSWER)

        first = site.request_heads.read((HEAD % (0, 0, cookie))[:-4])
        await cast(Any, joined.front.admit(first, down.peer))
        exchange(0)
        assert down.transport.taken > 1024  # type: ignore[attr-defined]
        head: RequestHead = site.request_heads.read((HEAD % (0, 0, cookie))[:-4])
        verdict = cast(Any, joined.front.admit(head, down.peer))
        answer = site.response_heads.read(ANSWER.partition(b"\r\n\r\n")[0], b"GET")
        raws = [(HEAD % (n, n, cookie))[:-4] for n in range(count)]
        raw_answer = ANSWER.partition(b"\r\n\r\n")[0]
        block = down.forwarded_block(head)
        head.request_id = b"0123456789abcdef01"

        def report(_: int) -> None:
            telemetry.request(
                Done(
                    b"0123456789abcdef01",
                    b"GET",
                    b"/item/1",
                    200,
                    "session",
                    1.0,
                    0.001,
                    "192.0.2.1",
                    0.001,
                    0,
                    1024,
                )
            )

        gc.collect()
        gc.freeze()
        return {
            "read the request's head": timed(lambda n: site.request_heads.read(raws[n % count]), count),
            "decide (session, route)": timed(lambda n: joined.front.admit(head, down.peer), count),
            "write the request's head": timed(
                lambda n: request_bytes(head, block, verdict.identity, b"app", False), count
            ),
            "read the response's head": timed(lambda n: site.response_heads.read(raw_answer, b"GET"), count),
            "write the response's head": timed(
                lambda n: response_bytes(
                    answer, verdict, chunked=False, close=False, keep_alive=False, date=b""
                ),
                count,
            ),
            "count and log": timed(report, count),
            "the whole exchange": timed(exchange, count),
        }


def through_the_kernel() -> None:
    """User and kernel time of the running product, per request."""
    with tempfile.TemporaryDirectory(prefix="nightporter-profile-") as home, stage(Path(home)) as made:
        each = sidecar(made, store="memory:")
        each.sign_in()
        load = script(each.cookie, "browser", "")
        wrk(each.port, load, 1)
        user, kernel = cpu_split_s(*each.pids)
        count = wrk(each.port, load, 4).requests
        after = cpu_split_s(*each.pids)
        print(f"through the kernel: user {(after[0] - user) / count * 1e6:.1f} µs, ", end="")
        print(f"kernel {(after[1] - kernel) / count * 1e6:.1f} µs a request")


def main(count: int = 20_000) -> int:
    """Measure and print."""
    found = uvloop.run(stages(count))
    whole = found.pop("the whole exchange")
    for name, cost in found.items():
        print(f"{name:28}{cost:8.2f} µs")
    print(f"{'connections and hand-over':28}{whole - sum(found.values()):8.2f} µs")
    print(f"{'the whole exchange':28}{whole:8.2f} µs of Python")
    if shutil.which("wrk") and shutil.which("nginx"):
        through_the_kernel()
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
