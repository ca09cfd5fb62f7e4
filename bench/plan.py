"""Which turns a run has, in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.contestant import Contestant
from bench.measures import bodies, idle, latency, memory, requests, start, websocket

Turn = Callable[[Contestant], Mapping[str, float]]


@dataclass(frozen=True)
class Round:
    """One measurement, of each contestant in turn, so many times over.

    Attributes:
        direct: the app without a proxy takes part.
    """

    name: str
    turn: Turn
    times: int
    direct: bool = False


def _latency(times: int) -> Round:
    # Many short turns: where the machine itself stands still for tens of milliseconds now and then, a median
    # of three long turns is one of such moments, and of fifteen short ones it is not.
    return Round("latency", lambda each: latency.turn(each, 0.6), times, direct=True)


def _requests(head: str, seconds: int, times: int) -> Round:
    return Round(f"requests, {head} head", lambda each: requests.turn(each, head, seconds), times)


def full(people: int) -> list[Round]:
    """Everything; what changes a contestant's memory comes in an order that all share."""
    return [
        *(_requests(head, 2, 5) for head in requests.HEADS),
        Round("1 MiB bodies", lambda each: bodies.small(each, 2), 3),
        Round("100 MiB bodies", bodies.large, 3),
        Round("WebSocket echoes", lambda each: websocket.turn(each, 1.5), 5),
        _latency(15),
        Round("idle connections", lambda each: idle.turn(each, 2_000), 1),
        Round("sessions", lambda each: memory.seen(each, people), 1),
        Round("starts", start.turn, 3),
    ]


def quick() -> list[Round]:
    """What a change of the hot path is judged by, and a look at the rest."""
    return [
        *(_requests(head, 2, 3) for head in requests.HEADS),
        Round("1 MiB bodies", lambda each: bodies.small(each, 1), 2),
        Round("100 MiB bodies", bodies.large, 2),
        Round("WebSocket echoes", lambda each: websocket.turn(each, 1.0), 5),
        _latency(9),
        Round("idle connections", lambda each: idle.turn(each, 1_000), 1),
        Round("sessions", lambda each: memory.seen(each, 100), 1),
        Round("starts", start.turn, 2),
    ]
