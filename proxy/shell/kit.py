"""What every renewal at one provider works with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct, field

from proxy.core.breaker import Breaker
from proxy.core.observed import Observed
from proxy.core.providers import Profile
from proxy.core.timing import RefreshPolicy
from proxy.core.token_reply import RawReply
from proxy.shell.clock import Clock, StoreTime
from proxy.shell.journal import Journal
from proxy.shell.store.contract import Store


class TokenCall(Protocol):
    """One prepared connection to the token endpoint (see `op_client`)."""

    async def refresh(
        self, refresh_token: str, *, scope: str = "", last_check: Callable[[], bool]
    ) -> RawReply: ...

    async def aclose(self) -> None: ...


class TokenEndpoint(Protocol):
    """The part of the OP client that renewals use."""

    async def connect(self) -> TokenCall: ...

    async def revoke(self, token: str, hint: str) -> bool | None: ...


class Kit(Struct, frozen=True):
    """See the module's docstring.

    Attributes:
        store: with its lease.
        op: the token endpoint.
        profile: the provider's ways.
        policy: how to renew.
        clock: of this process.
        time: the store's time.
        journal: keeps commits that could not land; None = off.
        breaker: the provider's.
        holder: id of this process.
        spread: draws a number in [0, 1).
        observed: what the provider is seen to do.
    """

    store: Store
    op: TokenEndpoint
    profile: Profile
    policy: RefreshPolicy
    clock: Clock
    time: StoreTime
    journal: Journal | None
    breaker: Breaker
    holder: str
    spread: Callable[[], float]
    observed: Observed = field(default_factory=Observed)
