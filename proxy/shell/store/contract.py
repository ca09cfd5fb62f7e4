"""The one contract of every session store. Each operation is atomic and one round trip.

A store decides nothing about tokens: it compares, writes and answers with what it holds.
Keys come from `core.session.store_key`. Every operation may raise `StoreUnavailable` and
nothing else; after that error the write may or may not have happened (with Redis it
usually did), and repeating the call with the same attempt id is always safe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from proxy.core.answers import AcquireAnswer, Ask, Commit, CommitAnswer, CondemnAnswer, Snapshot, Tally
from proxy.core.session import Outcome, Record
from proxy.shell.store.coherence import Coherence


class Store(Protocol):
    """See the module's docstring. Times in and out are store time unless said otherwise."""

    @property
    def coherence(self) -> Coherence:
        """Until when changes made elsewhere are known to have reached `listen`'s callbacks."""
        ...

    @property
    def problem(self) -> str:
        """What is wrong with the store just now, in one word; "" while it answers."""
        ...

    def listen(self, on_change: Callable[[str], None]) -> None:
        """Register a callback for "the record under this key changed"; "" = everything may have,
        "user:" with a `user_name` = every record of that user may have, and "ended:" with a key = another
        process ended that session.

        A change is told once, on the loop, also if its caller was cancelled, before the caller
        has its answer. What counts as one: `core.record.others_must_know`.
        """
        ...

    async def create(self, key: str, record: Record) -> None:
        """Write a new session. The same `gen` there already: this very write had landed before.

        Raises:
            ValueError: another session is there: an error of the caller (128 random bits).
        """
        ...

    async def read(self, key: str) -> Snapshot:
        """The record, a tombstoned one included. Expired records (`keep_until`) are None."""
        ...

    async def acquire(self, key: str, ask: Ask) -> AcquireAnswer:
        """Ask for the right to send the stored refresh token.

        In this order: absent or tombstone → Gone; `gen` or `rt` differ → Changed; own lease
        (same attempt) → Granted again; another's live lease → Held; `dead` = `rt`, or the
        stored outcome speaks of `rt` and its `not_before` is in the future → FailedLately; else take
        the lease, add the intent, → Granted. Forgets intents older than INTENT_KEEP_S.
        """
        ...

    async def renew(self, key: str, attempt: str, lease_s: float) -> bool:
        """Extend the own lease from now; False if it is not ours any more (nothing changes)."""
        ...

    async def not_before(self, record: Record) -> float:
        """The latest mark that concerns this session: everybody's, or its user's; 0 = none."""
        ...

    async def commit(self, key: str, write: Commit) -> CommitAnswer:
        """Persist a reply. The lease is *not* asked for: a slow holder saves the token too.

        absent → Gone; stored `gen` = attempt → Committed (it had landed); tombstone → Gone;
        `rt` = consumed_rt ∧ `gen` = acquired_gen → write tokens, rt, gen = attempt, due,
        outcome, clear `dead` if it names consumed_rt, delete the own lease
        (compare-and-delete) and the own intent, tell listeners → Committed; else → Changed
        (nothing of the tokens is written; the own lease and intent are deleted). It moves neither
        `end` nor `seen` nor `idle_s`. Afterwards the marks are looked at: a session that one ends
        is ended → Gone, so that the caller gives the new token back.
        """
        ...

    async def abandon(self, key: str, attempt: str, outcome: Outcome | None, *, release: bool = True) -> None:
        """Close the own intent; with `release` also the own lease (compare-and-delete).

        `outcome` is stored only if the own lease is still held at that moment, the stored `rt` is
        the one it speaks of, and no `dead` mark names that token: the verdict outranks whatever
        else its senders were told. Never changes `gen`. Listeners are told if an outcome was stored.
        """
        ...

    async def condemn(self, key: str, attempt: str, gen: str, outcome: Outcome) -> CondemnAnswer:
        """Mark the stored token dead, if and only if `gen` and `rt` (= outcome.rt) still hold and
        no other unresolved intent exists (`core.session.unresolved`).

        absent or tombstone → Gone; gen/rt differ → Changed; others → Unresolved (nothing
        changes); else `dead` = outcome.rt, outcome stored, own lease and intent deleted,
        listeners told → Condemned. The record stays.
        """
        ...

    async def identify(self, key: str, gen: str, who: bytes, who_id: str) -> bool:
        """Replace the `who` blob if `gen` still holds and there is no tombstone.

        Tells listeners, unless `who_id` is the stored one.
        """
        ...

    async def touch(self, key: str, seen: float) -> None:
        """Note activity: `seen` only moves forward. Never changes `gen`; silent if gone."""
        ...

    async def end(self, key: str, reason: str, keep_s: float) -> Record | None:
        """Write the tombstone `reason` and tell listeners; the first reason stays.

        The tokens blob stays behind its tombstone for `keep_s` more seconds (at most until
        `keep_until`), so that whoever can open it may revoke; lease and intents are
        deleted. Returns the record as it was, None if there was none.
        """
        ...

    async def spend_flow(self, flow_id: str, keep_s: float) -> bool:
        """Spend a sign-in flow; True for the first caller only, remembered for `keep_s`."""
        ...

    async def note(self, name: str, keep_s: float, at: float = 0.0) -> float:
        """Remember for `keep_s` from now that what `name` stands for happened; it only moves forward.

        Args:
            at: store time when it happened; 0 = now.

        Returns:
            The store time that is remembered.
        """
        ...

    async def noted(self, name: str) -> float:
        """When what `name` stands for last happened; 0 = never, or it is forgotten."""
        ...

    async def mark(self, user: str, keep_s: float) -> float:
        """End every session that began before now: one write, and listeners are told.

        Args:
            user: `core.session.user_name` of one person; "" = everybody.
            keep_s: how long a session that began before may have lived on.

        Returns:
            The store time that counts from now on.
        """
        ...

    async def sessions_of(self, name: str) -> list[str]:
        """Keys of the sessions under a `user_name` or an `op_session_name`; some may be over."""
        ...

    async def tally(self) -> list[Tally]:
        """Count the live sessions. It walks through all of them: for operators."""
        ...

    async def announce(self, replica: str, keys: Sequence[str], keep_s: float) -> list[tuple[str, ...]]:
        """Say which cookie keys this replica can open; said again well before `keep_s` is over.

        Args:
            replica: id of this process.
            keys: names of the keys (`Origins.key_ids`), newest first.

        Returns:
            The names that each live replica announced, this one's included.
        """
        ...

    async def close(self) -> None:
        """Release resources. Calls in flight finish."""
        ...
