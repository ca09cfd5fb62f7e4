"""Resident memory: after the start, and after many people signed in."""

from __future__ import annotations

from bench.contestant import Contestant
from bench.crowd import sign_in
from bench.machine import resident_mib


def rest(each: Contestant) -> dict[str, float]:
    """MiB before the first sign-in."""
    return {"rest_mib": resident_mib(*each.pids)}


def seen(each: Contestant, people: int) -> dict[str, float]:
    """MiB after so many people signed in and saw a page; of a plain proxy, after its load."""
    if each.signs_in:
        sign_in(each.port, people)
    return {"seen_mib": resident_mib(*each.pids)}
