"""Plain requests to the OP: bounded in time and size, no redirects, no proxies of the environment."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING

from proxy.core.token_reply import RawReply
from proxy.errors import NotSent, OPUnavailable, ReplyLost
from proxy.shell.op_client.config import OPConfig

if TYPE_CHECKING:
    import httpx2


class Http:
    """One pooled client for everything but refreshes (those have a connection each).

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
            self._tls = ssl.create_default_context(cafile=self._config.ca_file or None)
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> RawReply:
        """GET an address; see `_send`."""
        return await self._send("GET", url, headers or {}, None)

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> RawReply:
        """POST a form; see `_send`."""
        return await self._send("POST", url, headers, form)

    async def close(self) -> None:
        """Close idle connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> RawReply:
        """Send one request and read its whole answer.

        Raises:
            NotSent: no connection.
            ReplyLost: broken off, too slow, too long.
        """
        import httpx2

        if self._client is None:
            self._client = httpx2.AsyncClient(
                verify=self.tls(),
                trust_env=False,
                follow_redirects=False,
                proxy=self._config.proxy or None,
                timeout=httpx2.Timeout(self._config.timeout_s, connect=self._config.connect_timeout_s),
                limits=httpx2.Limits(max_connections=32, max_keepalive_connections=4, keepalive_expiry=15.0),
            )
        fields = {"Accept": "application/json", "User-Agent": "nightporter", **headers}
        try:
            async with (
                asyncio.timeout(self._config.timeout_s),
                self._client.stream(method, url, headers=fields, data=form) as response,
            ):
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > self._config.max_answer_bytes:
                        raise ReplyLost("the OP's answer is longer than allowed")
                return RawReply(response.status_code, dict(response.headers.items()), bytes(body))
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            raise NotSent(f"no connection to the OP: {type(error).__name__}") from None
        except TimeoutError:
            raise ReplyLost("the OP did not answer in time") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ReplyLost(f"the OP's answer broke off: {type(error).__name__}") from None


def unusable(reply: RawReply, what: str) -> OPUnavailable:
    """An answer that is no use, as an error that says so."""
    kind = reply.headers.get("content-type", "").partition(";")[0][:60]
    return OPUnavailable(f"{what} answered {reply.status} {kind!r}")
