"""One clock per provider: when it asked for quiet, or refuses us, nobody calls before it is over."""

from __future__ import annotations

from proxy.core.session import OutcomeKind

CLIENT_QUIET_S = 30.0
"""After the OP refused the *client* (a wrong secret): one probe per half minute is enough."""

MAX_QUIET_S = 30.0


class Breaker:
    """Closed: calls go. Open: none goes until `until`. Then one probe at a time until one succeeds."""

    def __init__(self) -> None:
        self.until = 0.0
        self.why = ""
        self._failures = 0
        self._probing_until = 0.0

    def admit(self, now: float) -> float:
        """Seconds to wait before a call may go; 0 = it may go now (and counts as the probe)."""
        if self._failures == 0:
            return 0.0
        if now < self.until:
            return self.until - now
        if now < self._probing_until:
            return min(1.0, self._probing_until - now)
        self._probing_until = now + MAX_QUIET_S
        return 0.0

    @property
    def open(self) -> bool:
        """Whether the provider is known to be in trouble."""
        return self._failures > 0

    def succeeded(self) -> None:
        """The OP answered a call in the protocol's words, with tokens or a verdict."""
        self.until = 0.0
        self.why = ""
        self._failures = 0
        self._probing_until = 0.0

    def returned(self) -> None:
        """A call is over, or never reached the OP: another may probe."""
        self._probing_until = 0.0

    def failed(self, kind: OutcomeKind, code: str, retry_after_s: float | None, now: float) -> None:
        """The OP is away (TRANSIENT) or refuses the client (CLIENT); other kinds speak of a session."""
        if kind not in (OutcomeKind.TRANSIENT, OutcomeKind.CLIENT):
            return
        self._failures += 1
        self._probing_until = 0.0
        if retry_after_s is not None:
            quiet = retry_after_s
        elif kind is OutcomeKind.CLIENT:
            quiet = CLIENT_QUIET_S
        else:
            quiet = min(MAX_QUIET_S, 0.5 * 2.0 ** min(self._failures, 6))
        self.until = max(self.until, now + quiet)
        self.why = code
