"""Who wants to hear of changes: callbacks, told one after the other, none able to disturb the rest."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger("nightporter.store")


class Listeners:
    """A list of callbacks; see `Store.listen` for what they are told."""

    def __init__(self) -> None:
        self._all: list[Callable[[str], None]] = []

    def add(self, on_change: Callable[[str], None]) -> None:
        """Tell `on_change` from now on."""
        self._all.append(on_change)

    def tell(self, key: str) -> None:
        """Tell everybody; a callback that fails is logged."""
        for listener in self._all:
            try:
                listener(key)
            except Exception:
                log.exception("listener_failed")
