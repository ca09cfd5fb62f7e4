"""The open sessions of this process: found by key, by cookie value and by whole `Cookie` line.

A warm request finds its session by the bytes of its `Cookie` line: one dict lookup, no
cryptography, no store. An entry is only ever reached with a cookie that opened the record (or is
byte for byte one that did). What is kept is bounded in bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from proxy.core.session import op_session_name, user_name
from proxy.shell.open_session import OpenSession

SPELLINGS = 4
"""Cookie lines remembered per session: other cookies beside ours change them now and then."""

AWAKE = 64
"""Sessions whose tokens and identity are kept open, the ones read last; of all others the blobs do."""

_ENTRY_BYTES = 2_000
"""What an entry weighs at rest beside its texts, about: 1.9 KiB by tracemalloc, for 1,000 sign-ins."""


class SessionCache:
    """See the module's docstring.

    Args:
        max_bytes: of all entries together; the ones read longest ago go first.

    Attributes:
        by_line: the session that a `Cookie` line led to last.
        size_bytes: of all entries.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.size_bytes = 0
        self.by_line: dict[bytes, OpenSession] = {}
        self._by_value: dict[bytes, OpenSession] = {}
        self._by_key: dict[str, OpenSession] = {}
        self._awake: dict[str, OpenSession] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[OpenSession]:
        """All of them; what is forgotten on the way does no harm."""
        return iter(list(self._by_key.values()))

    def of_key(self, key: str) -> OpenSession | None:
        """The session under a store key."""
        return self._by_key.get(key)

    def of_value(self, value: bytes) -> OpenSession | None:
        """The session that this value of our cookie opened."""
        return self._by_value.get(value)

    def of_user(self, user: str) -> list[OpenSession]:
        """The sessions of one person.

        Args:
            user: `core.session.user_name`.
        """
        return [session for session in self._by_key.values() if session.record.user == user]

    def of_provider(self, iss: str, sub: str, sid: str) -> list[OpenSession]:
        """The sessions that a logout at the provider means; walks through all of them.

        Args:
            sub, sid: "" = not named; with a `sid` only that session at the OP is meant.
        """

        if not sub and not sid:
            return []
        user, op_session = user_name(iss, sub), op_session_name(iss, sid)
        return [
            session
            for session in self._by_key.values()
            if (not sub or session.user == user) and (not sid or session.op_session == op_session)
        ]

    def streaming(self) -> list[OpenSession]:
        """The sessions that have open tunnels or event streams."""
        return [session for session in self._by_key.values() if session.closers]

    def keep(self, session: OpenSession) -> None:
        """Take it in as the one used last; what is too much goes out."""
        if session.gone:
            return
        self._by_key.pop(session.key, None)
        self._by_key[session.key] = session
        size_bytes = _size_bytes(session)
        self.size_bytes += size_bytes - session.size_bytes
        session.size_bytes = size_bytes
        while self.size_bytes > self.max_bytes and len(self._by_key) > 1:
            oldest = next(iter(self._by_key.values()))
            if oldest.unsaved or oldest.closers:
                self._by_key[oldest.key] = self._by_key.pop(oldest.key)
                break
            self.forget(oldest)

    def wake(self, session: OpenSession) -> None:
        """Its contents are open: the one that was so longest rests."""
        self._awake.pop(session.key, None)
        self._awake[session.key] = session
        if len(self._awake) > AWAKE:
            self._awake.pop(next(iter(self._awake))).rest()

    def remember_value(self, session: OpenSession, value: bytes) -> None:
        """This value of our cookie opened the session."""
        if value not in session.values:
            session.values += (value,)
        self._by_value[value] = session
        self.keep(session)

    def remember_line(self, session: OpenSession, line: bytes) -> None:
        """This `Cookie` line led to the session."""
        if session.gone or self.by_line.get(line) is session:
            return
        if len(session.lines) >= SPELLINGS:
            self.by_line.pop(session.lines[0], None)
            session.lines = session.lines[1:]
        session.lines += (line,)
        self.by_line[line] = session
        self.keep(session)

    def forget(self, session: OpenSession) -> None:
        """Let it go; whether it is over is another matter."""
        if self._by_key.get(session.key) is session:
            del self._by_key[session.key]
            self.size_bytes -= session.size_bytes
            session.size_bytes = 0
        if self._awake.get(session.key) is session:
            del self._awake[session.key]
        for line in session.lines:
            self.by_line.pop(line, None)
        for value in session.values:
            self._by_value.pop(value, None)
        session.lines = session.values = ()
        session.good_until = 0.0

    def forget_spellings(self) -> None:
        """Forget which cookie bytes lead to which session: the next request opens its cookie again."""
        for session in self._by_key.values():
            session.lines = session.values = ()
            session.good_until = 0.0
        self.by_line.clear()
        self._by_value.clear()

    def watch(self, session: OpenSession, close: Callable[[], None]) -> Callable[[], None]:
        """Have `close` called when the session is over; returns what ends that.

        The session may have ended, or left the cache, while the app made up its mind.
        """
        if session.gone:
            close()
            return _nothing
        held = self._by_key.get(session.key, session)
        held.closers[close] = None
        if held is session:
            self.keep(session)
        return lambda: held.closers.pop(close, None)


def _size_bytes(session: OpenSession) -> int:
    return (
        _ENTRY_BYTES
        + len(session.forward.identity)
        + len(session.record.tokens)
        + len(session.record.who)
        + sum(map(len, session.lines))
        + sum(map(len, session.values))
    )


def _nothing() -> None:
    """There is nothing left to end."""
