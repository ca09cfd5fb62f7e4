"""Opened sessions: from a cookie to the identity block that goes to the app, and back to the store.

A warm request finds its session by the bytes of its `Cookie` line: one dict lookup, no
cryptography, no store. An entry is believed for `ttl_s` after it was read; any word from the
store that its record changed makes the next request read again. An entry is only ever reached
with a cookie that opened the record (or is byte for byte one that did).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from proxy.core import cookies
from proxy.core.gate import Forward
from proxy.core.origin import Origin
from proxy.core.seal import SessionSeal, Ticket, new_ticket, random_id
from proxy.core.session import (
    Ended,
    Identity,
    Record,
    Tokens,
    ended,
    op_session_name,
    store_key,
    user_name,
)
from proxy.core.timing import RefreshPolicy, due_at, jitter_of
from proxy.errors import CookieError, SessionGone, StoreUnavailable
from proxy.shell.blobs import open_identity, open_tokens, seal_identity, seal_tokens
from proxy.shell.clock import Clock, StoreTime
from proxy.shell.store.contract import Store
from proxy.shell.store.marks import TOMBSTONE_S

log = logging.getLogger("nightporter.session")

TOUCH_S = 60.0
"""Activity is written at most this often."""

LOOK_S = 1.0
"""A store that failed so lately is asked beside the requests of known sessions, not before them."""

UNKNOWN = "session_unknown"
"""The reason where a cookie opens nothing, or leads to no record."""

SPELLINGS = 4
"""Cookie lines remembered per session: other cookies beside ours change them now and then."""


@dataclass(slots=True, eq=False)
class OpenSession:
    """A session that a cookie opened.

    Attributes:
        origin: at which the cookie is valid.
        ticket: what the cookie held.
        key: store key.
        seal: of its blobs.
        record: as last read or committed.
        tokens: of `record`, or newer ones that the store has not taken yet (`unsaved`).
        identity: who it is.
        newest_key: the cookie was sealed with the newest key.
        forward: ready verdict for the app, one per version of tokens and identity.
        read_at: monotonic time of the last successful read.
        good_until: monotonic time until which a request needs no decision at all.
        retry_at: store time before which no renewal is tried.
        gone: why it is over; "" while it lives.
        closers: callbacks that close its tunnels and event streams.
    """

    origin: Origin
    ticket: Ticket
    key: str
    seal: SessionSeal
    record: Record
    tokens: Tokens
    identity: Identity
    newest_key: bool
    forward: Forward = field(default_factory=Forward)
    read_at: float = 0.0
    stale: bool = False
    unsaved: bool = False
    good_until: float = 0.0
    retry_at: float = 0.0
    touched_at: float = 0.0
    forced_at: float = float("-inf")
    forced_gen: str = ""
    gone: str = ""
    values: set[bytes] = field(default_factory=set[bytes])
    lines: list[bytes] = field(default_factory=list[bytes])
    closers: set[Callable[[], None]] = field(default_factory=set[Callable[[], None]])
    size_bytes: int = 0

    def __repr__(self) -> str:
        return f"OpenSession({self.key[:12]}…)"


@dataclass(frozen=True, slots=True)
class Served:
    """A provider whose sessions are served.

    Attributes:
        config: epoch of the configuration, for the record.
        hosts: authorities at which they are good; empty = all.
    """

    config: str = ""
    hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """Limits of sessions and of their cache.

    Attributes:
        idle_s: idle limit for new sessions.
        absolute_s: absolute limit, from the login.
        ttl_s: how long an entry is believed without asking the store.
        stale_s: how long it may go on while the store is away.
        max_bytes: of the cache.
        max_identity_bytes: of all identity header lines together.
        serve: by issuer and client id, whose tokens are served: a session of another OP or client is
            not ours to use, and its tokens go nowhere. Empty = not asked.
    """

    idle_s: float
    absolute_s: float
    ttl_s: float = 30.0
    stale_s: float = 300.0
    max_bytes: int = 64 << 20
    max_identity_bytes: int = 32_768
    serve: Mapping[tuple[str, str], Served] = field(default_factory=dict[tuple[str, str], Served])

    def serves(self, tokens: Tokens, origin: Origin) -> bool:
        """Whether these tokens were issued by a configured OP to its configured client, for this origin."""
        if not self.serve:
            return True
        served = self.serve.get((tokens.issuer, tokens.client_id))
        return served is not None and (not served.hosts or origin.host in served.hosts)

    def config_of(self, tokens: Tokens) -> str:
        """Epoch of the configuration under which these tokens are issued now."""
        return self.serve.get((tokens.issuer, tokens.client_id), Served()).config


class Sessions:
    """Opens, caches, creates and ends sessions.

    Args:
        store: the record keeper.
        policy: limits.
        refresh: renewal policy (for the first due time).
        block: makes the header lines that tell the app who is calling.
        dress: completes a session's verdict (hooks of the data path).
        clock: of this process.
        time: the store's time.
    """

    def __init__(
        self,
        *,
        store: Store,
        policy: SessionPolicy,
        refresh: RefreshPolicy,
        block: Callable[[Identity, Tokens, float], bytes],
        dress: Callable[[OpenSession, Forward], Forward],
        clock: Clock,
        time: StoreTime,
    ) -> None:
        self._store = store
        self._policy = policy
        self._refresh = refresh
        self._block = block
        self._dress = dress
        self._clock = clock
        self._time = time
        self.by_line: dict[bytes, OpenSession] = {}
        self._by_value: dict[bytes, OpenSession] = {}
        self._by_key: dict[str, OpenSession] = {}
        self._reading: dict[bytes, asyncio.Task[OpenSession | str]] = {}
        self._quiet: dict[bytes, str] = {}  # being read for the first time: no word of a change came yet
        self._unjudged: set[str] = set()  # their new tokens are stored and being checked
        self._refused: dict[str, str] = {}  # over, and the store does not say so yet
        self._looking: set[asyncio.Task[None]] = set()
        self._bytes = 0
        self.store_away_since: float | None = None
        self._failed_at = float("-inf")
        self.coherence = store.coherence
        # Told of sessions that the operator or the provider ended, with their tokens open.
        self.ended_outside: Callable[[OpenSession], None] = lambda session: None
        store.listen(self._on_change)

    def __len__(self) -> int:
        return len(self._by_key)

    def reconfigure(
        self,
        *,
        policy: SessionPolicy,
        refresh: RefreshPolicy,
        block: Callable[[Identity, Tokens, float], bytes],
        dress: Callable[[OpenSession, Forward], Forward],
        origins: Mapping[str, Origin],
    ) -> None:
        """Go on under another configuration; the open sessions stay open.

        What was cached by cookie bytes is forgotten, because the keys that opened it may be gone; the
        sessions themselves are kept, for they may hold tokens that the store has not taken yet.

        Args:
            origins: by public URL. Sessions of an origin that is not there any more are forgotten.
        """
        self._policy, self._refresh, self._block, self._dress = policy, refresh, block, dress
        for session in list(self._by_key.values()):
            origin = origins.get(session.origin.url)
            if origin is None or not policy.serves(session.tokens, origin):
                self._forget(session)
                self.close_streams(session)  # nobody looks after them any more
                continue
            session.origin = origin
            self._redress(session)
        self.forget_spellings()

    def forget_spellings(self) -> None:
        """Forget which cookie bytes lead to which session: the next request opens its cookie again."""
        for session in self._by_key.values():
            session.lines.clear()
            session.values.clear()
            session.good_until = 0.0
        self.by_line.clear()
        self._by_value.clear()

    # -- opening --

    def remembered(self, origin: Origin, line: bytes) -> OpenSession | None:
        """The cached session of a `Cookie` line, however old; None if none was opened by it."""
        value = cookies.one(line, origin.names.session)
        found = self._by_value.get(value) if value is not None else None
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
        session = self._by_value.get(value)
        if session is not None and session.origin is origin and not session.gone and self.believed(session):
            self._remember_line(session, cookie)
            return session
        reading = self._reading.get(value)
        if reading is None:
            reading = self._begin_reading(origin, value)
        found = await asyncio.shield(reading)
        if isinstance(found, str):
            return found
        if found.origin is not origin:
            return UNKNOWN
        self._remember_line(found, cookie)
        return found

    def believed(self, session: OpenSession) -> bool:
        """Whether the entry may be used without asking the store."""
        now = self._clock.monotonic()
        return not session.stale and now < self.coherence.until and now - session.read_at < self._policy.ttl_s

    def bridgeable(self, session: OpenSession) -> bool:
        """Whether an unreadable store may be bridged with this entry for now."""
        age = self._clock.monotonic() - session.read_at
        return not session.gone and age < self._policy.stale_s + self._policy.ttl_s

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
        reading = asyncio.get_running_loop().create_task(self._read(origin, value))
        self._reading[value] = reading
        reading.add_done_callback(lambda _: self._reading.pop(value, None))
        return reading

    async def _read(self, origin: Origin, value: bytes) -> OpenSession | str:
        try:
            ticket, newest = origin.ring.open_ticket(origin.names.session, value)
        except CookieError as error:
            log.debug("cookie_refused", extra={"detail": error.detail})
            return UNKNOWN
        key = store_key(ticket.session_id)
        session = self._by_key.get(key)
        if session is not None and session.ticket != ticket:
            session = None
        began = self._clock.monotonic()
        if session is not None:
            session.stale = False  # a word that comes while we read sets it again
        else:
            self._quiet[value] = key
        try:
            snapshot = await self._store.read(key)
        except StoreUnavailable:
            if session is not None:
                session.stale = True
            self._quiet.pop(value, None)
            self.store_away_since = self.store_away_since or began
            self._failed_at = self._clock.monotonic()
            raise
        heard = self._quiet.pop(value, "") != key and session is None
        self.store_away_since = None
        self._time.observe(snapshot.now)
        if session is None:
            session = self._by_key.get(key)  # opened meanwhile, with another spelling of the cookie
            if session is not None and session.ticket != ticket:
                session = None
        elif session.gone:
            return session.gone  # it ended while we read
        why = self._refused.get(key) or ended(snapshot.record, snapshot.now, snapshot.not_before)
        if snapshot.record is not None and _from_outside(why, snapshot.record):
            self._end_outside(why, origin, ticket, key, session, snapshot.record)
            return why
        if why == Ended.ABSENT and session is not None:
            why = ended(session.record, snapshot.now) or why  # stores forget what is over
        if why in (Ended.NO, Ended.ABSENT) and snapshot.now >= ticket.login_at + self._policy.absolute_s:
            why = Ended.ABSOLUTE
        if why:
            if session is not None:
                self.drop(session, why)
            return UNKNOWN if why == Ended.ABSENT else why
        if session is not None and key in self._unjudged:
            # The record holds tokens that nobody has looked at. The ones before go on while they live;
            # whoever finds them expired joins the renewal, and hears what became of it.
            session.stale = True
            return session
        record = snapshot.record
        assert record is not None
        try:
            if session is None:
                session = self._opened(origin, ticket, key, record, newest)
            else:
                self.adopt(session, record)
        except CookieError as error:
            log.warning("session_unreadable", extra={"session": key[:12], "detail": error.detail})
            if session is not None:
                self.drop(session, Ended.ABSENT)
            return UNKNOWN
        if not self._policy.serves(session.tokens, origin):
            # No tombstone: who takes the configuration back finds the session as it was.
            log.info("session_of_another_client", extra={"session": key[:12]})
            self._forget(session)
            return "another_client"
        session.newest_key = newest
        session.read_at = began
        session.stale = session.stale or heard
        session.values.add(value)
        self._by_value[value] = session
        self._account(session)
        return session

    async def read_again(self, session: OpenSession) -> None:
        """Read an open session's record again without its cookie; it is dropped if it is over.

        Raises:
            StoreUnavailable: nothing is known; the entry stays as it is.
        """
        began = self._clock.monotonic()
        session.stale = False
        try:
            snapshot = await self._store.read(session.key)
        except StoreUnavailable:
            session.stale = True
            raise
        self._time.observe(snapshot.now)
        why = self._refused.get(session.key) or ended(snapshot.record, snapshot.now, snapshot.not_before)
        if not why and session.key in self._unjudged:
            session.stale = True  # its new tokens are being checked: see `_read`
            return
        if snapshot.record is not None and _from_outside(why, snapshot.record):
            ticket = session.ticket
            self._end_outside(why, session.origin, ticket, session.key, session, snapshot.record)
            return
        if why or snapshot.record is None:
            self.drop(session, why)
            return
        try:
            self.adopt(session, snapshot.record)
        except CookieError as error:
            log.warning("session_unreadable", extra={"session": session.key[:12], "detail": error.detail})
            self.drop(session, Ended.ABSENT)
            return
        session.read_at = began

    def _opened(self, origin: Origin, ticket: Ticket, key: str, record: Record, newest: bool) -> OpenSession:
        seal = SessionSeal(ticket)
        tokens, identity = open_tokens(seal, record), open_identity(seal, record)
        session = OpenSession(origin, ticket, key, seal, record, tokens, identity, newest)
        session.touched_at = record.seen
        self._redress(session)
        return session

    def adopt(self, session: OpenSession, record: Record) -> None:
        """Take over a newer reading of the record.

        Raises:
            CookieError: the blobs do not open with this cookie's data key.
        """
        before = session.record
        if record.gen != before.gen or session.unsaved:
            if session.unsaved and record.gen == before.gen:
                # The store has not taken our tokens yet: ours are the newer ones.
                session.record = record
                return
            session.tokens = open_tokens(session.seal, record)
            session.unsaved = False
            session.retry_at = 0.0
        if record.who_id != before.who_id:
            session.identity = open_identity(session.seal, record)
        session.record = record
        self._redress(session)

    def take(self, session: OpenSession, tokens: Tokens) -> None:
        """Go on with tokens that the store has not taken yet."""
        session.tokens = tokens
        session.unsaved = True
        self._redress(session)

    def take_identity(self, session: OpenSession, identity: Identity) -> None:
        """Go on with a newer identity (the `who` blob is the caller's to write)."""
        session.identity = identity
        self._redress(session)

    def _redress(self, session: OpenSession) -> None:
        block = self._block(session.identity, session.tokens, self._time.now())
        forward = Forward(identity=block, decision="session", protected=True)
        session.forward = self._dress(session, forward)
        session.good_until = 0.0

    def of_provider(self, iss: str, sub: str, sid: str) -> list[OpenSession]:
        """The cached sessions that a logout at the provider means; walks through all of them.

        Args:
            sub, sid: "" = not named; with a `sid` only that session at the OP is meant.
        """

        def meant(identity: Identity) -> bool:
            return (
                identity.iss == iss
                and (not sid or identity.sid == sid)
                and (not sub or identity.sub == sub)
                and bool(sub or sid)
            )

        return [session for session in self._by_key.values() if meant(session.identity)]

    def cached(self, key: str) -> OpenSession | None:
        """The cached session under a store key."""
        return self._by_key.get(key)

    # -- beginning and ending --

    async def now(self) -> float:
        """Store time, Unix seconds."""
        return self._time.now()

    def fits(self, identity: Identity, tokens: Tokens) -> bool:
        """Whether the header lines for this identity are short enough for an app to take them."""
        return len(self._block(identity, tokens, self._time.now())) <= self._policy.max_identity_bytes

    async def create(
        self,
        origin: Origin,
        tokens: Tokens,
        identity: Identity,
        *,
        provider: str,
        replaces: OpenSession | None,
    ) -> bytes:
        """Begin a session: new id, new data key; ends the one that came with the request.

        Returns:
            The `Set-Cookie` field value.

        Raises:
            StoreUnavailable: nothing was begun that a cookie could reach.
            SessionGone: everybody, or this user, was signed out while they were signing in.
        """
        now = self._time.now()
        ticket = new_ticket(now)
        seal = SessionSeal(ticket)
        key = store_key(ticket.session_id)
        gen, who_id = random_id(), random_id()
        due = (
            due_at(tokens.issued_at, tokens.expires_at, jitter_of(key), self._refresh, tokens.refresh_until)
            if tokens.refresh_token
            else 0.0
        )
        record = Record(
            gen=gen,
            rt=seal.fingerprint(tokens.refresh_token),
            tokens=seal_tokens(seal, gen, tokens),
            who=seal_identity(seal, who_id, identity),
            who_id=who_id,
            born=now,
            seen=now,
            end=now + self._policy.absolute_s,
            idle_s=self._policy.idle_s,
            due=due,
            provider=provider,
            config=self._policy.config_of(tokens),
            user=user_name(identity.iss, identity.sub),
            op_session=op_session_name(identity.iss, identity.sid),
        )
        await self._store.create(key, record)
        if why := await self._over_already(record, tokens.issued_at):
            await self._store.end(key, why, TOMBSTONE_S)
            raise SessionGone(why)
        if replaces is not None:
            try:
                await self.end(replaces, Ended.SUPERSEDED)
            except StoreUnavailable as error:
                log.warning("supersede_failed", extra={"session": replaces.key[:12], "detail": error.detail})
        value = origin.ring.seal_ticket(origin.names.session, ticket)
        return cookies.set_line(origin.names, origin.names.session, value, int(self._policy.absolute_s))

    async def _over_already(self, record: Record, asked_at: float) -> str:
        """Why a session that was just written is over: somebody was signed out while they signed in.

        Whoever signs people out leaves word first and looks through the lists then; here the session is on
        its lists first, and word is looked for then. One of the two sees the other.

        Args:
            asked_at: when the tokens were asked for.
        """
        names = [name for name in (record.user, record.op_session) if name]
        mark, *notes = await asyncio.gather(
            self._store.not_before(record), *(self._store.noted(name) for name in names)
        )
        if record.born < mark:
            return Ended.OPERATOR
        return Ended.PROVIDER if any(asked_at < at for at in notes) else Ended.NO

    async def end(self, session: OpenSession, reason: str) -> None:
        """End a session here and in the store; its tombstone refuses every later commit.

        Raises:
            StoreUnavailable: it could not be written; the session goes on.
        """
        await asyncio.shield(asyncio.ensure_future(self._end(session, reason)))

    async def _end(self, session: OpenSession, reason: str) -> None:
        await self._store.end(session.key, reason, TOMBSTONE_S)
        self.drop(session, reason)

    def _end_outside(
        self,
        why: str,
        origin: Origin,
        ticket: Ticket,
        key: str,
        session: OpenSession | None,
        record: Record,
    ) -> None:
        """The operator or the provider ended this session: here its tokens can be opened, so here they
        are given back.

        Nothing is waited for: refused it is already, by the mark or the tombstone, everywhere.
        """
        if session is None or not session.unsaved:
            try:
                last = self._opened(origin, ticket, key, record, newest=True)
            except CookieError:
                return  # not this cookie's session
            if session is not None:
                session.tokens = last.tokens  # what a renewal elsewhere brought is what lives at the OP
            session = session or last
        self.drop(session, why)
        self.ended_outside(session)

    def reseal(self, session: OpenSession) -> bytes:
        """`Set-Cookie` for the same session under the newest key."""
        names = session.origin.names
        value = session.origin.ring.seal_ticket(names.session, session.ticket)
        left_s = session.ticket.login_at + self._policy.absolute_s - self._time.now()
        session.newest_key = True
        return cookies.set_line(names, names.session, value, max(1, int(left_s)))

    def forget_cookie(self, origin: Origin) -> bytes:
        """`Set-Cookie` that deletes the session cookie."""
        return cookies.set_line(origin.names, origin.names.session, b"", 0)

    async def touch(self, session: OpenSession) -> None:
        """Write the activity down; the idle limit counts from here. Failure is tried again later."""
        now = self._time.now()
        session.touched_at = now
        try:
            await self._store.touch(session.key, now)
            session.record = replace(session.record, seen=now)
        except StoreUnavailable as error:
            session.touched_at = now - TOUCH_S + 5.0
            log.warning("touch_failed", extra={"session": session.key[:12], "detail": error.detail})

    # -- the cache --

    def _on_change(self, word: str) -> None:
        key = word.removeprefix("ended:")
        if key.startswith("user:"):
            touched = [each for each in self._by_key.values() if each.record.user == key[5:]]
        elif key:
            session = self._by_key.get(key)
            touched = [session] if session is not None else []
        else:
            touched = list(self._by_key.values())
        if self._quiet:
            known = key and not key.startswith("user:")  # whose session is being read is not known yet
            self._quiet = {value: each for value, each in self._quiet.items() if known and each != key}
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

    def _remember_line(self, session: OpenSession, line: bytes) -> None:
        if session.gone or self.by_line.get(line) is session:
            return
        if len(session.lines) >= SPELLINGS:
            self.by_line.pop(session.lines.pop(0), None)
        session.lines.append(line)
        self.by_line[line] = session
        self._account(session)

    def _account(self, session: OpenSession) -> None:
        """Keep the cache inside its bytes: the entries read longest ago go first."""
        if session.gone:
            return
        self._by_key.pop(session.key, None)
        self._by_key[session.key] = session
        size = (
            2_000
            + 2 * len(session.tokens.access_token)
            + len(session.tokens.id_token)
            + len(session.tokens.refresh_token)
            + len(session.record.tokens)
            + len(session.record.who)
            + sum(map(len, session.lines))
            + sum(map(len, session.values))
        )
        self._bytes += size - session.size_bytes
        session.size_bytes = size
        while self._bytes > self._policy.max_bytes and len(self._by_key) > 1:
            oldest = next(iter(self._by_key.values()))
            if oldest.unsaved or oldest.closers:
                self._by_key[oldest.key] = self._by_key.pop(oldest.key)
                break
            self._forget(oldest)

    def _forget(self, session: OpenSession) -> None:
        if self._by_key.get(session.key) is session:
            del self._by_key[session.key]
            self._bytes -= session.size_bytes
            session.size_bytes = 0
        for line in session.lines:
            self.by_line.pop(line, None)
        for value in session.values:
            self._by_value.pop(value, None)
        session.lines.clear()
        session.values.clear()
        session.good_until = 0.0

    def drop(self, session: OpenSession, reason: str) -> None:
        """The session is over: forget it and close what it holds open."""
        session.gone = reason
        self._forget(session)
        self.close_streams(session)

    @contextlib.contextmanager
    def unjudged(self, key: str) -> Generator[None]:
        """While this lasts, no request here takes a session's new tokens from the store."""
        self._unjudged.add(key)
        try:
            yield
        finally:
            self._unjudged.discard(key)

    def refuse(self, key: str, reason: str) -> None:
        """A session is over from now on, although the store cannot say so yet."""
        self._refused[key] = reason
        session = self._by_key.get(key)
        if session is not None:
            self.drop(session, reason)

    def refused_in_store(self, key: str) -> None:
        """The store says so now."""
        self._refused.pop(key, None)

    def watch(self, session: OpenSession, close: Callable[[], None]) -> Callable[[], None]:
        """Have `close` called when the session is over; returns what ends that.

        The session may have ended, or left the cache, while the app made up its mind.
        """
        if session.gone:
            close()
            return _nothing
        held = self._by_key.get(session.key, session)
        held.closers.add(close)
        if held is session:
            self._account(session)
        return lambda: held.closers.discard(close)

    def streaming(self) -> list[OpenSession]:
        """The sessions that have open tunnels or event streams."""
        return [session for session in self._by_key.values() if session.closers]

    def close_streams(self, session: OpenSession) -> None:
        """Close a session's tunnels and event streams."""
        for close in list(session.closers):
            close()
        session.closers.clear()


def _from_outside(why: str, record: Record) -> bool:
    """Whether neither the session's browser nor a limit ended it, so that its tokens are still to be
    given back. A tombstone of the operator's is written by whoever does that."""
    return why == Ended.PROVIDER or (why == Ended.OPERATOR and not record.tombstone)


def _nothing() -> None:
    """There is nothing left to end."""


def _noticed(reading: asyncio.Task[OpenSession | str]) -> None:
    """Nobody may have waited for it; its failure is in `store_away_since`."""
    if not reading.cancelled():
        reading.exception()
