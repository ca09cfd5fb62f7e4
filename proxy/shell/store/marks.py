"""What every store does about not-before marks: look at them after a commit."""

from __future__ import annotations

from proxy.core.answers import Changed, Committed, Gone
from proxy.core.session import Ended
from proxy.shell.store.contract import Store

TOMBSTONE_S = 86_400.0
"""How long the sealed blob stays behind a tombstone, for whoever can open and revoke it."""


async def unless_marked(
    store: Store, key: str, answer: Committed | Changed | Gone
) -> Committed | Changed | Gone:
    """A commit's answer, once the marks have been looked at.

    A mark that was set while the renewal was under way ends the session after all; `Gone` makes the
    renewal give its token back. An error leaves the commit landed and is met again by its repetition.
    """
    if not isinstance(answer, Committed) or answer.record.tombstone:
        return answer
    if answer.record.born >= await store.not_before(answer.record):
        return answer
    await store.end(key, Ended.OPERATOR, TOMBSTONE_S)
    return Gone(Ended.OPERATOR, answer.now)
