"""A tiny round-robin in front of the demo's two proxies: one connection here, the next one there.

    python -m proxy.demo.balancer --port 8080 --to 8084 8085

A proxy that is away is passed over. It reads nothing of what passes: any real balancer will do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
from collections.abc import Iterator, Sequence

CHUNK_BYTES = 65_536


class Balancer:
    """Passes connections on to the next proxy in turn.

    Args:
        ports: of the proxies, on the loopback interface.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = list(ports)
        self._turns: Iterator[int] = itertools.cycle(range(len(self._ports)))

    async def serve(self, port: int) -> None:
        """Listen until cancelled."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", port)
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            first = next(self._turns)
            for port in self._ports[first:] + self._ports[:first]:
                try:
                    onward = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    continue
                with contextlib.closing(onward[1]):
                    await asyncio.gather(_carry(reader, onward[1]), _carry(onward[0], writer))
                return


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes, and then that nothing more will."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--to", type=int, nargs="+", required=True)
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(Balancer(options.to).serve(options.port))


if __name__ == "__main__":
    main()
