"""The record that a sign-in writes."""

from __future__ import annotations

from proxy.core.blobs import seal_identity, seal_tokens
from proxy.core.seal import SessionSeal, Ticket, random_id
from proxy.core.session import Identity, Record, Tokens, op_session_name, store_key, user_name
from proxy.core.session_policy import SessionPolicy
from proxy.core.timing import RefreshPolicy, due_at, jitter_of


def first_record(
    ticket: Ticket,
    tokens: Tokens,
    identity: Identity,
    *,
    provider: str,
    policy: SessionPolicy,
    refresh: RefreshPolicy,
) -> Record:
    """The record of a session that begins with this ticket, under two new random ids.

    Args:
        ticket: new; the session begins at its `login_at`.
        provider: name of the provider that issued the tokens.
        policy: limits of the session.
        refresh: when its first renewal is due.
    """
    seal, now = SessionSeal(ticket), ticket.login_at
    gen, who_id = random_id(), random_id()
    due = 0.0
    if tokens.refresh_token:
        jitter = jitter_of(store_key(ticket.session_id))
        due = due_at(tokens.issued_at, tokens.expires_at, jitter, refresh, tokens.refresh_until)
    return Record(
        gen=gen,
        rt=seal.fingerprint(tokens.refresh_token),
        tokens=seal_tokens(seal, gen, tokens),
        who=seal_identity(seal, who_id, identity),
        who_id=who_id,
        born=now,
        seen=now,
        end=now + policy.absolute_s,
        idle_s=policy.idle_s,
        due=due,
        provider=provider,
        config=policy.config_of(tokens),
        user=user_name(identity.iss, identity.sub),
        op_session=op_session_name(identity.iss, identity.sid),
    )
