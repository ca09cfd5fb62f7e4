"""Pending sign-ins, each in a sealed cookie named by its flow's id: several tabs sign in side by side."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.core import cookies
from proxy.core.login import Flow
from proxy.core.seal import Purpose
from proxy.errors import CookieError
from proxy.shell.desk import Visit

ALL_BYTES = 4096
"""All pending sign-ins' cookies together: each request of the browser carries them."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A flow with the cookie that holds it."""

    flow: Flow
    name: bytes
    size: int


def keep(visit: Visit, flow: Flow) -> list[bytes]:
    """`Set-Cookie` field values that keep a new flow, and drop those that must make room for it."""
    name = _name(visit, flow.id)
    value = visit.origin.ring.seal(Purpose.FLOW, name, flow.encode())
    names, flow_s = visit.origin.names, visit.desk.settings.limits.flow_s
    crowded_out = _crowded_out(visit, flow.created_at, len(name) + len(value))
    lines = [cookies.set_line(names, old, b"", 0) for old in crowded_out]
    return [*lines, cookies.set_line(names, name, value, int(flow_s))]


def find(visit: Visit, state: str) -> Flow | None:
    """The flow that `state` names, if this browser holds its cookie."""
    if not (state.isascii() and state.isalnum() and len(state) <= 64):
        return None
    name = _name(visit, state)
    value = cookies.one(visit.cookie, name)
    flow = _opened(visit, name, value) if value is not None else None
    if flow is None or flow.provider != visit.desk.name:
        return None
    return flow


def drop(visit: Visit, flow: Flow) -> bytes:
    """`Set-Cookie` field value that ends a flow."""
    return cookies.set_line(visit.origin.names, _name(visit, flow.id), b"", 0)


def _name(visit: Visit, flow_id: str) -> bytes:
    return visit.origin.names.flow_prefix + flow_id.encode()


def _crowded_out(visit: Visit, now: float, new_size: int) -> list[bytes]:
    """Names of flow cookies that must go to make room: unreadable, too old, then the oldest."""
    limits = visit.desk.settings.limits
    kept: list[Pending] = []
    gone: list[bytes] = []
    for name, value in cookies.with_prefix(visit.cookie, visit.origin.names.flow_prefix).items():
        flow = _opened(visit, name, value)
        if flow is None or not 0 <= now - flow.created_at <= limits.flow_s:
            gone.append(name)
        else:
            kept.append(Pending(flow, name, len(name) + len(value)))
    kept.sort(key=lambda pending: pending.flow.created_at)
    while kept and (len(kept) >= limits.max_flows or sum(each.size for each in kept) + new_size > ALL_BYTES):
        gone.append(kept.pop(0).name)
    return gone


def _opened(visit: Visit, name: bytes, value: bytes) -> Flow | None:
    try:
        plain, _ = visit.origin.ring.open(Purpose.FLOW, name, value)
        return Flow.decode(plain)
    except CookieError:
        return None
