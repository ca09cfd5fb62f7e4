"""What this process wrote and saw lately, because a failover may lose it.

An acknowledged write is only as safe as Redis's replication. So a writer remembers which token its commit
consumed and which one it stored, and writes it again when the stored `gen` has gone back; and whoever
saw a session end says it again when it is back. `core/refresh.py`'s promises need both: the
consumed token must not be presented again, and a signed-out session must not return.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from msgspec import Struct

from proxy.core.answers import Commit
from proxy.core.session import Record

KEEP_S = 600.0
"""How long a write or an ending is remembered."""

MAX_BYTES = 16 << 20
"""Of remembered tokens; the oldest go first."""

MAX_GENS = 16
"""Versions of a session that are remembered in order."""

MAX_KEYS = 20_000
"""Sessions whose versions are remembered."""


class _History(Struct):
    """Versions of one session in the order in which they followed each other, oldest first."""

    at: float
    gens: tuple[str, ...] = ()
    write: Commit | None = None


class Ending(Struct, frozen=True):
    """A session that was seen to be over."""

    reason: str
    keep_s: float
    at: float


class Mark(Struct, frozen=True):
    """A not-before mark that was set."""

    at: float
    keep_s: float
    heard_at: float


class Memory:
    """See the module's docstring.

    Args:
        monotonic: seconds.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._histories: OrderedDict[str, _History] = OrderedDict()
        self._only: dict[str, str] = {}  # of which one version is known: most of them (0.2 KiB less for each)
        self._endings: OrderedDict[str, Ending] = OrderedDict()
        self._marks: dict[str, Mark] = {}
        self._bytes = 0

    # -- versions --

    def saw(self, key: str, record: Record) -> None:
        """A record was read: its `gen` is the newest unless we know one that came after it."""
        history = self._histories.get(key)
        if history is None:
            before = self._only.setdefault(key, record.gen)
            if before != record.gen:
                del self._only[key]
                self._put(key, _History(self._monotonic(), (before, record.gen)))
            elif len(self._only) > MAX_KEYS:
                del self._only[next(iter(self._only))]
        elif record.gen not in history.gens:
            self._follow(history, record.gen)

    def sends(self, key: str, write: Commit) -> None:
        """A commit is about to be sent. Its place among the versions is fixed now: its successor may be
        seen before its own answer comes."""
        history = self._histories.pop(key, None)
        only = self._only.pop(key, None)
        if only is not None:
            history = _History(0.0, (only,))
        if history is None or write.acquired_gen not in history.gens:
            # A version that nobody here has seen (a journal's): what came before it is unknown.
            if history is not None and history.write is not None:
                self._bytes -= len(history.write.tokens)
            history = _History(0.0, (write.acquired_gen,))
        if write.attempt not in history.gens:
            self._follow(history, write.attempt)
        history.at = self._monotonic()
        self._put(key, history)

    def wrote(self, key: str, write: Commit) -> None:
        """It landed: these are tokens that must not be lost."""
        self.sends(key, write)
        history = self._histories[key]
        self._bytes += len(write.tokens) - (len(history.write.tokens) if history.write is not None else 0)
        history.write = write
        self._put(key, history)

    def lost(self, key: str, record: Record) -> Commit | None:
        """Our commit that is to be written again, over this record: the record is an ancestor of it."""
        history = self._histories.get(key)
        if history is None or history.write is None or record.tombstone:
            return None
        write = history.write
        late = self._monotonic() - history.at > KEEP_S
        return None if late or not self._before(history, record.gen, write.attempt) else write

    def follows(self, key: str, gen: str, write: Commit) -> bool:
        """Whether `gen` is known to be an ancestor of the version that `write` started from."""
        history = self._histories.get(key)
        return history is not None and self._before(history, gen, write.acquired_gen)

    def written(self) -> Iterator[str]:
        """Keys of the sessions that we wrote lately."""
        self._forget()
        return iter([key for key, history in self._histories.items() if history.write is not None])

    def has_written(self, key: str) -> bool:
        """Whether we wrote this session lately."""
        history = self._histories.get(key)
        return history is not None and history.write is not None

    @staticmethod
    def _before(history: _History, gen: str, later: str) -> bool:
        gens = history.gens
        return gen in gens and later in gens and gens.index(gen) < gens.index(later)

    @staticmethod
    def _follow(history: _History, gen: str) -> None:
        history.gens = (*history.gens, gen)[-MAX_GENS:]

    def _put(self, key: str, history: _History) -> None:
        self._histories[key] = history
        while self._histories and (self._bytes > MAX_BYTES or len(self._histories) > MAX_KEYS):
            self._drop(next(iter(self._histories)))

    def _drop(self, key: str) -> None:
        history = self._histories.pop(key)
        if history.write is not None:
            self._bytes -= len(history.write.tokens)

    def _forget(self) -> None:
        horizon = self._monotonic() - KEEP_S
        while self._histories and next(iter(self._histories.values())).at < horizon:
            self._drop(next(iter(self._histories)))
        while self._endings and next(iter(self._endings.values())).at < horizon:
            self._endings.popitem(last=False)

    # -- endings --

    def ended(self, key: str, reason: str, keep_s: float = 3600.0) -> None:
        """A session was seen to be over.

        Args:
            keep_s: how long its blob stays, should the ending have to be said again.
        """
        self._forget()
        if key not in self._endings:
            self._endings[key] = Ending(reason, keep_s, self._monotonic())
            while len(self._endings) > MAX_KEYS:
                self._endings.popitem(last=False)

    def returned(self, key: str) -> Ending | None:
        """The ending to say again, now that the session was found alive."""
        return self._endings.get(key)

    def endings(self) -> Iterator[str]:
        """Keys of the sessions that were seen to end lately."""
        self._forget()
        return iter(list(self._endings))

    # -- marks --

    def marked(self, user: str, at: float, keep_s: float = 366 * 86_400.0) -> None:
        """A mark was set ("" = everybody's); it is said again after every change of primary for a while."""
        horizon = self._monotonic() - KEEP_S
        self._marks = {name: mark for name, mark in self._marks.items() if mark.heard_at >= horizon}
        before = self._marks.get(user)
        if at > 0.0 and (before is None or before.at < at):
            self._marks[user] = Mark(at, keep_s, self._monotonic())

    def marks(self) -> list[tuple[str, Mark]]:
        """The marks that were set lately, by user."""
        return list(self._marks.items())
