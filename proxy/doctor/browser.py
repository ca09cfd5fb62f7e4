"""Brings the address that a person returns to: from a loopback listener, or pasted."""

from __future__ import annotations

import asyncio
import sys
from urllib.parse import urlsplit

from proxy.config.grammar import is_loopback

WAIT_S = 600.0

_PAGE = b"The doctor has what it needs. You can close this window.\n"


async def bring(url: str, redirect_uri: str) -> str:
    """Show `url`, wait for the person, return the address they came back to."""
    print(f"\nOpen this address in a browser and sign in:\n\n  {url}\n", file=sys.stderr, flush=True)
    parts = urlsplit(redirect_uri)
    if is_loopback(parts.hostname or "") and parts.scheme == "http":
        print(f"Waiting for you to come back to {redirect_uri} …", file=sys.stderr, flush=True)
        try:
            return await _listen(parts.hostname or "127.0.0.1", parts.port or 80, parts.path)
        except OSError:
            pass  # the sidecar itself listens there: its page shows the address
    print(
        f"You come back to {redirect_uri}?…, to a page that says that the link is no good; that is as "
        "it should be.\nPaste the whole address of that page here and press Return:",
        file=sys.stderr,
        flush=True,
    )
    loop = asyncio.get_running_loop()
    return await asyncio.wait_for(loop.run_in_executor(None, sys.stdin.readline), WAIT_S)


async def _listen(host: str, port: int, path: str) -> str:
    came: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), 10.0)
            words = line.decode("latin-1").split(" ")
            good = len(words) == 3 and words[0] == "GET" and urlsplit(words[1]).path == path
            status = b"200 OK" if good else b"404 Not Found"
            writer.write(
                b"HTTP/1.1 %s\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\n"
                b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(_PAGE), _PAGE)
            )
            await writer.drain()
            if good and not came.done():
                came.set_result(words[1])
        except (OSError, TimeoutError, ValueError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, port)
    try:
        return await asyncio.wait_for(came, WAIT_S)
    finally:
        server.close()
