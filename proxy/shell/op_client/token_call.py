"""One refresh on a connection of its own.

Fresh, because a kept-alive connection may be half-closed, and then every failure is ambiguous. Opened
*before* the lease is asked for, so that the lease covers the call alone. `last_check` is the last
thing that happens before the first byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from proxy.core.token_reply import RawReply
from proxy.errors import NotSent, ReplyLost
from proxy.shell.op_client.config import OPConfig
from proxy.shell.op_client.http import Http

READ_S = 300.0
"""How long a reply is read for at most; the renewal decides much earlier what it makes of silence."""


class TokenCall:
    """A prepared call. `connect` makes one.

    Args:
        connection: httpcore2's, on an open stream.
        url: token endpoint.
        sign: adds the client's authentication to a form.
        max_bytes: longest answer.
    """

    def __init__(
        self,
        connection: Any,
        url: str,
        sign: Callable[[dict[str, str]], tuple[dict[str, str], dict[str, str]]],
        max_bytes: int,
    ) -> None:
        self._connection = connection
        self._url = url
        self._sign = sign
        self._max_bytes = max_bytes
        self._task: asyncio.Task[RawReply] | None = None

    async def refresh(
        self,
        refresh_token: str,
        *,
        scope: str = "",
        extra: Mapping[str, str] | None = None,
        last_check: Callable[[], bool],
    ) -> RawReply:
        """Send the token and read the reply.

        Raises:
            NotSent: provably no byte left, also where `last_check` said no.
            ReplyLost: bytes left and no whole reply came, or `aclose` was called meanwhile.
        """
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token, **(extra or {})}
        if scope:
            form["scope"] = scope
        form, headers = self._sign(form)
        self._task = asyncio.get_running_loop().create_task(self._exchange(form, headers, last_check))
        try:
            return await asyncio.shield(self._task)
        except asyncio.CancelledError:
            if self._task.cancelled():
                raise ReplyLost("the call was given up") from None
            self._task.cancel()
            raise

    async def aclose(self) -> None:
        """Close the connection; a call under way ends with ReplyLost."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._connection.aclose()

    async def _exchange(
        self, form: Mapping[str, str], headers: Mapping[str, str], last_check: Callable[[], bool]
    ) -> RawReply:
        import httpcore2

        began = False

        async def trace(event: str, info: dict[str, Any]) -> None:
            nonlocal began
            if event.endswith("send_request_headers.started"):
                if not last_check():
                    raise NotSent("the lease is not ours any more")
                began = True

        body = urlencode(form).encode()
        fields: dict[str | bytes, str | bytes] = {
            "Host": urlsplit(self._url).netloc,
            "Accept": "application/json",
            "User-Agent": "nightporter",
            "Content-Type": "application/x-www-form-urlencoded",
            "Content-Length": str(len(body)),
            "Connection": "close",
            **headers,
        }
        request = httpcore2.Request(
            "POST",
            self._url,
            headers=fields,
            content=body,
            extensions={"trace": trace, "timeout": {"read": READ_S, "write": 30.0}},
        )
        try:
            response = await self._connection.handle_async_request(request)
            content = bytearray()
            async for chunk in response.aiter_stream():
                content += chunk
                if len(content) > self._max_bytes:
                    raise ReplyLost("the OP's answer is longer than allowed")
        except (*_broken(), OSError) as error:
            if not began:
                raise NotSent(f"nothing was sent: {type(error).__name__}") from None
            raise ReplyLost(f"the reply broke off: {type(error).__name__}") from None
        found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        return RawReply(response.status, found, bytes(content))


async def connect(
    config: OPConfig,
    http: Http,
    url: str,
    sign: Callable[[dict[str, str]], tuple[dict[str, str], dict[str, str]]],
) -> TokenCall:
    """Open a connection to the token endpoint.

    Raises:
        NotSent: it could not be opened; nothing was said to the OP.
    """
    import httpcore2

    parts = urlsplit(url)
    host = parts.hostname or ""
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    origin = httpcore2.URL(url).origin
    try:
        async with asyncio.timeout(config.connect_timeout_s):
            if config.proxy:
                return TokenCall(_proxied(config, http), url, sign, config.max_answer_bytes)
            backend: Any = httpcore2.AnyIOBackend()
            stream: Any = await backend.connect_tcp(host, port)
            if tls:
                try:
                    stream = await stream.start_tls(http.tls(), server_hostname=host)
                except BaseException:
                    await stream.aclose()
                    raise
    except (httpcore2.NetworkError, httpcore2.TimeoutException, TimeoutError, OSError) as error:
        raise NotSent(f"no connection to the token endpoint: {type(error).__name__}") from None
    return TokenCall(httpcore2.AsyncHTTP11Connection(origin, stream), url, sign, config.max_answer_bytes)


def _broken() -> tuple[type[Exception], ...]:
    import httpcore2

    return (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException)


def _proxied(config: OPConfig, http: Http) -> Any:
    """Through an egress proxy the connection opens with the call itself."""
    import httpcore2

    return httpcore2.AsyncConnectionPool(
        ssl_context=http.tls(), proxy=httpcore2.Proxy(config.proxy), max_connections=1
    )
