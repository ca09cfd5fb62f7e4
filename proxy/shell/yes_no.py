"""`auth`: whether this browser has a session, and nothing else. For nginx's `auth_request` as it stands.

It is public, so it tells no name and no token; a proxy that is to pass identity on asks at the
listener for forward auth. The plain question is answered by the door (`door.py`), without a page;
here are those with parameters, and HEAD.
"""

from __future__ import annotations

from starlette.responses import Response

from proxy.core.gate import Standing
from proxy.core.narrowing import fits
from proxy.core.session import ended
from proxy.shell.desk import Visit
from proxy.shell.my_session import nobody, not_just_now
from proxy.shell.open_session import OpenSession
from proxy.shell.pages import Page
from proxy.shell.register import TOUCH_S


async def answer(visit: Visit) -> Response:
    """`GET auth`: 202 yes, 401 no, 403 not those whom `allowed_groups=` and its like name.

    The question counts as activity, and a token that is due is renewed behind it.
    """
    session = await visit.session()
    now = visit.desk.now()
    if session is None or ended(session.record, now):
        return nobody(visit)
    refusal = await _refusal(visit, session)
    if refusal is not None:
        return refusal
    identity = session.identity
    max_age_s = visit.desk.settings.refresh.groups_max_age_s
    known = identity.groups_at is not None and now - identity.groups_at < max_age_s
    if not fits(identity, visit.parameters(), groups_known=known):
        return visit.page(
            Page(403, "not_allowed", "Not with this account", "This account may not go there.", sign="shut")
        )
    if now - session.touched_at >= TOUCH_S:
        visit.desk.background.spawn("touch", visit.desk.register.touch(session))
    return visit.json(202, {"signed_in": True})


async def _refusal(visit: Visit, session: OpenSession) -> Response | None:
    """What is answered instead where the tokens are not good, after a renewal if they are expired."""
    keeper = visit.desk.keeper
    standing = keeper.standing(session)
    if standing is Standing.SPENT:
        return nobody(visit)
    if standing is Standing.DUE:
        keeper.start(session)
    if standing is not Standing.EXPIRED:
        return None
    result = await keeper.renew(session)
    if result.word == "ended":
        return nobody(visit, result.reason)
    return None if result.word == "refreshed" else not_just_now(visit, result)
