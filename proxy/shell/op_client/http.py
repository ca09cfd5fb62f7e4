"""Plain requests to the OP: bounded in time and size, no redirects, no proxies of the environment."""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from proxy.core.token_reply import RawReply
from proxy.errors import NotSent, OPUnavailable, ReplyLost
from proxy.shell.op_client.config import OPConfig

if TYPE_CHECKING:
    import httpx2


class Http:
    """One pooled client for everything but token calls (those have a connection each).

    Args:
        config: of the provider.
    """

    def __init__(self, config: OPConfig) -> None:
        self._config = config
        self._client: httpx2.AsyncClient | None = None
        self._tls: ssl.SSLContext | None = None

    def tls(self) -> ssl.SSLContext:
        """Verified TLS, with the configured CAs or the system's."""
        if self._tls is None:
            try:
                self._tls = ssl.create_default_context(cafile=self._config.ca_file or None)
            except OSError as error:
                raise NotSent(f"ca_file cannot be used: {type(error).__name__}") from None
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> RawReply:
        """GET an address; see `_send`. Tried once more if a kept connection had gone stale."""
        try:
            return await self._send("GET", url, headers or {}, None)
        except _Stale:
            return await self._send("GET", url, headers or {}, None)

    async def post(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str], *, timeout_s: float | None = None
    ) -> RawReply:
        """POST a form; see `_send`."""
        return await self._send("POST", url, headers, form, timeout_s)

    async def delete(self, url: str, content: bytes, headers: Mapping[str, str]) -> RawReply:
        """DELETE with a body; see `_send`."""
        return await self._send("DELETE", url, headers, None, content=content)

    async def close(self) -> None:
        """Close idle connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        form: Mapping[str, str] | None,
        timeout_s: float | None = None,
        *,
        content: bytes | None = None,
    ) -> RawReply:
        """Send one request and read its whole answer.

        Raises:
            NotSent: no connection.
            ReplyLost: broken off, too slow, too long.
        """
        import httpx2

        client = self._client
        if client is None:
            # Not before the first call: it brings urllib and half of email along (4 % of a start).
            from http.cookiejar import CookieJar, DefaultCookiePolicy

            client = self._client = httpx2.AsyncClient(
                verify=self.tls(),
                trust_env=False,
                follow_redirects=False,
                # An OP's cookies would tie one person's calls to another's.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                proxy=self._config.proxy or None,
                timeout=httpx2.Timeout(self._config.timeout_s, connect=self._config.connect_timeout_s),
                limits=httpx2.Limits(max_connections=32, max_keepalive_connections=4, keepalive_expiry=15.0),
            )
        fields = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "nightporter",
            **headers,
        }
        longest = self._config.max_answer_bytes
        try:
            async with (
                asyncio.timeout(min(timeout_s or self._config.timeout_s, self._config.timeout_s)),
                client.stream(method, url, headers=fields, data=form, content=content) as response,
            ):
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > longest:
                        raise ReplyLost("the OP's answer is longer than allowed")
                found = {name.lower(): value for name, value in response.headers.items()}
                return RawReply(response.status_code, found, decoded(bytes(body), found, longest))
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError) as error:
            raise NotSent(f"no connection to the OP: {type(error).__name__}") from None
        except TimeoutError:
            raise ReplyLost("the OP did not answer in time") from None
        except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError) as error:
            raise _Stale(f"the OP's answer broke off: {type(error).__name__}") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, UnicodeError) as error:
            raise ReplyLost(f"the OP's answer broke off: {type(error).__name__}") from None


class _Stale(ReplyLost):
    """The connection ended; it may have been kept for too long."""


def decoded(body: bytes, headers: Mapping[str, str], longest: int) -> bytes:
    """A body without its content coding. None was asked for, but a gateway that compresses all the
    same must not cost a rotated token; a bomb stops at `longest`.

    Raises:
        ReplyLost: it cannot be read.
    """
    coding = headers.get("content-encoding", "").strip().lower()
    if coding in ("", "identity") or not body:
        return body
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise ReplyLost("the OP's answer has a coding that nobody asked for")
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        plain = unpack.decompress(body, longest + 1)
    except zlib.error:
        raise ReplyLost("the OP's answer cannot be decompressed") from None
    if len(plain) > longest or not unpack.eof:
        raise ReplyLost("the OP's answer is longer than allowed or broke off")
    return plain


def unusable(reply: RawReply, what: str) -> OPUnavailable:
    """An answer that is no use, as an error that says so."""
    kind = reply.headers.get("content-type", "").partition(";")[0][:60]
    return OPUnavailable(f"{what} answered {reply.status} {kind!r}")
