"""How many files, connections included, this process may have open.

Systems give a process 1,024 unless it asks for more, up to a limit that it cannot pass. Above it,
a connection is accepted and lost without a word, and the app cannot be reached either.
"""

from __future__ import annotations

import logging
import resource

from msgspec.structs import replace

from proxy.shell.limits import Limits

log = logging.getLogger("nightporter")

OWN = 128
"""Files beside connections of clients and to apps: store, OP, listeners, logs, certificates being read."""


def allow(wanted: int) -> int:
    """Have the system allow so many open files, as far as it lets us.

    Returns:
        How many are allowed now; never fewer than before.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if most > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        except (OSError, ValueError):  # a sandbox that forbids it
            return soft
    return max(soft, most)


def within(limits: Limits, pools: int) -> Limits:
    """Limits that the system can keep: fewer clients' connections where it allows too few files.

    Args:
        limits: as configured.
        pools: how many upstreams there are.
    """
    others = pools * limits.pool_size + OWN
    wanted = limits.max_connections + others
    allowed = allow(wanted)
    if allowed >= wanted:
        return limits
    most = max(allowed - others, allowed // 4, 1)
    log.warning(
        "too_few_open_files",
        extra={
            "allowed": allowed,
            "needed": wanted,
            "max_connections": most,
            "detail": "raise the limit of open files (LimitNOFILE=), or lower limits.max_connections",
        },
    )
    return replace(limits, max_connections=most)
