"""A connection for one call, as httpcore2's network interface wants it.

Its own, because of one promise that no ready-made stream gives: `last_check` runs in the same
loop turn as the first write (AnyIO's stream yields to the loop in between), and whether that write
took place is known.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

import httpcore2

from proxy.errors import NotSent


class OneCallStream(httpcore2.AsyncNetworkStream):
    """An open connection.

    Attributes:
        last_check: asked right before the first byte; False sends nothing.
        began: a byte may have left.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.last_check: Callable[[], bool] | None = None
        self.began = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there; b"" at the end."""
        try:
            async with asyncio.timeout(timeout):
                return await self._reader.read(max_bytes)
        except TimeoutError as error:
            raise httpcore2.ReadTimeout from error
        except OSError as error:  # ssl.SSLError is one
            raise httpcore2.ReadError(type(error).__name__) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of it.

        Raises:
            NotSent: the other side had closed before anything was written, or `last_check` said no.
        """
        if not self.began:
            if self._reader.at_eof() or self._reader.exception() or self._writer.is_closing():
                raise NotSent("the OP closed the connection before the call")
            if self.last_check is not None and not self.last_check():
                raise NotSent("the lease is not ours any more")
            self.began = True
        try:
            async with asyncio.timeout(timeout):
                self._writer.write(buffer)
                await self._writer.drain()
        except TimeoutError as error:
            raise httpcore2.WriteTimeout from error
        except OSError as error:
            raise httpcore2.WriteError(type(error).__name__) from error

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> OneCallStream:
        """Secure the connection (behind a tunnel of an egress proxy); the caller limits the time."""
        await self._writer.start_tls(ssl_context, server_hostname=server_hostname)
        return self

    async def aclose(self) -> None:
        """Close at once: nobody waits for a TLS farewell."""
        self._writer.transport.abort()

    def get_extra_info(self, info: str) -> Any:
        """Nothing that httpcore2 asks for is needed here."""
        return self._writer.get_extra_info(info)


async def open_stream(url: str, tls: ssl.SSLContext, proxy: str) -> OneCallStream:
    """Connect to the host of `url`, TLS included, through an egress proxy if there is one.

    Raises:
        NotSent: the egress proxy refuses. OSError: no connection, no TLS.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    if not proxy:
        return await _dial(host, port, tls if secure else None)
    via = urlsplit(proxy)
    via_tls = via.scheme == "https"
    stream = await _dial(via.hostname or "", via.port or (443 if via_tls else 80), tls if via_tls else None)
    try:
        await _tunnel(stream, proxy, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        if secure:
            await stream.start_tls(tls, host)
    except BaseException:
        await stream.aclose()
        raise
    # What went to the egress proxy is no byte of the request.
    stream.began = False
    return stream


async def _dial(host: str, port: int, tls: ssl.SSLContext | None) -> OneCallStream:
    reader, writer = await asyncio.open_connection(
        host, port, ssl=tls, server_hostname=host if tls is not None else None
    )
    return OneCallStream(reader, writer)


async def _tunnel(stream: OneCallStream, proxy: str, authority: str) -> None:
    """CONNECT (RFC 9110 §9.3.6)."""
    url = httpcore2.URL(proxy)
    connection = httpcore2.AsyncHTTP11Connection(url.origin, stream)
    fields: dict[str | bytes, str | bytes] = {"Host": authority}
    user, password = urlsplit(proxy).username, urlsplit(proxy).password
    if user is not None:
        pair = f"{unquote(user)}:{unquote(password or '')}"
        fields["Proxy-Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    target = httpcore2.URL(scheme=url.scheme, host=url.host, port=url.port, target=authority.encode())
    response = await connection.handle_async_request(httpcore2.Request("CONNECT", target, headers=fields))
    if not 200 <= response.status < 300:
        raise NotSent(f"the egress proxy answered {response.status}")
