"""Records and calls for the contract suite, with everything but the point at hand filled in."""

from __future__ import annotations

from msgspec.structs import replace

from proxy.core.answers import Ask, Commit, Granted
from proxy.core.session import LEASE_S, Outcome, OutcomeKind, Record, store_key
from proxy.shell.store.contract import Store
from tests.fakes import START

KEY = store_key(b"0123456789abcdef")
DAY_S = 86_400.0


def new_record(**fields: object) -> Record:
    """A session at `START` under gen "login" whose token is "rt0", with 7 and 30 days to live."""
    record = Record(
        gen="login",
        rt="rt0",
        tokens=b"tokens of login",
        who=b"who of login",
        who_id="w0",
        born=START,
        seen=START,
        end=START + 30 * DAY_S,
        idle_s=7 * DAY_S,
        due=START + 240.0,
        provider="generic",
        config="epoch",
    )
    return replace(record, **fields)


def ask(attempt: str, gen: str = "login", rt: str = "rt0", lease_s: float = LEASE_S) -> Ask:
    return Ask(attempt=attempt, holder=f"process of {attempt}", gen=gen, rt=rt, lease_s=lease_s)


def outcome(
    kind: OutcomeKind = OutcomeKind.OK,
    rt: str = "rt0",
    attempt: str = "a",
    *,
    at: float = START,
    not_before: float = 0.0,
) -> Outcome:
    return Outcome(kind=kind, code=str(kind), rt=rt, attempt=attempt, at=at, not_before=not_before)


def dead(rt: str = "rt0", attempt: str = "a") -> Outcome:
    return outcome(OutcomeKind.DEAD, rt, attempt)


def transient(not_before: float, rt: str = "rt0", attempt: str = "a") -> Outcome:
    return outcome(OutcomeKind.TRANSIENT, rt, attempt, not_before=not_before)


def reply(attempt: str, consumed: str = "rt0", gen: str = "login", rt: str = "") -> Commit:
    """The commit of `attempt`: by default it consumed the login's token."""
    new = rt or f"rt of {attempt}"
    return Commit(
        attempt=attempt,
        consumed_rt=consumed,
        acquired_gen=gen,
        tokens=f"tokens of {attempt}".encode(),
        rt=new,
        due=START + 999.0,
        outcome=outcome(OutcomeKind.OK, new, attempt),
    )


async def stored(store: Store, key: str = KEY) -> Record:
    """The record under `key`, which must be there."""
    record = (await store.read(key)).record
    assert record is not None
    return record


async def grant(store: Store, attempt: str, gen: str = "login", rt: str = "rt0") -> Granted:
    """Acquire, which must be granted."""
    answer = await store.acquire(KEY, ask(attempt, gen, rt))
    assert isinstance(answer, Granted), answer
    return answer


async def lease_holder(store: Store, gen: str = "login", rt: str = "rt0") -> bool:
    """Whether anybody holds the lease, found out without leaving a trace on a free one."""
    probe = await store.acquire(KEY, ask("probe", gen, rt))
    if isinstance(probe, Granted):
        await store.abandon(KEY, "probe", None)
        return False
    return True
