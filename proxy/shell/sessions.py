"""Opens sessions: from a cookie to the identity block that goes to the app.

An entry of the cache is believed for `ttl_s` after it was read; any word from the store that its
record changed makes the next request read again. What a reading means is judged in
`core/reading.py`; sessions begin and end in `register.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Generator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from proxy.core import cookies
from proxy.core.blobs import open_identity, open_tokens
from proxy.core.gate import Forward
from proxy.core.origin import Origin
from proxy.core.reading import Known, Over, Take, Wait, judge
from proxy.core.seal import SessionSeal, Ticket
from proxy.core.session import Ended, Identity, Record, Tokens, op_session_name, store_key, user_name
from proxy.errors import CookieError, StoreUnavailable
from proxy.shell.clock import Clock, StoreTime
from proxy.shell.open_session import Contents, OpenSession
from proxy.shell.session_cache import SessionCache
from proxy.shell.session_rules import SessionRules
from proxy.shell.store.contract import Store

log = logging.getLogger("nightporter.session")

LOOK_S = 1.0
"""A store that failed so lately is asked beside the requests of known sessions, not before them."""

UNKNOWN = "session_unknown"
"""The reason where a cookie opens nothing, or leads to no record."""


class _FirstReading(Struct, eq=False):
    """A record that is being read for the first time; `changed` meanwhile, as others say."""

    key: str
    changed: bool = False


class Sessions:
    """See the module's docstring.

    Args:
        store: the record keeper.
        rules: of the configuration.
        clock: of this process.
        time: the store's time.

    Attributes:
        cache: the open sessions.
        coherence: until when the store's word of changes can be relied on.
        store_away_since: monotonic time of the first read that failed; None while reads succeed.
        ended_outside: told of sessions that the operator or the provider ended, with their tokens open.
        evicted: told of sessions that were alive when the store lost them.
    """

    def __init__(self, *, store: Store, rules: SessionRules, clock: Clock, time: StoreTime) -> None:
        self.rules = rules
        self.cache = SessionCache(rules.policy.max_bytes)
        self.coherence = store.coherence
        self.store_away_since: float | None = None
        self.ended_outside: Callable[[OpenSession], None] = lambda session: None
        self.evicted: Callable[[OpenSession], None] = lambda session: None
        self._store = store
        self._clock = clock
        self._time = time
        self._reading: dict[bytes, asyncio.Task[OpenSession | str]] = {}
        self._first_readings: set[_FirstReading] = set()
        self._unjudged: set[str] = set()  # their new tokens are stored and being checked
        self._refused: dict[str, str] = {}  # over, and the store does not say so yet
        self._looking: set[asyncio.Task[None]] = set()
        self._failed_at = float("-inf")
        store.listen(self._on_change)

    def reconfigure(self, rules: SessionRules, origins: Mapping[str, Origin]) -> None:
        """Go on under another configuration; the open sessions stay open.

        What was cached by cookie bytes is forgotten, because the keys that opened it may be gone; the
        sessions themselves are kept, for they may hold tokens that the store has not taken yet.

        Args:
            origins: by public URL. Sessions of an origin that is not there any more are forgotten.
        """
        self.rules, self.cache.max_bytes = rules, rules.policy.max_bytes
        for session in self.cache:
            origin = origins.get(session.origin.url)
            # One at rest is looked at when it is read next: without its cookie bytes no request gets by that.
            opened = session.contents
            if origin is None or not (opened is None or rules.policy.serves(opened.tokens, origin)):
                self._let_go(session)
                continue
            session.origin = origin
            if opened is not None:
                self._redress(session)
        self.cache.forget_spellings()

    # -- opening --

    def remembered(self, origin: Origin, line: bytes) -> OpenSession | None:
        """The cached session of a `Cookie` line, however old; None if none was opened by it."""
        value = cookies.one(line, origin.names.session)
        found = self.cache.of_value(value) if value is not None else None
        return found if found is not None and found.origin is origin and not found.gone else None

    async def open(self, origin: Origin, cookie: bytes) -> OpenSession | None:
        """The session of a raw `Cookie` field value, read from the store if need be.

        Returns:
            None for no cookie, a doubled or unreadable one, and one whose session is over.

        Raises:
            StoreUnavailable: the store did not answer and no believable entry is cached.
        """
        found = await self.opened(origin, cookie)
        return found if isinstance(found, OpenSession) else None

    async def opened(self, origin: Origin, cookie: bytes) -> OpenSession | str:
        """The session of a raw `Cookie` field value (see `open`), or the reason why there is none.

        Returns:
            A word for programs: how the session ended, as its own cookie alone may ask;
            ``session_unknown`` where there is no telling.

        Raises:
            StoreUnavailable: the store did not answer and no believable entry is cached.
        """
        value = cookies.one(cookie, origin.names.session)
        if value is None:
            return UNKNOWN
        session = self.cache.of_value(value)
        if session is not None and session.origin is origin and not session.gone and self.believed(session):
            self.cache.remember_line(session, cookie)
            return session
        reading = self._reading.get(value)
        if reading is None:
            reading = self._begin_reading(origin, value)
        found = await asyncio.shield(reading)
        if isinstance(found, str):
            return found
        if found.origin is not origin:
            return UNKNOWN
        self.cache.remember_line(found, cookie)
        return found

    def believed(self, session: OpenSession) -> bool:
        """Whether the entry may be used without asking the store."""
        now = self._clock.monotonic()
        fresh = now - session.read_at < self.rules.policy.ttl_s
        return not session.stale and now < self.coherence.until and fresh

    def bridgeable(self, session: OpenSession) -> bool:
        """Whether an unreadable store may be bridged with this entry for now."""
        age_s, policy = self._clock.monotonic() - session.read_at, self.rules.policy
        return not session.gone and age_s < policy.stale_s + policy.ttl_s

    def look(self, origin: Origin, cookie: bytes) -> bool:
        """Look for a store that did not answer lately, without waiting for it.

        Returns:
            False if it answers, as far as is known: the request had better ask it.
        """
        value = cookies.one(cookie, origin.names.session)
        if value is None or self.store_away_since is None:
            return False
        if value not in self._reading:
            if self._clock.monotonic() - self._failed_at > LOOK_S:
                return False
            self._begin_reading(origin, value).add_done_callback(_noticed)
        return True

    def _begin_reading(self, origin: Origin, value: bytes) -> asyncio.Task[OpenSession | str]:
        reading = asyncio.get_running_loop().create_task(self._open(origin, value))
        self._reading[value] = reading
        reading.add_done_callback(lambda _: self._reading.pop(value, None))
        return reading

    async def _open(self, origin: Origin, value: bytes) -> OpenSession | str:
        try:
            ticket, newest = origin.ring.open_ticket(origin.names.session, value)
        except CookieError as error:
            log.debug("cookie_refused", extra={"detail": error.detail})
            return UNKNOWN
        found = await self._read(origin, ticket, self._cached(ticket))
        if isinstance(found, OpenSession):
            found.newest_key = newest
            self.cache.remember_value(found, value)
        return found

    async def read_again(self, session: OpenSession) -> None:
        """Read an open session's record again without its cookie; it is dropped if it is over.

        Raises:
            StoreUnavailable: nothing is known; the entry stays as it is.
        """
        await self._read(session.origin, session.ticket, session)

    async def _read(self, origin: Origin, ticket: Ticket, session: OpenSession | None) -> OpenSession | str:
        """Read a record, and bring the session up to date or end it here.

        Args:
            session: the one to bring up to date; None = it is not open yet.

        Returns:
            The session, or the reason why there is none.

        Raises:
            StoreUnavailable: nothing is known; the entry stays as it is.
        """
        key = store_key(ticket.session_id)
        first = _FirstReading(key)
        began = self._clock.monotonic()
        if session is not None:
            session.stale = False  # a word that comes while we read sets it again
        else:
            self._first_readings.add(first)
        try:
            snapshot = await self._store.read(key)
        except StoreUnavailable:
            if session is not None:
                session.stale = True
            self.store_away_since = self.store_away_since or began
            self._failed_at = self._clock.monotonic()
            raise
        finally:
            self._first_readings.discard(first)
        self.store_away_since = None
        self._time.observe(snapshot.now)
        if session is None:
            session = self._cached(ticket)  # opened meanwhile, with another spelling of the cookie
        elif session.gone:
            return session.gone  # it ended while we read
        known = Known(
            ends_at=ticket.login_at + self.rules.policy.absolute_s,
            record=session.record if session is not None else None,
            refused=self._refused.get(key, ""),
            unjudged=key in self._unjudged,
        )
        match judge(snapshot, known):
            case Over(reason, to_give_back):
                if to_give_back is not None:
                    self._end_outside(reason, origin, ticket, session, to_give_back)
                elif session is not None:
                    self.drop(session, reason)
                    if reason == Ended.ABSENT:
                        self.evicted(session)
                return UNKNOWN if reason == Ended.ABSENT else reason
            case Wait():
                assert session is not None
                session.stale = True
                return session
            case Take(record):
                pass
        try:
            if session is None:
                session = self._opened(origin, ticket, key, record)
            else:
                self.adopt(session, record)
        except CookieError as error:
            log.warning("session_unreadable", extra={"session": key[:12], "detail": error.detail})
            if session is not None:
                self.drop(session, Ended.ABSENT)
            return UNKNOWN
        if not self.rules.policy.serves(session.tokens, origin):
            # No tombstone: who takes the configuration back finds the session as it was.
            log.info("session_of_another_client", extra={"session": key[:12]})
            self._let_go(session)
            return "another_client"
        session.read_at = began
        session.stale = session.stale or first.changed
        return session

    def _cached(self, ticket: Ticket) -> OpenSession | None:
        """The open session of this very ticket; its id alone opens nothing."""
        session = self.cache.of_key(store_key(ticket.session_id))
        return session if session is not None and session.ticket == ticket else None

    def _opened(self, origin: Origin, ticket: Ticket, key: str, record: Record) -> OpenSession:
        seal = SessionSeal(ticket)
        contents = Contents(open_tokens(seal, record), open_identity(seal, record))
        session = OpenSession(origin, ticket, key, record, contents)
        session.touched_at = record.seen
        self._redress(session)
        return session

    # -- newer versions --

    def cached(self, key: str) -> OpenSession | None:
        """The cached session under a store key."""
        return self.cache.of_key(key)

    def adopt(self, session: OpenSession, record: Record) -> None:
        """Take over a newer reading of the record.

        Raises:
            CookieError: the blobs do not open with this cookie's data key.
        """
        before, tokens, identity = session.record, session.tokens, session.identity
        if record.gen == before.gen:
            record = replace(record, tokens=before.tokens)  # these did open
            if session.unsaved:
                # The store has not taken our tokens yet: ours are the newer ones.
                session.record = replace(record, who_id=before.who_id, who=before.who)
                return
        else:
            tokens = open_tokens(session.seal, record)
            session.unsaved = False
            session.retry_at = 0.0
        if record.who_id == before.who_id:
            record = replace(record, who=before.who)
        else:
            identity = open_identity(session.seal, record)
            session.learned = False
        session.record = record
        session.contents = Contents(tokens, identity)
        self._redress(session)

    def wake(self, session: OpenSession) -> None:
        """Its tokens are looked at, and will be again soon: keep its contents open for a while."""
        if session.contents is None:
            session.contents = Contents(session.tokens, session.identity)
        self.cache.wake(session)

    def take(self, session: OpenSession, tokens: Tokens) -> None:
        """Go on with tokens that the store has not taken yet."""
        session.contents = Contents(tokens, session.identity)
        session.unsaved = True
        self._redress(session)

    def take_identity(self, session: OpenSession, identity: Identity) -> None:
        """Go on with a newer identity (the `who` blob is the caller's to write)."""
        session.contents = Contents(session.tokens, identity)
        session.learned = True
        self._redress(session)

    def fits(self, identity: Identity, tokens: Tokens) -> bool:
        """Whether the header lines for this identity are short enough for an app to take them."""
        rules = self.rules
        return len(rules.block(identity, tokens, self._time.now())) <= rules.policy.max_identity_bytes

    @contextlib.contextmanager
    def unjudged(self, key: str) -> Generator[None]:
        """While this lasts, no request here takes a session's new tokens from the store."""
        self._unjudged.add(key)
        try:
            yield
        finally:
            self._unjudged.discard(key)

    def _redress(self, session: OpenSession) -> None:
        self.wake(session)
        rules, identity, tokens = self.rules, session.identity, session.tokens
        session.user = session.record.user or user_name(identity.iss, identity.sub)
        session.op_session = op_session_name(identity.iss, identity.sid)
        block = rules.block(identity, tokens, self._time.now())
        session.forward = rules.dress(session, Forward(identity=block, decision="session", protected=True))
        session.good_until = 0.0

    # -- endings --

    def drop(self, session: OpenSession, reason: str) -> None:
        """The session is over: forget it and close what it holds open."""
        session.gone = reason
        self._let_go(session)

    def refuse(self, key: str, reason: str) -> None:
        """A session is over from now on, although the store cannot say so yet."""
        self._refused[key] = reason
        session = self.cache.of_key(key)
        if session is not None:
            self.drop(session, reason)

    def refused_in_store(self, key: str) -> None:
        """The store says so now."""
        self._refused.pop(key, None)

    def _let_go(self, session: OpenSession) -> None:
        """Serve it no longer; nobody looks after its streams any more."""
        self.cache.forget(session)
        session.close_streams()

    def _end_outside(
        self, reason: str, origin: Origin, ticket: Ticket, session: OpenSession | None, record: Record
    ) -> None:
        """The operator or the provider ended this session: here its tokens can be opened, so here they
        are given back.

        Nothing is waited for: refused it is already, by the mark or the tombstone, everywhere.
        """
        if session is None or not session.unsaved:
            try:
                last = self._opened(origin, ticket, store_key(ticket.session_id), record)
            except CookieError:
                return  # not this cookie's session
            if session is not None:
                session.contents = last.contents  # what a renewal elsewhere brought is what lives at the OP
            session = session or last
        self.drop(session, reason)
        self.ended_outside(session)

    # -- changes made elsewhere --

    def _on_change(self, word: str) -> None:
        key = word.removeprefix("ended:")
        if key.startswith("user:"):
            touched = self.cache.of_user(key[5:])
        elif key:
            session = self.cache.of_key(key)
            touched = [session] if session is not None else []
        else:
            touched = list(self.cache)
        for first in self._first_readings:
            # Whose session it is, is not known before it is read.
            first.changed = first.changed or not key or key.startswith("user:") or key == first.key
        for session in touched:
            session.stale = True
            session.good_until = 0.0
            if key != word:
                # No request need come: what it holds open is closed, its tokens are given back.
                looking = asyncio.get_running_loop().create_task(self.look_again(session))
                self._looking.add(looking)
                looking.add_done_callback(self._looking.discard)

    async def look_again(self, session: OpenSession) -> None:
        """Read a session again that is said to be over; if the store is away, its next request does."""
        try:
            await self.read_again(session)
        except StoreUnavailable as error:
            log.debug("ending_unread", extra={"session": session.key[:12], "detail": error.detail})


def _noticed(reading: asyncio.Task[OpenSession | str]) -> None:
    """Nobody may have waited for it; its failure is in `store_away_since`."""
    if not reading.cancelled():
        reading.exception()
