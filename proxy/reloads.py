"""A configuration that changes while the process runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.config import Loaded
from proxy.config.changes import NEEDS_RESTART, changed, kept
from proxy.config.keys import key_file
from proxy.errors import ConfigError
from proxy.shell.telemetry import set_up_logging
from proxy.shell.watch import Watch

if TYPE_CHECKING:
    from proxy.service import Service

log = logging.getLogger("nightporter")


def warn(loaded: Loaded) -> None:
    """Log what is allowed and hardly meant."""
    for warning in loaded.warnings:
        log.warning("configuration", extra={"detail": warning})


class Reloads:
    """Takes over what changed in the configuration, as far as a running process can.

    A configuration that cannot be used changes nothing: it is logged, problem by problem.

    Args:
        service: to be told.
        loaded: the configuration that it runs with.
        read: reads it again.
    """

    def __init__(self, service: Service, loaded: Loaded, read: Callable[[], Loaded]) -> None:
        self._service = service
        self._read = read
        self.watch = Watch(_files(loaded), self._again)

    async def _again(self) -> None:
        service = self._service
        before = service.settings
        event = service.parts.base.telemetry.event
        try:
            loaded = self._read()
            keys = changed(before, loaded.settings)
            await service.reconfigure(kept(before, loaded.settings))
        except ConfigError as error:
            for problem in error.problems:
                log.error("configuration_refused", extra={"detail": str(problem)})
            event("configuration_refused", problems=len(error.problems))
            return
        except Exception:
            log.exception("configuration_refused")
            event("configuration_refused", problems=1)
            return
        self.watch.files = _files(loaded)
        set_up_logging(loaded.settings.log_level)
        warn(loaded)
        restart = [key for key in keys if key in NEEDS_RESTART]
        if restart:
            log.warning("restart_needed", extra={"settings": restart})
        event("configuration_reloaded", settings=[key for key in keys if key not in NEEDS_RESTART])


def _files(loaded: Loaded) -> tuple[str, ...]:
    settings = loaded.settings
    files = [*loaded.files, settings.ca_file, settings.tls.cert_file, settings.tls.key_file]
    files += [settings.upstream_tls.ca_file, settings.upstream_tls.cert_file, settings.upstream_tls.key_file]
    if not settings.cookie_keys and settings.sqlite_path:
        files.append(key_file(settings))
    return tuple(path for path in files if path)
