"""One client, and for the time of a rotation two secrets: whichever the OP takes is used from then on.

A refusal of the client (`invalid_client`) says that nothing of the request was looked at (RFC 6749 §5.2), so
the same request may go out again with the other secret, a refresh token included.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from proxy.core.session import OutcomeKind
from proxy.core.token_reply import RawReply, Refused, judge, refuses_secret
from proxy.errors import NotSent
from proxy.shell.op_client.config import OPConfig
from proxy.shell.op_client.token_call import TokenCall, refresh_form

log = logging.getLogger("nightporter.op")

Told = Callable[[bool], None]
"""Told whether the next secret is the one in use."""

_NO_PROOF = frozenset({OutcomeKind.TRANSIENT, OutcomeKind.AMBIGUOUS})


class TwoSecrets:
    """Which of a client's secrets is in use.

    Args:
        config: of the provider, with both.
        told: hears of it at the start and at each change; not where there is one secret only.

    Attributes:
        config: with the secret that is in use.
    """

    def __init__(self, config: OPConfig, told: Told | None = None) -> None:
        secrets = dict.fromkeys((config.client_secret, config.client_secret_next or config.client_secret))
        self._both = [replace(config, client_secret=secret, client_secret_next="") for secret in secrets]
        self._told = told if len(self._both) > 1 else None
        self.config = config
        self._use(self._both[0])

    def learn_from(self, before: TwoSecrets) -> None:
        """Begin with the secret that the OP took until now, if it is one of ours."""
        for each in self._both:
            if each.client_secret == before.config.client_secret:
                self._use(each)

    def instead(self, used: OPConfig, reply: RawReply) -> OPConfig | None:
        """What to try instead if this reply refuses the secret that was used; None = nothing."""
        if len(self._both) == 1 or not refuses_secret(reply, used.profile):
            return None
        return self._both[used is self._both[0]]

    def tried(self, used: OPConfig, reply: RawReply) -> None:
        """Look at the reply to the other secret: it is used from now on if the OP took it."""
        judged = judge(reply, used.profile)
        no_proof = isinstance(judged, Refused) and judged.kind in _NO_PROOF
        if not no_proof and not refuses_secret(reply, used.profile):
            self._switch(used)

    def _switch(self, used: OPConfig) -> None:
        if used is self.config:
            return
        self._use(used)
        names = ("client_secret", "client_secret_next")
        in_use, refused = names[used is self._both[1]], names[used is self._both[0]]
        log.warning("client_secret_switched", extra={"in_use": in_use, "refused": refused})

    async def ask(self, send: Callable[[OPConfig], Awaitable[RawReply]]) -> RawReply:
        """The answer of another endpoint to a request that the client signs, from whichever secret is taken.

        There a 401 says enough: Keycloak words it `invalid_request` when a pushed request has a wrong secret.
        """
        used = self.config
        reply = await send(used)
        if len(self._both) == 1 or reply.status != 401:
            return reply
        other = self._both[used is self._both[0]]
        again = await send(other)
        if again.status != 401 and again.status < 500:
            self._switch(other)
        return again

    def _use(self, config: OPConfig) -> None:
        self.config = config
        if self._told is not None:
            self._told(config is self._both[1])


class CallWithTwoSecrets:
    """A token call, made once more with the other secret if the first one is refused.

    Args:
        call: open, and prepared with the secret that is in use.
        secrets: which one that is.
        another: opens a call that is prepared with the other one.
    """

    def __init__(
        self, call: TokenCall, secrets: TwoSecrets, another: Callable[[OPConfig], Awaitable[TokenCall]]
    ) -> None:
        self._used = secrets.config
        self._first = call
        self._secrets = secrets
        self._another = another
        self._second: TokenCall | None = None
        self._closed = False

    async def refresh(
        self, refresh_token: str, *, scope: str = "", last_check: Callable[[], bool] | None = None
    ) -> RawReply:
        """See `TokenCall.refresh`. The lease is looked at before each of the two."""
        return await self.post(refresh_form(self._used, refresh_token, scope), last_check)

    async def post(self, form: dict[str, str], last_check: Callable[[], bool] | None = None) -> RawReply:
        """See `TokenCall.post`."""
        reply = await self._first.post(form, last_check)
        other = self._secrets.instead(self._used, reply)
        if other is None:
            return reply
        try:
            self._second = await self._another(other)
            if self._closed:  # given up meanwhile: nothing more is sent
                await self._second.aclose()
                return reply
            again = await self._second.post(form, last_check)
        except NotSent:
            return reply  # the refusal is all that is known
        self._secrets.tried(other, again)
        return again

    async def aclose(self) -> None:
        """See `TokenCall.aclose`."""
        self._closed = True
        await self._first.aclose()
        if self._second is not None:
            await self._second.aclose()
