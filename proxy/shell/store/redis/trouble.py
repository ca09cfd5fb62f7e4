"""Redis's errors in our words, and one log line for each trouble instead of one for each request."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

from redis import exceptions as foreign

from proxy.errors import StoreUnavailable

log = logging.getLogger("nightporter.store")

REPEAT_S = 30.0
"""A trouble that lasts is logged again after this long."""

WELL_S = 1.0
"""Redis is well again when nothing has failed for so long."""

# Beginning of Redis's error text → (one word, what it means and what to do).
_REPLIES: tuple[tuple[str, str, str], ...] = (
    ("WRONGPASS", "wrong_password", "refuses the user or the password: correct them in the store's URL"),
    ("NOAUTH", "wrong_password", "asks for a password: write it into the store's URL"),
    ("NOPERM", "no_permission", "does not allow this to its user: grant the rights that the runbook lists"),
    ("LOADING", "loading", "is still loading its data: it answers when that is done"),
    (
        "READONLY",
        "read_only",
        "is a replica, or was made one: name the primary, or use Sentinel or Cluster addresses",
    ),
    ("OOM", "out_of_memory", "is at its memory limit and takes no writes: raise maxmemory"),
    ("MISCONF", "cannot_persist", "cannot save to its disk and takes no writes: see its disk and its log"),
    ("NOREPLICAS", "no_replicas", "has fewer replicas than it wants and takes no writes: bring them back"),
    ("MASTERDOWN", "master_down", "is a replica without its primary: wait for the failover"),
    ("CLUSTERDOWN", "cluster_down", "is a cluster with slots that nobody serves: look at its nodes"),
    ("TRYAGAIN", "moving", "is moving these keys to another node"),
    ("BUSY", "busy", "is held up by another program's script"),
    ("UNKILLABLE", "busy", "is held up by another program's script"),
)


def translated(error: BaseException, timeout_s: float) -> tuple[str, StoreUnavailable]:
    """A foreign error as one word and as ours; the text names no argument of any command."""
    word, text = _meaning(error, timeout_s)
    ours = StoreUnavailable(f"Redis {text}")
    ours.__cause__ = error
    return word, ours


def _meaning(error: BaseException, timeout_s: float) -> tuple[str, str]:
    said = str(error)
    for code, word, text in _REPLIES:
        # Redis 6 wraps what a script met; redis-py takes the code off where it has a class for it.
        if said.startswith(code) or re.search(rf"-{code} ", said):
            return word, text
    match error:
        case TimeoutError() | foreign.TimeoutError():
            return "timeout", f"did not answer within {timeout_s:g} s"
        case foreign.AuthenticationError() | foreign.AuthorizationError():
            return "wrong_password", _text("WRONGPASS")
        case foreign.NoPermissionError():
            return "no_permission", _text("NOPERM")
        case foreign.BusyLoadingError():
            return "loading", _text("LOADING")
        case foreign.ReadOnlyError():
            return "read_only", _text("READONLY")
        case foreign.OutOfMemoryError():
            return "out_of_memory", _text("OOM")
        case foreign.MasterDownError():
            return "master_down", _text("MASTERDOWN")
        case foreign.ClusterDownError():
            return "cluster_down", _text("CLUSTERDOWN")
        case _:
            pass
    if "previous master is now a slave" in said:
        return "read_only", _text("READONLY")
    if "No master found" in said:
        return "no_master", "has no working primary, say its Sentinels: wait for the failover"
    if "CERTIFICATE_VERIFY_FAILED" in said or "certificate verify failed" in said:
        return "tls", "shows a certificate that is not trusted here: set store_ca_file"
    if "SSL" in said or "TLS" in said:
        return "tls", "cannot be spoken to over TLS: rediss:// needs a TLS port and may need store_cert_file"
    if isinstance(error, (foreign.ConnectionError, OSError, foreign.RedisClusterException)):
        return "unreachable", f"cannot be reached: {_reason(error)}"
    # Whatever it is, its first word says which error; the rest may quote a command's arguments.
    first = re.match(r"[A-Z]{2,20}\b", said)
    return "refused", f"refused a command ({first[0] if first else type(error).__name__})"


def _text(code: str) -> str:
    return next(text for known, _, text in _REPLIES if known == code)


def _reason(error: BaseException) -> str:
    said = str(error)
    for words in ("Connection refused", "Name or service not known", "Temporary failure in name resolution"):
        if words.lower() in said.lower():
            return words.lower()
    if "Connection closed" in said or "Connection lost" in said or "reset by peer" in said:
        return "it closed the connection"
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return "no connection"


class Complaints:
    """Tells the log when Redis begins to fail, how, and when it is well again.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._word = ""
        self._since = 0.0
        self._said_at: dict[str, float] = {}
        self._failed_at = 0.0

    @property
    def word(self) -> str:
        """What is wrong now, in one word; "" while all is well."""
        return self._word

    def failed(self, word: str, error: StoreUnavailable) -> None:
        """Something failed: logged if it is new, or if it has lasted."""
        now = self._failed_at = self._clock()
        if not self._word:
            self._since = now
        self._word = word
        if now - self._said_at.get(word, -REPEAT_S) >= REPEAT_S:
            self._said_at[word] = now
            log.error("store_unavailable", extra={"reason": word, "detail": error.detail})

    def succeeded(self) -> None:
        """Redis answered. While other commands fail (a replica reads, but takes no writes) it is not well."""
        if self._word and self._clock() - self._failed_at >= WELL_S:
            away_s = round(self._clock() - self._since, 1)
            log.info("store_back", extra={"reason": self._word, "away_s": away_s})
            self._word = ""
            self._said_at.clear()
