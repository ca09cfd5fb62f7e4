"""When the engine on our core may finish its turn first."""

from __future__ import annotations

import errno
import os
import threading

from proxy.shell.turns import Turns


class Machine:
    """Counts CPU seconds, and schedules."""

    def __init__(self, policy: int = os.SCHED_OTHER) -> None:
        self.used_s = 5.0
        self.policies = [policy]
        self.forbids = False
        self.turns = Turns(lambda: self.used_s, lambda: self.policies[-1], self.schedule)

    def schedule(self, policy: int) -> None:
        if self.forbids:
            raise OSError(errno.EPERM, "not permitted")
        self.policies.append(policy)

    def works(self, share: float) -> int:
        """Half a second in which this share of a core was used; the policy after it."""
        self.used_s += share / 2
        self.turns.look(0.5)
        return self.policies[-1]


def test_patient_while_busy_and_not_sooner_or_longer() -> None:
    machine = Machine()
    assert machine.works(0.02) == os.SCHED_OTHER
    assert machine.works(0.5) == os.SCHED_BATCH
    assert machine.works(0.07) == os.SCHED_BATCH
    assert machine.works(0.01) == os.SCHED_OTHER
    assert machine.works(0.07) == os.SCHED_OTHER
    assert machine.policies == [os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_OTHER]


def test_what_an_operator_chose_stays() -> None:
    machine = Machine(os.SCHED_IDLE)
    assert machine.works(0.9) == os.SCHED_IDLE


def test_where_it_is_forbidden_nobody_asks_twice() -> None:
    machine = Machine()
    machine.forbids = True
    assert machine.works(0.9) == os.SCHED_OTHER
    machine.forbids = False
    assert machine.works(0.9) == os.SCHED_OTHER


def test_the_system_does_so_to_this_thread_and_back() -> None:
    seen: list[int] = []

    def busy_then_calm() -> None:
        used = iter((0.0, 1.0, 1.0))
        turns = Turns(lambda: next(used))
        for _ in range(2):
            turns.look(0.5)
            seen.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=busy_then_calm)
    thread.start()
    thread.join()
    assert seen == [os.SCHED_BATCH, os.SCHED_OTHER]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
