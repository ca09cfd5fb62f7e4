"""uvicorn's HTTP/1.1 protocol for one request that is here already. Imported by the first page."""

from __future__ import annotations

from collections.abc import Callable

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState


class PageProtocol(H11Protocol):
    """Serves one page on a connection that was handed over.

    Args:
        on_lost: called when the connection is gone.
    """

    def __init__(self, config: Config, state: ServerState, on_lost: Callable[[], None]) -> None:
        super().__init__(config, state, {})
        self.access_log = False
        self._on_lost = on_lost

    def eof_received(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A client that closed its sending side still gets its page (asyncio.Protocol)."""
        return self.scheme == "http"

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._on_lost()
