"""The headless demo: what a person would do by hand, with requests going on all the while."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from proxy.demo.visitor import NAVIGATION, PROGRAM, Form, Lost, Reply, Visitor, forms

EXPIRIES = 3
WORKERS = 4
PAUSE_S = 0.1
GRACE_S = 15.0
"""Beyond the expected time, on a busy machine, before the walk gives up."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        wanted: in words, for the sentence when it is not so.
    """

    what: str
    seen: object
    wanted: str
    good: bool


@dataclass(slots=True)
class _Tally:
    """What the workers saw; they all write into it."""

    answers: Counter[int] = field(default_factory=Counter[int])
    redirects: int = 0
    broken: int = 0
    events: int = 0
    stream_closed: bool = False
    state: dict[str, Any] = field(default_factory=dict[str, Any])
    lock: threading.Lock = field(default_factory=threading.Lock)


def walk(front: str, ledger: Callable[[], dict[str, int]], life_s: int) -> list[Finding]:
    """Sign in, outlive three access tokens, sign out, try the old cookie.

    Args:
        front: Nightporter's public URL.
        ledger: reads the OP's counters.
        life_s: life of an access token.
    Raises:
        Lost: a step led somewhere else; the message says where.
    """
    visitor = Visitor()
    who = _sign_in(visitor, front)
    tally = _stay(visitor, front, life_s)
    counted = ledger()
    findings = [
        Finding("signed in as", who, "Ada", who == "Ada"),
        Finding("requests meanwhile", sum(tally.answers.values()), "some", bool(tally.answers)),
        _at_least("access tokens that expired meanwhile", int(tally.state.get("outlived", 0))),
        _at_least("refreshes that the app noticed", int(tally.state.get("refreshes", 0))),
        _at_least("refreshes that the provider counted", counted["refreshes"]),
        _none("redirects after the sign-in", tally.redirects),
        _none("answers other than 200", sum(n for status, n in tally.answers.items() if status != 200)),
        _none("connections that broke", tally.broken),
        _at_least("events on the one open event stream", tally.events),
        _none("event streams that closed early", int(tally.stream_closed)),
        _none("invalid_grant at the provider", counted["invalid_grant"]),
        Finding(
            "token calls at the provider",
            counted["token_calls"],
            f"one per code and refresh ({counted['codes_redeemed'] + counted['refreshes']})",
            counted["token_calls"] == counted["codes_redeemed"] + counted["refreshes"],
        ),
    ]
    return findings + _sign_out(visitor, front, ledger)


def _at_least(what: str, seen: int) -> Finding:
    return Finding(what, seen, f"at least {EXPIRIES}", seen >= EXPIRIES)


def _none(what: str, seen: int) -> Finding:
    return Finding(what, seen, "0", seen == 0)


def _sign_in(visitor: Visitor, front: str) -> str:
    """Go to the app, be sent to the OP, choose Ada, come back; answers the name on the app's page."""
    first = visitor.get(front + "/")
    if not first.redirect:
        raise Lost(f"The app's page answered {first.status} to a stranger instead of leading to the sign-in.")
    login = visitor.follow(first)
    form = next((f for f in forms(login.text) if ("person", "ada") in f.buttons), None)
    if login.status != 200 or form is None:
        raise Lost(f"The way to the provider's sign-in page ended with {login.status}.")
    page = visitor.follow(_submit(visitor, login, form, ("person", "ada")))
    if page.status != 200 or not page.url.startswith(front + "/"):
        raise Lost(f"The sign-in ended with {page.status} instead of the app's page.")
    return _state(visitor.get(front + "/now", PROGRAM)).get("who", "")


def _submit(visitor: Visitor, page: Reply, form: Form, button: tuple[str, str]) -> Reply:
    parts = page.url.split("/", 3)
    where = form.action if "://" in form.action else "/".join(parts[:3]) + form.action
    return visitor.post(where, {**form.fields, button[0]: button[1]})


def _stay(visitor: Visitor, front: str, life_s: int) -> _Tally:
    """Keep requests going until three tokens have expired."""
    tally = _Tally()
    over = threading.Event()
    listener = threading.Thread(target=_listen, args=(visitor, front, tally, over), daemon=True)
    workers = [
        threading.Thread(target=_work, args=(visitor, front, tally, over, number), daemon=True)
        for number in range(WORKERS)
    ]
    for thread in (listener, *workers):
        thread.start()
    until = time.monotonic() + EXPIRIES * life_s + GRACE_S
    try:
        while time.monotonic() < until:
            with tally.lock:
                done = (
                    tally.state.get("outlived", 0) >= EXPIRIES and tally.state.get("refreshes", 0) >= EXPIRIES
                )
                hopeless = tally.redirects > 0 or tally.answers[401] > 0
            if done or hopeless:
                break
            over.wait(0.1)
    finally:
        over.set()
        for thread in workers:
            thread.join(30)
    return tally


def _work(visitor: Visitor, front: str, tally: _Tally, over: threading.Event, number: int) -> None:
    """Ask as a page does (a program's request), and every tenth time as a person does (a navigation)."""
    turn = number
    while not over.is_set():
        turn += 1
        person = turn % 10 == 0
        try:
            if person:
                reply = visitor.get(front + "/", NAVIGATION)
            else:
                reply = visitor.get(front + "/now", PROGRAM)
        except (OSError, http.client.HTTPException):
            with tally.lock:
                tally.broken += 1
        else:
            with tally.lock:
                tally.answers[reply.status] += 1
                tally.redirects += bool(reply.redirect)
                if reply.status == 200 and not person:
                    state = _state(reply)
                    if state.get("requests", 0) > tally.state.get("requests", 0):
                        tally.state = state
        over.wait(PAUSE_S)


def _listen(visitor: Visitor, front: str, tally: _Tally, over: threading.Event) -> None:
    """Count what the event stream brings. It ends with the walk: the thread is a daemon."""
    try:
        for line in visitor.lines(front + "/events", {**PROGRAM, "Accept": "text/event-stream"}, over):
            if line.startswith("data:"):
                with tally.lock:
                    tally.events += 1
    except (OSError, http.client.HTTPException, Lost):
        pass
    if not over.is_set():
        with tally.lock:
            tally.stream_closed = True


def _sign_out(visitor: Visitor, front: str, ledger: Callable[[], dict[str, int]]) -> list[Finding]:
    """Sign out as the page's button does, then come back with the old cookie."""
    old = visitor.cookie_line(front)
    answer = visitor.follow(visitor.post(front + "/oauth2/logout", {}))
    stranger = Visitor()
    program = stranger.get(front + "/now", {**PROGRAM, "Cookie": old})
    person = stranger.get(front + "/", {**NAVIGATION, "Cookie": old})
    counted = ledger()
    return [
        Finding("page after the sign-out", answer.status, "200", answer.status == 200),
        Finding("sign-outs at the provider", counted["sign_outs"], "1", counted["sign_outs"] == 1),
        Finding("the old cookie, sent by a program", program.status, "401", program.status == 401),
        Finding(
            "the old cookie, sent by a browser",
            f"{person.status}, to the sign-in" if person.redirect else person.status,
            "a redirect to the sign-in",
            bool(person.redirect) and person.redirect.rstrip("/") != front,
        ),
    ]


def _state(reply: Reply) -> dict[str, Any]:
    """The app's `/now`, {} if this is something else."""
    try:
        return dict(json.loads(reply.body)) if reply.status == 200 else {}
    except ValueError:
        return {}
