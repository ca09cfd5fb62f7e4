"""One call of the token endpoint on a connection of its own.

Fresh, because a kept-alive connection may be half-closed, and then every failure is ambiguous. Opened
*before* the lease is asked for, so that the lease covers the call alone. `last_check` is the last
thing that happens before the first byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from proxy.core.token_reply import RawReply
from proxy.errors import ConfigError, NotSent, OPUnavailable, ReplyLost
from proxy.shell.op_client.config import OPConfig
from proxy.shell.op_client.http import Http, decoded

if TYPE_CHECKING:
    from proxy.shell.op_client.stream import OneCallStream

READ_S = 300.0
"""How long a reply is read for at most; the renewal decides much earlier what it makes of silence."""

Sign = Callable[[dict[str, str]], tuple[dict[str, str], dict[str, str]]]


class TokenCall:
    """A prepared call, good for one request. `connect` makes one.

    Args:
        stream: open to the token endpoint.
        url: token endpoint.
        sign: adds the client's authentication to a form.
        config: of the provider.
    """

    def __init__(self, stream: OneCallStream, url: str, sign: Sign, config: OPConfig) -> None:
        self._stream = stream
        self._url = url
        self._sign = sign
        self._config = config
        self._task: asyncio.Task[RawReply] | None = None

    async def refresh(
        self, refresh_token: str, *, scope: str = "", last_check: Callable[[], bool] | None = None
    ) -> RawReply:
        """Send the refresh token and read the reply (RFC 6749 §6).

        Args:
            scope: sent only where the profile wants it repeated.
            last_check: asked right before the first byte; False sends nothing.

        Raises:
            NotSent: provably no byte left, also where `last_check` said no.
            ReplyLost: bytes left and no whole reply came, or `aclose` was called meanwhile.
        """
        return await self.post(refresh_form(self._config, refresh_token, scope), last_check)

    async def post(self, form: dict[str, str], last_check: Callable[[], bool] | None = None) -> RawReply:
        """Send a form, with the client's authentication; see `refresh`."""
        if self._task is not None:
            raise NotSent("this call was used already")
        try:
            form, headers = self._sign(form)
        except ConfigError as error:
            raise NotSent(error.message) from None
        self._stream.last_check = last_check
        self._task = asyncio.get_running_loop().create_task(self._exchange(form, headers))
        try:
            return await asyncio.shield(self._task)
        except asyncio.CancelledError:
            if self._task.cancelled():
                raise self._lost("the call was given up") from None
            self._task.cancel()
            raise

    async def aclose(self) -> None:
        """Close the connection; a call under way ends with ReplyLost."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._stream.aclose()

    async def _exchange(self, form: Mapping[str, str], headers: Mapping[str, str]) -> RawReply:
        try:
            async with asyncio.timeout(READ_S):
                return await self._ask(urlencode(form).encode(), headers)
        except (NotSent, ReplyLost):
            raise
        except Exception as error:
            # Whatever it was: once a byte has left, the OP may have processed the request.
            raise self._lost(type(error).__name__) from error

    async def _ask(self, body: bytes, headers: Mapping[str, str]) -> RawReply:
        import httpcore2

        url = httpcore2.URL(self._url)
        fields: dict[str | bytes, str | bytes] = {
            "Host": urlsplit(self._url).netloc,
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "nightporter",
            "Content-Type": "application/x-www-form-urlencoded",
            "Content-Length": str(len(body)),
            "Connection": "close",
            **headers,
        }
        connection = httpcore2.AsyncHTTP11Connection(url.origin, self._stream)
        response = await connection.handle_async_request(
            httpcore2.Request("POST", url, headers=fields, content=body)
        )
        found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        content = bytearray()
        async for chunk in response.aiter_stream():
            content += chunk
            if len(content) > self._config.max_answer_bytes:
                raise ReplyLost("the OP's answer is longer than allowed")
        return RawReply(response.status, found, decoded(bytes(content), found, self._config.max_answer_bytes))

    def _lost(self, what: str) -> OPUnavailable:
        if self._stream.began:
            return ReplyLost(f"the reply was lost: {what}")
        return NotSent(f"nothing was sent: {what}")


def refresh_form(config: OPConfig, refresh_token: str, scope: str) -> dict[str, str]:
    """The fields of a refresh request, without the client's proof (RFC 6749 §6)."""
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    if scope:
        form["scope"] = scope
    if config.profile.send_redirect_uri and config.redirect_uri:
        form["redirect_uri"] = config.redirect_uri
    return form


async def connect(config: OPConfig, http: Http, url: str, sign: Sign) -> TokenCall:
    """Open a connection to the token endpoint.

    Raises:
        NotSent: it could not be opened; nothing was said to the OP.
    """
    import httpcore2

    from proxy.shell.op_client.stream import open_stream

    try:
        async with asyncio.timeout(config.connect_timeout_s):
            stream = await open_stream(url, http.tls(), config.proxy)
    except (OSError, httpcore2.NetworkError, httpcore2.ProtocolError, UnicodeError) as error:
        raise NotSent(f"no connection to the token endpoint: {reason(error)}") from None
    return TokenCall(stream, url, sign, config)


def reason(error: Exception) -> str:
    """A connection's failure in few words: what a TLS library says of a certificate helps."""
    said = getattr(error, "verify_message", "") or getattr(error, "strerror", "")
    return f"{type(error).__name__} ({said})" if said else type(error).__name__
